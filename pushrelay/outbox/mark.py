"""The mark of the outbox: the rows that are stored and perhaps not deleted yet, and the rows that come next.

It changes in the transaction that stores the rows (see Broker.publish_marked()), so the relay that continues after a
failure knows exactly which rows it must delete without publishing them. A row is named by its id and a fingerprint of
its contents. A table that was emptied or created again counts its ids from 1 again, and a new row with an old id must
not be taken for the old one.
"""

import zlib
from typing import NamedTuple

from pushrelay.errors import StoreError
from pushrelay.json_text import decode, encode

from .ids import Range

NAME = "outbox"
VERSION = 1
MOST_RANGES = 500  # that are noted; beyond them, the order between transactions may change at a restart


class Noted(NamedTuple):
    """The contents of a mark."""

    stored: dict[int, int]  # the rows that are stored: their fingerprints by their ids
    left: list[Range]  # the ids of the rows that were visible when these were, and come next


def fingerprint(destination: str, created: str, data: str) -> int:
    """Return a number that distinguishes rows with the same id."""
    return zlib.crc32(f"{destination}\0{created}\0{data}".encode("utf-8", "surrogatepass"))


def write(noted: Noted) -> str:
    """Return the text of a mark."""
    return encode([VERSION, list(noted.stored.items()), noted.left])


def read(text: str) -> Noted:
    """Return the contents of a mark. Raises StoreError if no relay of this version wrote it."""
    if not text:
        return Noted({}, [])
    try:
        version, stored, left = decode(text)
        if version == VERSION:
            return Noted({int(id_): int(sum_) for id_, sum_ in stored}, [(int(low), int(high)) for low, high in left])
    except (ValueError, TypeError):
        pass
    raise StoreError("the store has a mark of the outbox that this relay cannot read: install the later relay again")
