"""A journal: accepted pushes that are not committed to the database yet, in a file next to it.

A commit of SQLite writes every page that it changed, which are several for each push, so one commit per push would be
the largest part of a push's cost (measured: 20,400 pushes a second without a journal, 25,200 with it). Pushes
are therefore written to this journal, and their changes stay in an open transaction that is committed about once a
second. Once written, data belongs to the kernel: it survives the end of this process, however that happens, but not a
power failure. Other programs can lock the database for writing only between two such commits. With durability "power"
each push is committed and synced, and the journal is only a header, by which the next opening recognizes the database.

The file is written, not mapped. If the file system is full, or somebody truncated the file, a write fails; with a
mapping, the process would die with SIGBUS. A write costs 0.6 µs more for each transaction, but it releases Python's
lock, so a slow disk holds up one thread and not all.

Layout: a header, records, and an end mark. The header has the store's epoch, a word for this opening (`token`), and the
number of the commit to which the records must be added (`generation`). A record is its length, the CRC-32 of its
payload, and the payload, padded to 8 bytes. The end mark and all checksums depend on the header, so records of an
earlier header are never read again. A journal without an end mark has lost something: put() never leaves one like that,
whenever the process is killed.
"""

import contextlib
import os
import struct
import zlib
from typing import NamedTuple

from pushrelay.errors import StoreError

SIZE = 256 * 1024  # bytes: some hundred pushes. A transaction that does not fit is committed at once

_PAGE = 4096  # the kernel copies a write page by page, and acts on SIGKILL only in between
_HEADER = struct.Struct("<8sQ24s16s")
_SUM = struct.Struct("<II")
_FIRST = _HEADER.size + _SUM.size  # offset of the first record
_RECORD = struct.Struct("<II")
_MAGIC = b"relayJ2\n"
_OLD_MAGIC = b"relayJ1\n"  # of older relays, which had neither tokens nor end marks
_OLD_HEADER = struct.Struct("<8sQ24s")
_END = 0xFFFFFFFF  # instead of a length: this is the end mark


class Contents(NamedTuple):
    """The contents of a journal."""

    epoch: str
    token: str
    generation: int
    payloads: list[bytes]  # in order, up to the first one that is damaged
    fault: str | None = None  # what is wrong with the journal, as half a sentence


class Journal:
    """One open journal. Only the thread in the store's transaction calls its methods."""

    def __init__(self, path: str, epoch: str, token: str, generation: int):
        """Create an empty journal and sync it to the disk. Raises StoreError.

        The file at `path` stays there until put_in_place().
        """
        self._path = path
        self.epoch = epoch
        self.token = token
        self.payloads: list[bytes] = []  # everything since begin(), so that a replay does not need the file
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new_of(path))
            self._fd = os.open(new_of(path), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.chmod(new_of(path), 0o600)  # whatever the umask is
                _fill(self._fd)
                self.begin(generation)
                os.fsync(self._fd)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise _explain(path, error) from None

    def put_in_place(self, keep_old: bool = False) -> None:
        """Replace the previous journal with this one. With `keep_old`, keep the old one as PATH.bad.

        Raises StoreError.
        """
        _put_in_place(self._path, keep_old)

    def begin(self, generation: int) -> None:
        """Empty the journal. All payloads are committed, as commit number `generation`. Raises StoreError."""
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
        """Return whether a payload of `length` bytes fits, with the end mark after it."""
        return self._end + _RECORD.size + length + (-length & 7) + _RECORD.size <= SIZE

    def put(self, payload: bytes) -> None:
        """Add a payload. Once this returns, it survives this process. Raises StoreError; then it was not added.

        The record takes the place of the end mark. If the process is killed between the writes, either the old
        mark or the whole record is there: what is within one page is written at once, and no header crosses a page.
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
            raise StoreError(f"{self._path}: the disk is full: free some space, and the relay continues by itself")
        self._end = end - _RECORD.size
        self.payloads.append(payload)

    def _take_back(self) -> None:
        """Put the end mark back after a record could not be written."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, self._tails[0], self._end)

    def contents(self) -> Contents:
        """Return its contents, from this process's memory."""
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
    """Return the path at which a journal is created that is about to replace the one at `path`."""
    return f"{path}.new"


def complete_swap(path: str, token: str) -> None:
    """Put PATH.new in place if its token is this one, the database's. Raises StoreError.

    The process that created it was killed, or its disk failed, between the commit and the replacement of the old
    journal. The next new journal would replace PATH.new, and then no journal on the disk would belong to the database.
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
    with contextlib.suppress(OSError):  # the folder cannot be read, or the file system cannot sync folders
        sync_folder(path)


def read(path: str) -> Contents | None:
    """Read the journal at `path`; None if the file does not exist. Raises StoreError if it cannot be read."""
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
    """Return the payloads, and whether the end mark follows them."""
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
    """Read what an older relay left when it was killed. Whether something is missing at its end cannot be known."""
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
    """Return the checksum from which the records' checksums continue."""
    return zlib.crc32(f"{epoch}:{token}:{generation}".encode())


def _explain(path: str, error: OSError) -> StoreError:
    public = "the store's journal cannot be written: free some space on its disk, or make it writable"
    message = f"{path}: {error.strerror}: free some space there, or make it writable for the relay's user"
    return StoreError(message, public)


def sync_folder(path: str) -> None:
    """Sync the names in the folder of the file at `path` to the disk. Raises OSError."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _fill(fd: int) -> None:
    """Reserve the file's room on the disk, so that a full disk is noticed at the start rather than later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, SIZE)
    else:  # macOS
        os.pwrite(fd, bytes(SIZE), 0)
