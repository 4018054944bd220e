"""The lock that keeps a second relay off a database, by whatever path it comes.

There are two locks. One is SQLite's, on an empty database next to the file (PATH-lock). It works wherever SQLite does,
but another path to the same file (a hard link, a bind mount) has another lock file next to it, and anybody can remove
that file. So on Linux the database's own inode is locked as well. That lock belongs to an open file description and to
a byte far after those that SQLite locks, so the two do not interfere.

Closing any descriptor of a file drops all locks that SQLite holds on it in this process. Therefore the descriptor of
the inode's lock is opened before SQLite opens the file, closed after SQLite has closed it, and kept when the same file
is opened again.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import struct
import threading
import time

from pushrelay.errors import StoreInUse

from .sqlite_file import code_of, create, explain

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # a module has no optional type; hasattr() below looks what is there

log = logging.getLogger(__name__)

_BYTE = 1 << 62  # SQLite locks bytes at 1 << 30
_AGAIN = 0.02  # seconds between two attempts
_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # the file system or kernel has none

# The inodes that this process has locked, (device, inode): descriptor. Two of its brokers cannot share a file either.
_inodes: dict[tuple[int, int], int] = {}
_guard = threading.Lock()  # guards _inodes


class StoreLock:
    """Keeps other relays off a database until it is closed or this process ends for any reason."""

    def __init__(self, path: str, seconds: float):
        """Lock the path, waiting at most `seconds` for a relay that is just ending. Raises StoreInUse, StoreError."""
        self._path = path
        self._seconds = seconds
        self._inode: tuple[int, int] | None = None  # of the database, once it is locked
        self._connection = _lock_beside(path, seconds)
        self._beside = _identity(f"{path}-lock")

    def hold_file(self) -> None:
        """Lock the database's own inode, if that is not locked already. Raises StoreInUse.

        The file exists, and no connection of this process has it open.
        """
        inode = _identity(self._path)
        if inode == self._inode:
            return
        self._release_inode()
        until = time.monotonic() + self._seconds
        while not self._lock_inode(inode):
            if time.monotonic() > until:
                raise _in_use(self._path)
            time.sleep(_AGAIN)

    def renew(self) -> None:
        """Lock PATH-lock again if somebody removed or replaced it.

        Raises StoreError if that fails, and StoreInUse if another relay has locked the new file and no inode's lock
        keeps that relay off the database.
        """
        if _identity(f"{self._path}-lock") == self._beside:
            return
        try:
            connection = _lock_beside(self._path, 0.0)
        except StoreInUse:
            if self._inode is not None:
                return  # the other relay is about to find the inode locked, and then gives up
            raise
        self._connection.close()
        self._connection, self._beside = connection, _identity(f"{self._path}-lock")
        log.warning("%s-lock was removed or replaced, and is locked again", self._path)

    def close(self) -> None:
        """Release both locks. SQLite has closed the database."""
        self._release_inode()
        self._connection.close()

    def _lock_inode(self, inode: tuple[int, int] | None) -> bool:
        with _guard:
            if inode is None or not hasattr(fcntl, "F_OFD_SETLK"):
                return True  # this system has no such locks, so PATH-lock is the only one
            if inode in _inodes:
                return False  # do not open and close the file here: SQLite's locks would be dropped
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return True  # SQLite cannot open it either, and reports that
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
            except OSError as error:
                os.close(fd)
                return error.errno in _NO_LOCKS
            _inodes[inode] = fd
            self._inode = inode
            return True

    def _release_inode(self) -> None:
        with _guard:
            if self._inode is not None:
                os.close(_inodes.pop(self._inode))
                self._inode = None


def _lock_beside(path: str, seconds: float) -> sqlite3.Connection:
    """Lock the empty database next to the file. Only its owner can open it, because a reader could lock it too."""
    beside = f"{path}-lock"
    create(beside)
    with contextlib.suppress(OSError):  # of an earlier release, or another user's
        if os.stat(beside).st_mode & 0o077:
            os.chmod(beside, 0o600)
    try:
        connection = sqlite3.connect(beside, timeout=seconds, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explain(error, beside) from error
    try:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if code_of(error) == sqlite3.SQLITE_BUSY:
            raise _in_use(path) from None
        raise explain(error, beside) from error
    return connection


def _in_use(path: str) -> StoreInUse:
    return StoreInUse(
        f"{path}: another relay uses this file. Stop it, or give each relay its own file in the setting broker"
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _forget_in_child() -> None:
    """Give up the locks in a forked child, which would otherwise keep the store after its parent has ended."""
    for fd in _inodes.values():
        with contextlib.suppress(OSError):
            os.close(fd)
    _inodes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
