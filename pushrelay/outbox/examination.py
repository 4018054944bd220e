"""Looks at the database once: for the command `outbox check` and for the doctor."""

from typing import NamedTuple

from pushrelay.settings.mysql_url import MySQLURL

from . import table
from .database import Database


class Found(NamedTuple):
    """A database that the relay can use, and what waits there."""

    server: str  # "MariaDB 10.11.6"
    waiting: int  # rows to be pushed
    oldest: float  # age of the oldest of them, in seconds
    refused: int  # rows that cannot be pushed
    refusal: str  # the first of them, and why
    is_served: bool  # whether a relay takes rows now

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        count = "1 row waits" if self.waiting == 1 else f"{self.waiting} rows wait"
        lines = [count + (f", the oldest for {self.oldest:.1f} s" if self.waiting else "")]
        if self.refused:
            lines.append(f"{self.refused} row{'s' if self.refused > 1 else ''} cannot be pushed: {self.refusal}")
        return lines


def examine(url: MySQLURL) -> Found:
    """Connect, and find out whether the relay can do its work there. Raises DatabaseError with what to do if not."""
    database = Database(url)
    try:
        server = database.check()
        for each in table.TRIES:
            database.rows(each)
        [(waiting, age)] = database.rows(table.COUNT)
        [(refused, first, error)] = database.rows(table.REFUSED)
        is_served = database.value(table.LEASE_HOLDER) is not None
    finally:
        database.close()
    oldest = float(age or 0) / 1e6
    return Found(server, int(waiting), oldest, int(refused), f"the first is {first}: {error}", is_served)


def create(url: MySQLURL) -> None:
    """Create the table, unless it exists, and check that it can be used. Raises DatabaseError."""
    database = Database(url)
    try:
        database.run(table.CREATE)
        database.check()
    finally:
        database.close()
