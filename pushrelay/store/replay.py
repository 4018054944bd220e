"""Replaying: a newcomer is sent what it missed, as fast as it reads, and then joins, with no gap and no overlap.

A replay holds no thread. It continues while its newcomer accepts what it is offered, then returns, and is called again
once the newcomer can take more. In between it keeps a live queue and an offset; what it still has to send is in the
store. The live queue makes the replay complete even if more is pushed in the meantime than the history keeps.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pushrelay.errors import StoreError

from .archive import Archive
from .dispatcher import Dispatcher
from .publication import Kept, Publication, Recovery, offset_in, position_of
from .stripe import LiveQueue, Pending

# Bytes of data that are read at a time. The outbox of one client holds a megabyte, so a page is a small part of it, and
# a thousand replays that begin at once take 64 MiB at most.
PAGE_BYTES = 65536
TAIL = 8  # publications that may be sent to a newcomer while others wait for the stripe
AHEAD_SECONDS = 5.0  # in which this node must receive what a newcomer has from another node
ROUNDS = 4  # attempts to make the tail that short before the others must wait for it


class Replay:
    """One newcomer on its way into a destination. One thread at a time calls it.

    `since` is a position, "acked" for the one that was acknowledged last, or None to join only. A replay that cannot
    send everything after `since` sends nothing. If publications are dropped from the history during the replay, or the
    store begins a new epoch, `recovered` becomes False.

    `send(publication)` offers the next publication, in order, and must not block. It returns False if the newcomer
    cannot take it now; then the next go_on() offers it again. `join()` is called once, at the moment from which on
    publications must be delivered to the newcomer. `sid` is the newcomer's own.

    `leave()` is for a newcomer that has joined before. It is called before anything is sent, at a moment up to which
    the newcomer was handed everything.
    """

    __slots__ = (
        "_archive",
        "_dispatcher",
        "_ahead_until",
        "_horizon",
        "_join",
        "_leave",
        "_live_queue",
        "_reached",
        "_send",
        "_since",
        "_stripe",
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
        archive: Archive,
        dispatcher: Dispatcher,
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
        self.has_left = False  # the newcomer had joined before, and is out until the replay ends
        self.replayed = 0  # publications that were sent
        self.epoch = archive.epoch  # of all offsets here
        self.first = 0  # the newcomer has been handed, or is going to be, everything after this offset
        self._archive = archive
        self._dispatcher = dispatcher
        self._since = since
        self._send = send
        self._join = join
        self._leave = leave
        self._stripe = dispatcher.stripe_of(destination)
        self._live_queue = LiveQueue(sid)
        self._reached = 0  # the newcomer has been handed everything up to here, or cannot have it
        self._horizon = 0  # everything later is in the live queue
        # Until when the newcomer may be ahead of this node (monotonic); 0 if it is not.
        self._ahead_until = 0.0

    @property
    def is_ahead(self) -> bool:
        """Whether the newcomer waits until this node has received what it already got at another one."""
        return self._ahead_until > 0

    def go_on(self) -> bool:
        """Send until the newcomer can take no more, or has joined; return whether it has joined.

        Raises StoreError if the history cannot be read, and what send() and join() raise. The replay is over then.
        """
        waits = False
        try:
            since, self._since = self._since, None
            began = since is None or self._begin(since)
            waits = not (began and self._catch_up())
        finally:
            if not waits:
                self.close()
        return not waits

    def close(self) -> None:
        """End the replay, whether it joined or not, and clean up. May be called any number of times."""
        with self._stripe:
            self._stripe.detach(self.destination, self._live_queue)

    def recovery(self) -> Recovery:
        """Return the recovery of the newcomer once it has joined."""
        return Recovery(position_of(self.epoch, self._reached), self.recovered, self.replayed)

    # The steps.

    def _begin(self, since: str) -> bool:
        """Find out whether everything after `since` is available, and send the first page of it.

        Returns False if the newcomer cannot take all of that page.
        """
        with self._stripe:
            self._stripe.attach(self.destination, self._live_queue)
            self._horizon = self._dispatcher.reached(self.destination)
            self._stripe.drain()
        after = self._archive.offset_of(self.destination, since)
        first = None if after is None else self._first_page(after)
        if after is None or first is None:
            self.recovered = False
            return True
        self.first = self._reached = after
        if after > self._horizon:
            self._ahead_until = time.monotonic() + AHEAD_SECONDS
            self._horizon = after
        if self._leave is not None:
            with self._stripe:
                self._leave()
            self.has_left = True
        return self._offer(*first)

    def _first_page(self, after: int) -> tuple[list[Kept], bool] | None:
        """Return the first page after an offset, and whether there is more; None if something of it is missing."""
        archive, destination = self._archive, self.destination
        kept, tip, more = archive.read(destination, after, PAGE_BYTES)
        everything = archive.read(destination, after, with_data=False).kept if more else kept
        return None if archive.complete(everything, tip, after) is None else (kept, more)

    def _catch_up(self) -> bool:
        """Send what the store has, page by page, then the live queue, and join. False if the newcomer is full."""
        rounds = 0
        while self.recovered:
            if self._reached < self._horizon:
                if not self._next_page():
                    return False
            elif len(self._live_queue) > TAIL and rounds < ROUNDS:
                rounds += 1
                if not self._empty_live_queue():
                    return False
            elif (joined := self._join_after_live_queue()) is not None:
                return joined
        return self._join_now()

    def _next_page(self) -> bool:
        """Send the next page. False if the newcomer cannot take all of it; the rest is read again then."""
        before = self._reached
        kept, tip, more = self._archive.read(self.destination, before, PAGE_BYTES)
        if tip.trimmed > before or self._archive.epoch != self.epoch:
            self.recovered = False
            return True
        return self._offer(kept, more)

    def _offer(self, kept: list[Kept], more: bool) -> bool:
        """Send publications up to the horizon. False if the newcomer cannot take all of them."""
        now = self._archive.clock()
        for each in kept:
            if each.offset > self._horizon:
                more = False
                break
            # Publications that became too old during the replay are still sent, unless their publisher set the expiry.
            if (each.expires > now or not each.own) and each.offset not in self._live_queue.skipped:
                publication = self._archive.publication(self.destination, each, self.epoch)
                if not self._has_sent(publication):
                    return False
            self._reached = each.offset
        if not more:
            self._reached = max(self._reached, self._horizon)
        return True

    def _empty_live_queue(self) -> bool:
        """Send what the live queue holds now. Items that are added in between wait, or this might never end."""
        with self._stripe:
            items = self._live_queue.take()
        if self._offer_items(items):
            return True
        with self._stripe:
            self._live_queue.put_back(items)
        return False

    def _offer_items(self, items: deque[Pending]) -> bool:
        """Send items, and remove those that were sent. False if the newcomer cannot take all of them."""
        while items:
            item = items[0]
            if offset_in(item.position, self.epoch) is None:
                self.recovered = False
                return True
            if item.offset > self._reached:
                is_meant = item.offset not in self._live_queue.skipped
                if is_meant and not self._has_sent(item.publication):
                    return False
                self._reached = item.offset
            items.popleft()
        return True

    def _has_sent(self, publication: Publication) -> bool:
        if self._send(publication) is False:
            return False
        self.replayed += 1
        return True

    def _join_after_live_queue(self) -> bool | None:
        """Send the rest while nothing is handed out, and join. None if there is more to be read from the store."""
        stripe, live_queue = self._stripe, self._live_queue
        with stripe:
            if self._archive.epoch != self.epoch:  # offsets in the live queue count from an earlier one
                self.recovered = False
                return None
            if live_queue.overflowed:
                live_queue.restart()
                self._horizon = max(self._reached, self._dispatcher.reached(self.destination))
                stripe.drain()
                return None
            if not self._offer_items(live_queue.items):
                return False
            if not self.recovered:
                return None
            if self._ahead_until and not self._has_caught_up():
                return False
            self._join()
            self.has_joined = True
            if live_queue.dropped_ephemeral and self.has_left:
                self.recovered = False  # if it had stayed, it would have been handed that publication
        return True

    def _has_caught_up(self) -> bool:
        """Return whether this node has handed out what its newcomer has. Raises StoreError if that takes too long.

        If the newcomer joined earlier, it would get that again. The stripe's lock is held.
        """
        if self._dispatcher.reached(self.destination) >= self._reached:
            self._ahead_until = 0.0
        elif time.monotonic() > self._ahead_until:
            message = "this relay has not received what the client got at another one: register again later"
            raise StoreError(message, message)
        return not self._ahead_until

    def _join_now(self) -> bool:
        """Join at the end of what was handed out: nothing was missed, or not all of it is available."""
        with self._stripe:
            delivered = self._dispatcher.delivered(self._stripe, self.destination)
            self.epoch, self.first, self._reached = delivered.epoch, delivered.offset, delivered.offset
            if self._leave is None or self.has_left:  # otherwise it never left
                self._join()
                self.has_joined = True
        return True
