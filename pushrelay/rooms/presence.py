"""The time since which each room has had clients, for RoomManager and for wsgi.werkzeug's manager."""

import time
from collections.abc import Iterable


class Presence:
    """The times at which empty rooms got their first client.

    A manager reports rooms that are entered or become empty, under the lock that guards its rooms. Any thread may call
    `of`.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by room, in seconds since 1970; only rooms with clients

    def entered(self, room: str) -> None:
        """Note that a client has entered a room, which may have been empty."""
        self._since.setdefault(room, time.time())

    def emptied(self, room: str) -> None:
        """Note that the last client has left a room."""
        self._since.pop(room, None)

    def of(self, rooms: Iterable[str], connections: int) -> dict[str, float]:
        """Return the presence of a destination whose rooms have this number of clients.

        `since` is the time at which the first of these rooms got a client, in seconds since 1970. It is omitted if
        there is no client.
        """
        since = [self._since[room] for room in rooms if room in self._since] if connections else []
        return {"connections": connections, **({"since": min(since)} if since else {})}
