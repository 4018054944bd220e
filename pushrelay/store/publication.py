"""Publications, and the small records that go with them: drafts, receipts, positions, recoveries."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from pushrelay.json_text import decode, quote

_POSITION = re.compile("[!-9;-~]{1,64}:[0-9]{1,18}")


class Draft(NamedTuple):
    """One push to one destination, as its publisher sends it."""

    destination: str
    data: Any  # any JSON value; a string stays the string it is
    event: str = "push"
    ttl: float | None = None  # seconds in the history; None: as long as the broker keeps any; 0: not kept
    key: str | None = None  # idempotency key, unique for its destination: a repeated one is answered, not pushed
    skip_sid: str | None = None  # the socket that does not get it


class Publication(NamedTuple):
    """One push to one destination, as it was stored."""

    destination: str
    position: str  # epoch:offset; the `id` that clients and publishers see
    event: str
    text: str  # the data as JSON, sent to clients as it is
    created: float  # seconds since 1970, as all times that survive the process
    expires: float  # the same; `created` if it is not kept

    @property
    def data(self) -> Any:
        """The data itself."""
        return decode(self.text)

    def as_event(self) -> str:
        """Return the Socket.IO event that a browser gets: a JSON array of the event's name and one object."""
        message = f'{{"data":{self.text},"id":"{self.position}","destination":{quote(self.destination)}}}'
        return f"[{quote(self.event)},{message}]"


class Survey(NamedTuple):
    """The publications of a store, all destinations together."""

    publications: int
    oldest: float | None  # when the oldest was created; None without any


class Receipt(NamedTuple):
    """A publisher's answer for one draft."""

    position: str
    connections: int  # number of this node's sockets that it was handed to
    repeated: bool = False  # the key was used before: this is the first push's receipt
    reused: bool = False  # the key was used before for another event or other data: nothing was published


class Mark(NamedTuple):
    """A change of a mark, in the transaction that stores publications: see Broker.publish_marked()."""

    name: str
    before: str  # "" if the mark was never set
    after: str


class Delivered(NamedTuple):
    """How far the publications of a destination have been handed to its sockets."""

    epoch: str  # of both offsets
    offset: int  # the sockets have been handed everything up to here
    newest: int  # the last stored publication, handed out or not

    @property
    def position(self) -> str:
        """The offset as a position."""
        return position_of(self.epoch, self.offset)


class KeyRecord(NamedTuple):
    """The use of an idempotency key, as it is stored."""

    offset: int  # of the publication that used it first
    connections: int  # its receipt's
    fingerprint: str | None  # of that push; None if an older relay stored the key


class Recovery(NamedTuple):
    """The state of a newcomer: it has, or cannot have, everything up to `position`; everything later arrives live."""

    position: str
    recovered: bool  # nothing is missing since the position it came with; False if it came with none
    replayed: int


class History(NamedTuple):
    """The publications that are kept for a destination."""

    publications: list[Publication]  # the oldest first
    position: str  # of the last publication there was, kept or not
    recovered: bool  # nothing is missing since the position in the request


class Kept(NamedTuple):
    """One publication in a store."""

    offset: int
    event: str
    text: str  # the data as JSON
    created: float
    expires: float
    # Its publisher asked for this expiry, so nobody loses anything when it is gone. False if a limit of the history
    # sets the expiry.
    own: bool


def cut(kept: Iterable[Kept], max_bytes: int | None) -> tuple[list[Kept], bool]:
    """Return the first publications, at most `max_bytes` bytes of data but at least one, and whether there are more."""
    page: list[Kept] = []
    size = 0
    for each in kept:
        size += len(each.text)
        if max_bytes is not None and size > max_bytes and page:
            return page, True
        page.append(each)
    return page, False


class Tip(NamedTuple):
    """The state of a destination, as readers see it."""

    offset: int  # of its last publication
    trimmed: int  # the highest offset lost to a limit: clients with an earlier position cannot recover
    acked: int  # everything up to here is acknowledged
    is_damaged: bool = False  # a publication is not what was stored, and was left out


def position_of(epoch: str, offset: int) -> str:
    """Return a position: what clients and publishers see as an `id`."""
    return f"{epoch}:{offset}"


def offset_of(position: str) -> int:
    """Return the offset in a position that this store made."""
    return int(position.rpartition(":")[2])


def may_be_position(text: str) -> bool:
    """Return whether a text may be a position of some store and epoch."""
    return _POSITION.fullmatch(text) is not None


def offset_in(position: str, epoch: str) -> int | None:
    """Return the offset in a position; None if it belongs to another epoch or is not a position at all."""
    its_epoch, _, digits = position.rpartition(":")
    # int() itself would also read "+1", " 1" and "1_0".
    if its_epoch != epoch or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return int(digits)
