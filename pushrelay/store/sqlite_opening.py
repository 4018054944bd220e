"""The files of an SQLite store: opened, taken over from the previous relay, checked, reopened, closed."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable

from pushrelay.counters import Histogram
from pushrelay.errors import StoreError, StoreInUse

from . import journal, sqlite_file, sqlite_meta
from .journal import Contents, Journal
from .sqlite_file import ERRORS, Readers
from .sqlite_lock import StoreLock
from .sqlite_meta import Meta
from .sqlite_writer import Uncommitted, Writer
from .store import CLOSED, HistoryLimits, new_epoch

log = logging.getLogger(__name__)

BUSY_SECONDS = 2.0  # how long to wait for other programs that lock the file
BRIEF_SECONDS = 0.02  # the same, while a program has locked it for longer than that
# Of the connection that writes. With SQLite's default (2 MiB), a push to one of 10,000 destinations that have a million
# publications took 28 µs instead of 25, and wrote a quarter more.
CACHE_KIB = 8000
# 16 MiB: the larger it is, the less often a frequently changing page is copied into the file. With 4 MiB, a push to a
# random destination took 29 µs instead of 25. A thread for checkpoints copied the same pages more often, and cost 7 µs
# more.
WAL_PAGES = 4000
WAL_BYTES = 48 << 20  # if readers kept SQLite from restarting a WAL of this size, writing waits for them briefly
CHECK_EVERY = 1024  # transactions between two commits and checks of the files; a quiet store does both once a second
CHECK_SECONDS = 5.0  # that a start spends looking for damage, at most
CHECK_BYTES = 32 << 20  # a store that was closed is checked if it is smaller: that takes some 0.3 s at most
REOPENING = "the store is being opened again. Try again in a moment"


class Files:
    """The database with its WAL, the journal next to it, and the lock that keeps other relays off.

    `set_epoch` is called with the store's epoch. Only the thread in the store's transaction calls the methods; any
    thread may read `readers` and `unavailable`, and call failed() and report_damage().
    """

    def __init__(
        self,
        path: str,
        durability: str,
        writer: Writer,
        limits: HistoryLimits,
        clock: Callable[[], float],
        set_epoch: Callable[[str], None],
    ):
        self.path = path
        self.busy_seconds = BUSY_SECONDS
        self.wal_bytes = WAL_BYTES
        self._wal_tried = 0  # bytes that the WAL had when it was last not restarted
        self.unavailable = CLOSED  # why the files cannot be used, while they are not open
        self.readers: Readers | None = None  # while the files are open
        self.is_broken = False  # an error occurred that a connection may not survive: reopen the files
        self.until_check = CHECK_EVERY  # transactions until the files are checked
        self.commit_seconds = Histogram()  # how long commits took
        self.used_bytes = 0  # of the database, without free pages, as of the last commit
        self.journal: Journal  # while `_has_journal`
        self._has_journal = False
        self._lock: StoreLock | None = None
        self._durability = durability
        self._writer = writer
        self._limits = limits
        self._clock = clock
        self._set_epoch = set_epoch
        self._page_size = 0
        self._inodes: tuple[int, ...] = ()  # of the files that are open: somebody may put others in their place
        self._leftover: Contents | None = None  # what the journal held when this process closed it, to be replayed
        self._waits_briefly = False  # waiting for another program's lock was in vain, so the next attempt is short
        self._has_reported_damage = False

    def open(self) -> None:
        """Lock the path, open the files, and take over what the last relay left. Raises StoreError."""
        try:
            sqlite_file.check_folder(self.path)
            self._leftover = None
            self._lock = StoreLock(self.path, self.busy_seconds)
            try:
                self._open_files(self._lock)
            except BaseException:
                self.close()
                raise
        except StoreError as error:
            self.unavailable = str(error)
            raise

    def _open_files(self, lock: StoreLock) -> None:
        lock.renew()
        sqlite_file.create(self.path)
        lock.hold_file()
        try:
            connection = self._writer.connection = sqlite_file.connect(self.path, self.busy_seconds)
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._writer.is_open = True
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            sqlite_file.migrate(connection, self.path)
            self._take_over()
            self._page_size = connection.execute("PRAGMA page_size").fetchone()[0]
            self._writer.max_pages = self._limits.history_bytes // self._page_size
            self._measure()
        except ERRORS as error:
            raise sqlite_file.explain(error, self.path) from error
        inodes = self._inodes_now()
        if inodes[:1] != self._inodes[:1]:
            self._has_reported_damage = False
        self._inodes = inodes
        self.readers = Readers(self.path, self.busy_seconds)
        self.is_broken = self._waits_briefly = False
        self.until_check = CHECK_EVERY

    def _take_over(self) -> None:
        """Commit what the journal holds, note that this relay works with the file, and begin a new journal.

        This is where the publications come back that a killed process had accepted:

        1. Read the meta rows of the file and the journal beside it. Their tokens show whether they belong together.
        2. If something is missing, declare the loss: a new epoch begins, and clients learn it.
        3. In one synced transaction, replay the journal into the file, and write the meta rows of this process.
        4. Put a new, empty journal in place of the old one.

        Whenever this process is killed, the next one finds a journal that belongs to the file. With durability "power"
        the journal has no records, but its token and number are still compared.
        """
        path, writer = f"{self.path}-recent", self._writer
        connection = writer.connection
        old = sqlite_meta.read(connection)
        is_first = self._leftover is None
        journal.complete_swap(path, old.token)
        left = self._leftover or journal.read(path)
        loss = sqlite_meta.find_loss(old, left, path)
        if is_first and (old.is_open or os.path.getsize(self.path) < CHECK_BYTES):
            sqlite_file.check(connection, CHECK_SECONDS)
        boot = sqlite_meta.this_boot() if self._durability == "process" else ""
        meta = Meta(new_epoch() if loss else old.epoch, boot, sqlite_meta.new_token(), True, old.generation + 1)
        new = Journal(path, meta.epoch, meta.token, meta.generation)
        try:
            connection.execute("PRAGMA synchronous=FULL")  # the meta rows count once they are on the disk
            connection.execute("BEGIN IMMEDIATE")
            writer.all_cursors, writer.cursors = None, {}
            writer.reset()
            if left is not None and (not is_first or left.token == old.token):
                writer.replay(left.payloads)
            writer.write_rows()
            if loss:
                sqlite_meta.declare_loss(connection, self._clock())
            sqlite_meta.mark_open(connection, meta)
            connection.execute("COMMIT")
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durability == 'power' else 'NORMAL'}")
            self._leftover = new.contents()  # what belongs to the file now, should the rest fail
            new.put_in_place(keep_old=bool(loss) and is_first)
        except BaseException:
            new.close()
            raise
        self._use(new, loss)

    def _use(self, new: Journal, loss: str | None) -> None:
        """Begin to work with a new journal, and with what the file has now."""
        writer = self._writer
        self.journal, self._has_journal, self._leftover = new, True, None
        self._set_epoch(new.epoch)
        if loss:
            log.error(
                "%s: %s. A new epoch begins: clients that come back learn that they lost something", self.path, loss
            )
        writer.reset()
        writer.load_cursors()
        writer.uncommitted, writer.recent = 0, Uncommitted()
        writer.is_lost, writer.lost_cursors = False, {}

    def reopen(self) -> None:
        """Close the files and open what is at the path now. Raises StoreError."""
        if self.readers is not None:  # otherwise the last attempt failed, and each push makes another
            log.info("opening %s again", self.path)
        if self._has_journal:
            self._leftover = self.journal.contents()
        self.unavailable = REOPENING
        self._close_files()
        try:
            sqlite_file.check_folder(self.path)
            if self._lock is not None:
                self._open_files(self._lock)
        except StoreError as error:
            self.unavailable = str(error)
            raise

    # Transactions.

    def begin(self) -> None:
        """Begin an SQLite transaction, unless one is open. Raises ERRORS."""
        writer = self._writer
        writer.begin()
        if self._waits_briefly:
            self.set_lock_wait(self.busy_seconds)
        if writer.is_lost:
            writer.replay(self.journal.payloads)
            writer.is_lost = False

    def set_lock_wait(self, seconds: float) -> None:
        """Set how long SQLite waits for the lock of another program before it gives up. Raises ERRORS.

        That is BUSY_SECONDS; after a wait in vain, BRIEF_SECONDS until a transaction begins. Otherwise every thread
        would soon wait for a lock that persists. Nobody retries in between: the push gets a 503, and the next push or
        the next second of Maintenance tries again.
        """
        self._waits_briefly = seconds < self.busy_seconds
        sqlite_file.wait_for_locks(self._writer.connection, seconds)

    def commit(self) -> None:
        """Commit everything that was accepted, and empty the journal. Raises ERRORS."""
        began = time.monotonic()
        if self._writer.commit():
            self.commit_seconds.observe(time.monotonic() - began)
            self._measure()
            try:
                self.journal.begin(self._writer.generation)
            except StoreError as error:  # everything is committed, so the files are opened again, with a new journal
                log.error("%s", error)
                self.is_broken = True

    def _measure(self) -> None:
        """Find out how much of the database is in use. It takes some microseconds."""
        pragmas = ("PRAGMA page_count", "PRAGMA freelist_count")
        pages, free = (self._writer.connection.execute(each).fetchone()[0] for each in pragmas)
        self.used_bytes = (pages - free) * self._page_size

    # Errors.

    def failed(self, error: Exception) -> StoreError:
        """Return an SQLite error as a StoreError, after which the files may have to be reopened."""
        self.is_broken = self.is_broken or sqlite_file.code_of(error) in sqlite_file.BREAKING
        return sqlite_file.explain(error, self.path)

    def report_damage(self, destination: str) -> None:
        """Log once that a publication is damaged: clients may ask for it again and again."""
        if not self._has_reported_damage:
            self._has_reported_damage = True
            log.error(
                "%s: a publication of %.80r is damaged. Clients that need it learn that it is lost. "
                "Check the disk, or move the file away with its -wal, -shm and -recent",
                self.path,
                destination,
            )

    # Closing.

    def close(self) -> None:
        """Commit what was accepted if that is possible, close the files, and give up the lock."""
        is_committed = False
        if self.readers is not None:  # otherwise they were never completely open: the journal may be the only copy
            with contextlib.suppress(*ERRORS):
                if self._writer.connection.in_transaction:
                    self.commit()
                if not self._writer.uncommitted:
                    sqlite_meta.mark_closed(self._writer.connection)
                    is_committed = True
        self._close_files(is_committed)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_files(self, is_committed: bool = False) -> None:
        if self._has_journal:
            self.journal.close(is_committed)
            self._has_journal = False
        # The readers first: a thread that no longer finds a destination's cursor must not read the file instead, which
        # lacks what is only in the journal.
        readers, self.readers = self.readers, None
        if readers is not None:
            readers.close()
        self._writer.forget_cursors()
        if self._writer.is_open:
            with contextlib.suppress(sqlite3.Error):
                self._writer.connection.close()
            self._writer.is_open = False

    # Checking the files.

    def check(self) -> None:
        """Check that the open files are still in place and that the WAL is not too long. Raises StoreError, ERRORS.

        If the check fails, the next transaction checks again: it must not write to a store that another relay uses.
        """
        if self.is_broken or self._lock is None:
            return
        now = self._inodes_now()
        if now[:1] != self._inodes[:1]:
            log.error("%s was removed or replaced. The relay opens what is there now; find out what did it", self.path)
            self.is_broken = True
            return  # what is not committed yet goes to the file that is there now
        try:
            self._lock.renew()
        except StoreInUse:
            self.is_broken = True  # what is known about the file may be wrong by now
            raise
        self.until_check = CHECK_EVERY
        if self._writer.connection.in_transaction:
            self.commit()
        if self._writer.reloads and not self._writer.uncommitted:
            with contextlib.suppress(*ERRORS):  # it only saves a lookup in the file for each new destination
                self._writer.load_cursors()
        if now != self._inodes or not self.journal.is_in_place():
            log.error(
                "%s-wal or -recent was removed, replaced or cut short. Nothing is lost; find out what did it", self.path
            )
            self.is_broken = True
        elif (size := os.path.getsize(f"{self.path}-wal")) > self._wal_tried + self.wal_bytes:
            self._empty_wal(size)

    def _empty_wal(self, size: int) -> None:
        """Copy a WAL of `size` bytes into the database and empty it, unless another program reads for long.

        This waits for current readers only. Those of the relay end at once, and new ones use the database file. A
        backup may read for minutes, so the next attempt comes after another `wal_bytes`.
        """
        connection = self._writer.connection
        sqlite_file.wait_for_locks(connection, BRIEF_SECONDS)
        (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        sqlite_file.wait_for_locks(connection, BRIEF_SECONDS if self._waits_briefly else self.busy_seconds)
        self._wal_tried = size if is_busy else 0

    def _inodes_now(self) -> tuple[int, ...]:
        """Return the inodes of the database and its WAL; 0 for one that is not there."""
        found = []
        for path in (self.path, f"{self.path}-wal"):
            try:
                found.append(os.stat(path).st_ino)
            except OSError:
                found.append(0)
        return tuple(found)
