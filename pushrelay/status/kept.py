"""The file beside the store that has the last hour, so that the hour outlives the process, even one that is killed.

It is written in place and never synced to the disk. After a power failure it may be damaged, and is then not used.
Nothing depends on it. A relay on Redis or in memory has none.
"""

import contextlib
import os
import struct
from typing import NamedTuple

from .rings import GAP, LENGTH, SERIES, Rings

SUFFIX = "-hour"  # after the name of the store's file
# Magic, series in a row, rows, the next row, clients, whether the relay was stopped in order, when it was last alive.
_HEADER = struct.Struct("=8siiiiid")
_MAGIC = b"RELAYHR1"
_ROW = 4 * len(SERIES)
_SIZE = _HEADER.size + LENGTH * _ROW


class Before(NamedTuple):
    """The process that ran before this one."""

    alive: float  # when it last wrote that it was running, in seconds since 1970
    clients: int  # that were connected then, or before it began to stop
    was_stopped: bool  # in order; otherwise it was killed


class Kept:
    """The file. One thread at a time may call it. No method raises an error of the file: the relay works without it."""

    def __init__(self, path: str):
        self._path = path
        self._fd = -1

    def open(self, rings: Rings) -> Before | None:
        """Open the file and read the last hour into `rings`; return what is known about the process before.

        The store's lock is held, so no other relay uses the file.
        """
        with contextlib.suppress(OSError):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            return _read(os.pread(self._fd, _SIZE + 1, 0), rings)
        return None

    def write_all(self, rings: Rings) -> None:
        """Write all steps, and cut off what does not belong to them: another version's file may be longer."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, _SIZE)
        self._write(rings.cells.tobytes(), _HEADER.size)

    def write_step(self, rings: Rings) -> None:
        """Write the step that was added last."""
        row = (rings.next - 1) % LENGTH
        cells = rings.cells[row * len(SERIES) : (row + 1) * len(SERIES)]
        self._write(cells.tobytes(), _HEADER.size + row * _ROW)

    def write_alive(self, rings: Rings, before: Before) -> None:
        """Write what the next process will know about this one."""
        alive, clients, was_stopped = before
        self._write(_HEADER.pack(_MAGIC, len(SERIES), LENGTH, rings.next, clients, was_stopped, alive), 0)

    def close(self) -> None:
        """Close the file, which may be closed already."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, data: bytes, at: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # a full disk
                os.pwrite(self._fd, data, at)


def _read(data: bytes, rings: Rings) -> Before | None:
    """Read a file into `rings`, unless it is not what this version of the relay wrote. Return its header's facts."""
    if len(data) != _SIZE:
        return None
    magic, width, length, following, clients, was_stopped, alive = _HEADER.unpack_from(data)
    if (magic, width, length) != (_MAGIC, len(SERIES), LENGTH) or not 0 <= following < LENGTH or not alive > 0:
        return None
    cells = type(rings.cells)("i", data[_HEADER.size :])
    if min(cells) < GAP:  # damaged: no figure is negative
        return None
    rings.cells[:] = cells
    rings.next = following
    return Before(alive, max(0, clients), bool(was_stopped))
