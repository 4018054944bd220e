"""A publication as it is written in Redis and in the messages between nodes, and as it arrives from there.

An entry of a history is "OFFSET GENERATION " and a body; a message has bodies alone. A body is
"CREATED EXPIRES OWN EVENT-LENGTH SKIP-LENGTH " followed by the event, the sid that does not get it, and the data as
JSON text. Lengths are in characters. The data stays the text that it came in.
"""

from typing import NamedTuple

from pushrelay.store.publication import Kept, Publication, position_of
from pushrelay.store.stripe import Pending


class Body(NamedTuple):
    """The fields of a body."""

    created: float  # seconds since 1970, like the next one
    expires: float
    own: bool  # see Kept
    event: str
    skip_sid: str | None
    text: str


class Entry(NamedTuple):
    """One publication in a history."""

    offset: int
    generation: int  # of the store when it was stored
    body: bytes


def write_body(item: Pending, created: float, expires: float, own: bool) -> str:
    """Return the body for an item that is about to be stored."""
    event, skip = item.event, item.skip_sid or ""
    return f"{created!r} {expires!r} {1 if own else 0} {len(event)} {len(skip)} {event}{skip}{item.text}"


def read_body(body: bytes) -> Body:
    """Return the fields of a body."""
    created, expires, own, event_length, skip_length, rest = body.decode().split(" ", 5)
    end = int(event_length)
    start = end + int(skip_length)
    return Body(float(created), float(expires), own == "1", rest[:end], rest[end:start] or None, rest[start:])


def read_entry(raw: bytes) -> Entry:
    """Return an entry of a history."""
    offset, generation, body = raw.split(b" ", 2)
    return Entry(int(offset), int(generation), body)


def kept_of(raw: bytes) -> Kept:
    """Return an entry of a history as a store returns it."""
    entry = read_entry(raw)
    created, expires, own, event, _, text = read_body(entry.body)
    return Kept(entry.offset, event, text, created, expires, own)


def kept_without_data(raw: bytes) -> Kept:
    """Return an entry of which only the numbers were read."""
    offset, _, created, expires, own = raw.split()
    return Kept(int(offset), "", "", float(created), float(expires), own == b"1")


class Arrived(Pending):
    """A publication that came from Redis and is handed out at this node. Another node's publisher waits for it."""

    __slots__ = ()

    def __init__(self, destination: str, offset: int, epoch: str, body: bytes):
        created, expires, _, event, skip_sid, text = read_body(body)
        self.destination = destination
        self.event = event
        self.skip_sid = skip_sid
        self.text = text
        self.ttl = self.use = self.first = self.stripe = None
        self.key = ""
        self.connections = 0
        self.offset = offset
        self.position = position_of(epoch, offset)
        self.publication = Publication(destination, self.position, event, text, created, expires)
