"""Publications: what a push becomes, numbered within its destination and handed to who registered it."""

import json
import secrets
import threading
from collections.abc import Callable
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple

# Made once: json.dumps makes a new encoder for every call that does not want its default separators.
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
STRIPES = 64  # locks that the destinations share; far more than there are threads, so two seldom meet


class Publication(NamedTuple):
    """One push to one destination."""

    destination: str
    position: str  # epoch:offset, the `id` that clients and publishers see
    event: str
    data: Any

    def as_event(self) -> str:
        """The Socket.IO event that brings it to a browser: a JSON array of its name and one object."""
        data = quote(self.data) if isinstance(self.data, str) else encode(self.data)
        message = f'{{"data":{data},"id":"{self.position}","destination":{quote(self.destination)}}}'
        return f"[{quote(self.event)},{message}]"


class MemoryBroker:
    """Numbers publications and delivers them. It keeps no history: what nobody was there for is gone.

    `deliver(publication, skip_sid)` hands one publication to the sockets of its destination and returns how
    many those were. It is called under the destination's lock, so offsets reach every client in their order.
    """

    def __init__(self, deliver: Callable[[Publication, str | None], int]):
        self.epoch = secrets.token_hex(4)  # another one after a restart, when the offsets begin anew
        self._deliver = deliver
        self._offsets: dict[str, int] = {}  # of each destination's last publication
        self._locks = [threading.Lock() for _ in range(STRIPES)]

    def publish(self, destination: str, event: str, data: Any, skip_sid: str | None = None) -> tuple[str, int]:
        """Number one publication and deliver it. Returns its position and the number of sockets it went to."""
        with self._locks[hash(destination) % STRIPES]:
            offset = self._offsets[destination] = self._offsets.get(destination, 0) + 1
            position = f"{self.epoch}:{offset}"
            return position, self._deliver(Publication(destination, position, event, data), skip_sid)

    def position(self, destination: str) -> str:
        """The position of the destination's last publication; offset 0 where there was none."""
        return f"{self.epoch}:{self._offsets.get(destination, 0)}"
