"""Backups of an SQLite store: written while the relay runs, and restored while it does not.

A backup appears under its name only when it is complete, checked and on the disk.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pushrelay.errors import StoreError, StoreInUse

from . import sqlite_file
from .journal import sync_folder
from .sqlite_copy import Copied, copy_store, made_at
from .sqlite_lock import StoreLock

Clock = Callable[[], float]
T = TypeVar("T")

WAIT_SECONDS = 2.0  # for a relay that is just ending
# Files of a store, in the order in which they are moved away. The database is the last: without its WAL or its journal
# it would be seen to be incomplete, and a new epoch would begin.
_SUFFIXES = ("-wal", "-shm", "-recent.new", "-recent.bad", "-recent", "")


class Restored(NamedTuple):
    """The result of a restore."""

    copied: Copied  # what the store holds now
    made_at: float  # when the backup was made, in seconds since 1970
    kept: str | None  # where the previous database is now; None if there was none


def backup(path: str, target: str, overwrite: bool = False, clock: Clock = time.time) -> Copied:
    """Write a backup of the store at `path` to the file `target`, for its owner alone.

    A relay may use the store while this runs. With `overwrite`, an existing file is replaced. Raises StoreError with
    what to do, and then leaves no file behind.
    """
    path = os.path.realpath(path)
    _check_target(path, target, overwrite)

    def write(new: str) -> Copied:
        copied = copy_store(path, new, clock)
        _check_target(path, target, overwrite)  # again, because copying may take minutes
        _put_in_place(new, target)
        return copied

    return _with_new_file(target, write)


def restore(source: str, path: str, clock: Clock = time.time) -> Restored:
    """Put the backup `source` in the place of the store at `path`, and move the previous store away.

    The relay that opens the store begins a new epoch, so clients with an earlier position learn that something is
    lost. Raises StoreInUse if a relay uses the store, and StoreError with what to do. Before the backup was checked,
    nothing is changed.
    """
    path = os.path.realpath(path)
    sqlite_file.check_folder(path)
    when = made_at(source)
    if not when:
        raise StoreError(f"{source}: this is a store and not a backup: make a backup of it first (relay.py backup)")
    owner = _owner(path)

    def write(new: str) -> Restored:
        copied = copy_store(source, new, clock)
        if copied.damaged:
            raise StoreError(f"{source}: {copied.damaged} publications in it are damaged: use another backup")
        _give_to(owner, new, f"{path}-lock")
        kept = _move_away(path, clock())
        _put_in_place(new, path)
        return Restored(copied, when, kept)

    with contextlib.closing(_lock(path)):
        return _with_new_file(path, write)


def _lock(path: str) -> StoreLock:
    """Keep relays off the store. Raises StoreInUse, StoreError."""
    try:
        lock = StoreLock(path, WAIT_SECONDS)
        if os.path.exists(path):
            lock.hold_file()
    except StoreInUse:
        raise StoreInUse(f"{path}: a relay uses this store: stop it first, and start it again afterwards") from None
    return lock


def _check_target(path: str, target: str, overwrite: bool) -> None:
    """Raise StoreError if no backup may be written to this file."""
    if os.path.isdir(target):
        raise StoreError(f"{target}: this is a folder: name a file in it")
    if os.path.realpath(target) == path or _same_file(target, path):
        raise StoreError(f"{target}: this is the store itself: choose another name")
    if os.path.lexists(target) and not overwrite:
        raise StoreError(f"{target}: this file exists: choose another name, or add --overwrite")


def _same_file(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _with_new_file(target: str, write: Callable[[str], T]) -> T:
    """Call write() with the path of a new, empty file beside `target`, for its owner alone, and return its result.

    The file is removed if it is still there then. A signal may end this with an exception anywhere, so nothing comes
    between the file and its removal: no context manager, whose entering can be interrupted. Raises StoreError.
    """
    folder, name = os.path.split(os.path.abspath(target))
    new = os.path.join(folder, f"{name[:200]}.{secrets.token_hex(8)}.part")
    try:
        _create(new, target)
        return write(new)
    finally:
        try:
            _remove(new)
        finally:
            _remove(new)  # again: the signal may have ended the first


def _create(new: str, target: str) -> None:
    """Create an empty file for its owner alone. Raises StoreError, which names `target`."""
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileNotFoundError:
        folder = os.path.dirname(new)
        raise StoreError(f"{target}: there is no folder {folder}: create it, or choose another") from None
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}: choose a folder that this user can write to") from None


def _remove(new: str) -> None:
    for each in (new, f"{new}-wal", f"{new}-shm"):
        with contextlib.suppress(OSError):
            os.unlink(each)


def _put_in_place(new: str, target: str) -> None:
    """Sync a file to the disk, and give it its name. Raises StoreError."""
    try:
        fd = os.open(new, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, target)
        with contextlib.suppress(OSError):  # the file system cannot sync folders
            sync_folder(target)
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}: check the disk, and repeat the command") from None


def _move_away(path: str, now: float) -> str | None:
    """Move the files of a store to PATH.before-DATE; return that path, or None if there was no database."""
    kept = _free_name(f"{path}.before-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}")
    existed = os.path.exists(path)
    try:
        for suffix in _SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{kept}{suffix}")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: the files of the store cannot be renamed") from None
    return kept if existed else None


def _free_name(name: str) -> str:
    """Return this name, with a number if there is such a file."""
    number, found = 1, name
    while os.path.lexists(found):
        number += 1
        found = f"{name}-{number}"
    return found


def _owner(path: str) -> os.stat_result:
    """Return whose files the store's are: the database's owner, or that of its folder."""
    return os.stat(path if os.path.exists(path) else os.path.dirname(path))


def _give_to(owner: os.stat_result, *paths: str) -> None:
    """Give files to the relay's user, if root restores. Raises StoreError."""
    if os.geteuid() == 0:
        try:
            for each in paths:
                os.chown(each, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise StoreError(f"{paths[0]}: {error.strerror}: run this as the relay's user") from None
