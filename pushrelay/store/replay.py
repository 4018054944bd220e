"""Replaying: a newcomer is sent what it missed, as fast as it reads, and then joins, with no gap and no overlap.

A replay holds no thread. It goes on for as long as its newcomer takes what it is offered, returns, and is called
again once the newcomer has room. In between it keeps a live queue and an offset; what it has still to send is in the
store.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .dispatch import LiveQueue, Pending
from .publication import Kept, Publication, Recovery, offset_in, position_of

if TYPE_CHECKING:
    from .broker import Broker

# Data that is read at a time. The outbox of one client holds a megabyte, so a page is a small part of it, and a
# thousand replays that begin at once take 64 MiB at most.
PAGE_BYTES = 65536
TAIL = 8  # publications that may be sent to a newcomer while others wait
ROUNDS = 4  # tries to get the tail that short before the others have to wait for it


class Replay:
    """One newcomer on its way into a destination. One thread at a time calls it.

    `send(publication)` offers the next publication, in order, and must not block. It returns False if the newcomer
    cannot take it now; the publication is offered again by the next go_on(). `join()` is called once, at the moment
    from which on deliver() must reach the newcomer. A newcomer that is in already has a `leave()`, which is called
    before anything is sent, at a moment up to which it was handed everything; `sid` is its own.

    `since` is a position, "acked" for the one that was acknowledged last, or None to join only. What cannot be replayed
    wholly is not begun. If retention drops publications during the replay, or the store begins a new epoch, `recovered`
    becomes False.
    """

    __slots__ = (
        "_broker",
        "_horizon",
        "_join",
        "_leave",
        "_reached",
        "_send",
        "_since",
        "_stripe",
        "_live_queue",
        "destination",
        "epoch",
        "first",
        "has_joined",
        "has_left",
        "recovered",
        "replayed",
    )

    def __init__(
        self,
        broker: "Broker",
        destination: str,
        since: str | None,
        send: Callable[[Publication], Any],
        join: Callable[[], Any],
        leave: Callable[[], Any] | None = None,
        sid: str | None = None,
    ):
        self.destination = destination
        self.recovered = since is not None  # nothing is missing so far
        self.has_joined = False
        self.has_left = False  # the newcomer was in, and is out until the replay ends
        self.replayed = 0  # publications that were sent
        self.epoch = broker.epoch  # of all offsets here
        self.first = 0  # the newcomer has been handed, or is going to be, all that came after this offset
        self._broker = broker
        self._since = since
        self._send = send
        self._join = join
        self._leave = leave
        self._stripe = broker._stripe(destination)
        self._live_queue = LiveQueue(sid)
        self._reached = 0  # the newcomer has been handed all up to here, or cannot have it
        self._horizon = 0  # all that came later is in the live_queue

    def go_on(self) -> bool:
        """Send until the newcomer can take no more, or has joined; returns whether it has joined.

        Raises StoreError if the history cannot be read, and what send() and join() raise. The replay is over then.
        """
        waits = False
        try:
            began = self._since is None or self._begin()
            waits = not (began and self._catch_up())
        finally:
            if not waits:
                self.close()
        return not waits

    def close(self) -> None:
        """End the replay, joined or not, and leave nothing behind. Any number of times."""
        with self._stripe.lock:
            self._stripe.detach(self.destination, self._live_queue)

    def recovery(self) -> Recovery:
        """Return how the newcomer stands once it has joined."""
        return Recovery(position_of(self.epoch, self._reached), self.recovered, self.replayed)

    # The steps.

    def _begin(self) -> bool:
        """Find out whether all that came after `since` can be had, and send the first page of it.

        Returns False if the newcomer cannot take all of that page.
        """
        broker, destination = self._broker, self.destination
        with self._stripe.lock:
            self._stripe.attach(destination, self._live_queue)
            self._horizon = broker._reached(destination)
            self._stripe.drain(broker._deliver)
        since, self._since = self._since, None
        after = broker._after(destination, since)
        page, more = (None, False) if after is None else self._first_page(after)
        if page is None:
            self.recovered = False
            return True
        self.first = self._reached = after
        self._horizon = max(self._horizon, after)
        if self._leave is not None:
            with self._stripe.lock:
                self._leave()
            self.has_left = True
        return self._offer(page, more)

    def _first_page(self, after: int) -> tuple[list[Kept] | None, bool]:
        """Return the first page after an offset, and whether there is more; None if something of it is missing."""
        broker, destination = self._broker, self.destination
        kept, tip, more = broker._page(destination, after, PAGE_BYTES)
        everything = broker._page(destination, after, with_data=False)[0] if more else kept
        return (None if broker._live(everything, tip, after) is None else kept), more

    def _catch_up(self) -> bool:
        """Send what the store has, page by page, then the live queue, and join. False if the newcomer is full."""
        rounds = 0
        while self.recovered:
            if self._reached < self._horizon:
                if not self._next_page():
                    return False
            elif len(self._live_queue) > TAIL and rounds < ROUNDS:
                rounds += 1
                if not self._empty_tap():
                    return False
            elif (joined := self._join_behind_tap()) is not None:
                return joined
        return self._join_now()

    def _next_page(self) -> bool:
        """Send the next page. False if the newcomer cannot take all of it; the rest is read again then."""
        before = self._reached
        kept, tip, more = self._broker._page(self.destination, before, PAGE_BYTES)
        if tip.trimmed > before or self._broker.epoch != self.epoch:
            self.recovered = False
            return True
        return self._offer(kept, more)

    def _offer(self, kept: list[Kept], more: bool) -> bool:
        """Send publications up to the horizon. False if the newcomer cannot take all of them."""
        now = self._broker._clock()
        for each in kept:
            if each.offset > self._horizon:
                more = False
                break
            # What became too old during the replay is sent nevertheless, but not what its publisher wanted gone.
            if (each.expires > now or not each.own) and each.offset not in self._live_queue.skipped:
                publication = self._broker._publication(self.destination, each)
                if not self._sent(publication):
                    return False
            self._reached = each.offset
        if not more:
            self._reached = max(self._reached, self._horizon)
        return True

    def _empty_tap(self) -> bool:
        """Send what the live_queue holds. What is added in the meantime is left for the next time: it might not end."""
        with self._stripe.lock:
            items = self._live_queue.take()
        if self._offer_items(items):
            return True
        with self._stripe.lock:
            self._live_queue.put_back(items)
        return False

    def _offer_items(self, items: deque[Pending]) -> bool:
        """Send these, and take out what was sent. False if the newcomer cannot take all of them."""
        while items:
            item = items[0]
            if offset_in(item.position, self.epoch) is None:
                self.recovered = False
                return True
            if item.offset > self._reached:
                is_meant = item.offset not in self._live_queue.skipped
                if is_meant and not self._sent(item.publication):
                    return False
                self._reached = item.offset
            items.popleft()
        return True

    def _sent(self, publication: Publication) -> bool:
        if self._send(publication) is False:
            return False
        self.replayed += 1
        return True

    def _join_behind_tap(self) -> bool | None:
        """Send the rest while nothing is handed out, and join. None if there is more to be read from the store."""
        broker, stripe, live_queue = self._broker, self._stripe, self._live_queue
        with stripe.lock:
            if broker.epoch != self.epoch:  # offsets in the live_queue count from an earlier one
                self.recovered = False
                return None
            if live_queue.overflowed:
                live_queue.begin_again()
                self._horizon = max(self._reached, broker._reached(self.destination))
                stripe.drain(broker._deliver)
                return None
            if not self._offer_items(live_queue.items):
                return False
            if not self.recovered:
                return None
            self._join()
            self.has_joined = True
            if live_queue.dropped_ephemeral and self.has_left:
                self.recovered = False  # it would have had that live
        return True

    def _join_now(self) -> bool:
        """Join at the end of what was handed out: nothing was missed, or not all of it can be had."""
        broker, stripe = self._broker, self._stripe
        with stripe.lock:
            delivered = broker._delivered(stripe, self.destination)
            self.epoch, self.first, self._reached = delivered.epoch, delivered.offset, delivered.offset
            if self._leave is None or self.has_left:  # else it is still in
                self._join()
                self.has_joined = True
        return True
