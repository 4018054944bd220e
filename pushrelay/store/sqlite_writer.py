"""SQLite's open transaction: the connection that writes, and the rows that SQLite has not been given yet."""

import sqlite3
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from pushrelay.json_text import decode

from . import sqlite_meta, sqlite_rows
from .publication import KeyRecord
from .sqlite_file import Damaged
from .sqlite_rows import FLOOR, Cursor, checksum_of, data_sum, only, whole
from .sqlite_rows import text as checked_text
from .store import HistoryLimits
from .stripe import Pending

TRIM_EVERY = 32  # offsets between two trims of a destination: a trim costs as much for one row as for many
MAX_CURSORS = 20_000  # destinations whose offsets are cached, at about 300 bytes each
GRAIN = 60.0  # seconds for which expired data may stay on the disk: retention checks a destination no more often

_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM destinations"
_NEW = "INSERT INTO destinations (id, name, offset, trimmed, acked, due) VALUES (?, ?, ?, ?, ?, ?)"
# `trimmed` is in each publication's row too, so that a push changes one page of the file and not two.
_INSERT = (
    "INSERT INTO publications (destination, offset, created, expires, own, trimmed, event, data, sum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Uncommitted:
    """The items of SQLite's open transaction, which no reader finds in the file. One thread adds, any may read."""

    __slots__ = ("_by_destination", "_indexed", "_lock", "items")

    def __init__(self) -> None:
        self.items: list[Pending] = []
        self._lock = threading.Lock()  # guards what follows: readers bring it up to date, so that a push need not
        self._by_destination: dict[str, list[Pending]] = {}
        self._indexed = 0  # items in it

    def of(self, destination: str) -> list[Pending]:
        """Return the items of a destination, in order."""
        with self._lock:
            added = self.items[self._indexed :]
            self._indexed += len(added)
            for item in added:
                self._by_destination.setdefault(item.destination, []).append(item)
            return list(self._by_destination.get(destination, ()))


class Writer:
    """The connection that writes, and the cursors: the state of each destination, committed or not.

    One thread at a time, the one in the store's transaction, calls its methods. Any thread may read `cursors`,
    `lost_cursors`, `all_cursors`, `recent`, `floor` and `lost_at`. A Cursor is replaced and never changed.

    With durability "process", SQLite's transaction stays open over many of the store's, which the journal holds too.
    Only with `must_commit` is the store's transaction SQLite's as well.
    """

    def __init__(self, limits: HistoryLimits, clock: Callable[[], float]):
        self.connection: sqlite3.Connection  # while `is_open`
        self.is_open = False
        self.max_pages = 0  # that the file may use
        self._limits = limits
        self._clock = clock
        self._trim_every = max(TRIM_EVERY, limits.history_size // 4)

        # The state of everything that the store accepted.
        self.cursors: dict[str, Cursor] = {}
        self.staged: dict[str, Cursor] = {}  # what the store's present transaction makes of them
        self.all_cursors: dict[str, Cursor] | None = None  # `cursors`, if every destination has one: others are new
        self.reloads = False  # a rollback dropped all_cursors: load all cursors again once everything is committed
        self.recent = Uncommitted()
        self.uncommitted = 0  # transactions of the store that are in the journal, and not committed to the file
        self.must_commit = True  # the store's present transaction must be SQLite's as well

        # After SQLite's transaction failed, what the journal holds is not in it either, until it is replayed.
        self.is_lost = False
        self.lost_cursors: dict[str, Cursor] = {}  # the cursors before the failure, but for the ids of what was new

        # Rows for later: giving SQLite many at once is cheaper.
        self._rows: list[tuple[Any, ...]] = []
        self._new: list[tuple[Any, ...]] = []  # destinations

        # Read from the file, and kept up to date.
        self.floor = 0  # the offset before the first one of a new destination
        self._next_id = 1  # of a new destination
        self.generation = 0  # number of the last commit that changed anything
        self.lost_at = 0.0  # when the store last lost something, in seconds since 1970
        self._changes = 0  # total_changes of the connection when its transaction began

    # Transactions of SQLite.

    def begin(self) -> None:
        """Begin a transaction. Raises ERRORS."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._changes = self.connection.total_changes

    def commit(self) -> bool:
        """Commit everything that was accepted since the last time; return whether anything was. Raises ERRORS."""
        self.write_rows()
        is_change = bool(self.uncommitted) or self.connection.total_changes != self._changes
        if is_change:
            self.connection.execute(sqlite_meta.COMMITTED, (self.generation + 1,))
        self.connection.execute("COMMIT")
        self.lost_cursors = {}  # not earlier: a reader may have checked the cursors before they were complete again
        if len(self.cursors) > MAX_CURSORS:  # not before: what SQLite does not know is found by its cursor only
            self.all_cursors = None
            # All names first: each search for the first one of a dictionary passes those that were deleted.
            for name in list(islice(self.cursors, len(self.cursors) - MAX_CURSORS)):
                del self.cursors[name]
        self.uncommitted, self.recent = 0, Uncommitted()
        if is_change:
            self.generation += 1
        return is_change

    def rollback(self) -> None:
        """Go back to the last commit of the file. Raises ERRORS."""
        self.reloads = self.reloads or self.all_cursors is not None
        self.all_cursors = None  # a destination that was forgotten is there again
        if self.uncommitted and not self.is_lost:
            self.is_lost, self.lost_cursors, self.cursors = True, self.cursors, {}
        if self.is_open and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.reset()

    def reset(self) -> None:
        """Forget what SQLite has not been given yet, and read the file's state. Raises ERRORS."""
        self._rows, self._new, self.staged = [], [], {}
        if self.is_open:
            meta = sqlite_meta.read(self.connection)
            self.generation, self.lost_at = meta.generation, meta.lost_at
            self.floor = only(self.connection.execute(FLOOR).fetchone())
            self._next_id = only(self.connection.execute(_NEXT_ID).fetchone())

    def write_rows(self) -> None:
        """Give SQLite what was left for later."""
        if self._new:
            self.connection.executemany(_NEW, self._new)
            self._new = []
        if self._rows:
            self.connection.executemany(_INSERT, self._rows)
            self._rows = []

    def replay(self, payloads: Iterable[bytes]) -> None:
        """Repeat what a journal holds; what is already committed stays as it is."""
        for payload in payloads:
            for kind, *fields in decode(payload.decode()):
                if kind == "stored":
                    name, offset, moment, lifetime, *others = fields
                    created = float.fromhex(moment)
                    self._put_again(name, offset, created, created + lifetime, *others)
                elif kind == "publication":  # as older relays wrote it
                    self._put_again(*fields)
                elif kind == "ack":
                    self.ack(*fields)
                else:
                    self.set_connections([fields])
        self.cursors.update(self.staged)
        self.staged = {}

    def _put_again(
        self,
        name: str,
        offset: int,
        created: float,
        expires: float,
        own: int,
        event: str,
        text: str,
        key: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        cursor = self.cursor(name, self.first_due(created, expires))
        if offset > cursor.offset:
            total = data_sum(text, created, expires, own)
            self.put(name, cursor, offset, created, expires, own, event, text, total)
        if key is not None and self.find_key(key, created) is None:
            self.store_key(key, offset, created, fingerprint)

    # Publications.

    def put(
        self,
        name: str,
        cursor: Cursor,
        offset: int,
        created: float,
        expires: float,
        own: int,
        event: str,
        text: str,
        total: int,
    ) -> None:
        """Store one publication of the destination at `cursor`; `total` is its data_sum()."""
        id_, _, trimmed, acked, due = cursor
        if not offset % self._trim_every:
            trimmed = self._trim(id_, trimmed, created)
        if expires > created:
            checksum = checksum_of(name, offset, trimmed, event, total)
            self._rows.append((id_, offset, created, expires, own, trimmed, event, text, checksum))
            look = expires + GRAIN
            if due > look:
                due = self.due_by(id_, due, look)
        else:
            trimmed = trimmed if own else offset
            self.write_rows()
            self.connection.execute(
                "UPDATE destinations SET offset = ?, trimmed = ? WHERE id = ?", (offset, trimmed, id_)
            )
        self.staged[name] = tuple.__new__(Cursor, (id_, offset, trimmed, acked, due))

    def _trim(self, id_: int, trimmed: int, now: float) -> int:
        """Make room for one more publication of a destination; return the highest offset lost to a limit."""
        self.write_rows()
        newest = "SELECT offset FROM publications WHERE destination = ? ORDER BY offset DESC LIMIT 1 OFFSET ?"
        last = self.connection.execute(newest, (id_, max(self._limits.history_size - 1, 0))).fetchone()
        if last is None:
            return trimmed
        lost = "SELECT max(offset) FROM publications WHERE destination = ? AND offset <= ? AND (expires > ? OR NOT own)"
        (highest,) = self.connection.execute(lost, (id_, *last, now)).fetchone()
        self.connection.execute("DELETE FROM publications WHERE destination = ? AND offset <= ?", (id_, *last))
        return max(trimmed, whole(highest or 0))

    def ack(self, destination: str, offset: int) -> bool:
        """Move an acknowledged offset forward; return whether that changed anything."""
        cursor = self._known(destination)
        if cursor is None or cursor.acked >= offset:
            return False
        self.write_rows()
        self.connection.execute("UPDATE destinations SET acked = ? WHERE id = ?", (offset, cursor.id))
        self.staged[destination] = cursor._replace(acked=offset)
        return True

    # Destinations.

    def cursor(self, name: str, due: float) -> Cursor:
        """Return the state of a destination in this transaction; a new one is created, and first due at `due`."""
        cursor = self._known(name)
        if cursor is None:
            floor = self.floor
            cursor = Cursor(self._next_id, floor, floor, self.acked_at(floor), due)
            self._next_id += 1
            self._new.append((cursor.id, name, *cursor[1:]))
        self.staged[name] = cursor
        return cursor

    def _known(self, name: str) -> Cursor | None:
        """Return the state of a destination in this transaction; None if it is new."""
        cursor = self.staged.get(name) or self.cursors.get(name)
        if cursor is not None or self.all_cursors is not None:
            return cursor
        return sqlite_rows.find_cursor(self.connection, name)

    def first_due(self, created: float, expires: float) -> float:
        """Return when retention has to look at a destination of which this is the first publication."""
        return expires + GRAIN if expires > created else created + self._limits.forget_after

    def due_by(self, id_: int, due: float, latest: float) -> float:
        """Have retention look at a destination by a time; return when it will. `due` is when it would."""
        if due <= latest:
            return due
        self.write_rows()
        self.connection.execute("UPDATE destinations SET due = ? WHERE id = ?", (latest, id_))
        return latest

    def acked_at(self, floor: int) -> int:
        """Return the acknowledged offset of a destination that the store does not know.

        If the store lost something recently, this destination may be what it lost: then nothing is acknowledged.
        """
        limits = self._limits
        is_recent = self._clock() < self.lost_at + limits.forget_after + limits.history_ttl
        return floor - 1 if is_recent and floor else floor

    def load_cursors(self) -> None:
        """Load the cursors of all destinations, unless there are too many. Everything is committed. Raises ERRORS."""
        self.reloads = False
        cursors: dict[str, Cursor] = {}
        has_all = self.connection.execute("SELECT count(*) FROM destinations").fetchone()[0] <= MAX_CURSORS
        if has_all:
            for id_, name in self.connection.execute("SELECT id, name FROM destinations NOT INDEXED").fetchall():
                cursor = sqlite_rows.find_cursor(self.connection, name)
                if cursor is None or cursor.id != id_:
                    raise Damaged("a destination is not found by its name")
                cursors[name] = cursor
        # Not before they are complete: others read them while the file is opened again.
        self.cursors, self.staged = cursors, {}
        self.all_cursors = cursors if has_all else None

    def forget_cursors(self) -> None:
        """Forget all cursors: they are loaded from the file when it is open again."""
        self.all_cursors, self.cursors, self.lost_cursors = None, {}, {}

    # Idempotency keys.

    def find_key(self, key: str, now: float) -> KeyRecord | None:
        """Return what is stored for a key."""
        select = "SELECT offset, connections, fingerprint FROM keys WHERE key = ? AND created > ?"
        found = self.connection.execute(select, (key, now - self._limits.key_ttl)).fetchone()
        return None if found is None else KeyRecord(whole(found[0]), whole(found[1]), found[2])

    def store_key(self, key: str, offset: int, now: float, fingerprint: str | None) -> None:
        """Store a key that was used for a publication."""
        # OR REPLACE: retention may not have dropped one that was used long ago.
        insert = "INSERT OR REPLACE INTO keys (key, offset, connections, fingerprint, created) VALUES (?, ?, 0, ?, ?)"
        self.connection.execute(insert, (key, offset, fingerprint, now))

    def set_connections(self, rows: Iterable[Any]) -> None:
        """Store the connections of keys; `rows` has pairs of both."""
        self.connection.executemany("UPDATE keys SET connections = ? WHERE key = ?", rows)

    # Marks.

    def mark(self, name: str) -> str:
        """Return the text of a mark; "" if there is none."""
        found = self.connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return "" if found is None else checked_text(found[0])

    def set_mark(self, name: str, value: str) -> None:
        """Set a mark, in a transaction that must be committed."""
        self.connection.execute("REPLACE INTO marks (name, value) VALUES (?, ?)", (name, value))
