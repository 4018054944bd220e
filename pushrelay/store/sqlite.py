"""`sqlite:FILE`: publications in an SQLite database. A push that was answered outlives the process."""

import logging
import os
import sqlite3
from typing import Any

from pushrelay.errors import StoreError
from pushrelay.json_text import decode, quote

from . import sqlite_file, sqlite_meta
from .dispatch import Pending
from .group_commit import Job
from .journal import SIZE, Contents, Journal
from .sqlite_file import ERRORS
from .sqlite_lock import StoreLock
from .sqlite_opening import CHECK_EVERY, Opening
from .sqlite_reading import FLOOR
from .sqlite_retention import GRAIN
from .sqlite_rows import Cursor, checksum_of, data_sum, only, whole

log = logging.getLogger(__name__)

TRIM_EVERY = 32  # offsets between two trims of a destination: a trim costs as much for one row as for all of them
MIN_BYTES = 1 << 20  # a store that holds less than some messages of full size would hold none

_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM destinations"
_NEW = "INSERT INTO destinations (id, name, offset, trimmed, acked, due) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT = (
    "INSERT INTO publications (destination, offset, created, expires, own, trimmed, event, data, sum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class SQLiteBroker(Opening):
    """A broker whose store is one file. One connection writes, a few read, and no other relay may use the file.

    `durability`: "process" outlives the end of the process, however it ends; "power" the end of the machine.
    """

    BUSY_SECONDS = 2.0  # how long to wait for other programs that lock the file
    IMPATIENT_SECONDS = 0.02  # the same, while one does so for longer than that
    CURSORS = 20_000  # destinations whose offsets are kept at hand, some 300 bytes each
    WAL_PAGES = 4000  # 16 MiB: the more, the fewer times a page that changes often is copied into the file (measured)
    WAL_BYTES = 48 << 20  # where readers kept it from being begun anew, writing waits for them

    def __init__(self, path: str, deliver: Any, *, durability: str = "process", **options: Any):
        super().__init__(deliver, **options)
        if self.history_bytes < MIN_BYTES:
            raise ValueError(f"history_bytes is {MIN_BYTES} at least, not {self.history_bytes}")
        try:
            self.path = os.path.realpath(path)  # one file has one lock, whatever links lead to it
        except FileNotFoundError:  # of os.getcwd(): only a relative path asks for it
            raise ValueError(
                f"the folder in which the relay was started is gone, so {path} leads nowhere: start it in a folder "
                "that exists, or write the whole path in the setting broker"
            ) from None
        self._durability = durability
        self._trim_every = max(TRIM_EVERY, self.history_size // 4)

        self._lock: StoreLock | None = None
        self._writer: sqlite3.Connection | None = None  # of the thread in the transaction
        self._readers: sqlite_file.Readers | None = None
        self._inodes: tuple[int, ...] = ()  # of the files that are open: somebody may put others in their place
        self._pages = 0  # how many the store may use
        self._until_check = CHECK_EVERY  # transactions
        self._is_locked = False  # another program's lock was waited for in vain, so the next try is a short one
        self._broken = False  # an error was one that a connection may not survive: open the file again
        self._has_told_damage = False
        self._next_reopening = 0.0  # monotonic: from then on, an error that a reader meets has the file opened again

        # What is accepted. Each cursor is replaced and never changed, so that all threads may read it.
        self._cursors: dict[str, Cursor] = {}
        self._staged: dict[str, Cursor] = {}  # what this transaction makes of it
        self._whole: dict[str, Cursor] | None = None  # the cursors, where all destinations have one: others are new
        self._reloads = False  # a rollback took _whole away: load all cursors again when everything is committed

        # With durability "process": what is in SQLite's open transaction is in the journal as well (journal.py).
        self._journal: Journal | None = None
        self._left: Contents | None = None  # what it held when this process closed it, until the file is open again
        self._entries: list[str] = []  # what this transaction adds to it, as JSON
        self._is_file_commit = True  # this transaction is to be SQLite's as well
        self._uncommitted = 0  # transactions that are in the journal, and not committed
        self._recent: list[Pending] = []  # what these stored, which no reader finds in the file
        self._rows: list[tuple[Any, ...]] = []  # publications that SQLite does not know yet; many at once are cheaper
        self._new: list[tuple[Any, ...]] = []  # and destinations
        self._floor = 0  # what the file says, and where destinations begin that are new
        self._next_id = 1
        self._generation = 0  # number of the last commit that changed anything
        self._changes = 0  # total_changes of the connection when its transaction began
        self._lost_at = 0.0  # when the store lost something the last time
        self._is_lost = False  # they are not in SQLite's open transaction either: it failed
        self._lost_cursors: dict[str, Cursor] = {}  # how things stood then, but for the ids of what was new

    # The transaction.

    def _begin(self) -> None:
        self._staged = {}
        self._entries = []
        self._is_file_commit = self._durability == "power"
        self._until_check -= 1
        try:
            if self._until_check <= 0:
                self._check_files()
            if self._broken:
                self._reopen()
            if not self._writer.in_transaction:
                self._begin_in_file()
        except ERRORS as error:
            self._rollback()
            if sqlite_file.code_of(error) == sqlite3.SQLITE_BUSY:
                self._be_patient(False)
            raise self._failed(error) from error
        except BaseException:
            self._rollback()
            raise

    def _begin_in_file(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        self._changes = self._writer.total_changes
        if self._is_locked:
            self._be_patient(True)
        if self._is_lost:
            self._replay(self._journal.payloads)
            self._is_lost = False

    def _be_patient(self, patient: bool) -> None:
        """Wait for other programs' locks, or do not: where one lasts, all threads would soon wait for it at once."""
        self._is_locked = not patient
        sqlite_file.wait_for_locks(self._writer, self.BUSY_SECONDS if patient else self.IMPATIENT_SECONDS)

    def _transact(self, jobs: list[Job]) -> None:
        try:
            super()._transact(jobs)
        except ERRORS as error:
            raise self._failed(error) from error

    def _commit(self) -> None:
        payload = b"" if self._is_file_commit else f"[{','.join(self._entries)}]".encode()
        if self._is_file_commit or not self._journal.has_room(len(payload)):
            self._commit_file()
        elif self._entries:
            self._journal.put(payload)  # first, as it may fail; nobody waits for what is not in a queue yet
            self._recent += self._placed
            self._uncommitted += 1
        self._cursors.update(self._staged)

    def _commit_file(self) -> None:
        """Commit all that was accepted since the last time."""
        self._write_rows()
        changes = bool(self._uncommitted) or self._writer.total_changes != self._changes
        if changes:
            self._writer.execute(sqlite_meta.COMMITTED, (self._generation + 1,))
        self._writer.execute("COMMIT")
        self._lost_cursors = {}  # not before: a reader may have looked into the cursors before they were complete again
        while len(self._cursors) > self.CURSORS:  # not before: of what SQLite does not know the cursors are needed
            self._whole = None
            del self._cursors[next(iter(self._cursors))]
        self._uncommitted, self._recent = 0, []
        if changes:
            self._generation += 1
            self._begin_journal()

    def _begin_journal(self) -> None:
        try:
            self._journal.begin(self._generation)
        except StoreError as error:  # all is committed, so the file is opened again, with a new journal
            log.error("%s", error)
            self._broken = True

    def _flush(self) -> None:
        self._is_file_commit, self._until_check = True, 0

    def flush(self) -> None:
        """Commit what is only in the journal, and look whether somebody touched the files."""
        self._group_commit.run(self._flush)

    def _rollback(self) -> None:
        self._reloads = self._reloads or self._whole is not None
        self._whole = None  # what was forgotten is there again
        if self._uncommitted and not self._is_lost:
            self._is_lost, self._lost_cursors, self._cursors = True, self._cursors, {}
        try:
            if self._writer is not None and self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._forget_staged()
        except ERRORS:
            self._broken = True

    def _forget_staged(self) -> None:
        """Go back to what the file says."""
        self._rows, self._new, self._staged = [], [], {}
        if self._writer is not None:
            meta = sqlite_meta.read(self._writer)
            self._generation, self._lost_at = meta.generation, meta.lost_at
            self._floor = only(self._writer.execute(FLOOR).fetchone())
            self._next_id = only(self._writer.execute(_NEXT_ID).fetchone())

    def _replay(self, payloads: list[bytes]) -> None:
        """Do again what the journal holds; what is committed already stays as it is."""
        for payload in payloads:
            for kind, *fields in decode(payload.decode()):
                if kind == "publication":
                    self._store_again(*fields)
                elif kind == "ack":
                    self._store_ack(*fields)
                else:
                    self._writer.execute("UPDATE keys SET connections = ? WHERE key = ?", fields)
        self._cursors.update(self._staged)
        self._staged, self._entries = {}, []

    def _store_again(
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
        cursor = self._cursor(name, self._look(created, expires))
        if offset > cursor.offset:
            self._put(
                name, cursor, offset, created, expires, own, event, text, data_sum(text, created, expires, bool(own))
            )
        if key is not None and self._find_key(key, created) is None:
            self._store_key(key, offset, created, fingerprint)

    # Storing.

    def _store(self, items: list[Pending], now: float) -> None:
        usual, usual_times = self._lifetime(None), ""
        last: tuple[str, float | None] | None = None  # the data and ttl that `total` is of: many items may share them
        total = 0
        for item in items:
            if item.key is not None and self._repeats(item, now):
                continue
            seconds, own = usual if item.ttl is None else self._lifetime(item.ttl)
            expires, name = now + seconds, item.destination
            cursor = self._staged.get(name) or self._cursors.get(name) or self._cursor(name, self._look(now, expires))
            offset = cursor.offset + 1
            self._place(item, offset, now, expires)
            if last is None or item.text is not last[0] or item.ttl != last[1]:
                last, total = (item.text, item.ttl), data_sum(item.text, now, expires, own)
            self._put(name, cursor, offset, now, expires, own, item.event, item.text, total)
            if item.key is not None:
                self._store_key(item.key, offset, now, item.use.fingerprint)
            if len(item.text) > SIZE:  # the journal has no room for it, so none is made ready for it
                self._is_file_commit = True
            elif not self._is_file_commit:
                if item.ttl is None:
                    times = usual_times = usual_times or f"{now},{expires}"  # writing numbers is slow
                else:
                    times = f"{now},{expires}"
                key = "" if item.key is None else f',{quote(item.key)},"{item.use.fingerprint}"'
                self._entries.append(
                    f'["publication",{quote(name)},{offset},{times},{1 if own else 0},'
                    f"{quote(item.event)},{quote(item.text)}{key}]"
                )

    def _put(
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
        """Store one publication; `total` is its data_sum()."""
        id_, _, trimmed, acked, due = cursor
        if not offset % self._trim_every:
            trimmed = self._trim(id_, trimmed, created)
        if expires > created:
            checksum = checksum_of(name, offset, trimmed, event, total)
            self._rows.append((id_, offset, created, expires, own, trimmed, event, text, checksum))
            look = expires + GRAIN
            if due > look:
                due = self._due_by(id_, due, look)
        else:
            trimmed = trimmed if own else offset
            self._write_rows()
            self._writer.execute("UPDATE destinations SET offset = ?, trimmed = ? WHERE id = ?", (offset, trimmed, id_))
        self._staged[name] = Cursor._make((id_, offset, trimmed, acked, due))

    def _look(self, created: float, expires: float) -> float:
        """When sweeping has to look at a destination of which this is the first publication."""
        return expires + GRAIN if expires > created else created + self.FORGET_AFTER

    def _write_rows(self) -> None:
        """Give SQLite what was left for later."""
        if self._new:
            self._writer.executemany(_NEW, self._new)
            self._new = []
        if self._rows:
            self._writer.executemany(_INSERT, self._rows)
            self._rows = []

    def _cursor(self, name: str, due: float) -> Cursor:
        """Where a destination stands in this transaction; if it is new, it is made, and due for sweeping then."""
        cursor = self._known(name)
        if cursor is None:
            floor = self._floor
            cursor = Cursor(self._next_id, floor, floor, self._acked_at(floor), due)
            self._next_id += 1
            self._new.append((cursor.id, name, *cursor[1:]))
        self._staged[name] = cursor
        return cursor

    def _known(self, name: str) -> Cursor | None:
        """Where a destination stands in this transaction; None where it is new."""
        cursor = self._staged.get(name) or self._cursors.get(name)
        return cursor if cursor is not None or self._whole is not None else self._find_in(self._writer, name)

    def _due_by(self, id_: int, due: float, latest: float) -> float:
        """See that sweeping looks at a destination by this time; returns when it will."""
        if due <= latest:
            return due
        self._write_rows()
        self._writer.execute("UPDATE destinations SET due = ? WHERE id = ?", (latest, id_))
        return latest

    def _trim(self, id_: int, trimmed: int, now: float) -> int:
        """Make room for one more publication of a destination; returns the highest offset lost to a bound."""
        self._write_rows()
        newest = "SELECT offset FROM publications WHERE destination = ? ORDER BY offset DESC LIMIT 1 OFFSET ?"
        last = self._writer.execute(newest, (id_, max(self.history_size - 1, 0))).fetchone()
        if last is None:
            return trimmed
        lost = "SELECT max(offset) FROM publications WHERE destination = ? AND offset <= ? AND (expires > ? OR NOT own)"
        (highest,) = self._writer.execute(lost, (id_, *last, now)).fetchone()
        self._writer.execute("DELETE FROM publications WHERE destination = ? AND offset <= ?", (id_, *last))
        return max(trimmed, whole(highest or 0))

    def _store_ack(self, destination: str, offset: int) -> None:
        cursor = self._known(destination)
        if cursor is None or cursor.acked >= offset:
            return
        self._write_rows()
        self._writer.execute("UPDATE destinations SET acked = ? WHERE id = ?", (offset, cursor.id))
        self._staged[destination] = cursor._replace(acked=offset)
        self._entries.append(f'["ack",{quote(destination)},{offset}]')

    # Idempotency keys.

    def _find_key(self, key: str, now: float) -> tuple[int, int, str | None] | None:
        select = "SELECT offset, connections, fingerprint FROM keys WHERE key = ? AND created > ?"
        found = self._writer.execute(select, (key, now - self.KEY_TTL)).fetchone()
        return None if found is None else (whole(found[0]), whole(found[1]), found[2])

    def _store_key(self, key: str, offset: int, now: float, fingerprint: str | None) -> None:
        # OR REPLACE: one that was used long ago may not be swept yet.
        insert = "INSERT OR REPLACE INTO keys (key, offset, connections, fingerprint, created) VALUES (?, ?, 0, ?, ?)"
        self._writer.execute(insert, (key, offset, fingerprint, now))

    def _store_connections(self, items: list[Pending]) -> None:
        rows = [(item.connections, item.key) for item in items]
        self._writer.executemany("UPDATE keys SET connections = ? WHERE key = ?", rows)
        self._entries += [f'["connections",{item.connections},{quote(item.key)}]' for item in items]

    def _probe(self) -> None:
        self._is_file_commit = True
        # It stays: what is written and deleted in one transaction SQLite does not write at all.
        self._writer.execute("REPLACE INTO meta VALUES ('probe', zeroblob(32768))")
