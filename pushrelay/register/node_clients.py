"""The clients of this node, as a broker that several relays share sees them."""

import random
from collections.abc import Callable
from functools import partial

from pushrelay.lifecycle import spread_for
from pushrelay.push.waiters import Waiters
from pushrelay.rooms.rooms import Rooms

from .registrations import Registrations
from .subscription import destination_in, rooms_of


class NodeClients:
    """The Clients that a broker asks: see there. `spread`: setting drain_spread, in seconds; it may be changed."""

    def __init__(self, rooms: Rooms, registrations: Registrations, waiters: Waiters, spread: float):
        self._rooms = rooms
        self._registrations = registrations
        self._waiters = waiters
        self.spread = spread

    def report_changes(self, changed: Callable[[str, bool], None]) -> None:
        """Have `changed(destination, is_empty)` called when a client has registered or left a destination."""

        def on_change(room: str, is_empty: bool) -> None:
            destination = destination_in(room)
            if room in rooms_of(destination):  # otherwise it is a room of the app's own
                changed(destination, is_empty)

        self._rooms.on_change = on_change

    def holders(self, destination: str) -> tuple[int, float]:
        """Return the number of sockets that hold a destination, and since when one does, or 0."""
        presence = self._rooms.presence(rooms_of(destination))
        return int(presence["connections"]), presence.get("since", 0.0)

    def close(self, destinations: list[str]) -> int:
        """Disconnect all sockets that hold one of these destinations, and return their number."""
        return self._registrations.close(destinations)

    def send_back(self, destinations: list[str]) -> None:
        """Have the sockets that hold these destinations reconnect; until then nothing is delivered to them."""
        sids = self._registrations.expel(destinations)
        spread = spread_for(len(sids), self.spread)
        for sid in sids:
            delay = random.uniform(0, spread)  # noqa: S311 - so that they do not all come back at once
            self._rooms.call_later(delay, partial(self._rooms.close_transport, sid))

    def acknowledged(self, destination: str, offset: int, sid: str) -> None:
        """Note that a client of some node has everything up to an offset."""
        self._waiters.note(destination, offset, sid)

    def waiting(self) -> list[str]:
        """Return the destinations of pushes that wait for an acknowledgement."""
        return self._waiters.destinations()
