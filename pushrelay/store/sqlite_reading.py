"""Reading an SQLite store: where destinations stand, and what is kept of them. Any thread does it, and none waits.

What is accepted and not committed yet is in memory; the rest is read from the file, and checked (sqlite_rows.py).
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator

from pushrelay.errors import StoreError

from . import sqlite_file
from .broker import Broker
from .dispatch import Pending
from .publication import Kept, Tip, cut
from .sqlite_rows import Cursor, cursor_of, ends_of, kept_of, only

log = logging.getLogger(__name__)

REOPEN_SECONDS = 60.0  # minimum time between two reopenings because of errors that readers met

FLOOR = "SELECT value FROM meta WHERE name = 'floor'"
_FIND = "SELECT id, offset, trimmed, acked, due FROM destinations WHERE name = ?"
_NEWEST = "SELECT offset, trimmed FROM publications WHERE destination = ? ORDER BY offset DESC LIMIT 1"
_READ = (
    "SELECT offset, event, data, created, expires, own, trimmed, sum FROM publications "
    "WHERE destination = ? AND offset > ? ORDER BY offset"
)

_READ_ENDS = _READ.replace("event, data", "'' AS event, '' AS data")


class Reading(Broker):
    """The part of SQLiteBroker that reads; what it works on is declared there."""

    path: str
    _readers: sqlite_file.Readers | None
    _broken: bool
    _cursors: dict[str, Cursor]
    _lost_cursors: dict[str, Cursor]
    _whole: dict[str, Cursor] | None
    _recent: list[Pending]
    _floor: int
    _lost_at: float
    _has_told_damage: bool
    _next_reopening: float

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        readers = self._readers
        if readers is None:
            raise StoreError(self._away)
        try:
            with readers.snapshot() as connection:
                yield connection
        except sqlite_file.ERRORS as error:
            if sqlite_file.code_of(error) == sqlite3.SQLITE_CANTOPEN:
                # As with no file descriptor left: the writer has the file open, and opening it again would fail too.
                raise sqlite_file.explain(error, self.path) from error
            raise self._failed_reading(error) from error

    def _failed(self, error: Exception) -> StoreError:
        self._broken = self._broken or sqlite_file.code_of(error) in sqlite_file.BREAKING
        return sqlite_file.explain(error, self.path)

    def _failed_reading(self, error: Exception) -> StoreError:
        """Have the file opened again, but not often: clients choose what is read, and pushes wait for a reopening.

        Nothing depends on it: a connection for reading is closed after an error, and the next one reads the file again.
        """
        if time.monotonic() < self._next_reopening:
            return sqlite_file.explain(error, self.path)
        failure = self._failed(error)
        if self._broken:
            self._next_reopening = time.monotonic() + REOPEN_SECONDS
        return failure

    def _tip(self, destination: str) -> Tip:
        floor, cursors = self._floor, self._cursors  # the floor first: if this one is made meanwhile, it is no higher
        # What is not committed has a cursor: they are thrown out only all together.
        cursor = cursors.get(destination) or self._lost_cursors.get(destination)
        if cursor is not None:
            return Tip(cursor.offset, cursor.trimmed, cursor.acked)
        if self._whole is cursors:
            return Tip(floor, floor, self._acked_at(floor))
        with self._snapshot() as connection:
            return self._tip_by(connection, self._find_in(connection, destination))

    def _page(
        self, destination: str, since: int, most: int | None = None, with_data: bool = True
    ) -> tuple[list[Kept], Tip, bool]:
        recent = self._recent  # first: what is committed in the meantime is in both then
        with self._snapshot() as connection:
            cursor = self._find_in(connection, destination)
            tip = self._tip_by(connection, cursor)
            rows = _Rows(connection, destination, (cursor.id, since), with_data) if cursor else None
            kept, more = rows.cut(most) if rows else ([], False)
        if rows and rows.are_damaged:
            tip = tip._replace(trimmed=tip.offset, is_damaged=True)
            self._tell_damage(destination)
        mine = [item for item in recent if item.destination == destination]
        if mine and cursor is None:  # it is new: it began before its first one, wherever others would begin by now
            tip = Tip(*[mine[0].offset - 1] * 3)
        late = []
        for item in mine:
            if item.offset > tip.offset:
                seconds, own = self._lifetime(item.ttl)
                tip = tip._replace(offset=item.offset, trimmed=tip.trimmed if seconds or own else item.offset)
                if seconds and item.offset > since:
                    late.append(Kept(item.offset, item.event, item.text, *item.publication[4:], own))
        if late and not more:
            kept, more = cut([*kept, *late], most)
        return kept, tip, more

    def _tip_by(self, connection: sqlite3.Connection, cursor: Cursor | None) -> Tip:
        if cursor is not None:
            return Tip(cursor.offset, cursor.trimmed, cursor.acked)
        floor = max(self._floor, only(connection.execute(FLOOR).fetchone()))
        return Tip(floor, floor, self._acked_at(floor))

    @staticmethod
    def _find_in(connection: sqlite3.Connection, name: str) -> Cursor | None:
        found = connection.execute(_FIND, (name,)).fetchone()
        return None if found is None else cursor_of(found, connection.execute(_NEWEST, (found[0],)).fetchone())

    def _acked_at(self, floor: int) -> int:
        """What is acknowledged of a destination that the store does not know.

        If the store lost something recently, this destination may be what it lost: then nothing is acknowledged.
        """
        is_recent = self._clock() < self._lost_at + self.FORGET_AFTER + self.history_ttl
        return floor - 1 if is_recent and floor else floor

    def _tell_damage(self, destination: str) -> None:
        """Log it once: what is damaged may be asked for again and again."""
        if not self._has_told_damage:
            self._has_told_damage = True
            log.error(
                "%s: a publication of %.80r is damaged. Clients that need it learn that it is lost; "
                "see to the disk, or move the file away with its -wal, -shm and -recent",
                self.path,
                destination,
            )


class _Rows:
    """The publications of a destination behind an offset, checked; what is damaged is left out."""

    def __init__(self, connection: sqlite3.Connection, destination: str, which: tuple[int, int], with_data: bool):
        self.are_damaged = False
        self._connection = connection
        self._destination = destination
        self._which = which
        self._with_data = with_data

    def cut(self, most: int | None) -> tuple[list[Kept], bool]:
        """Return as many as `most` bytes hold, and if there are more. Raises sqlite3.Error."""
        try:
            return cut(self._checked(), most)
        except sqlite3.OperationalError as error:
            if not sqlite_file.is_not_text(error):
                raise
        self._connection.text_factory = _decode_damaged  # one row is damaged, and the others can be had
        try:
            return cut(self._checked(), most)
        finally:
            self._connection.text_factory = str

    def _checked(self) -> Iterator[Kept]:
        for row in self._connection.execute(_READ if self._with_data else _READ_ENDS, self._which):
            try:
                yield kept_of(self._destination, row) if self._with_data else ends_of(row)
            except sqlite_file.Damaged:
                self.are_damaged = True


def _decode_damaged(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
