"""An SQLite file of the relay's: opening, migrating and checking it; its errors as sentences."""

import contextlib
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator

from pushrelay.errors import StoreError

READERS = 4  # connections for reading, each with its own page cache; further threads wait for microseconds

# Page size and mmap are SQLite's defaults: 1 and 8 KiB pages, and mmap were not faster when measured. Without
# auto_vacuum, free pages are used again.
# secure_delete is turned off: Debian's build overwrites deleted rows with zeros, which doubles what a trim must write.
PRAGMAS = ("journal_mode=WAL", "secure_delete=OFF", "temp_store=MEMORY")

# Each step brings the file from one user_version to the next; released steps are never changed; new ones are added.
# Files that were created before the first release have `publications` WITHOUT ROWID, and keep it: every statement works
# with either. With rowids, what is pushed in succession shares pages, whatever its destinations are.
MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(5)))), ('floor', 0);
    CREATE TABLE destinations (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        offset INTEGER NOT NULL,   -- of its last publication, unless that is kept: then its row has it
        trimmed INTEGER NOT NULL,  -- the highest offset lost to a limit, likewise
        acked INTEGER NOT NULL,
        due REAL NOT NULL,         -- when retention has to look at it, at the latest
        quiet INTEGER              -- `offset` when retention found it without history
    );
    CREATE INDEX destinations_due ON destinations (due);
    CREATE TABLE publications (
        destination INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        own INTEGER NOT NULL,      -- 1: its publisher asked for this expiry
        trimmed INTEGER NOT NULL,  -- the destination's when this was stored: spares writing a second page
        event TEXT NOT NULL,
        data TEXT NOT NULL,        -- JSON
        PRIMARY KEY (destination, offset)
    );
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,    -- in the order of time
        key TEXT NOT NULL UNIQUE,
        offset INTEGER NOT NULL,
        connections INTEGER NOT NULL,
        created REAL NOT NULL
    );
    """,
    """
    ALTER TABLE publications ADD COLUMN sum INTEGER;  -- checksum_of(); NULL in older rows
    """,
    """
    ALTER TABLE keys ADD COLUMN fingerprint TEXT;  -- of the push that used it; NULL in older rows
    """,
    """
    CREATE TABLE events (
        topic TEXT NOT NULL,
        number INTEGER NOT NULL,   -- consecutive in its topic
        at REAL NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        body TEXT NOT NULL,        -- JSON
        total INTEGER NOT NULL,    -- the bytes of all events of the topic up to this one
        PRIMARY KEY (topic, number)  -- not WITHOUT ROWID: a row of 1,000 bytes would take a page of its own
    );
    CREATE TABLE readers (
        topic TEXT NOT NULL,
        name TEXT NOT NULL,
        upto INTEGER NOT NULL,     -- number of the last event that it has
        gone REAL NOT NULL,        -- when it unsubscribed, or 0
        PRIMARY KEY (topic, name)
    ) WITHOUT ROWID;
    CREATE TABLE notes (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- see Broker.publish_marked()
    """,
    """
    -- Nothing in the file changes, but the journal has records ("stored") that older relays do not know.
    """,
)

_STRAY = "SELECT 1 FROM publications WHERE destination NOT IN (SELECT id FROM destinations) LIMIT 1"

_DAMAGED = "the store is damaged: move it away with its -wal, -shm and -recent files, and the relay creates a new one"
_HELP = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, and the relay continues by itself",
    sqlite3.SQLITE_BUSY: "another program holds a lock on the store: stop it (a backup, a database browser)",
    sqlite3.SQLITE_LOCKED: "another program holds a lock on the store: stop it (a backup, a database browser)",
    sqlite3.SQLITE_READONLY: "the store cannot be written: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_PERM: "the store cannot be opened: make the file and its folder writable for the relay's user",
    sqlite3.SQLITE_NOTADB: "this is not an SQLite database: move it away, or name another file in the setting broker",
    sqlite3.SQLITE_IOERR: "the disk refuses to write or read the store (full, over quota, or failing): check the disk",
    # The relay's statements cause these errors only if the file is not as the relay left it.
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_CONSTRAINT: _DAMAGED,
    sqlite3.SQLITE_FORMAT: _DAMAGED,
    sqlite3.SQLITE_MISMATCH: _DAMAGED,
    sqlite3.SQLITE_TOOBIG: _DAMAGED,
}
_DAMAGED_SCHEMA = ("no such", "no column", "duplicate column", "malformed")  # in the text of SQLITE_ERROR
_NOT_TEXT = "Could not decode"  # the beginning of Python's message if a text is not UTF-8; the damaged text follows
# After these the connection may be unusable, so the file is reopened before the next transaction.
BREAKING = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
}


class Damaged(Exception):
    """The file holds something that the relay never writes. The text is half a sentence about it."""


# Errors of reading or writing a file, damaged or not. UnicodeError: an SQLite message may quote the file.
ERRORS = (sqlite3.Error, UnicodeError, Damaged)


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code; 0 if Python's module raised the error by itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_not_text(error: Exception) -> bool:
    """Return whether a text of the file is not UTF-8."""
    return isinstance(error, UnicodeError) or str(error).startswith(_NOT_TEXT)


def explain(error: Exception, path: str) -> StoreError:
    """Return what happened to the file at `path`, and what to do about it."""
    if is_not_text(error):
        return StoreError(f"{path}: {_DAMAGED} (a text in it is not UTF-8)", _DAMAGED)
    help_ = _HELP.get(code_of(error))
    is_schema = code_of(error) == sqlite3.SQLITE_ERROR and any(each in str(error) for each in _DAMAGED_SCHEMA)
    if is_schema or isinstance(error, Damaged):
        help_ = _DAMAGED
    if help_ is None:
        return StoreError(f"{path}: {error}")
    return StoreError(f"{path}: {help_} ({error})", help_)


def check_folder(path: str) -> None:
    """Raise StoreError if no database can be at this path."""
    folder = pathlib.Path(path).parent
    longest = 255 - len("-recent")  # bytes of a name, as most file systems have it
    if len(os.fsencode(os.path.basename(path))) > longest:
        raise StoreError(
            f"the name of the store has more than {longest} bytes: choose a shorter one in the setting broker"
        )
    if not folder.is_dir():
        raise StoreError(f"{path}: there is no folder {folder}: create it, or name another file in the setting broker")
    if pathlib.Path(path).is_dir():
        raise StoreError(f"{path}: this is a folder: choose a file in it in the setting broker")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"{path}: the folder {folder} cannot be written, and SQLite needs files beside the database: "
            "make it writable for the relay's user, or start the relay in a folder of that user"
        )


def create(path: str) -> None:
    """Create the file if it does not exist, for its owner alone, whatever the umask is: it holds private messages.

    SQLite gives a database's -wal, -shm and -journal the mode that the database has.
    """
    if os.path.exists(path):
        return  # do not open it here: closing it would drop the locks that connections hold in this process
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: make it writable for the relay's user") from None


def connect(path: str, seconds: float) -> sqlite3.Connection:
    """Return a connection for any thread, one at a time, that waits `seconds` for other programs' locks."""
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
    """Set how many seconds to wait for other programs' locks from now on."""
    connection.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the newest version, all steps or none. Raises StoreError if its version is even newer."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < 0:
            raise Damaged(f"its version is {version}")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{path}: a newer relay wrote this (version {version}; this one knows {len(MIGRATIONS)}): "
                "install that relay again, or name another file in the setting broker"
            )
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{path}: this is another program's database: choose another file in the setting broker")
        for step in MIGRATIONS[version:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check(connection: sqlite3.Connection, seconds: float) -> None:
    """Look for damage, for about `seconds` at most. Raises Damaged.

    integrity_check also notices keys that are out of order, which would hide publications. It takes about 1.3 s of CPU
    for a million publications. A publication that belongs to no destination is damage too: its offset would be used
    again.
    """
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found == "ok" and connection.execute(_STRAY).fetchone() is not None:
            raise Damaged("a publication belongs to no destination")
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        return  # publications are checked as they are read
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise Damaged(" ".join(found.split()))


class Readers:
    """Connections for reading. Threads share them, READERS at a time."""

    def __init__(self, path: str, seconds: float):
        self._path = path
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(READERS)
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which everything that is read belongs to one moment. Raises sqlite3.Error."""
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
        """Close idle connections at once, and the others once they have been read."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
