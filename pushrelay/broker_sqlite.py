"""`sqlite:FILE`: publications in an SQLite database. A push that was answered outlives the process."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from json.encoder import encode_basestring as quote
from typing import Any

from . import sqlite_file
from .broker import new_epoch
from .commits import Job
from .handout import Item
from .journal import SIZE, Journal
from .publication import Kept, StoreError, Tip, cut, decode
from .sqlite_sweep import GRAIN, Spot, Sweeping

log = logging.getLogger("relay.broker")

SPOTS = 20_000  # destinations whose offsets are kept at hand, some 300 bytes each
TRIM_EVERY = 32  # offsets between two trims of a destination: a trim costs as much for one row as for all of them
CHECK_EVERY = 256  # transactions between two commits and looks at the files; a quiet store does both once a second
MIN_BYTES = 1 << 20  # a store that holds less than some messages of full size would hold none

_FIND = "SELECT id, offset, trimmed, acked, due FROM destinations WHERE name = ?"
_NEWEST = "SELECT offset, trimmed FROM publications WHERE destination = ? ORDER BY offset DESC LIMIT 1"
_FLOOR = "SELECT value FROM meta WHERE name = 'floor'"
_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM destinations"
_NEW = "INSERT INTO destinations (id, name, offset, trimmed, acked, due) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT = (
    "INSERT INTO publications (destination, offset, created, expires, own, trimmed, event, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_READ = (
    "SELECT offset, event, data, created, expires, own FROM publications "
    "WHERE destination = ? AND offset > ? ORDER BY offset"
)
_READ_ENDS = _READ.replace("event, data", "'' AS event, '' AS data")


class SQLiteBroker(Sweeping):
    """A broker whose store is one file. One connection writes, a few read, and no other relay may use the file.

    `durability`: "process" outlives the end of the process, however it ends; "power" the end of the machine.
    """

    BUSY_SECONDS = 2.0  # how long to wait for other programs that lock the file
    IMPATIENT_SECONDS = 0.02  # the same, while one does so for longer than that
    WAL_PAGES = 4000  # 16 MiB: the more, the fewer times a page that changes often is copied into the file (measured)
    WAL_BYTES = 48 << 20  # where readers kept it from being begun anew, writing waits for them

    def __init__(self, path: str, deliver: Any, *, durability: str = "process", **options: Any):
        super().__init__(deliver, **options)
        if self.history_bytes < MIN_BYTES:
            raise ValueError(f"history_bytes is {MIN_BYTES} at least, not {self.history_bytes}")
        self.path = os.path.realpath(path)  # one file has one lock, whatever links lead to it
        self._durability = durability
        self._trim_every = max(TRIM_EVERY, self.history_size // 4)

        self._lock: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None  # of the thread in the transaction
        self._readers: sqlite_file.Readers | None = None
        self._inode = 0  # of the file that is open: somebody may put another in its place
        self._pages = 0  # how many the store may use
        self._until_check = CHECK_EVERY  # transactions
        self._is_locked = False  # another program's lock was waited for in vain, so the next try is a short one
        self._broken = False  # an error was one that a connection may not survive: open the file anew

        # What is accepted. Each spot is replaced and never changed, so that all threads may read it.
        self._spots: dict[str, Spot] = {}
        self._staged: dict[str, Spot] = {}  # what this transaction makes of it
        self._whole: dict[str, Spot] | None = None  # the spots, where all destinations have one: others are new

        # With durability "process": what is in SQLite's open transaction is in the journal as well (journal.py).
        self._journal: Journal | None = None
        self._entries: list[str] = []  # what this transaction adds to it, as JSON
        self._settles = True  # this transaction is to be SQLite's as well
        self._unsettled = 0  # transactions that are in the journal, and not committed
        self._recent: list[Item] = []  # what these stored, which no reader finds in the file
        self._rows: list[tuple[Any, ...]] = []  # publications that SQLite does not know yet; many at once are cheaper
        self._new: list[tuple[Any, ...]] = []  # and destinations
        self._floor = 0  # what the file says, and where destinations begin that are new
        self._next_id = 1
        self._is_lost = False  # they are not in SQLite's open transaction either: it failed
        self._lost_spots: dict[str, Spot] = {}  # how things stood then, but for the ids of what was new

    # Opening and closing.

    def _open(self) -> None:
        sqlite_file.check_folder(self.path)
        self._lock = sqlite_file.lock(self.path, self.BUSY_SECONDS)
        try:
            self._open_file()
        except BaseException:
            self._close()
            raise

    def _open_file(self) -> None:
        sqlite_file.create(self.path)
        try:
            self._writer = writer = sqlite_file.connect(self.path, self.BUSY_SECONDS)
            writer.execute(f"PRAGMA wal_autocheckpoint={self.WAL_PAGES}")
            sqlite_file.migrate(writer, self.path)
            left = self._open_journal(self._epoch_in_file())
            if sqlite_file.mark_open(writer, self._durability, new_epoch()):
                log.warning(
                    "%s: the machine went down with it open; who comes back is told of what may be lost", self.path
                )
            self.epoch = self._epoch_in_file()
            self._pages = self.history_bytes // writer.execute("PRAGMA page_size").fetchone()[0]
            self._take_over(left)
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self.path) from error
        self._inode = os.stat(self.path).st_ino
        self._readers = sqlite_file.Readers(self.path, self.BUSY_SECONDS)
        self._broken = self._is_locked = False

    def _epoch_in_file(self) -> str:
        return self._writer.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0]

    def _open_journal(self, epoch: str) -> list[bytes]:
        """Open the journal; returns what a relay that did not end well has left in it."""
        path = f"{self.path}-recent"
        if self._durability == "power" and not os.path.exists(path):
            return []
        self._journal = Journal(path)
        return self._journal.read(epoch)

    def _take_over(self, left: list[bytes]) -> None:
        """Commit what was left in the journal, and begin a new one."""
        self._forget_staged()
        self._whole, self._spots = None, {}
        if left:
            self._writer.execute("BEGIN IMMEDIATE")
            self._replay(left)
            self._flush()
            self._writer.execute("COMMIT")
        self._load_spots()
        if self._durability == "power":
            self._close_journal(remove=True)
        else:
            self._journal.begin(self.epoch)
        self._unsettled, self._recent = 0, []
        self._is_lost, self._lost_spots = False, {}

    def _reopen(self) -> None:
        log.info("opening %s anew", self.path)
        self._close_file()
        try:
            sqlite_file.check_folder(self.path)
            self._open_file()
        except StoreError as error:
            self._away = str(error)
            raise

    def _load_spots(self) -> None:
        """Have the spots of all destinations at hand, where those are not too many."""
        spots: dict[str, Spot] = {}
        has_all = self._writer.execute("SELECT count(*) FROM destinations").fetchone()[0] <= SPOTS
        if has_all:
            for (name,) in self._writer.execute("SELECT name FROM destinations").fetchall():
                spots[name] = self._find_in(self._writer, name)
        # Not before they are complete: others read them meanwhile, where the file is opened anew.
        self._spots, self._staged = spots, {}
        self._whole = spots if has_all else None

    def _close_journal(self, remove: bool = False) -> None:
        if self._journal is not None:
            self._journal.close(remove)
            self._journal = None

    def _close_file(self) -> None:
        self._close_journal()
        self._whole, self._spots, self._lost_spots = None, {}, {}  # what it says counts, once it is open again
        if self._readers is not None:
            self._readers.close()
            self._readers = None
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    def _close(self) -> None:
        if self._readers is not None:  # else it was never wholly open: what is in the journal may be nowhere else
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._settle()
                if not self._unsettled:
                    sqlite_file.mark_closed(self._writer)
                    self._close_journal(remove=True)
        self._close_file()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # The transaction.

    def _begin(self) -> None:
        self._staged = {}
        self._entries = []
        self._settles = self._journal is None
        self._until_check -= 1
        try:
            if self._until_check <= 0:
                self._check_files()
            if self._broken:
                self._reopen()
            if not self._writer.in_transaction:
                self._writer.execute("BEGIN IMMEDIATE")
                if self._is_locked:
                    self._be_patient(True)
                if self._is_lost:
                    self._replay(self._journal.read(self.epoch))
                    self._is_lost, self._lost_spots = False, {}
        except sqlite3.Error as error:
            self._rollback()
            if sqlite_file.code_of(error) == sqlite3.SQLITE_BUSY:
                self._be_patient(False)
            raise self._failed(error) from error
        except BaseException:
            self._rollback()
            raise

    def _be_patient(self, patient: bool) -> None:
        """Wait for other programs' locks, or do not: where one lasts, all threads would soon wait for it at once."""
        self._is_locked = not patient
        sqlite_file.wait_for_locks(self._writer, self.BUSY_SECONDS if patient else self.IMPATIENT_SECONDS)

    def _transact(self, jobs: list[Job]) -> None:
        try:
            super()._transact(jobs)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _commit(self) -> None:
        payload = b"" if self._settles else f"[{','.join(self._entries)}]".encode()
        if self._settles or not self._journal.has_room(len(payload)):
            self._settle()
        elif self._entries:
            self._recent += self._placed
            self._journal.put(payload)
            self._unsettled += 1
        self._spots.update(self._staged)

    def _settle(self) -> None:
        """Commit all that was accepted since the last time."""
        self._flush()
        self._writer.execute("COMMIT")
        while len(self._spots) > SPOTS:  # not before: of what SQLite does not know the spots are needed
            self._whole = None
            del self._spots[next(iter(self._spots))]
        if self._unsettled:
            self._journal.begin(self.epoch)
            self._unsettled, self._recent = 0, []

    def _settle_now(self) -> None:
        self._settles, self._until_check = True, 0

    def settle(self) -> None:
        """Commit what is only in the journal."""
        if self._unsettled:
            self._commits.together(self._settle_now)

    def _rollback(self) -> None:
        self._whole = None  # what was forgotten is there again
        if self._unsettled and not self._is_lost:
            self._is_lost, self._lost_spots, self._spots = True, self._spots, {}
        try:
            if self._writer is not None and self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._forget_staged()
        except sqlite3.Error:
            self._broken = True

    def _forget_staged(self) -> None:
        """Begin anew with what the file says."""
        self._rows, self._new, self._staged = [], [], {}
        if self._writer is not None:
            (self._floor,) = self._writer.execute(_FLOOR).fetchone()
            (self._next_id,) = self._writer.execute(_NEXT_ID).fetchone()

    def _replay(self, payloads: list[bytes]) -> None:
        """Do again what the journal holds; what was committed all the same stays as it is."""
        for payload in payloads:
            for kind, *fields in decode(payload.decode()):
                if kind == "publication":
                    self._store_again(*fields)
                elif kind == "ack":
                    self._store_ack(*fields)
                else:
                    self._writer.execute("UPDATE keys SET connections = ? WHERE key = ?", fields)
        self._spots.update(self._staged)
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
    ) -> None:
        spot = self._spot(name, self._look(created, expires))
        if offset > spot.offset:
            self._put(name, spot, offset, created, expires, own, event, text)
        if key is not None and self._find_key(key, created) is None:
            self._store_key(key, offset, created)

    def _failed(self, error: sqlite3.Error) -> StoreError:
        self._broken = self._broken or sqlite_file.code_of(error) in sqlite_file.BREAKING
        return sqlite_file.explain(error, self.path)

    def _check_files(self) -> None:
        """See whether the file is still the one that was opened, and whether the WAL has grown too long."""
        self._until_check = CHECK_EVERY
        if self._writer is not None and self._writer.in_transaction:
            self._settle()
        try:
            self._broken = self._broken or os.stat(self.path).st_ino != self._inode
            if self._journal is not None and os.stat(f"{self.path}-recent").st_ino != self._journal.inode:
                self._broken = True
            if os.stat(f"{self.path}-wal").st_size > self.WAL_BYTES:
                # Waits for those who read now. Who begins to read meanwhile reads the file, so the wait is short.
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except OSError:
            self._broken = True

    # Storing.

    def _store(self, items: list[Item], now: float) -> None:
        usual, usual_times = self._lifetime(None), ""
        for item in items:
            if item.key is not None and self._repeats(item, now):
                continue
            seconds, own = usual if item.ttl is None else self._lifetime(item.ttl)
            expires, name = now + seconds, item.destination
            spot = self._staged.get(name) or self._spots.get(name) or self._spot(name, self._look(now, expires))
            offset = spot.offset + 1
            self._place(item, offset, now, expires)
            self._put(name, spot, offset, now, expires, own, item.event, item.text)
            if item.key is not None:
                self._store_key(item.key, offset, now)
            if len(item.text) > SIZE:  # the journal has no room for it, so none is made ready for it
                self._settles = True
            elif not self._settles:
                if item.ttl is None:
                    times = usual_times = usual_times or f"{now},{expires}"  # writing numbers is slow
                else:
                    times = f"{now},{expires}"
                key = "" if item.key is None else "," + quote(item.key)
                self._entries.append(
                    f'["publication",{quote(name)},{offset},{times},{1 if own else 0},'
                    f"{quote(item.event)},{quote(item.text)}{key}]"
                )

    def _put(
        self,
        name: str,
        spot: Spot,
        offset: int,
        created: float,
        expires: float,
        own: int,
        event: str,
        text: str,
    ) -> None:
        """Store one publication."""
        id_, _, trimmed, acked, due = spot
        if not offset % self._trim_every:
            trimmed = self._trim(id_, trimmed, created)
        if expires > created:
            self._rows.append((id_, offset, created, expires, own, trimmed, event, text))
            look = expires + GRAIN
            if due > look:
                due = self._due_by(id_, due, look)
        else:
            trimmed = trimmed if own else offset
            self._flush()
            self._writer.execute("UPDATE destinations SET offset = ?, trimmed = ? WHERE id = ?", (offset, trimmed, id_))
        self._staged[name] = Spot._make((id_, offset, trimmed, acked, due))

    def _look(self, created: float, expires: float) -> float:
        """When sweeping has to look at a destination of which this is the first publication."""
        return expires + GRAIN if expires > created else created + self.FORGET_AFTER

    def _flush(self) -> None:
        """Give SQLite what was left for later."""
        if self._new:
            self._writer.executemany(_NEW, self._new)
            self._new = []
        if self._rows:
            self._writer.executemany(_INSERT, self._rows)
            self._rows = []

    def _spot(self, name: str, due: float) -> Spot:
        """Where a destination stands in this transaction; if it is new, it is made, and due for sweeping then."""
        spot = self._known(name)
        if spot is None:
            floor = self._floor
            spot = Spot(self._next_id, floor, floor, floor, due)
            self._next_id += 1
            self._new.append((spot.id, name, floor, floor, floor, due))
        self._staged[name] = spot
        return spot

    def _known(self, name: str) -> Spot | None:
        """Where a destination stands in this transaction; None where it is new."""
        spot = self._staged.get(name) or self._spots.get(name)
        return spot if spot is not None or self._whole is not None else self._find_in(self._writer, name)

    @staticmethod
    def _find_in(connection: sqlite3.Connection, name: str) -> Spot | None:
        found = connection.execute(_FIND, (name,)).fetchone()
        if found is None:
            return None
        id_, offset, trimmed, acked, due = found
        newest = connection.execute(_NEWEST, (id_,)).fetchone() or (0, 0)
        return Spot(id_, max(offset, newest[0]), max(trimmed, newest[1]), acked, due)

    def _due_by(self, id_: int, due: float, latest: float) -> float:
        """See that sweeping looks at a destination by this time; returns when it will."""
        if due <= latest:
            return due
        self._flush()
        self._writer.execute("UPDATE destinations SET due = ? WHERE id = ?", (latest, id_))
        return latest

    def _trim(self, id_: int, trimmed: int, now: float) -> int:
        """Make room for one more publication of a destination; returns the highest offset lost to a bound."""
        self._flush()
        newest = "SELECT offset FROM publications WHERE destination = ? ORDER BY offset DESC LIMIT 1 OFFSET ?"
        last = self._writer.execute(newest, (id_, max(self.history_size - 1, 0))).fetchone()
        if last is None:
            return trimmed
        lost = "SELECT max(offset) FROM publications WHERE destination = ? AND offset <= ? AND (expires > ? OR NOT own)"
        (highest,) = self._writer.execute(lost, (id_, *last, now)).fetchone()
        self._writer.execute("DELETE FROM publications WHERE destination = ? AND offset <= ?", (id_, *last))
        return max(trimmed, highest or 0)

    def _store_ack(self, destination: str, offset: int) -> None:
        spot = self._known(destination)
        if spot is None or spot.acked >= offset:
            return
        self._flush()
        self._writer.execute("UPDATE destinations SET acked = ? WHERE id = ?", (offset, spot.id))
        self._staged[destination] = spot._replace(acked=offset)
        self._entries.append(f'["ack",{quote(destination)},{offset}]')

    # Idempotency keys.

    def _find_key(self, key: str, now: float) -> tuple[int, int] | None:
        select = "SELECT offset, connections FROM keys WHERE key = ? AND created > ?"
        return self._writer.execute(select, (key, now - self.KEY_TTL)).fetchone()

    def _store_key(self, key: str, offset: int, now: float) -> None:
        # OR REPLACE: one that was used long ago may not be swept yet.
        insert = "INSERT OR REPLACE INTO keys (key, offset, connections, created) VALUES (?, ?, 0, ?)"
        self._writer.execute(insert, (key, offset, now))

    def _store_connections(self, items: list[Item]) -> None:
        rows = [(item.connections, item.key) for item in items]
        self._writer.executemany("UPDATE keys SET connections = ? WHERE key = ?", rows)
        self._entries += [f'["connections",{item.connections},{quote(item.key)}]' for item in items]

    # Reading.

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        readers = self._readers
        if readers is None:
            raise StoreError(self._away)
        try:
            with readers.snapshot() as connection:
                yield connection
        except sqlite3.Error as error:
            if sqlite_file.code_of(error) == sqlite3.SQLITE_CANTOPEN:
                # As with no file descriptor left: who writes has the file open, and opening it anew would fail too.
                raise sqlite_file.explain(error, self.path) from error
            raise self._failed(error) from error

    def _tip(self, destination: str) -> Tip:
        floor, spots = self._floor, self._spots  # the floor first: where this one is made meanwhile, it is no higher
        # What is not committed has a spot: they are thrown out where all is.
        spot = spots.get(destination) or self._lost_spots.get(destination)
        if spot is not None:
            return Tip(spot.offset, spot.trimmed, spot.acked)
        if self._whole is spots:
            return Tip(floor, floor, floor)
        with self._snapshot() as connection:
            return self._tip_by(connection, self._find_in(connection, destination))

    def _page(
        self, destination: str, since: int, most: int | None = None, with_data: bool = True
    ) -> tuple[list[Kept], Tip, bool]:
        recent = self._recent  # first: what is committed meanwhile is in both then
        with self._snapshot() as connection:
            spot = self._find_in(connection, destination)
            rows = connection.execute(_READ if with_data else _READ_ENDS, (spot.id, since)) if spot else iter(())
            kept, more = cut(map(Kept._make, rows), most)
            tip = self._tip_by(connection, spot)
        mine = [item for item in recent if item.destination == destination]
        if mine and spot is None:  # it is new: it began before its first one, wherever others would begin by now
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

    def _tip_by(self, connection: sqlite3.Connection, spot: Spot | None) -> Tip:
        if spot is not None:
            return Tip(spot.offset, spot.trimmed, spot.acked)
        floor = max(self._floor, connection.execute(_FLOOR).fetchone()[0])
        return Tip(floor, floor, floor)

    def _probe(self) -> None:
        self._settles = True
        # It stays: what is written and deleted in one transaction SQLite does not write at all.
        self._writer.execute("REPLACE INTO meta VALUES ('probe', zeroblob(32768))")
