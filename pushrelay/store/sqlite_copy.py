"""A complete copy of an SQLite store in one file, made while a relay uses the store or while none does.

The copy holds everything that was accepted before it began: a snapshot of the database, through SQLite's online backup,
and the journal that belongs to that snapshot. It is marked as a copy, so the relay that opens it begins a new epoch:
the original may go on to hand out offsets that the copy will hand out again for other publications.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pushrelay.errors import StoreError

from . import journal, sqlite_file, sqlite_meta
from .sqlite_file import ERRORS, MIGRATIONS, Damaged, explain
from .sqlite_meta import Meta
from .sqlite_opening import BUSY_SECONDS
from .sqlite_rows import kept_of
from .sqlite_writer import Writer
from .store import HistoryLimits

PAGES = 4096  # that are copied between two looks at signals: 16 MiB
MATCH_SECONDS = 5.0  # for which a snapshot and the journal may fail to match before that counts as a loss
PAUSE = 0.002  # seconds until the next attempt: a relay under load commits every 20 ms or so
FOREVER = 1e9  # seconds
# The journal is replayed without trimming anything: the relay that opens the copy applies its own limits.
UNLIMITED = HistoryLimits(history_size=1 << 40, history_bytes=1 << 60)

_ALL = (
    "SELECT d.name, p.offset, p.event, p.data, p.created, p.expires, p.own, p.trimmed, p.sum, p.destination "
    "FROM publications p JOIN destinations d ON d.id = p.destination"
)
_FULL = "the disk is full: free some space, or choose another disk"
_REFUSED = "the disk refuses to write or read (a quota, a limit on file sizes, or a failing disk)"


class Copied(NamedTuple):
    """The contents of a copy."""

    size: int  # bytes of the file
    destinations: int
    publications: int
    damaged: int  # publications that were damaged in the original, and are not in the copy


def copy_store(path: str, target: str, clock: Callable[[], float] = time.time) -> Copied:
    """Copy the store at `path` to `target`, an empty file, and check the copy. Raises StoreError.

    The caller removes `target` after an error, and syncs it to the disk after success.
    """
    try:
        with _snapshot(path) as (source, payloads), contextlib.closing(_connect_to_copy(target)) as copy:
            source.backup(copy, pages=PAGES, progress=lambda *_: None)
    except ERRORS as error:
        raise _explain_copying(error, path, target) from error
    try:
        with contextlib.closing(_connect_to_copy(target)) as copy:
            return _complete(copy, target, payloads, clock)
    except ERRORS as error:
        raise _explain_copying(error, target, target) from error


def made_at(path: str) -> float:
    """Return when a copy was made, in seconds since 1970; 0 if the file is a store. Raises StoreError."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            _check_version(connection, path)
            return sqlite_meta.read(connection).copied_at
    except ERRORS as error:
        raise _explain_copying(error, path, path) from error


# The original.


@contextlib.contextmanager
def _snapshot(path: str) -> Iterator[tuple[sqlite3.Connection, list[bytes]]]:
    """A connection that reads one moment of the database, and the payloads of the journal that belong to it.

    A relay empties its journal after each commit, so a commit between the two reads makes them differ: the snapshot
    lacks what the journal no longer has. Then both are read again.
    """
    with contextlib.closing(_connect(path)) as connection:
        end = time.monotonic() + MATCH_SECONDS
        while True:
            connection.execute("BEGIN")
            _check_version(connection, path)
            meta = sqlite_meta.read(connection)
            payloads = _recent(path, meta)
            if payloads is not None:
                break
            connection.execute("COMMIT")
            if time.monotonic() > end:
                raise _incomplete(path, meta)
            time.sleep(PAUSE)
        yield connection, payloads


def _recent(path: str, meta: Meta) -> list[bytes] | None:
    """Return the payloads of the journal that belongs to a snapshot; None if it does not match the snapshot."""
    if meta.copied_at:
        return []  # a copy that no relay has opened yet
    current = f"{path}-recent"
    found = [journal.read(each) for each in (current, journal.new_of(current))]
    for left in found:
        # The journal of the previous commit is there while a relay has committed, and not emptied its journal yet.
        # Its records are in the snapshot already, and replaying them changes nothing.
        is_ours = left is not None and (left.token, left.epoch) == (meta.token, meta.epoch)
        if left is not None and is_ours and left.fault is None and 0 <= meta.generation - left.generation <= 1:
            return left.payloads
    return [] if found == [None, None] and not meta.is_open else None


def _incomplete(path: str, meta: Meta) -> StoreError:
    """Return the error for a store of which accepted pushes are missing."""
    current = f"{path}-recent"
    loss = sqlite_meta.find_loss(meta, journal.read(current), current) or f"{current} does not match the database"
    return StoreError(f"{path}: {loss}. Start the relay, which continues without them, and repeat this command")


def _connect(path: str) -> sqlite3.Connection:
    """Return a connection to a database that must exist. Raises StoreError, sqlite3.Error."""
    if os.path.isdir(path):
        raise StoreError(f"{path}: this is a folder: name the file")
    try:
        os.stat(path)
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such file") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: run this as the relay's user, or as root") from None
    address = f"file:{_quoted(os.path.abspath(path))}?mode=rw"  # SQLite creates no file, and reads a read-only one
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _check_version(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreError if a relay of this version cannot read the database."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: a newer relay wrote this (version {version}; this one knows {len(MIGRATIONS)}): use that relay"
        )
    has_meta = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'"
    if version < 1 or not connection.execute(has_meta).fetchone()[0]:
        raise StoreError(f"{path}: this is not a store of the relay: name another file")


# The copy.


def _connect_to_copy(target: str) -> sqlite3.Connection:
    """Return a connection that writes the copy. An interrupted copy is removed, so no journal protects it."""
    connection = sqlite3.connect(target, timeout=0, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=OFF")  # also turns off the WAL, which would be a second file
    return connection


def _complete(copy: sqlite3.Connection, target: str, payloads: list[bytes], clock: Callable[[], float]) -> Copied:
    """Add the journal to a snapshot, check everything, and mark it as a copy. Raises StoreError, ERRORS."""
    sqlite_file.migrate(copy, target)
    copy.execute("BEGIN IMMEDIATE")
    writer = Writer(UNLIMITED, clock)
    writer.connection, writer.is_open = copy, True
    writer.reset()
    writer.replay(payloads)
    writer.write_rows()
    sqlite_meta.mark_copied(copy, clock())
    damaged = _drop_damaged(copy)
    copy.execute("COMMIT")
    sqlite_file.check(copy, FOREVER)
    writer.load_cursors()  # as the relay does that opens the copy: otherwise it might refuse what is accepted here
    count = "SELECT (SELECT count(*) FROM destinations), (SELECT count(*) FROM publications)"
    destinations, publications = copy.execute(count).fetchone()
    return Copied(os.path.getsize(target), destinations, publications, damaged)


def _drop_damaged(copy: sqlite3.Connection) -> int:
    """Delete publications that are not what was stored, which the relay would not replay; return their number."""
    copy.text_factory = lambda text: text.decode(errors="surrogateescape")  # a damaged text fails its checksum
    damaged = []
    for name, *row, destination in copy.execute(_ALL):
        try:
            kept_of(name, tuple(row))
        except (Damaged, UnicodeError):
            damaged.append((destination, row[0]))
    copy.text_factory = str
    copy.executemany("DELETE FROM publications WHERE destination = ? AND offset = ?", damaged)
    return len(damaged)


def _explain_copying(error: Exception, path: str, target: str) -> StoreError:
    """Return what happened while `path` was copied to `target`, and what to do about it."""
    code = sqlite_file.code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"{target}: {_FULL}")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(f"{target}: {_REFUSED}: {error}")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreError(f"{path}: this user cannot open it ({error}): run this as the relay's user, or as root")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path}: this is not an SQLite database, or it is damaged: name another file")
    if code == sqlite3.SQLITE_BUSY:
        return explain(error, path)
    return StoreError(f"{path}: the file is damaged ({error}): use an earlier backup")
