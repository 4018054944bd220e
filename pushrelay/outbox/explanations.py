"""The sentence for each way in which the database fails: what happened, and what to do."""

from collections.abc import Mapping

from .table import NAME

CREATE_IT = "run the SQL that this command prints:  python relay.py outbox create"
_GRANT = f"give it the rights:  GRANT SELECT, UPDATE, DELETE ON {NAME} TO …"
_PRIMARY = "set outbox to the address of the primary server"
_FULL = "is full: free some space on its disk"
LOCK_TIMEOUT = 1205
_COMPARE = "compare it with the SQL that this command prints:  python relay.py outbox create"
# By the server's error number: the end of a sentence that begins with the address of the database.
_ERRORS: Mapping[int, str] = {
    1021: _FULL,
    1028: _FULL,
    1040: "takes no more connections: raise max_connections in its configuration, or close others",
    1044: f"does not let this user use the database: {_GRANT}",
    1045: "does not accept the user or the password: correct them in the setting outbox",
    1047: "is not ready to take writes (Galera); the relay tries again",
    1049: "has no database of that name: correct it in the setting outbox",
    1053: "is shutting down; the relay tries again",
    1054: f"has a table {NAME} without a column that the relay needs: {_COMPARE}",
    1064: "does not understand the relay's SQL: use MySQL 8, or MariaDB 10.6 or later",
    1114: _FULL,
    1129: "has blocked this machine after many failed connections: run on the server:  FLUSH HOSTS",
    1130: "does not let this machine connect: let the user connect from other machines, as 'relay'@'%'",
    1142: f"does not let this user do what the relay needs: {_GRANT}",
    1143: f"does not let this user do what the relay needs: {_GRANT}",
    1146: f"has no table {NAME}: {CREATE_IT}",
    1203: "takes no more connections of this user: raise max_user_connections, or close others",
    LOCK_TIMEOUT: f"did not let the relay lock the table {NAME} or its rows: end the transaction that holds the lock",
    1213: "ended the transaction because of a deadlock; the relay tries again",
    1226: "takes no more connections or queries of this user: raise the limits of the user",
    1290: f"takes no writes (read_only): {_PRIMARY}",
    1317: "ended the relay's statement; the relay tries again",
    1665: "logs changes as statements, which this needs as rows: set binlog_format = ROW in its configuration",
    1698: "lets this user log in only over the Unix socket, as the user of the system: name another user, or run "
    "this as that user, with ?unix_socket=/run/mysqld/mysqld.sock at the end of the address",
    1792: f"takes no writes (read-only transactions): {_PRIMARY}",
    1820: "wants this user to change the password first: set one with ALTER USER",
    1836: f"takes no writes (read-only mode): {_PRIMARY}",
    1862: "no longer accepts the password, which has expired: set one with ALTER USER",
    1927: "ended the relay's connection; the relay connects again",
    2003: "cannot be reached: check that it runs, and its address in the setting outbox",
    2006: "ended the connection; the relay connects again",
    2013: "ended the connection or did not answer in time; the relay connects again",
    2026: "cannot encrypt the connection: check its certificate, and ssl_ca in the setting outbox",
    2059: "has a way to log in that PyMySQL does not know: use caching_sha2_password or mysql_native_password",
}
_SHOWS_REASON = {1054, 1142, 1143, 2003, 2026}  # the error's own text is useful too


class DatabaseError(Exception):
    """The database cannot do what the outbox needs. The text names the cause and the remedy."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code  # the server's error number, if it has one


def explained(error: Exception, where: str) -> DatabaseError:
    """Return the error for an exception of PyMySQL. `where` is the address of the database, without a password."""
    code, text = _parts(error)
    if isinstance(error, RuntimeError) and "cryptography" in str(error):
        advice = "switch TLS on in the server, use its Unix socket, or install the package:  pip install cryptography"
        return DatabaseError(f"{where} needs TLS, or one more package that encrypts the password: {advice}")
    if isinstance(error, OSError):
        reason = f"the file ssl_ca cannot be read ({error.strerror or error})"
        return DatabaseError(f"{where}: {reason}: correct it in the setting outbox")
    if code in _ERRORS:
        what, colon, advice = _ERRORS[code].partition(": ")
        more = f" ({text})" if code in _SHOWS_REASON else ""
        return DatabaseError(f"{where} {what}{more}{colon}{advice}", code)
    if code:
        return DatabaseError(f"{where} reports error {code}: {text}", code)
    return DatabaseError(f"{where} does not answer as a MySQL or MariaDB does ({error!r}): correct the setting outbox")


def _parts(error: Exception) -> tuple[int, str]:
    """Return the number and the text of an error; 0 if it has no number."""
    code = error.args[0] if error.args else 0
    if not isinstance(code, int) or len(error.args) < 2:
        return 0, str(error)
    return code, str(error.args[1])
