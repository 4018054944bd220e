"""A journal: what was accepted and is not committed to the database yet, in a file beside it.

A commit of SQLite writes each page that it changes, and a push changes a page that is its destination's own: one commit
for each push is the largest part of what a push costs. So pushes are put into this journal, and their changes are left
in an open transaction, of which one commit in a second is enough. The file is mapped into memory: what was put there is
the kernel's, and outlives this process however that ends. It does not outlive the machine.

The file is a header (magic, generation, epoch of the store) and records (length, CRC-32 of generation and payload,
payload). A new generation begins with each commit, so that nothing older is ever read again.
"""

import contextlib
import mmap
import os
import struct
import zlib

from .publication import StoreError

SIZE = 256 * 1024  # bytes: some hundred pushes. What does not fit is committed at once

_HEADER = struct.Struct("<8sQ24s")
_RECORD = struct.Struct("<II")
_MAGIC = b"relayJ1\n"


class Journal:
    """One open journal; the thread that is in the store's transaction calls its methods."""

    def __init__(self, path: str):
        """Open the file, or make it. Raises StoreError."""
        self._path = path
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                _fill(fd)
                self._map = mmap.mmap(fd, SIZE)
                self.inode = os.fstat(fd).st_ino
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}: see to the disk and who may write there") from None
        self._generation = 0
        self._seed = 0  # the checksum so far, of the generation
        self._end = _HEADER.size

    def read(self, epoch: str) -> list[bytes]:
        """What was put into it since the last commit; nothing where it belongs to another store."""
        magic, generation, its_epoch = _HEADER.unpack_from(self._map)
        self._generation = generation
        if magic != _MAGIC or its_epoch.rstrip(b"\0") != epoch.encode():
            return []
        self._set_seed()
        payloads, at = [], _HEADER.size
        while at + _RECORD.size <= SIZE:
            length, checksum = _RECORD.unpack_from(self._map, at)
            payload = self._map[at + _RECORD.size : at + _RECORD.size + length]
            if not length or len(payload) != length or zlib.crc32(payload, self._seed) != checksum:
                break
            payloads.append(payload)
            at += _RECORD.size + length
        self._end = at
        return payloads

    def begin(self, epoch: str) -> None:
        """Be empty, and this store's. To be called once all that it held is committed."""
        self._generation = (self._generation + 1) % 2**64
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, self._generation, epoch.encode())
        self._set_seed()
        self._end = _HEADER.size

    def has_room(self, length: int) -> bool:
        """Whether a payload of so many bytes can be put into it."""
        return self._end + _RECORD.size + length <= SIZE

    def put(self, payload: bytes) -> None:
        """Keep a payload. It is there, whatever happens to this process, when this returns."""
        begin = self._end + _RECORD.size
        self._end = begin + len(payload)
        self._map[begin : self._end] = payload
        _RECORD.pack_into(self._map, begin - _RECORD.size, len(payload), zlib.crc32(payload, self._seed))

    def close(self, remove: bool = False) -> None:
        """Close it, and with `remove` remove the file: there is nothing in it that is not committed."""
        self._map.close()
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _set_seed(self) -> None:
        self._seed = zlib.crc32(self._generation.to_bytes(8, "little"))


def _fill(fd: int) -> None:
    """Give the file its room on the disk: where that is full it is said now, and not by a signal later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, SIZE)
    else:  # macOS
        missing = SIZE - os.fstat(fd).st_size
        if missing > 0:
            os.pwrite(fd, bytes(missing), SIZE - missing)
