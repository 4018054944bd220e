"""An SQLite file of the relay's own: locked against a second relay, opened, migrated; its errors in sentences."""

import contextlib
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterator

from .publication import StoreError, StoreInUse

READERS = 4  # connections that read at once; more threads wait for microseconds, and each costs its page cache

# Page size, cache and mmap are SQLite's own: others were measured and are no faster (docs/design.md).
# secure_delete: Debian's build overwrites with zeros what it deletes, which doubles what a trim has to write.
PRAGMAS = ("journal_mode=WAL", "secure_delete=OFF", "temp_store=MEMORY")

# Each step brings the file from one user_version to the next; what is released is never changed, only added to.
MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(5)))), ('floor', 0);
    CREATE TABLE destinations (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        offset INTEGER NOT NULL,   -- of its last publication, unless that is kept: then its row tells
        trimmed INTEGER NOT NULL,  -- the highest offset lost to a bound, the same
        acked INTEGER NOT NULL,
        due REAL NOT NULL,         -- when sweeping has to look at it, at the latest
        quiet INTEGER              -- `offset` when sweeping found it without history
    );
    CREATE INDEX destinations_due ON destinations (due);
    CREATE TABLE publications (
        destination INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        own INTEGER NOT NULL,      -- 1: expires as its publisher wished
        trimmed INTEGER NOT NULL,  -- the destination's when this was stored: spares writing a second page
        event TEXT NOT NULL,
        data TEXT NOT NULL,        -- JSON
        PRIMARY KEY (destination, offset)
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,    -- in the order of time
        key TEXT NOT NULL UNIQUE,
        offset INTEGER NOT NULL,
        connections INTEGER NOT NULL,
        created REAL NOT NULL
    );
    """,
)

_HELP = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, and the relay goes on by itself",
    sqlite3.SQLITE_BUSY: "another program holds a lock on the store: end that one (a backup, a database browser)",
    sqlite3.SQLITE_LOCKED: "another program holds a lock on the store: end that one (a backup, a database browser)",
    sqlite3.SQLITE_READONLY: "the store cannot be written: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_PERM: "the store cannot be opened: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_CORRUPT: "the store is damaged: move it away with its -wal, -shm, -recent; the relay makes another",
    sqlite3.SQLITE_NOTADB: "the store is no SQLite database: move it away, or name another file in the setting broker",
    sqlite3.SQLITE_IOERR: "the disk refuses to write or read the store (full, over quota, or failing): see to the disk",
}
# After these the connection may not be fit for use any more, so the file is opened anew before the next transaction.
BREAKING = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
}


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for what Python's module raised by itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def explain(error: sqlite3.Error, path: str) -> StoreError:
    """What happened to the file at `path` and what to do about it."""
    help_ = _HELP.get(code_of(error))
    if help_ is None:
        return StoreError(f"{path}: {error}")
    return StoreError(f"{path}: {help_} ({error})", help_)


def check_folder(path: str) -> None:
    """Raise StoreError where no database can be at this path."""
    folder = pathlib.Path(path).parent
    if not folder.is_dir():
        raise StoreError(f"{path}: there is no folder {folder}: make it, or name another file in the setting broker")
    if pathlib.Path(path).is_dir():
        raise StoreError(f"{path}: this is a folder: name a file in it in the setting broker")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"{path}: the folder {folder} cannot be written, and SQLite needs files beside the database: "
            "make it writable for the relay's user"
        )


def lock(path: str, seconds: float) -> sqlite3.Connection:
    """Keep other relays off the file until the connection returned is closed or this process ends, however it ends.

    The lock is SQLite's, on an empty database beside the file: it works wherever SQLite does, and no child of this
    process inherits it. `seconds`: how long to wait for a relay that is just ending.
    """
    connection = sqlite3.connect(f"{path}-lock", timeout=seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if code_of(error) == sqlite3.SQLITE_BUSY:
            raise StoreInUse(
                f"{path}: another relay works with this file: stop that one, or give each its own in the setting broker"
            ) from None
        raise explain(error, f"{path}-lock") from error
    return connection


def create(path: str) -> None:
    """Make the file if there is none, for its owner's eyes only: it holds what was said to people."""
    if os.path.exists(path):
        return  # and must not be opened here: closing it would drop the locks that connections hold in this process
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: make it writable for the relay's user") from None


def connect(path: str, seconds: float) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time; `seconds`: how long to wait for other programs' locks."""
    connection = sqlite3.connect(
        path, timeout=seconds, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        for pragma in PRAGMAS:
            got = connection.execute(f"PRAGMA {pragma}").fetchone()
            if pragma == "journal_mode=WAL" and got[0] != "wal":
                raise StoreError(f"{path}: its folder does not allow SQLite's WAL mode: put it on a local disk")
    except BaseException:
        connection.close()
        raise
    return connection


def wait_for_locks(connection: sqlite3.Connection, seconds: float) -> None:
    """How long to wait from now on for other programs' locks."""
    connection.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")


def mark_open(connection: sqlite3.Connection, durability: str, new_epoch: str) -> bool:
    """Note in the file that a relay works with it; take a new epoch where the last one may have ended with a loss.

    With durability "process" the machine going down takes the last publications with it, and their offsets are given
    out again: a position of before would then stand for another publication, and who came with it would miss that.
    Returns whether it was so.
    """
    (was,) = connection.execute("SELECT coalesce(max(value), '') FROM meta WHERE name = 'open'").fetchone()
    boot = _boot()
    lost = was not in ("", boot)
    connection.execute("PRAGMA synchronous=FULL")  # the note is worth something once it is on the disk
    connection.execute("BEGIN IMMEDIATE")
    if lost:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (new_epoch,))
    connection.execute("REPLACE INTO meta VALUES ('open', ?)", (boot if durability == "process" else "",))
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'NORMAL'}")
    return lost


def mark_closed(connection: sqlite3.Connection) -> None:
    """Note that nothing is under way. Closing the connection then brings all to the disk."""
    connection.execute("UPDATE meta SET value = '' WHERE name = 'open'")


def _boot() -> str:
    """A word that is another one each time the machine starts; where the system has none, always the same."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the newest version, all steps or none. Raises StoreError for a version yet unknown."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{path}: a newer relay wrote this (version {version}; this one knows {len(MIGRATIONS)}): "
                "install that relay again, or name another file in the setting broker"
            )
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{path}: this is another program's database: name another file in the setting broker")
        for step in MIGRATIONS[version:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Readers:
    """Connections for reading; threads share them, READERS at a time."""

    def __init__(self, path: str, seconds: float):
        self._path = path
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(READERS)
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which all that is read belongs to one moment. Raises sqlite3.Error."""
        with self._slots:
            connection = self._idle.pop() if self._idle else connect(self._path, self._seconds)
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close what is idle at once, and what is in use when it has been read."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
