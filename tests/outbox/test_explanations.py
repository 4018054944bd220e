"""Each error of the database has a sentence with what to do."""

import pytest
from pymysql.err import OperationalError

from pushrelay.outbox.explanations import explained

WHERE = "mysql://db.example.com:3306/shop"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationalError(1040, "Too many connections"), "takes no more connections: raise max_connections"),
        (
            OperationalError(1142, "DELETE command denied to user"),
            "what the relay needs (DELETE command denied to user): give it",
        ),
        (OperationalError(1213, "Deadlock found"), "because of a deadlock; the relay tries again"),
        (OperationalError(1665, "Cannot execute statement"), "set binlog_format = ROW"),
        (
            OperationalError(1698, "Access denied for user 'root'@'localhost'"),
            "with ?unix_socket=/run/mysqld/mysqld.sock",
        ),
        (OperationalError(4242, "Something new"), "reports error 4242: Something new"),
        (FileNotFoundError(2, "No such file"), "the file ssl_ca cannot be read (No such file)"),
        (RuntimeError("'cryptography' package is required for …"), ":  pip install cryptography"),
        (IndexError("index out of range"), "does not answer as a MySQL or MariaDB does (IndexError("),
    ],
)
def test_an_error_has_a_sentence_with_what_to_do(error, words):
    found = explained(error, WHERE)
    assert str(found).startswith(WHERE) and words in str(found)
    assert found.code == (error.args[0] if isinstance(error, OperationalError) else 0)
