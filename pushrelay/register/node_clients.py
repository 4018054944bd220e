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
        self.is_draining: Callable[[], bool] = lambda: False  # whether the relay sends its clients away
        self._listeners: tuple[Callable[[str, bool], None], ...] = ()

    def report_changes(self, changed: Callable[[str, bool], None]) -> None:
        """Have `changed(destination, is_empty)` called when a client has registered or left a destination.

        It is called under the lock of the rooms, and several functions may be. One that is known is called once.
        """
        if changed not in self._listeners:
            self._listeners = (*self._listeners, changed)
        self._rooms.on_change = self._on_change

    def stop_reporting(self, changed: Callable[[str, bool], None]) -> None:
        """Do not call it any more."""
        self._listeners = tuple(each for each in self._listeners if each != changed)
        if not self._listeners:
            self._rooms.on_change = None

    def _on_change(self, room: str, is_empty: bool) -> None:
        if is_empty and self.is_draining():
            return  # its clients come back to the next process, or to another node
        destination = destination_in(room)
        if room in rooms_of(destination):  # otherwise it is a room of the app's own
            for changed in self._listeners:
                changed(destination, is_empty)

    def report_use(
        self, on_inbox: Callable[[str], None] | None, on_lost: Callable[[str, str, str], None] | None
    ) -> None:
        """Have these called, or with None nothing: see Registrations."""
        self._registrations.on_inbox, self._registrations.on_lost = on_inbox, on_lost

    def destinations(self) -> list[str]:
        """Return the destinations that sockets hold."""
        return [destination for destination, _ in self._registrations.largest(1 << 30)]

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
