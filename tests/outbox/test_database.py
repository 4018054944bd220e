"""A connection to the database: its session, its server, its texts."""

import contextlib

import pytest

from pushrelay.outbox import table
from pushrelay.outbox.database import Database
from pushrelay.outbox.explanations import DatabaseError
from pushrelay.settings.mysql_url import mysql_url


@pytest.fixture
def database(site):
    with contextlib.closing(Database(mysql_url(site.url))) as database:
        yield database


def test_a_session_has_the_time_outs_by_which_a_relay_that_stopped_is_noticed(database):
    names = ("wait_timeout", "lock_wait_timeout", "innodb_lock_wait_timeout", "tx_isolation")
    assert [database.value(f"SELECT @@{name}") for name in names] == ["10", "2", "2", "READ-COMMITTED"]
    assert database.check().startswith("MariaDB 1")


def test_a_server_that_is_too_old_is_named(database, monkeypatch):
    for version, words in [
        ("10.5.23-MariaDB-log", "MariaDB 10.5.23"),
        ("8.0.4", "MySQL 8.0.4"),
        ("5.7.44", "install 8.0.11"),
    ]:
        monkeypatch.setattr(table, "VERSION", f"SELECT '{version}'")
        with pytest.raises(DatabaseError, match=words):
            database.check()
    monkeypatch.setattr(table, "VERSION", "SELECT '8.4.2-log'")
    assert database.check() == "MySQL 8.4.2"


def test_texts_of_any_kind_are_quoted(database):
    for text in ("", "it's \\ \" \0 \n € \U0001f600", "'; DROP TABLE relay_outbox; --"):
        assert database.value(f"SELECT {database.quoted(text)}") == text


def test_a_stream_that_is_left_early_leaves_the_connection_usable(database):
    with contextlib.closing(database.stream("SELECT seq FROM seq_1_to_5000")) as stream:
        assert next(stream) == ("1",)
    assert database.value("SELECT 7") == "7"


def test_a_socket_and_an_encrypted_connection_can_be_asked_for(mariadb, site, tmp_path):
    url = mysql_url(f"{site.url}?unix_socket={mariadb.socket}")
    with contextlib.closing(Database(url)) as database:
        assert "unix_socket" not in str(url) and database.check()
    with pytest.raises(DatabaseError, match="the file ssl_ca cannot be read"):
        Database(mysql_url(f"{site.url}?ssl_ca={tmp_path}/missing.pem"))
