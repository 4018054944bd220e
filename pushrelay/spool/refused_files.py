"""The subfolder of the files that were refused, each beside a text with the reason.

People correct such a file and move it back. So it keeps its name if that is possible.
"""

import contextlib
import os
import secrets
import stat

REFUSED = "refused"
REASON = ".reason"
TEMPORARY = ".tmp"
MOST_REFUSED = 1000  # files that are kept
LONGEST_NAME = 200  # bytes; a file system allows 255, with REASON and TEMPORARY
KEPT_CHARACTERS = 50  # of a name that is replaced


class Stuck(Exception):
    """A file that cannot be moved, with the reason. Others are not held up."""


def refuse(folder: int, name: str, reason: str, rest: bytes | None = None) -> str:
    """Move a file of the open folder `folder` to its subfolder REFUSED. Return the file's name there.

    `rest` is what is put there in place of the file, which then stays where it is: the part of it that was refused.
    Raises Stuck, and FileNotFoundError if the file is gone.
    """
    try:
        fd = _open_refused(folder)
        try:
            _make_room(fd)
            is_file = rest is not None or stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            kept = _name_for(fd, name, is_file)
            _put(folder, name, fd, kept, reason, rest)
        finally:
            os.close(fd)
    except OSError as error:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        raise Stuck(error.strerror or str(error)) from None
    return kept


def count_refused(path: str) -> int:
    """Return the number of refused files of the folder with this path."""
    try:
        names = os.listdir(f"{path}/{REFUSED}")
    except OSError:  # nothing was refused, or this user may not know it
        return 0
    return sum(name.endswith(REASON) for name in names)


def _open_refused(folder: int) -> int:
    """Open the folder REFUSED, which those may use who may use the spool."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.mkdir(REFUSED, 0o700, dir_fd=folder)
    except FileExistsError:
        return os.open(REFUSED, flags, dir_fd=folder)
    fd = os.open(REFUSED, flags, dir_fd=folder)
    os.fchmod(fd, os.fstat(folder).st_mode & 0o2770)  # the umask made it another one
    return fd


def _make_room(folder: int) -> None:
    """Remove the oldest files that were refused, so that one more fits."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names[: max(0, len(names) - 2 * MOST_REFUSED + 2)]:  # each has a text with the reason
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


def _name_for(folder: int, name: str, is_file: bool) -> str:
    """Return the same name, or another one if that is too long for a reason, or if a folder is in the way."""
    if len(os.fsencode(name)) <= LONGEST_NAME:
        try:
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return name
        if is_file and not stat.S_ISDIR(there.st_mode):
            return name
    return f"{name[:KEPT_CHARACTERS]}-{secrets.token_hex(4)}.json"


def _write(folder: int, name: str, text: bytes) -> None:
    temporary = f".{name}{TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
        os.fchmod(file.fileno(), os.fstat(folder).st_mode & 0o660)
        file.write(text)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _put(folder: int, name: str, target: int, kept: str, reason: str, rest: bytes | None) -> None:
    """Put a file, or `rest`, and the reason into the folder of the refused ones: both, or nothing."""
    _write(target, f"{kept}{REASON}", f"{reason}\n".encode("utf-8", "replace"))
    try:
        if rest is None:
            os.rename(name, kept, src_dir_fd=folder, dst_dir_fd=target)
        else:
            _write(target, kept, rest)
    except OSError:  # for example a folder of another user, a file that chattr made immutable, or a full disk
        with contextlib.suppress(OSError):
            os.unlink(f"{kept}{REASON}", dir_fd=target)
        raise
