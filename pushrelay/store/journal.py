"""A journal: what was accepted and is not committed to the database yet, in a file beside it.

A commit of SQLite writes each page that it changed, and each destination has pages of its own, so one commit for each
push would be the largest part of what a push costs. Pushes are therefore written to this journal, and their changes
stay in an open transaction that is committed about once a second. What was written to the file belongs to the kernel
and survives this process however that ends. It does not survive the machine.

The file is written, not mapped: a file system that has no room then fails a write, where a mapping would end the
process with SIGBUS. The same holds for a file that somebody cut short.

Layout: a header, records, and an end mark. The header names the store's epoch, the opening (`token`) and the commit on
top of which the records are to be applied (`generation`). A record is its length, the CRC-32 of its payload, and the
payload, padded to 8 bytes. The end mark and all checksums depend on the header, so nothing older is read again. A
journal without an end mark has lost something: `put()` never leaves one so, whenever the process is killed.
"""

import contextlib
import os
import struct
import zlib
from typing import NamedTuple

from pushrelay.errors import StoreError

SIZE = 256 * 1024  # bytes: some hundred pushes. What does not fit is committed at once

_PAGE = 4096  # the kernel copies a write page by page, and looks for SIGKILL only in between
_HEADER = struct.Struct("<8sQ24s16s")
_SUM = struct.Struct("<II")
_FIRST = _HEADER.size + _SUM.size  # where the first record begins
_RECORD = struct.Struct("<II")
_MAGIC = b"relayJ2\n"
_OLD_MAGIC = b"relayJ1\n"  # of relays that had neither tokens nor end marks
_OLD_HEADER = struct.Struct("<8sQ24s")
_END = 0xFFFFFFFF  # in place of a length: nothing was put behind this


class Contents(NamedTuple):
    """What a journal holds."""

    epoch: str
    token: str
    generation: int
    payloads: list[bytes]  # in order; those before the first one that is damaged
    fault: str | None = None  # what is wrong with it, as half a sentence


class Journal:
    """One open journal. Only the thread that is in the store's transaction calls its methods."""

    def __init__(self, path: str, epoch: str, token: str, generation: int):
        """Make an empty journal and sync it to the disk. Raises StoreError.

        What is at `path` stays there until `put_in_place()`.
        """
        self._path = path
        self.epoch = epoch
        self.token = token
        self.payloads: list[bytes] = []  # all that was put since begin(), so that nobody needs the file to do it again
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new_of(path))
            self._fd = os.open(new_of(path), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.chmod(new_of(path), 0o600)  # whatever the umask
                _fill(self._fd)
                self.begin(generation)
                os.fsync(self._fd)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise _explain(path, error) from None

    def put_in_place(self, keep_old: bool = False) -> None:
        """Take the place of the journal before this one; `keep_old` keeps that as PATH.bad. Raises StoreError."""
        _put_in_place(self._path, keep_old)

    def begin(self, generation: int) -> None:
        """Be empty. Call this once all payloads are committed, as commit number `generation`. Raises StoreError."""
        self.generation, self.payloads = generation, []
        self._seed = _seed_of(self.epoch, self.token, generation)
        mark = _RECORD.pack(_END, self._seed)
        self._tails = tuple(bytes(-length & 7) + mark for length in range(8))
        self._end = _FIRST
        header = _HEADER.pack(_MAGIC, generation, self.epoch.encode(), self.token.encode())
        try:
            os.pwrite(self._fd, header + _SUM.pack(zlib.crc32(header), 0) + mark, 0)
        except OSError as error:
            raise _explain(self._path, error) from None

    def has_room(self, length: int) -> bool:
        """Return whether a payload of `length` bytes fits, with the end mark behind it."""
        return self._end + _RECORD.size + length + (-length & 7) + _RECORD.size <= SIZE

    def put(self, payload: bytes) -> None:
        """Keep a payload. It survives this process from when this returns. Raises StoreError; then it was not kept.

        The record takes the place of the end mark. A kill between the writes leaves either the old mark or the whole
        record: what lies within one page is written at once, and a header never crosses a page.
        """
        at, length = self._end, len(payload)
        data = _RECORD.pack(length, zlib.crc32(payload, self._seed)) + payload + self._tails[length & 7]
        end = at + len(data)
        try:
            if at // _PAGE == (end - 1) // _PAGE:
                is_whole = os.pwrite(self._fd, data, at) == len(data)
            else:
                is_whole = os.pwrite(self._fd, data[8:], at + 8) == len(data) - 8
                is_whole = is_whole and os.pwrite(self._fd, data[:8], at) == 8
        except OSError as error:
            self._take_back()
            raise _explain(self._path, error) from None
        if not is_whole:
            self._take_back()
            raise StoreError(f"{self._path}: the disk is full: free some space, and the relay goes on by itself")
        self._end = end - _RECORD.size
        self.payloads.append(payload)

    def _take_back(self) -> None:
        """Put the end mark where a record could not be written."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, self._tails[0], self._end)

    def contents(self) -> Contents:
        """What it holds, by this process's own memory."""
        return Contents(self.epoch, self.token, self.generation, self.payloads)

    def is_in_place(self) -> bool:
        """Return whether the file is still at its path, in its full length."""
        try:
            there, mine = os.stat(self._path), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino) and mine.st_size >= SIZE

    def close(self, is_committed: bool = False) -> None:
        """Close the file; with `is_committed`, all payloads are committed and only the header is kept."""
        if is_committed:
            with contextlib.suppress(StoreError, OSError):
                self.begin(self.generation)
                os.ftruncate(self._fd, _FIRST + _RECORD.size)
        os.close(self._fd)


def new_of(path: str) -> str:
    """Where the journal is made that is about to take the place of the one at `path`."""
    return f"{path}.new"


def complete_swap(path: str, token: str) -> None:
    """Put PATH.new in place if it has this token, that of the database. Raises StoreError.

    The process that made it was killed, or its disk failed, between the commit and the replacement of the old journal.
    The next new journal would take the place of PATH.new, and then no journal on the disk would belong to the database.
    """
    new = read(new_of(path))
    if new is not None and token and new.token == token:
        old = read(path)
        _put_in_place(path, keep_old=old is not None and old.epoch != new.epoch)  # another epoch: `old` was damaged


def _put_in_place(path: str, keep_old: bool) -> None:
    try:
        if keep_old:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, f"{path}.bad")
        os.replace(new_of(path), path)
    except OSError as error:
        raise _explain(path, error) from None
    with contextlib.suppress(OSError):  # a folder that cannot be read, or a file system that syncs none
        _sync_folder(path)


def read(path: str) -> Contents | None:
    """Read the journal at `path`; None if there is none. Raises StoreError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _explain(path, error) from None
    if data.startswith(_OLD_MAGIC):
        return _read_old(data)
    header = data[: _HEADER.size]
    if len(data) < _FIRST or _SUM.unpack_from(data, _HEADER.size) != (zlib.crc32(header), 0):
        return Contents("", "", 0, [], "its header cannot be read")
    _, generation, *words = _HEADER.unpack(header)
    epoch, token = (word.rstrip(b"\0").decode(errors="replace") for word in words)
    payloads, is_whole = _records(data, _seed_of(epoch, token, generation))
    return Contents(
        epoch, token, generation, payloads, None if is_whole else f"record {len(payloads) + 1} cannot be read"
    )


def _records(data: bytes, seed: int) -> tuple[list[bytes], bool]:
    """The payloads, and whether the end mark follows them."""
    payloads: list[bytes] = []
    at = _FIRST
    while at + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, at)
        if (length, checksum) == (_END, seed):
            return payloads, True
        begin = at + _RECORD.size
        payload = data[begin : begin + length]
        if len(payload) != length or zlib.crc32(payload, seed) != checksum:
            break
        payloads.append(payload)
        at = begin + length + (-length & 7)
    return payloads, False


def _read_old(data: bytes) -> Contents:
    """Read what an older relay left when it was killed. It cannot be known whether something is missing at its end."""
    if len(data) < _OLD_HEADER.size:
        return Contents("", "", 0, [], "its header cannot be read")
    _, generation, epoch = _OLD_HEADER.unpack_from(data)
    seed, at = zlib.crc32(generation.to_bytes(8, "little")), _OLD_HEADER.size
    payloads: list[bytes] = []
    while at + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, at)
        payload = data[at + _RECORD.size : at + _RECORD.size + length]
        if not length or len(payload) != length or zlib.crc32(payload, seed) != checksum:
            break
        payloads.append(payload)
        at += _RECORD.size + length
    return Contents(epoch.rstrip(b"\0").decode(errors="replace"), "", 0, payloads)


def _seed_of(epoch: str, token: str, generation: int) -> int:
    """The checksum with which those of records begin."""
    return zlib.crc32(f"{epoch}:{token}:{generation}".encode())


def _explain(path: str, error: OSError) -> StoreError:
    public = "the store's journal cannot be written: free some space on its disk, or make it writable"
    message = f"{path}: {error.strerror}: free some space there, or make it writable for the relay's user"
    return StoreError(message, public)


def _sync_folder(path: str) -> None:
    """Bring the name of a file to the disk."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _fill(fd: int) -> None:
    """Take the file's room on the disk, so that a full disk is noticed at the start and seldom later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, SIZE)
    else:  # macOS
        os.pwrite(fd, bytes(SIZE), 0)
