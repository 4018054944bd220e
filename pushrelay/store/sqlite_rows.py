"""Checks of what is read from an SQLite file: SQLite has no checksums, so damage may look like data.

Each publication has a CRC-32 over its destination, offset, times, event and data, which costs 1 µs. Rows of
destinations have none, because they change in parts; for them there is SQLite's integrity_check at the start.
"""

import math
import sqlite3
import struct
import zlib
from typing import Any, NamedTuple

from pushrelay.json_text import decode

from .publication import Kept
from .sqlite_file import Damaged

LIMIT = 1 << 62  # no offset or id reaches this

FLOOR = "SELECT value FROM meta WHERE name = 'floor'"
# A destination with its newest publication: one statement takes a third less time than two.
_FIND = (
    "SELECT id, d.offset, d.trimmed, acked, due, p.destination, p.offset, p.trimmed FROM destinations d "
    "LEFT JOIN publications p ON p.destination = id WHERE name = ? ORDER BY p.offset DESC LIMIT 1"
)

_TIMES = struct.Struct("<ddq")


class Cursor(NamedTuple):
    """The state of a destination: its row, brought up to date by its newest publication."""

    id: int
    offset: int
    trimmed: int
    acked: int
    due: float  # when retention must check the destination


def whole(value: Any) -> int:
    """Return an offset, an id or a count. Raises Damaged if the value cannot be one."""
    if type(value) is not int or not 0 <= value < LIMIT:
        raise Damaged("a number in it was not written by the relay")
    return value


def only(row: tuple[Any, ...] | None) -> int:
    """Return the only number of a row. Raises Damaged if the row is missing."""
    return whole(row[0] if row else None)


def seconds(value: Any) -> float:
    """Return a time. Raises Damaged if the value cannot be one."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Damaged("a time in it was not written by the relay")
    finite: float = value
    return finite


def text(value: Any) -> str:
    """Return a text. Raises Damaged if the value is not one."""
    if type(value) is not str:
        raise Damaged("a text in it is not a text")
    return value


def cursor_of(row: tuple[Any, ...], newest: tuple[Any, ...] | None) -> Cursor:
    """Return the state of a destination, by its row and the offset and `trimmed` of its newest publication."""
    id_, offset, trimmed, acked, due = row
    if newest is not None:
        offset, trimmed = max(whole(offset), whole(newest[0])), max(whole(trimmed), whole(newest[1]))
    cursor = Cursor(whole(id_), whole(offset), whole(trimmed), whole(acked), seconds(due))
    if trimmed > offset or acked > offset:
        raise Damaged("a destination has lost or acknowledged publications that were never pushed")
    return cursor


def find_cursor(connection: sqlite3.Connection, name: str) -> Cursor | None:
    """Return the state of a destination in the file; None if it is not there. Raises ERRORS."""
    found = connection.execute(_FIND, (name,)).fetchone()
    if found is None:
        return None
    row, destination, newest = found[:5], found[5], found[6:]
    return cursor_of(row, None if destination is None else newest)


def data_sum(data: str, created: float, expires: float, own: int) -> int:
    """Return the part of a checksum that all destinations of a push share."""
    return zlib.crc32(data.encode(), zlib.crc32(_TIMES.pack(created, expires, own)))


def checksum_of(name: str, offset: int, trimmed: int, event: str, total: int) -> int:
    """Return the checksum of a publication; `total` is its data_sum()."""
    return zlib.crc32(f"{name}\0{offset}\0{trimmed}\0{event}".encode(), total)


def kept_of(name: str, row: tuple[Any, ...]) -> Kept:
    """Return the publication of a row. Raises Damaged if it is not what was stored."""
    offset, event, data, created, expires, own, trimmed, checksum = row
    try:
        # Values of other types than those that were stored fail here, or have another checksum.
        if checksum == checksum_of(name, offset, trimmed, event, data_sum(data, created, expires, own)):
            return Kept(offset, event, data, created, expires, own == 1)
        if checksum is None:  # an older relay stored it, without a checksum
            decode(text(data))
            return Kept(whole(offset), text(event), data, seconds(created), seconds(expires), own == 1)
    except (AttributeError, UnicodeError, ValueError, RecursionError, struct.error):
        pass
    raise Damaged("a publication in it is not what was stored")


def ends_of(row: tuple[Any, ...]) -> Kept:
    """Return the publication of a row that was read without its data. Raises Damaged."""
    offset, event, data, created, expires, own = row[:6]
    return Kept(whole(offset), event, data, seconds(created), seconds(expires), own == 1)
