"""The part that all brokers share: newcomers, histories and positions. How publications are stored is their own."""

import abc
import time
from collections.abc import Callable
from typing import Any

from pushrelay.errors import Overtaken

from .archive import Archive
from .dispatcher import Dispatcher
from .listing import MAX_BYTES, Listing
from .members import SharedMembers
from .nodes import Rings
from .publication import (
    Delivered,
    Draft,
    History,
    Kept,
    Mark,
    Publication,
    Receipt,
    Recovery,
    Tip,
    offset_in,
    position_of,
)
from .replay import Replay
from .store import StoreReader
from .stripe import Pending

AGAIN_SECONDS = 0.01  # until a replay that is ahead of its node is continued


class BaseBroker(abc.ABC):
    """The base of brokers: see Broker for their methods. `reader` has what is stored."""

    members: SharedMembers | None = None  # of all nodes
    rings: Rings | None = None  # to all nodes

    def __init__(self, reader: StoreReader, archive: Archive, dispatcher: Dispatcher):
        self._reader = reader
        self._archive = archive
        self._dispatcher = dispatcher
        self._stripe_of = dispatcher.stripe_of

    @property
    def epoch(self) -> str:
        """The store's epoch."""
        return self._reader.epoch

    def publish(self, drafts: list[Draft]) -> list[Receipt]:
        """Store drafts in one transaction, hand each out, and return their receipts in the same order."""
        items = [Pending(*draft) for draft in drafts]
        self.publish_pending(items)
        return [item.receipt() for item in items]

    @abc.abstractmethod
    def publish_pending(self, items: list[Pending]) -> None:
        """Store items in one transaction, and hand each out."""

    def publish_marked(self, drafts: list[Draft], mark: Mark) -> list[Receipt]:
        """Publish drafts, and set a mark in the same transaction. Raises Overtaken, StoreError, ValueError."""
        items = [Pending(*draft) for draft in drafts]
        self.publish_pending_marked(items, mark)
        return [item.receipt() for item in items]

    @abc.abstractmethod
    def publish_pending_marked(self, items: list[Pending], mark: Mark) -> None:
        """Publish items, and set a mark in the same transaction. Raises Overtaken, StoreError."""

    # Clients.

    @property
    def is_away(self) -> bool:
        """Whether newcomers should wait for the store: never, if it is in this process."""
        return False

    def call_when_back(self, callback: Callable[[], None]) -> None:
        """Call back once when newcomers need not wait."""
        callback()

    @abc.abstractmethod
    def _hold(self, destination: str) -> None:
        """Prepare to hand out the publications of a destination to newcomers. Raises StoreError."""

    def replay(
        self,
        destination: str,
        since: str | None,
        send: Callable[[Publication], Any],
        join: Callable[[], Any],
        leave: Callable[[], Any] | None = None,
        sid: str | None = None,
    ) -> Replay:
        """Return a replay for a newcomer, not begun. Raises StoreError."""
        self._hold(destination)
        return Replay(self._archive, self._dispatcher, destination, since, send, join, leave, sid)

    def recover(
        self, destination: str, since: str | None, send: Callable[[Publication], Any], join: Callable[[], Any]
    ) -> Recovery:
        """Replay in this thread to a newcomer that takes everything at once; return its recovery."""
        replay = self.replay(destination, since, send, join)
        try:
            while not replay.go_on():
                time.sleep(AGAIN_SECONDS if replay.is_ahead else 0)
        finally:
            replay.close()
        return replay.recovery()

    def join(self, destination: str, join: Callable[[], Any]) -> Delivered:
        """Call `join()` for a newcomer that asks for nothing it missed; return what delivered() does at that moment."""
        self._hold(destination)
        stripe = self._stripe_of(destination)
        with stripe:
            delivered = self._dispatcher.delivered(stripe, destination)
            join()
        return delivered

    def delivered(self, destination: str) -> Delivered:
        """Return the offset up to which the sockets of a destination have been handed everything."""
        self._hold(destination)
        stripe = self._stripe_of(destination)
        with stripe:
            return self._dispatcher.delivered(stripe, destination)

    def let_finish(self, destination: str, seconds: float = -1) -> None:
        """Wait until deliveries in progress for a destination are done, or `seconds` have passed."""
        stripe = self._stripe_of(destination)
        if stripe.lock.acquire(timeout=seconds):
            try:
                stripe.finish()
            finally:
                stripe.lock.release()

    # History and positions.

    def history(self, destination: str, since: str | None = None, limit: int | None = None) -> History:
        """Return what is kept after `since` (a position, "acked", or None for all): the oldest `limit` publications."""
        listing = Listing(self._archive, destination, since, limit, None)
        publications = [each for page in listing.pages() for each in page]
        return History(publications, listing.position, listing.recovered)

    def listing(self, destination: str, since: str | None = None, limit: int | None = None) -> Listing:
        """Return the history of a destination, no larger than one response may be. It is read page by page."""
        return Listing(self._archive, destination, since, limit, MAX_BYTES)

    def position(self, destination: str) -> str:
        """Return the position of the last publication, or the one before the first."""
        return position_of(self.epoch, self._reader.tip(destination).offset)

    def acked(self, destination: str) -> str:
        """Return the position acknowledged last, or the one before the first publication."""
        return position_of(self.epoch, self._reader.tip(destination).acked)

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations, as the store has it now. Raises StoreError."""
        return self._reader.tips(destinations)

    def kept(self, destination: str, after: int) -> list[Kept]:
        """Return what is kept after an offset, expired or not, without data. Raises StoreError."""
        return self._reader.read(destination, after, None, False).kept

    def _offset_to_ack(self, position: str) -> int:
        """Return the offset in a position that a client acknowledges. Raises ValueError, with a sentence."""
        offset = offset_in(position, self.epoch)
        if offset is None:
            raise ValueError("this is not a position in this relay's store: acknowledge the id that came with the push")
        return offset


def require_pushed(offset: int, last: int) -> None:
    """Raise ValueError, with a sentence, if nothing has been pushed at an offset yet."""
    if offset > last:
        raise ValueError("nothing has been pushed at this position yet: acknowledge the id that came with the push")


def overtaken(mark: Mark) -> Overtaken:
    """Return the error for a mark that is not what its owner believes."""
    sentence = f"another relay, or an earlier attempt of this one, has moved the mark {mark.name}: nothing was stored"
    return Overtaken(sentence, sentence)
