"""The spool's folder: its lock, the files that wait in it, and the subfolder of those that were refused.

Programs write a file under a name that begins with a dot, and rename it when it is complete. The names sort in the
order in which the files were made. All access is relative to an open descriptor of the folder, so that a folder that is
put in its place is noticed, and not mixed up with it.
"""

import contextlib
import fcntl
import grp
import heapq
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pushrelay.errors import StoreInUse

from .refused_files import TEMPORARY, count_refused, refuse

LOCK = ".lock"  # PHP looks whether it is locked
TEMPORARY_SECONDS = 3600.0  # after which a file that is not complete belongs to a program that died
MOST_NAMES = 10_000  # files whose names are in memory at a time
SCANS = 5  # of a folder in which files appear that belong before others
LOCK_AGAIN = 0.01  # seconds between two attempts to lock: PHP holds it for microseconds when it looks

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json", re.ASCII)
_ID = re.compile(r"([0-9a-f]{16}) ([0-9]+)")


class FolderTrouble(Exception):
    """The folder cannot be used now: what is wrong, and what to do."""


class Unusable(Exception):
    """A file that is no push, or that the relay may not read. It is refused, and others are not held up."""


class Examined(NamedTuple):
    """The state of a folder, for the doctor."""

    waiting: int  # files
    refused: int  # files
    is_held: bool  # a relay takes files


class SpooledFile(NamedTuple):
    """A file that waited, with its time by the clock of the file system."""

    name: str
    body: bytes
    written: float  # seconds since 1970
    stamp: int = 0  # the same in nanoseconds: a later file of the same name has another one


class Folder:
    """A folder of files that wait. One thread at a time may call its methods; they need hold() first.

    Any method may raise OSError if the disk or the folder fails.
    """

    def __init__(self, path: str):
        self.path = path
        self.id = ""  # of the folder, which is another one if it was removed or copied
        self.waiting = 0  # files at the last look
        self._fd = self._lock = -1
        self._identity: tuple[int, int] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this relay may take the files."""
        return self._lock >= 0

    def hold(self, seconds: float) -> None:
        """Check the folder and lock it, waiting at most `seconds` for a relay that is just ending.

        Raises FolderTrouble, and StoreInUse if another relay takes files from it.
        """
        try:
            self._open()
            self._acquire(time.monotonic() + seconds)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others lock the folder."""
        for fd in (self._lock, self._fd):
            if fd >= 0:
                os.close(fd)
        self._lock = self._fd = -1

    def check(self) -> None:
        """Raise FolderTrouble if the folder or its lock was removed or replaced, or may not be used any more."""
        if _identity(self.path) != self._identity or _identity(f"{self.path}/{LOCK}") != _identity(self._lock):
            raise FolderTrouble(f"the folder {self.path} or its file {LOCK} was removed or replaced: wait a second")
        self._check_rights()

    def examine(self) -> Examined:
        """Look at the folder for the doctor, while a relay may hold it. Raises FolderTrouble."""
        try:
            self._open()
            waiting = sum(1 for _ in self._all())
            return Examined(waiting, count_refused(self.path), self._is_held_by_another())
        finally:
            self.release()

    # Files that wait.

    def names(self) -> list[str]:
        """Return the names of the files that wait, in order: at most MOST_NAMES, the first ones.

        A listing that is read while files are being added may have a later file and lack an earlier one. So it is read
        again until nothing is missing before the last name: then all files that were complete when one of these files
        was begun are among them.
        """
        names = self._scan()
        for _ in range(SCANS):
            if not names:
                break
            known = set(names)
            missed = [name for name in self._scan() if name < names[-1] and name not in known]
            if not missed:
                break
            names = sorted([*names, *missed])
        return names

    def read(self, name: str, most: int) -> SpooledFile:
        """Return a file of at most `most` bytes. Raises Unusable, and FileNotFoundError if it is gone."""
        if not _NAME.fullmatch(name):
            raise Unusable("its name must have letters (a-z, A-Z), digits and . _ - only, and at most 100 of them")
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=self._fd
            )
        except FileNotFoundError:
            raise
        except PermissionError:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            raise Unusable(self._not_readable(found)) from None
        except OSError as error:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                raise  # too many open files, or a broken disk
            raise Unusable(f"it is not a plain file ({error.strerror})") from None
        try:
            found = os.fstat(fd)
            self._check(found, most)
            return SpooledFile(name, _read(fd, most), found.st_mtime, found.st_mtime_ns)
        finally:
            os.close(fd)

    def written(self, name: str) -> float:
        """Return when a file was written, in seconds since 1970; the present time if it is gone."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return time.time()

    def is_written(self, name: str, stamp: int) -> bool:
        """Return whether a file is there that was written at this time, in nanoseconds since 1970."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime_ns == stamp
        except FileNotFoundError:
            return False

    def remove(self, names: Sequence[str]) -> list[str]:
        """Remove files, and return the names of those that are still there because removing them failed."""
        return [name for name in names if not self._is_removed(name)]

    def refuse(self, name: str, reason: str, rest: bytes | None = None) -> str:
        """Move a file to the refused ones, and return its name there: see refused_files.refuse()."""
        return refuse(self._fd, name, reason, rest)

    def clean(self) -> int:
        """Remove what programs left that died while they wrote, and return the number of files."""
        oldest = time.time() - TEMPORARY_SECONDS
        left = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(TEMPORARY):
                    with contextlib.suppress(FileNotFoundError):
                        if entry.stat(follow_symlinks=False).st_mtime < oldest:
                            left.append(entry.name)
        return len(left) - len(self.remove(left))

    # The folder itself.

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FolderTrouble(
                f"there is no folder {self.path}: create it for PHP's user and the relay's, as in docs/spool.md:  "
                f"install -d -m 2770 -o PHP_USER -g {_group()} {self.path}"
            ) from None
        except NotADirectoryError:
            raise FolderTrouble(f"{self.path} is not a folder: name one in the setting spool") from None
        except PermissionError:
            raise FolderTrouble(self._not_allowed()) from None
        self._identity = _identity(self._fd)
        self._check_rights()

    def _check_rights(self) -> None:
        mode = os.fstat(self._fd).st_mode
        if mode & stat.S_IWOTH:
            raise FolderTrouble(
                f"every user of this machine may write to {self.path}, and so could push: run:  chmod o-w {self.path}"
            )
        if os.fstatvfs(self._fd).f_flag & os.ST_RDONLY:
            raise FolderTrouble(
                f"{self.path} is read-only for the relay: add ReadWritePaths={self.path} to its service, if systemd "
                "runs it"
            )
        if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=self._fd, effective_ids=True):
            raise FolderTrouble(self._not_allowed())
        if mode & stat.S_ISVTX and os.geteuid() not in (0, os.fstat(self._fd).st_uid):
            raise FolderTrouble(
                f"the sticky bit of {self.path} keeps {_user()} from removing other users' files: run:  chmod -t "
                f"{self.path}"
            )

    def _not_allowed(self) -> str:
        return (
            f"{_user()}, as whom the relay runs, may not read and write {self.path}: run:  "
            f"chgrp {_group()} {self.path} && chmod 2770 {self.path}"
        )

    def _acquire(self, until: float) -> None:
        """Lock the file LOCK, and read the folder's id from it."""
        while True:
            fd = self._open_lock()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                if time.monotonic() > until:
                    raise StoreInUse(
                        f"another relay takes the files in {self.path}: stop it, or give each relay its own folder in "
                        "the setting spool"
                    ) from None
                time.sleep(LOCK_AGAIN)
                continue
            self._lock = fd
            if _identity(f"{self.path}/{LOCK}") == _identity(fd):
                break
            os.close(fd)  # somebody removed it in between
            self._lock = -1
        self.id = self._read_id()

    def _open_lock(self) -> int:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            try:
                # PHP's user must be able to read it. Only those who may enter the folder can do so.
                fd = os.open(LOCK, flags | os.O_RDWR | os.O_CREAT, 0o644, dir_fd=self._fd)
            except PermissionError:  # of another user, such as the dynamic one that systemd gave the relay before
                fd = os.open(LOCK, flags | os.O_RDONLY, dir_fd=self._fd)
        except OSError as error:
            raise FolderTrouble(
                f"{self.path}/{LOCK} cannot be opened by {_user()} ({error.strerror}): remove that file"
            ) from None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise FolderTrouble(f"{self.path}/{LOCK} is not a plain file: remove it")
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != 0o644:
            os.fchmod(fd, 0o644)  # the umask made it another one
        return fd

    def _read_id(self) -> str:
        """Return the folder's id, a new one if it has none, or if this file is a copy of another folder's."""
        inode = os.fstat(self._lock).st_ino
        found = _ID.fullmatch(os.pread(self._lock, 100, 0).decode("ascii", "replace").strip())
        if found and int(found[2]) == inode:
            return found[1]
        new = secrets.token_hex(8)
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{new} {inode}\n".encode(), 0)
        except OSError as error:
            raise FolderTrouble(
                f"{self.path}/{LOCK} cannot be written by {_user()} ({error.strerror}): remove that file"
            ) from None
        return new

    def _scan(self) -> list[str]:
        """Return the first MOST_NAMES names of files that wait, and count all of them."""
        return heapq.nsmallest(MOST_NAMES, self._all())

    def _all(self) -> Iterator[str]:
        count = 0
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    count += 1
                    yield entry.name
        self.waiting = count

    def _is_held_by_another(self) -> bool:
        try:
            fd = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    # Single files.

    def _check(self, found: os.stat_result, most: int) -> None:
        """Raise Unusable if a file is not one that the relay should read."""
        if not stat.S_ISREG(found.st_mode):
            raise Unusable("it is not a plain file")
        if found.st_nlink > 1:
            raise Unusable("it has a second name (a hard link), so it may be somebody else's file")
        folder = os.fstat(self._fd)
        shared = folder.st_mode & stat.S_IWGRP and found.st_gid == folder.st_gid
        if found.st_uid not in (0, os.geteuid(), folder.st_uid) and not shared:
            raise Unusable(
                f"it belongs to {_user(found.st_uid)}, who is neither the relay's user nor the owner of {self.path}, "
                f"and its group is not the folder's: run chmod g+s {self.path}"
            )
        if found.st_size > most:
            raise Unusable(f"it has {found.st_size} bytes, and at most {most} are allowed (setting max_body)")

    def _not_readable(self, found: os.stat_result) -> str:
        return (
            f"{_user()}, as whom the relay runs, may not read it: it belongs to {_user(found.st_uid)} and has the mode "
            f"{stat.S_IMODE(found.st_mode):o}. Run chmod 2770 {self.path} and chgrp {_group()} {self.path}, so that "
            "Relay.php lets the group read its files; then run chmod on this one, and move it back"
        )

    def _is_removed(self, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _read(fd: int, most: int) -> bytes:
    pieces, left = [], most + 1
    while left > 0 and (piece := os.read(fd, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise Unusable(f"it has more than {most} bytes (setting max_body)")
    return b"".join(pieces)


def _identity(file: int | str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _user(number: int | None = None) -> str:
    number = os.geteuid() if number is None else number
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())
