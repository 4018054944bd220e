"""Publications and what is said about them: drafts, receipts, positions, recoveries."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from pushrelay.json_text import decode, quote


class Draft(NamedTuple):
    """What a publisher asks for: one push to one destination."""

    destination: str
    data: Any  # any JSON value; a string stays the string it is
    event: str = "push"
    ttl: float | None = None  # seconds in history; None: as long as the broker keeps any; 0: not kept
    key: str | None = None  # idempotency key, this destination's own: a repeated one is answered, not pushed
    skip_sid: str | None = None  # the socket that shall not get it


class Publication(NamedTuple):
    """One push to one destination, as it was stored."""

    destination: str
    position: str  # epoch:offset, the `id` that clients and publishers see
    event: str
    text: str  # the data as JSON, which is never read again: it goes out as it is
    created: float  # seconds since 1970, as all times that outlive the process
    expires: float  # the same; `created` if it is not kept

    @property
    def data(self) -> Any:
        """The data itself."""
        return decode(self.text)

    def as_event(self) -> str:
        """Return the Socket.IO event that brings it to a browser: a JSON array of its name and one object."""
        message = f'{{"data":{self.text},"id":"{self.position}","destination":{quote(self.destination)}}}'
        return f"[{quote(self.event)},{message}]"


class Receipt(NamedTuple):
    """What a publisher is told about one draft."""

    position: str
    connections: int  # sockets of this node that it was handed to
    repeated: bool = False  # the key was used before: this is what the first push was told
    reused: bool = False  # the key was used before for another event or other data: nothing was published


class Delivered(NamedTuple):
    """Where the sockets of a destination stand."""

    epoch: str  # of both offsets
    offset: int  # they have been handed everything up to here
    newest: int  # the last publication that is stored, handed out or not

    @property
    def position(self) -> str:
        return position_of(self.epoch, self.offset)


class KeyRecord(NamedTuple):
    """What is stored for an idempotency key."""

    offset: int  # of the publication that used it first
    connections: int  # its receipt's
    fingerprint: str | None  # of that push; None if an older relay stored the key


class Recovery(NamedTuple):
    """How a newcomer stands: all up to `position` it has or cannot have, all after it comes live."""

    position: str
    recovered: bool  # nothing is missing since the position it came with; False where it came with none
    replayed: int


class History(NamedTuple):
    """What is kept of a destination."""

    publications: list[Publication]  # the oldest first
    position: str  # of the last publication there was, kept or not
    recovered: bool  # nothing is missing since the position that was asked for


class Kept(NamedTuple):
    """One publication as it lies in a store."""

    offset: int
    event: str
    text: str  # the data as JSON
    created: float
    expires: float
    own: bool  # it expires when its publisher wished, and is then no loss


def cut(kept: Iterable[Kept], most: int | None) -> tuple[list[Kept], bool]:
    """Return the first of these publications, as many as `most` bytes hold but one at least, and if there are more."""
    page: list[Kept] = []
    size = 0
    for each in kept:
        size += len(each.text)
        if most is not None and size > most and page:
            return page, True
        page.append(each)
    return page, False


class Tip(NamedTuple):
    """Where a destination stands."""

    offset: int  # of its last publication
    trimmed: int  # the highest offset that was lost to a bound: who needs it cannot recover
    acked: int  # acknowledged up to here
    is_damaged: bool = False  # a publication that was read is not what was stored, and is left out


def position_of(epoch: str, offset: int) -> str:
    return f"{epoch}:{offset}"


def offset_of(position: str) -> int:
    """The offset in a position of this store's own."""
    return int(position.rpartition(":")[2])


def offset_in(position: str, epoch: str) -> int | None:
    """The offset in a position of this epoch; None for another epoch's and for what is no position at all."""
    its_epoch, _, digits = position.rpartition(":")
    # int() itself would also read "+1", " 1" and "1_0".
    if its_epoch != epoch or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return int(digits)
