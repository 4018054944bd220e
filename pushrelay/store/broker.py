"""The interface of a broker: every method that the rest of the relay calls, however the broker is built.

A broker numbers publications, stores them, hands them out in order, and replays what a client missed. `LocalBroker` is
a broker whose order is determined in this process, over any `Store`. A broker whose order is determined elsewhere, and
that hands out what several relays publish, implements this protocol itself.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

from pushrelay.errors import StoreError

from .events import Events
from .listing import Listing
from .members import SharedMembers
from .nodes import Clients, Rings
from .publication import Delivered, Draft, Kept, Mark, Publication, Receipt, Tip
from .replay import Replay
from .stripe import Pending

Stored = Callable[[StoreError | None], None]


class Broker(Protocol):
    """The publications of all destinations. Any thread may call any method. Most raise StoreError."""

    # Whether several relays publish through it: then the rooms report to changed().
    is_shared: bool

    @property
    def members(self) -> SharedMembers | None:
        """The members of all nodes; None if the store is not shared, or the broker does not know them."""

    @property
    def rings(self) -> Rings | None:
        """The way to ring at all nodes; None if the store is not shared."""

    @property
    def events(self) -> Events | None:
        """The queue of events for the site's backend; None if the broker has none."""

    @property
    def trouble(self) -> str | None:
        """Why the last transaction stored nothing, until one does."""

    @property
    def epoch(self) -> str:
        """The part of every position before the colon. It changes when offsets may be given out again."""

    def start(self) -> None:
        """Open the store. Raises StoreError with what is wrong and what to do; after that, it may be called again."""

    # Publishing.

    def publish(self, drafts: list[Draft]) -> list[Receipt]:
        """Store drafts in one transaction, hand each out, and return their receipts in the same order.

        Raises StoreError, and ValueError for data that is not JSON. Then nothing was stored or handed out, and no
        offset was used. If a draft's key was used in the last five minutes, its receipt is the first one's; the receipt
        is `reused` instead if that draft had another event, other data, another ttl or another skip_sid.
        """

    def publish_pending(self, items: list[Pending]) -> None:
        """Do the same for items, which then have their receipts."""

    def store_soon(self, items: list[Pending], stored: Stored) -> None:
        """Store items in one transaction, and call `stored(error)` once, maybe before this returns.

        `error` is None if they are stored; otherwise none of them is. It is called by any thread. If there is no error,
        the caller calls hand_out() with the same items next, and sweep_after() after answering their publishers.
        """

    def hand_out(self, items: list[Pending], most: float = math.inf) -> list[Pending]:
        """Return once stored items have been handed out, by this thread or another. They then have receipts.

        With `most`, stop after about this number of sockets, twice as many at most, and return the items that are left.
        Call it again with them.
        """

    def sweep_after(self, count: int) -> None:
        """Drop as much as `count` publications may have made superfluous. So no flood of pushes can outrun it."""

    # Marks. A part that takes publications from elsewhere, such as from a table, notes in a mark what is stored and not
    # yet removed there. The mark changes with the publications, so each of them is stored once, whatever fails when.

    def mark(self, name: str) -> str:
        """Return the text of a mark; "" if it was never set. Raises StoreError."""

    def publish_marked(self, drafts: list[Draft], mark: Mark) -> list[Receipt]:
        """Publish drafts, of which there may be none, and set a mark to `mark.after` in the same transaction.

        Raises Overtaken if the mark is not `mark.before`; then nothing was stored. Raises what publish() raises too;
        after any StoreError, the mark shows whether the drafts were stored. A mark survives what a push survives.
        """

    def publish_pending_marked(self, items: list[Pending], mark: Mark) -> None:
        """Do the same for items, which then have their receipts."""

    # Clients.

    @property
    def is_away(self) -> bool:
        """Whether the store cannot be reached now and may be back soon, so that a newcomer should wait."""

    def call_when_back(self, callback: Callable[[], None]) -> None:
        """Call back once when is_away is false, maybe before this returns."""

    def replay(
        self,
        destination: str,
        since: str | None,
        send: Callable[[Publication], Any],
        join: Callable[[], Any],
        leave: Callable[[], Any] | None = None,
        sid: str | None = None,
    ) -> Replay:
        """Return a replay for a newcomer, not begun. Replay documents the arguments."""

    def join(self, destination: str, join: Callable[[], Any]) -> Delivered:
        """Call `join()` for a newcomer that asks for nothing it missed; return what delivered() does at that moment.

        `join()` must not block. Raises StoreError, and what `join()` raises.
        """

    def delivered(self, destination: str) -> Delivered:
        """Return the offset up to which the sockets of a destination have been handed everything.

        It waits for deliveries in progress. Raises StoreError.
        """

    def let_finish(self, destination: str, seconds: float = -1) -> None:
        """Wait until deliveries in progress for a destination are done, at most `seconds`; -1: no limit.

        A socket that left the destination before this call gets nothing of it afterwards.
        """

    # History and acknowledgements.

    def listing(self, destination: str, since: str | None = None, limit: int | None = None) -> Listing:
        """Return the history of a destination, no larger than one response may be. It is read page by page."""

    def position(self, destination: str) -> str:
        """Return the position of the last publication, or the one before the first."""

    def ack(self, destination: str, position: str, sid: str = "") -> None:
        """Acknowledge everything up to a position. One that is earlier than acknowledged before changes nothing.

        `sid` is the socket that does so; a shared broker reports it to all nodes while a push waits: see expect().
        Raises StoreError, and ValueError with a sentence if the position is not one of this destination.
        """

    def acked(self, destination: str) -> str:
        """Return the position acknowledged last, or the one before the first publication."""

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations, as the store has it now. Raises StoreError."""

    def kept(self, destination: str, after: int) -> list[Kept]:
        """Return what is kept after an offset, expired or not, without data. Raises StoreError."""

    # Several relays. A broker of one relay alone has little to do here.

    def attach(self, clients: Clients) -> None:
        """Have the clients of this node take part. Called once, before start()."""

    def changed(self, destination: str, is_empty: bool) -> None:
        """Note that a client registered a destination, or that the last one left it. Any lock may be held."""

    def expect(self, destination: str, offset: int, seconds: float) -> None:
        """Have acknowledgements of this offset reported to Clients.acknowledged() by all nodes, for some seconds."""

    def elsewhere(self, destinations: list[str]) -> dict[str, tuple[int, float]]:
        """Return the connections at other nodes of each destination that has some, and since when. Raises StoreError.

        The time is in seconds since 1970.
        """

    def close_connections(self, destinations: list[str]) -> dict[str, Any]:
        """Disconnect the sockets of destinations at all nodes. Raises StoreError.

        Return their number as `closed`, and as `unreached` the names of nodes that did not answer, if there are any.
        """

    # Maintenance.

    def sweep(self) -> bool:
        """Drop a little of what the limits no longer allow; return whether there is more.

        Raises StoreError if the store cannot be written. Reading does not notice a full disk, so after a failure the
        store writes something to find out whether the trouble is over.
        """

    def flush(self) -> None:
        """Move everything that was accepted to its permanent place in the store. Raises StoreError."""

    def close(self) -> None:
        """Wait for the current transaction, and close the store. Later calls raise StoreError."""
