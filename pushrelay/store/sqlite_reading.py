"""Reading an SQLite store: the state of destinations, and their history. Any thread may read, and none waits.

Publications that are accepted but not committed yet are in memory. The others are read from the file, and checked
(sqlite_rows.py).
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator

from pushrelay.errors import StoreError

from . import sqlite_file, sqlite_rows
from .publication import Kept, Survey, Tip, cut
from .sqlite_opening import Files
from .sqlite_rows import FLOOR, Cursor, ends_of, kept_of, only, whole
from .sqlite_writer import Writer
from .store import HistoryLimits, Page

log = logging.getLogger(__name__)

REOPEN_SECONDS = 60.0  # minimum time between two reopenings because of errors that readers met

_READ = (
    "SELECT offset, event, data, created, expires, own, trimmed, sum FROM publications "
    "WHERE destination = ? AND offset > ? ORDER BY offset"
)
_SURVEY = "SELECT count(*), min(created) FROM publications WHERE expires > ?"
_READ_BEFORE = _READ.replace("offset > ? ORDER BY offset", "offset <= ? ORDER BY offset DESC LIMIT 1")
_READ_ENDS = _READ.replace("event, data", "'' AS event, '' AS data")


class Reader:
    """Reads the file and what the writer has in memory. Its methods raise StoreError."""

    def __init__(self, files: Files, writer: Writer, limits: HistoryLimits):
        self._files = files
        self._writer = writer
        self._limits = limits
        self._next_reopening = 0.0  # monotonic: from then on, a reader's error causes the file to be reopened

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which everything that is read belongs to one moment."""
        readers = self._files.readers
        if readers is None:
            raise StoreError(self._files.unavailable)
        try:
            with readers.snapshot() as connection:
                yield connection
        except sqlite_file.ERRORS as error:
            if sqlite_file.code_of(error) == sqlite3.SQLITE_CANTOPEN:
                # No file descriptor is left, perhaps: the writer has the file open, and opening it again would fail.
                raise sqlite_file.explain(error, self._files.path) from error
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        """Have the file reopened, but not often: clients choose what is read, and pushes wait for a reopening.

        Nothing depends on it: a connection for reading is closed after an error, and the next one reads the file again.
        """
        if time.monotonic() < self._next_reopening:
            return sqlite_file.explain(error, self._files.path)
        failure = self._files.failed(error)
        if self._files.is_broken:
            self._next_reopening = time.monotonic() + REOPEN_SECONDS
        return failure

    def tip(self, destination: str) -> Tip:
        """Return the state of a destination."""
        writer = self._writer
        # The floor first: if the destination is created in between, its first offset is above this floor.
        floor, cursors = writer.floor, writer.cursors
        # A destination with uncommitted changes has a cursor: cursors are dropped only all together.
        cursor = cursors.get(destination) or writer.lost_cursors.get(destination)
        if cursor is not None:
            return Tip(cursor.offset, cursor.trimmed, cursor.acked)
        if writer.all_cursors is cursors:
            return Tip(floor, floor, writer.acked_at(floor))
        with self.snapshot() as connection:
            return self._tip_at(connection, sqlite_rows.find_cursor(connection, destination))

    def _tip_at(self, connection: sqlite3.Connection, cursor: Cursor | None) -> Tip:
        if cursor is not None:
            return Tip(cursor.offset, cursor.trimmed, cursor.acked)
        floor = max(self._writer.floor, only(connection.execute(FLOOR).fetchone()))
        return Tip(floor, floor, self._writer.acked_at(floor))

    def read(self, destination: str, after: int, max_bytes: int | None, with_data: bool) -> Page:
        """Return what is kept after an offset."""
        recent = self._writer.recent  # first: what is committed in the meantime is then in both
        with self.snapshot() as connection:
            cursor = sqlite_rows.find_cursor(connection, destination)
            tip = self._tip_at(connection, cursor)
            rows = _Rows(connection, destination, (cursor.id, after), with_data) if cursor else None
            kept, more = rows.cut(max_bytes) if rows else ([], False)
            if rows and (kept[0].offset if kept else tip.offset + 1) != after + 1:
                rows.check_before()
        if rows and rows.are_damaged:
            tip = tip._replace(trimmed=tip.offset, is_damaged=True)
            self._files.report_damage(destination)
        mine = recent.of(destination)
        if mine and cursor is None:  # it is new: it began before its first one, wherever others would begin now
            before = mine[0].offset - 1
            tip = Tip(offset=before, trimmed=before, acked=before)
        late = []
        for item in mine:
            if item.offset > tip.offset:
                seconds, own = self._limits.lifetime(item.ttl)
                tip = tip._replace(offset=item.offset, trimmed=tip.trimmed if seconds or own else item.offset)
                if seconds and item.offset > after:
                    created, expires = item.publication.created, item.publication.expires
                    late.append(Kept(item.offset, item.event, item.text, created, expires, own))
        if late and not more:
            kept, more = cut([*kept, *late], max_bytes)
        return Page(kept, tip, more)

    def survey(self, now: float, seconds: float) -> Survey | None:
        """Count the publications that have not expired at `now`; None if that takes longer than `seconds`.

        No index has the answer: SQLite reads the whole table, some 10 MB in 10 ms.
        """
        recent = [item for item in self._writer.recent.items if not item.is_ephemeral]
        end = time.monotonic() + seconds
        with self.snapshot() as connection:
            connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
            try:
                count, oldest = connection.execute(_SURVEY, (now,)).fetchone()
            except sqlite3.OperationalError as error:
                if sqlite_file.code_of(error) != sqlite3.SQLITE_INTERRUPT:
                    raise
                return None
            finally:
                connection.set_progress_handler(None, 0)
        if oldest is None and recent:
            oldest = recent[0].publication.created
        return Survey(whole(count) + len(recent), oldest)


class _Rows:
    """The publications of a destination after an offset, checked; damaged ones are left out."""

    def __init__(self, connection: sqlite3.Connection, destination: str, which: tuple[int, int], with_data: bool):
        self.are_damaged = False
        self._connection = connection
        self._destination = destination
        self._which = which
        self._with_data = with_data

    def cut(self, max_bytes: int | None) -> tuple[list[Kept], bool]:
        """Return as many as `max_bytes` bytes hold, and whether there are more. Raises sqlite3.Error."""
        try:
            return cut(self._checked(), max_bytes)
        except sqlite3.OperationalError as error:
            if not sqlite_file.is_not_text(error):
                raise
        self._connection.text_factory = _decode_damaged  # one row is damaged, and the others can still be read
        try:
            return cut(self._checked(), max_bytes)
        finally:
            self._connection.text_factory = str

    def check_before(self) -> None:
        """Check the last row up to the offset: it may be a later one whose own offset has changed.

        Raises sqlite3.Error.
        """
        self._connection.text_factory = _decode_damaged
        try:
            row = self._connection.execute(_READ_BEFORE, self._which).fetchone()
            if row is not None:
                kept_of(self._destination, row)
        except sqlite_file.Damaged:
            self.are_damaged = True
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
