"""The methods of a manager of rooms that the rest of the relay calls, whatever engine it belongs to.

RoomManager belongs to the relay's own engine, and wsgi.werkzeug has one for python-engineio's.
"""

from collections.abc import Callable, Iterable, Mapping, Sized
from heapq import nlargest
from itertools import islice
from typing import Any, Protocol

from pushrelay.counters import Family
from pushrelay.store.stripe import Unfinished

# The room of the clients that watch who is at a destination begins like this. Such clients need not hold it.
WATCH = "presence:"


def watch_room(destination: str) -> str:
    """Return the room of the clients that watch who is at a destination."""
    return WATCH + destination


class Timer(Protocol):
    """A call that is scheduled for later."""

    def cancel(self) -> None:
        """Do not call."""


class Rooms(Protocol):
    """The connected clients of namespace "/" and their rooms. Any thread may call these methods.

    A `sid` is the one that Socket.IO gives a client in the namespace. Methods that take one do nothing if the client
    has disconnected, unless documented otherwise.
    """

    # `on_change(room, is_empty)` is called when a client has entered or left a room of namespace "/", under the lock of
    # the manager. None: nobody wants to know it.
    on_change: Callable[[str, bool], None] | None
    # `on_leave(room, sid)` is called when a client has left a room of namespace "/", under the same lock.
    on_leave: Callable[[str, str], None] | None
    # Rooms whose names begin with WATCH, and the clients in them: they do not count as registrations. The code that
    # uses such rooms keeps these numbers up to date.
    watch_rooms: int
    watches: int

    @property
    def can_defer(self) -> bool:
        """Whether a handler may raise NotYet. If not, it waits in the client's own thread."""

    # Clients and their rooms.

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Return whether a client is connected to a namespace and is not being disconnected."""

    def get_rooms(self, sid: str, namespace: str) -> Iterable[str]:
        """Return the rooms that a client is in. They include the room that is named after its sid."""

    def enter_room(self, sid: str, namespace: str, room: str) -> None:
        """Put a client into a room. Raises ValueError or KeyError if it has disconnected."""

    def leave_room(self, sid: str, namespace: str, room: str) -> None:
        """Remove a client from a room."""

    def sids_in(self, rooms: list[str]) -> set[str]:
        """Return the sids of all clients that are in any of these rooms."""

    def presence(self, rooms: list[str]) -> dict[str, float]:
        """Return the number of clients in these rooms, and since when there are any: see Presence.of()."""

    # Delivery. `text` is the JSON array of an event's name and its one argument.

    def deliver_text(self, write: Callable[[], str], room: str, skip_sid: str | list[str] | None = None) -> int:
        """Emit an event, whose text is `write()`, to a room except `skip_sid`; return the number of clients."""

    def deliver_in_turns(
        self, write: Callable[[], str], room: str, skip_sid: str | list[str] | None = None
    ) -> int | Unfinished:
        """Do the same if the clients are few. Otherwise send nothing yet, and return what sends it in turns."""

    def send_text(self, text: str, sid: str) -> None:
        """Emit an event to one client."""

    def send_answer(self, text: str, sid: str, ack: int) -> None:
        """Send the acknowledgement with this number to one client. `text` is the JSON of its one argument."""

    def send_if_clear(self, text: str, sid: str) -> bool:
        """Emit an event to one client, unless too much waits for it. Then return False: see call_when_clear()."""

    def has_room(self, sid: str, size: int) -> bool:
        """Return whether send_if_clear() would send an event of this number of bytes."""

    def has_outbox(self, sid: str) -> bool:
        """Return whether events wait for a client in an outbox, which has a bound, until the client reads them."""

    def call_when_clear(self, sid: str, callback: Callable[[], None]) -> None:
        """Call back once, from another thread, when nothing waits for a client or it has disconnected."""

    # Limits.

    def charge(self, sid: str, events: float) -> None:
        """Count work that an event of this client caused as the work of this number of events."""

    def overdraft(self, sid: str) -> float:
        """Return the seconds until events of this client may cause such work again; 0 if they may now."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back after this number of seconds, from some thread."""

    def share_of(self, sid: str) -> str | None:
        """Return what the address of a client is counted as; None for this machine's own."""

    def let_stay(self, sid: str) -> None:
        """Do not close this client for registering nothing (setting register_timeout)."""

    # The end of clients.

    def disconnect_all(self, sids: Iterable[str]) -> None:
        """Disconnect clients with Socket.IO's packet DISCONNECT, after which they do not reconnect automatically."""

    def close_transport(self, sid: str) -> None:
        """Close a client's connection, so that the client reconnects automatically."""

    # Metrics.

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the rooms of destinations that have the most clients, at most `most`, and their numbers of clients."""

    def metrics(self) -> Iterable[Family]:
        """Return the metrics of the clients and of the rooms that they are in."""


def largest_of(rooms: Mapping[Any, Sized], most: int) -> list[tuple[str, int]]:
    """Return what Rooms.largest() does. The name of a destination's room has a colon; that of a client's has none.

    Most rooms have one client, so those with more are found first: this takes a millisecond for 20,000 rooms.
    """
    every = list(rooms.items())
    shared = [(len(clients), room) for room, clients in every if len(clients) > 1 and _is_of_destination(room)]
    found = [(room, size) for size, room in nlargest(most, shared)]
    single = (room for room, clients in every if len(clients) == 1 and _is_of_destination(room))
    return found + [(room, 1) for room in islice(single, most - len(found))]


def _is_of_destination(room: Any) -> bool:
    return isinstance(room, str) and ":" in room and not room.startswith(WATCH)


def room_metrics(registrations: int, destinations: int) -> list[Family]:
    """Return the metrics of the rooms of namespace "/"."""
    help_ = "Destinations that clients hold; a client that holds several counts for each."
    held = Family("relay_registrations", "gauge", help_, registrations)
    return [held, Family("relay_destinations", "gauge", "Destinations that at least one client holds.", destinations)]
