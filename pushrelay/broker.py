"""Publications: what a push becomes, numbered within its destination and handed to who registered it."""

import secrets
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

STRIPES = 64  # locks that the destinations share; far more than there are threads, so two seldom meet


class Publication(NamedTuple):
    """One push to one destination."""

    destination: str
    position: str  # epoch:offset, the `id` that clients and publishers see
    event: str
    data: Any


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
        with self._lock(destination):
            offset = self._offsets[destination] = self._offsets.get(destination, 0) + 1
            position = f"{self.epoch}:{offset}"
            return position, self._deliver(Publication(destination, position, event, data), skip_sid)

    def position(self, destination: str) -> str:
        """The position of the destination's last publication; offset 0 where there was none."""
        return f"{self.epoch}:{self._offsets.get(destination, 0)}"

    def _lock(self, destination: str) -> threading.Lock:
        return self._locks[zlib.crc32(destination.encode()) % STRIPES]
