"""`sqlite:FILE`: publications in an SQLite database. An answered push survives the process."""

import os
import sqlite3
from collections.abc import Callable
from typing import Any

from pushrelay.counters import Family
from pushrelay.json_text import quote

from . import sqlite_file
from .group_commit import Job
from .journal import SIZE
from .publication import KeyRecord, Survey, Tip
from .sqlite_events import SQLiteEvents
from .sqlite_file import ERRORS
from .sqlite_opening import BRIEF_SECONDS, Files
from .sqlite_reading import Reader
from .sqlite_retention import Retention
from .sqlite_rows import data_sum
from .sqlite_writer import Writer
from .store import CLOSED, HistoryLimits, IsRepeat, Page, Place, Store, store_size
from .stripe import Pending

MIN_BYTES = 1 << 20  # a store that holds less than some messages of full size would hold none


class SQLiteStore(Store):
    """A store in one file. One connection writes, a few read, and no other relay may use the file.

    `durability`: with "process", accepted pushes survive the end of the process, however it ends; with "power", a power
    failure too.

    A transaction of the store is an SQLite transaction only if it must be. Otherwise it is a record in the journal, and
    its changes stay in SQLite's open transaction, which is committed once a second, or after 1,024 of the store's (see
    journal.py). If SQLite's transaction fails, it is repeated from memory; after a kill, from the journal. Readers take
    what is in it from memory, so they never wait. Other programs can lock the file for writing only between two SQLite
    commits.
    """

    def __init__(self, path: str, limits: HistoryLimits, clock: Callable[[], float], durability: str):
        if limits.history_bytes < MIN_BYTES:
            raise ValueError(f"history_bytes must be at least {MIN_BYTES}, not {limits.history_bytes}")
        try:
            path = os.path.realpath(path)  # one file has one lock, whatever links lead to it
        except FileNotFoundError:  # from os.getcwd(), which only a relative path calls
            raise ValueError(
                f"the folder in which the relay was started is gone, so {path} cannot be found: start it in a folder "
                f"that exists, or write the whole path in the setting broker"
            ) from None
        self._limits = limits
        self._usual = self._lifetime(None)
        self._always_commits = durability == "power"
        self._writer = Writer(limits, clock)
        self._files = Files(path, durability, self._writer, limits, clock, self._set_epoch)
        self._reader = Reader(self._files, self._writer, limits)
        self._retention = Retention(self._writer, limits)
        self.events = SQLiteEvents(self._writer, self._reader)
        self._appended: list[Pending] = []  # the items of this transaction
        self._entries: list[str] = []  # what this transaction adds to the journal, as JSON

    def _set_epoch(self, epoch: str) -> None:
        self.epoch = epoch

    def open(self) -> None:
        """Open the files. Raises StoreError."""
        self._files.open()

    def close(self) -> None:
        """Commit what was accepted, and close the files."""
        self._files.unavailable = CLOSED
        self._files.close()

    def metrics(self) -> list[Family]:
        """Return the size of the store, and how long its commits take."""
        files = self._files
        help_ = "Seconds that commits to the SQLite file took."
        commits = Family("relay_store_commit_seconds", "histogram", help_, files.commit_seconds)
        return [*store_size(files.used_bytes, self._limits.history_bytes), commits]

    # Reading.

    def survey(self, now: float, seconds: float) -> Survey | None:
        """Count what is kept; None if that takes longer than `seconds`, because the file is large."""
        return self._reader.survey(now, seconds)

    def tip(self, destination: str) -> Tip:
        """Return the state of a destination, by what is accepted."""
        return self._reader.tip(destination)

    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset."""
        return self._reader.read(destination, after, max_bytes, with_data)

    # The transaction.

    def transact(self, jobs: list[Job[Any]]) -> None:
        """Do the work of all jobs in one transaction."""
        self._begin()
        try:
            for job in jobs:
                job.result = job.work()
            self._commit()
        except ERRORS as error:
            self._rollback()
            raise self._files.failed(error) from error
        except BaseException:
            self._rollback()
            raise

    def _begin(self) -> None:
        writer, files = self._writer, self._files
        writer.staged = {}
        self._entries, self._appended = [], []
        writer.must_commit = self._always_commits
        files.until_check -= 1
        try:
            if files.until_check <= 0:
                files.check()
            if files.is_broken:
                files.reopen()
            if not writer.connection.in_transaction:
                files.begin()
        except ERRORS as error:
            self._rollback()
            if sqlite_file.code_of(error) == sqlite3.SQLITE_BUSY:
                files.set_lock_wait(BRIEF_SECONDS)
            raise files.failed(error) from error
        except BaseException:
            self._rollback()
            raise

    def _commit(self) -> None:
        writer, files = self._writer, self._files
        if writer.must_commit:
            files.commit()
        elif self._entries:
            payload = f"[{','.join(self._entries)}]".encode()
            if files.journal.has_room(len(payload)):
                files.journal.put(payload)  # first, because it may fail; nobody waits for what is not in a queue yet
                writer.recent.items += self._appended
                writer.uncommitted += 1
            else:
                files.commit()
        writer.cursors.update(writer.staged)

    def _rollback(self) -> None:
        try:
            self._writer.rollback()
        except ERRORS:
            self._files.is_broken = True

    # In a transaction.

    def append(self, items: list[Pending], now: float, place: Place, is_repeat: IsRepeat) -> None:
        """Store items in this order."""
        writer, entries = self._writer, self._entries
        staged, cursors = writer.staged, writer.cursors
        moment = float(now).hex()  # exact, and written faster than its decimals
        # The data and ttl that `total` belongs to: many items may share them.
        last: tuple[str, float | None] | None = None
        total = 0
        has_repeats = False
        for item in items:
            if item.use is not None and is_repeat(item, item.use, now):
                has_repeats = True
                continue
            seconds, own, lifetime = self._usual if item.ttl is None else self._lifetime(item.ttl)
            expires, name, text = now + seconds, item.destination, item.text
            cursor = staged.get(name) or cursors.get(name) or writer.cursor(name, writer.first_due(now, expires))
            offset = cursor.offset + 1
            place(item, offset, now, expires)
            if last is None or text is not last[0] or item.ttl != last[1]:
                last, total = (text, item.ttl), data_sum(text, now, expires, own)
            writer.put(name, cursor, offset, now, expires, own, item.event, text, total)
            key = ""
            if item.use is not None:
                writer.store_key(item.key, offset, now, item.use.fingerprint)
                key = f',{quote(item.key)},"{item.use.fingerprint}"'
            if len(text) > SIZE:  # the journal has no room for it, so nothing is prepared for it
                writer.must_commit = True
            elif not writer.must_commit:
                entries.append(
                    f'["stored",{quote(name)},{offset},"{moment}",{lifetime},{quote(item.event)},{quote(text)}{key}]'
                )
        self._appended += [item for item in items if item.offset] if has_repeats else items

    def _lifetime(self, ttl: float | None) -> tuple[float, int, str]:
        """Return what HistoryLimits.lifetime() returns, with 1 or 0 for `own`, and both as the journal has them."""
        seconds, own = self._limits.lifetime(ttl)
        return seconds, int(own), f"{seconds},{own:d}"

    def find_key(self, key: str, now: float) -> KeyRecord | None:
        """Return what is stored for an idempotency key."""
        return self._writer.find_key(key, now)

    def mark(self, name: str) -> str:
        """Return the text of a mark."""
        return self._writer.mark(name)

    def set_mark(self, name: str, text: str) -> None:
        """Set a mark. Its transaction is committed at once, because the journal has no marks."""
        self._writer.must_commit = True
        self._writer.set_mark(name, text)

    def set_connections(self, items: list[Pending]) -> None:
        """Store the `connections` of items with a key."""
        self._writer.set_connections([(item.connections, item.key) for item in items])
        self._entries += [f'["connections",{item.connections},{quote(item.key)}]' for item in items]

    def ack(self, destination: str, offset: int) -> None:
        """Move the acknowledged offset of a destination forward."""
        if self._writer.ack(destination, offset):
            self._entries.append(f'["ack",{quote(destination)},{offset}]')

    def retain(self, now: float) -> bool:
        """Drop a little of what the limits no longer allow; return whether there is more."""
        return self._retention.run(now)

    def flush(self) -> None:
        """Commit everything with this transaction, and look at the files with the next one."""
        self._writer.must_commit, self._files.until_check = True, 0

    def probe(self) -> None:
        """Write as much as a push does."""
        self._writer.must_commit = True
        # It stays, because SQLite does not write anything that is inserted and deleted in one transaction.
        self._writer.connection.execute("REPLACE INTO meta VALUES ('probe', zeroblob(32768))")
