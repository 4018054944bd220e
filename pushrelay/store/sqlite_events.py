"""The event queue of an SQLite store: three tables in its file.

Each change is part of an SQLite transaction that is really committed, and is in no journal. So it shares the commit
with the pushes that come at the same time, and events are put in batches.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

from .events import SENDS, Bounds, Cursor, Depth, Event, Note, has_room
from .sqlite_reading import Reader
from .sqlite_rows import seconds, text, whole
from .sqlite_writer import Writer

_ENDS = "SELECT number, at, total, name, body FROM events WHERE topic = ? ORDER BY number {} LIMIT 1"
_FIRST, _LAST = _ENDS.format("ASC"), _ENDS.format("DESC")
_HIGHEST = "SELECT coalesce(max(upto), 0) FROM readers WHERE topic = ?"
_INSERT = "INSERT INTO events (kind, name, body, id, at, number, topic, total) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_READ = "SELECT kind, name, body, id, at, number FROM events WHERE topic = ? AND number > ? ORDER BY number LIMIT ?"
_DROP_DONE = (
    "DELETE FROM events WHERE topic = ? AND number <= "
    "(SELECT coalesce(min(upto), 0) FROM readers WHERE topic = ? AND gone = 0)"
)


class SQLiteEvents:
    """A Table: see there. Its methods raise ERRORS in a transaction, and StoreError if they only read."""

    def __init__(self, writer: Writer, reader: Reader):
        self._writer = writer
        self._reader = reader

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Change something in the store's transaction, which is then SQLite's as well."""
        self._writer.must_commit = True
        return self._writer.connection.execute(statement, values)

    def add(self, events: list[Event], notes: Iterable[Note], bounds: Bounds) -> int:
        """Queue events, and change notes; return the number of events that were dropped, or -1."""
        connection, dropped = self._writer.connection, 0
        if not has_room(lambda: _depth(connection, SENDS), events, bounds):
            return -1
        for topic in dict.fromkeys(each.topic for each in events):
            last, total = _end(connection, topic)
            for event in (each for each in events if each.topic == topic):
                last, total = last + 1, total + event.size
                self._execute(_INSERT, *event[:5], last, topic, total)
            dropped += self._drop_surplus(topic, bounds)
        for kind, key, value in notes:
            if value is None:
                self._execute("DELETE FROM notes WHERE kind = ? AND key = ?", kind, key)
            else:
                self._execute("REPLACE INTO notes VALUES (?, ?, ?)", kind, key, value)
        return dropped

    def _drop_surplus(self, topic: str, bounds: Bounds) -> int:
        """Drop the oldest events of a topic that is too full; return their number."""
        depth = _depth(self._writer.connection, topic)
        upto = depth.last - bounds.events
        if depth.size > bounds.size:
            enough = "SELECT number FROM events WHERE topic = ? AND total > ? ORDER BY number LIMIT 1"
            surplus = _end(self._writer.connection, topic)[1] - bounds.size
            upto = max(upto, whole(self._execute(enough, topic, surplus).fetchone()[0]))
        if depth.last - depth.events >= upto:
            return 0
        return self._execute(
            "DELETE FROM events WHERE topic = ? AND number <= ?", topic, min(upto, depth.last - 1)
        ).rowcount

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Move a reader's cursor forward, and drop events that all readers have."""
        self._execute("UPDATE readers SET upto = max(upto, ?) WHERE topic = ? AND name = ?", upto, topic, reader)
        self._execute(_DROP_DONE, topic, topic)

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Have exactly these readers, and return their cursors."""
        connection = self._writer.connection
        first = connection.execute(_FIRST, (topic,)).fetchone()
        before = _end(connection, topic)[0] if first is None else whole(first[0]) - 1
        known = _cursors(connection, topic)
        for each in known.keys() - set(readers):
            self._execute("DELETE FROM readers WHERE topic = ? AND name = ?", topic, each)
        for each in set(readers) - known.keys():
            self._execute("INSERT INTO readers VALUES (?, ?, ?, 0)", topic, each, before)
        if known.keys() != set(readers):
            self._execute(_DROP_DONE, topic, topic)
        return _cursors(connection, topic)

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Note that a reader unsubscribed, or that it is back."""
        self._execute("UPDATE readers SET gone = ? WHERE topic = ? AND name = ?", gone, topic, reader)
        self._execute(_DROP_DONE, topic, topic)

    # Reading.

    def read(self, topic: str, after: int, most: int, max_bytes: int) -> list[Event]:
        """Return the events after a number, in order."""
        found: list[Event] = []
        with self._reader.snapshot() as connection:
            for kind, name, body, id_, at, number in connection.execute(_READ, (topic, after, most)):
                event = Event(text(kind), text(name), text(body), text(id_), seconds(at), whole(number))
                max_bytes -= event.size
                if max_bytes < 0 and found:
                    break
                found.append(event)
        return found

    def depth(self, topic: str) -> Depth:
        """Return what is in a topic."""
        with self._reader.snapshot() as connection:
            return _depth(connection, topic)

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Return how far each reader is."""
        with self._reader.snapshot() as connection:
            return _cursors(connection, topic)

    def notes(self, kind: str) -> dict[str, str]:
        """Return all notes of a kind."""
        with self._reader.snapshot() as connection:
            found = connection.execute("SELECT key, value FROM notes WHERE kind = ?", (kind,))
            return {text(key): text(value) for key, value in found}


def _end(connection: sqlite3.Connection, topic: str) -> tuple[int, int]:
    """Return the number of the last event there was, and its total."""
    last = connection.execute(_LAST, (topic,)).fetchone()
    if last is not None:
        return whole(last[0]), whole(last[2])
    return whole(connection.execute(_HIGHEST, (topic,)).fetchone()[0]), 0


def _depth(connection: sqlite3.Connection, topic: str) -> Depth:
    first, (last, total) = connection.execute(_FIRST, (topic,)).fetchone(), _end(connection, topic)
    if first is None:
        return Depth(last)
    number, at, its_total, name, body = first
    size = total - whole(its_total) + Event("", text(name), text(body), "", 0.0).size
    return Depth(last, last - whole(number) + 1, size, seconds(at))


def _cursors(connection: sqlite3.Connection, topic: str) -> dict[str, Cursor]:
    found = connection.execute("SELECT name, upto, gone FROM readers WHERE topic = ?", (topic,))
    return {text(name): Cursor(whole(upto), seconds(gone)) for name, upto, gone in found}
