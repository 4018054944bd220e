"""A connection to the database: opened, set up and checked; its statements, and its errors as sentences.

Only this module knows PyMySQL.
"""

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import pymysql
from pymysql.cursors import Cursor, SSCursor

from pushrelay.settings.mysql_url import MySQLURL

from . import table
from .explanations import CREATE_IT, DatabaseError, explained

CONNECT_SECONDS = 5.0  # for a connection
ANSWER_SECONDS = 10.0  # for each read and write: more than any wait for a lock
OLDEST = {"MySQL": (8, 0, 11), "MariaDB": (10, 6)}  # with SKIP LOCKED

Row = tuple[Any, ...]  # texts and None


class Database:
    """One connection. One thread at a time uses it. Every method raises DatabaseError."""

    def __init__(self, url: MySQLURL):
        """Connect, and prepare the session."""
        self._where = str(url)
        place: dict[str, Any] = {"host": url.host, "port": url.port}
        if url.unix_socket:
            place["unix_socket"] = url.unix_socket
        if url.ssl_ca:
            place |= {"ssl_ca": url.ssl_ca, "ssl_verify_cert": True, "ssl_verify_identity": True}
        with self._explaining():
            self._connection = pymysql.connect(
                **place,
                user=url.user,
                password=url.password.encode(),
                database=url.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                read_timeout=ANSWER_SECONDS,
                write_timeout=ANSWER_SECONDS,
                conv={},  # values stay texts, which is quicker
                program_name="pushrelay",
            )
        try:
            for each in table.SESSION:
                self.run(each)
        except BaseException:
            self.close()
            raise

    def check(self) -> str:
        """Return the server's name and version. Raises DatabaseError unless server and table can be used."""
        version = str(self.value(table.VERSION))
        kind = "MariaDB" if "mariadb" in version.lower() else "MySQL"
        numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
        if numbers < OLDEST[kind]:
            oldest = ".".join(map(str, OLDEST[kind]))
            raise DatabaseError(f"{self._where} is {kind} {version}: install {oldest} or later")
        engine = self.value(table.ENGINE)
        if engine is None:
            raise DatabaseError(f"{self._where} has no table {table.NAME}: {CREATE_IT}", 1146)
        if engine != "InnoDB":
            raise DatabaseError(
                f"{self._where} has the table {table.NAME} in the engine {engine}, which has no transactions: "
                f"set another one:  ALTER TABLE {table.NAME} ENGINE=InnoDB"
            )
        return f"{kind} {version.partition('-')[0]}"

    def run(self, sql: str) -> int:
        """Run a statement; return the number of rows that it changed."""
        with self._explaining(), self._connection.cursor(Cursor) as cursor:
            return int(cursor.execute(sql))

    def rows(self, sql: str) -> list[Row]:
        """Return the rows that a statement finds."""
        with self._explaining(), self._connection.cursor(Cursor) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def value(self, sql: str) -> Any:
        """Return the first value that a statement finds, or None."""
        found = self.rows(sql)
        return found[0][0] if found else None

    def stream(self, sql: str) -> Generator[Row, None, None]:
        """Yield the rows that a statement finds, one after another. The rest is skipped if the caller stops."""
        with self._explaining(), self._connection.cursor(SSCursor) as cursor:
            cursor.execute(sql)
            yield from cursor

    def quoted(self, text: str) -> str:
        """Return a text as a literal of SQL."""
        return str(self._connection.escape(text))

    def close(self) -> None:
        """Close the connection, which ends its transaction and gives up its locks."""
        with contextlib.suppress(Exception):  # it may be broken in any way, and is not used any more
            self._connection.close()

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseError, GeneratorExit):
            raise
        # Whatever answers at this address may not be a MySQL: PyMySQL then fails in many ways.
        except Exception as error:
            raise explained(error, self._where) from error
