"""Since when somebody is there, room by room, for the manager of our own engine and for the stock one."""

import time
from collections.abc import Iterable


class Presence:
    """When each room came to have somebody, in seconds since 1970, as long as it has.

    A manager tells it of rooms that are entered or left empty, one thread at a time; any thread may ask.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def entered(self, room: str) -> None:
        """Somebody entered a room, which may have been empty."""
        self._since.setdefault(room, time.time())

    def emptied(self, room: str) -> None:
        """Nobody is left in a room."""
        self._since.pop(room, None)

    def of(self, rooms: Iterable[str], connections: int) -> dict[str, float]:
        """What is told of a destination that so many sockets hold, who are in these rooms."""
        since = [self._since[room] for room in rooms if room in self._since] if connections else []
        return {"connections": connections, **({"since": min(since)} if since else {})}
