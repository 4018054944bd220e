"""Opening an SQLite store and taking over what the last relay left; closing it; looking whether its files are there."""

import contextlib
import logging
import os
import sqlite3

from pushrelay.errors import StoreError, StoreInUse

from . import journal, sqlite_file, sqlite_meta
from .broker import new_epoch
from .journal import Contents, Journal
from .sqlite_file import ERRORS
from .sqlite_lock import StoreLock
from .sqlite_meta import Meta
from .sqlite_retention import Retention
from .sqlite_rows import Cursor

log = logging.getLogger(__name__)

CHECK_EVERY = 256  # transactions between two commits and looks at the files; a quiet store does both once a second
CHECK_SECONDS = 2.0  # that a start looks for damage, at most
CHECK_BYTES = 32 << 20  # a store that was closed is looked at if that costs no more than some 50 ms
REOPENING = "the store is being opened again. Try again in a moment"


class Opening(Retention):
    """The part of SQLiteBroker that opens and closes the files; what it works on is declared there."""

    BUSY_SECONDS: float
    CURSORS: int
    WAL_PAGES: int
    WAL_BYTES: int
    _durability: str
    _lock: StoreLock | None
    _inodes: tuple[int, ...]
    _until_check: int
    _is_locked: bool
    _journal: Journal | None
    _left: Contents | None
    _is_lost: bool
    _reloads: bool

    def _open(self) -> None:
        sqlite_file.check_folder(self.path)
        self._left = None
        self._lock = StoreLock(self.path, self.BUSY_SECONDS)
        try:
            self._open_file()
        except BaseException:
            self._close()
            raise

    def _open_file(self) -> None:
        self._lock.renew()
        sqlite_file.create(self.path)
        self._lock.hold_file()
        try:
            self._writer = writer = sqlite_file.connect(self.path, self.BUSY_SECONDS)
            writer.execute(f"PRAGMA wal_autocheckpoint={self.WAL_PAGES}")
            sqlite_file.migrate(writer, self.path)
            self._take_over()
            self._pages = self.history_bytes // writer.execute("PRAGMA page_size").fetchone()[0]
        except ERRORS as error:
            raise sqlite_file.explain(error, self.path) from error
        inodes = self._inodes_now()
        if inodes[:1] != self._inodes[:1]:
            self._has_told_damage = False
        self._inodes = inodes
        self._readers = sqlite_file.Readers(self.path, self.BUSY_SECONDS)
        self._broken = self._is_locked = False
        self._until_check = CHECK_EVERY

    def _take_over(self) -> None:
        """Commit what the journal holds, meta that this relay works with the file, and begin a new journal.

        All in one transaction, and the new journal takes the place of the old one after it: whenever this process is
        killed, the next one finds a journal that belongs to what the file says.
        """
        path, writer, old = f"{self.path}-recent", self._writer, sqlite_meta.read(self._writer)
        is_first = self._left is None
        journal.complete_swap(path, old.token)
        left = self._left or journal.read(path)
        loss = sqlite_meta.find_loss(old, left, path)
        if is_first and (old.is_open or os.path.getsize(self.path) < CHECK_BYTES):
            sqlite_file.check(writer, CHECK_SECONDS)
        boot = sqlite_meta.this_boot() if self._durability == "process" else ""
        meta = Meta(new_epoch() if loss else old.epoch, boot, sqlite_meta.new_token(), True, old.generation + 1)
        new = Journal(path, meta.epoch, meta.token, meta.generation)
        try:
            writer.execute("PRAGMA synchronous=FULL")  # the meta is worth something once it is on the disk
            writer.execute("BEGIN IMMEDIATE")
            self._whole, self._cursors = None, {}
            self._forget_staged()
            if left is not None and (not is_first or left.token == old.token):
                self._replay(left.payloads)
            self._write_rows()
            if loss:
                sqlite_meta.declare_loss(writer, self._clock())
            sqlite_meta.mark_open(writer, meta)
            writer.execute("COMMIT")
            writer.execute(f"PRAGMA synchronous={'FULL' if self._durability == 'power' else 'NORMAL'}")
            self._left = new.contents()  # what belongs to the file now, should the rest fail
            new.put_in_place(keep_old=bool(loss) and is_first)
        except BaseException:
            new.close()
            raise
        self._journal, self._left, self.epoch = new, None, meta.epoch
        if loss:
            log.error(
                "%s: %s. A new epoch begins: clients that come back learn that they lost something", self.path, loss
            )
        self._forget_staged()
        self._load_cursors()
        self._uncommitted, self._recent = 0, []
        self._is_lost, self._lost_cursors = False, {}

    def _reopen(self) -> None:
        log.info("opening %s again", self.path)
        if self._journal is not None:
            self._left = self._journal.contents()
        self._away = REOPENING
        self._close_file()
        try:
            sqlite_file.check_folder(self.path)
            self._open_file()
        except StoreError as error:
            self._away = str(error)
            raise

    def _load_cursors(self) -> None:
        """Load the cursors of all destinations, unless there are too many. Everything is committed."""
        self._reloads = False
        cursors: dict[str, Cursor] = {}
        has_all = self._writer.execute("SELECT count(*) FROM destinations").fetchone()[0] <= self.CURSORS
        if has_all:
            for id_, name in self._writer.execute("SELECT id, name FROM destinations NOT INDEXED").fetchall():
                cursors[name] = cursor = self._find_in(self._writer, name)
                if cursor is None or cursor.id != id_:
                    raise sqlite_file.Damaged("a destination is not where its name leads")
        # Not before they are complete: others read them while the file is opened again.
        self._cursors, self._staged = cursors, {}
        self._whole = cursors if has_all else None

    def _close_file(self, is_committed: bool = False) -> None:
        if self._journal is not None:
            self._journal.close(is_committed)
            self._journal = None
        # The readers first: a thread that no longer finds a destination's cursor must not read the file instead, which
        # lacks what is only in the journal.
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.close()
        self._whole, self._cursors, self._lost_cursors = None, {}, {}  # loaded from the file when it is open again
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    def _close(self) -> None:
        is_committed = False
        if self._readers is not None:  # else it was never wholly open: what is in the journal may be nowhere else
            with contextlib.suppress(*ERRORS):
                if self._writer.in_transaction:
                    self._commit_file()
                if not self._uncommitted:
                    sqlite_meta.mark_closed(self._writer)
                    is_committed = True
        self._close_file(is_committed)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_files(self) -> None:
        """Check that the open files are still in place and that the WAL is not too long. Raises StoreError.

        If the check fails, the next transaction checks again: it must not write to a store that another relay has.
        """
        if self._broken:
            return
        now = self._inodes_now()
        if now[:1] != self._inodes[:1]:
            log.error("%s was removed or replaced. The relay opens what is there now; find what did that", self.path)
            self._broken = True
            return  # what is not committed yet goes to the file that is there now
        try:
            self._lock.renew()
        except StoreInUse:
            self._broken = True  # what is known of the file may be wrong by now
            raise
        self._until_check = CHECK_EVERY
        if self._writer.in_transaction:
            self._commit_file()
        if self._reloads and not self._uncommitted:
            with contextlib.suppress(*ERRORS):  # it only saves looking up each new destination in the file
                self._load_cursors()
        if now != self._inodes or not self._journal.is_in_place():
            log.error("%s-wal or -recent was removed, replaced or cut. Nothing is lost; find what did that", self.path)
            self._broken = True
        elif os.path.getsize(f"{self.path}-wal") > self.WAL_BYTES:
            # This waits for current readers only. New readers use the database file, so the wait is short.
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _inodes_now(self) -> tuple[int, ...]:
        """Which files are there: the database and its WAL; 0 for one that is not."""
        found = []
        for path in (self.path, f"{self.path}-wal"):
            try:
                found.append(os.stat(path).st_ino)
            except OSError:
                found.append(0)
        return tuple(found)
