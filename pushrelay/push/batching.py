"""Batches: pushes that come at the same time share a transaction, and only one thread at a time waits for the store.

A push is added while its request is handled, and the request stays unanswered. When a thread of the poller has handled
the events at hand, it stores, delivers and answers everything that was added. While the store is slow or locked, the
other threads continue; the pushes that they add become the next transaction.

A publication for many clients is handed out in turns, if the broker can do that. Then only those who publish to its
destination wait for it. But what waits for its turns counts towards the limits too.

A transaction is bounded in bytes too. Pushes with much data wait in a separate queue. Each transaction takes a few
of them, so a small push waits for at most two transactions.

The store batches too: writers that find it busy form a group commit (store.group_commit), and SQLite commits what a
journal holds about once a second (store.journal).
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic

from pushrelay.counters import Family, queue_length
from pushrelay.errors import Refused, StoreError
from pushrelay.server.poller import Poller
from pushrelay.store import Broker
from pushrelay.store.stripe import Pending

from .counts import FAILED, HTTP, SLOW_SECONDS, PushCounts

log = logging.getLogger(__name__)

MOST_AT_ONCE = 256  # publications in one transaction, because the first one waits for the last
LARGE = 64 << 10  # bytes of data that make a push a large one
MOST_BYTES_AT_ONCE = 2 << 20  # bytes of data in one transaction before its last push: some 20 ms of writing
MOST_DELIVERIES = 128  # to clients in one turn, about: this takes 1 to 2 ms
# Limits on what waits for the store or is being handed out. Beyond this, publishers would time out before their turn.
MOST_WAITING = 4096  # pushes
MOST_BYTES = 64 << 20  # bytes of data as JSON, over all destinations

# Called when a push has been published, with None; or with the error if it was not stored.
Done = Callable[[StoreError | None], None]
# A push that waits: its items, the callback for its result, the bytes of its data, and the time of its arrival.
Waiting = tuple[list[Pending], Done, int, float]


class Batcher:
    """Collects pushes and publishes them in batches through a broker. Any thread may call its methods."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._waiting: deque[Waiting] = deque()
        self._large: deque[Waiting] = deque()  # those with much data
        self._bytes = 0  # of data that waits; inexact, because several threads add to it
        self._unfinished = self._unfinished_bytes = 0  # pushes that are being handed out, and their data
        self._counting = threading.Lock()  # over both
        self._called = False  # the poller will call `_publish`
        self.counts = PushCounts()
        self._storing = threading.Lock()  # held while the store has a batch; any thread may release it

    def is_full(self) -> bool:
        """Return whether too many pushes wait for the store, or are being handed out."""
        waiting = len(self._waiting) + len(self._large) + self._unfinished
        return waiting >= MOST_WAITING or self._bytes + self._unfinished_bytes >= MOST_BYTES

    def check_room(self, items: Sequence[Pending] = ()) -> None:
        """Raise Refused (503) if these items do not fit. While nothing waits, any push fits."""
        waiting = self._bytes + self._unfinished_bytes
        if self.is_full() or (waiting and waiting + _size_of(items) > MOST_BYTES):
            message = "the push was not taken; send it again later: too many pushes wait for the store or for delivery"
            raise Refused(503, "store_not_available", message)

    def add(self, items: list[Pending], done: Done, poller: Poller) -> None:
        """Publish these items soon. A thread of the poller calls `done` once."""
        size = _size_of(items)
        self._bytes += size
        (self._waiting if size < LARGE else self._large).append((items, done, size, poller.polled))
        # No push is missed: it was added before this check, and `_publish` resets the flag before it takes pushes.
        if not self._called:
            self._call(poller)

    def _call(self, poller: Poller) -> None:
        self._called = True
        poller.call_afterwards(self._publish, poller)

    def _publish(self, poller: Poller) -> None:
        self._called = False
        if not self._storing.acquire(blocking=False):
            return  # the end of the batch that the store has calls for the next one
        taken, items, arrived = self._take()
        if not taken:  # another thread has published them
            self._release(poller)
            return
        try:
            self._broker.store_soon(items, partial(self._stored, taken, items, arrived, poller))
        except Exception as failure:
            log.exception("storing failed")
            error = StoreError(f"the relay failed ({failure!r}): its log has more")
            self._stored(taken, items, arrived, poller, error)

    def _stored(
        self, taken: list[Waiting], items: list[Pending], arrived: float, poller: Poller, error: StoreError | None
    ) -> None:
        """Let the next batch begin, hand out the items of this one, and answer its publishers."""
        now, counts = monotonic(), self.counts
        if error is None:
            counts.accepted += len(taken)
        self._release(poller)
        if error is not None:
            counts.add(HTTP, FAILED, len(taken))
            self._answer(taken, error)
            return
        done, left = taken, self._hand_out(items)
        if left:
            done, late = _split(taken, left)
            counts.leave_out(len(late))
            self._continue(late, left, now, poller)
        if now > counts.measure_at or now - arrived > SLOW_SECONDS:
            counts.measure(arrived, now, items if done is taken else _items_of(done))
        self._answer(done, None)
        self._broker.sweep_after(len(items))

    def _release(self, poller: Poller) -> None:
        """Let the next batch begin, and call for it if pushes wait."""
        self._storing.release()
        if self._waiting or self._large:
            self._call(poller)

    def _answer(self, pushes: list[Waiting], error: StoreError | None) -> None:
        for _, done, _, _ in pushes:
            try:
                done(error)
            except Exception:
                log.exception("a publisher could not be answered")

    def _continue(self, pushes: list[Waiting], left: list[Pending], stored: float, poller: Poller) -> None:
        """Hand out the `left` items of pushes that were `stored` at this time, after other work."""
        if pushes:
            self._count_unfinished(pushes, 1)
            poller.call_later(0, self._go_on, pushes, left, stored, poller)

    def _go_on(self, pushes: list[Waiting], left: list[Pending], stored: float, poller: Poller) -> None:
        left = self._hand_out(left)
        self._count_unfinished(pushes, -1)
        done, late = _split(pushes, left)
        self.counts.measure_late([push[3] for push in done], stored, _items_of(done))
        self._answer(done, None)
        self._continue(late, left, stored, poller)

    def _count_unfinished(self, pushes: list[Waiting], sign: int) -> None:
        with self._counting:
            self._unfinished += sign * len(pushes)
            self._unfinished_bytes += sign * sum(push[2] for push in pushes)

    def _take(self) -> tuple[list[Waiting], list[Pending], float]:
        """Return the pushes that are published next, their items, and the time at which one of them arrived."""
        waiting, large = self._waiting, self._large
        arrived = waiting[0][3] if waiting else large[0][3] if large else 0.0
        taken: list[Waiting] = []
        items: list[Pending] = []
        taken_bytes = 0
        while waiting and len(items) < MOST_AT_ONCE and taken_bytes < MOST_BYTES_AT_ONCE:
            push = waiting.popleft()
            items += push[0]
            taken.append(push)
            taken_bytes += push[2]
        has_large = False
        while large and (not has_large or (taken_bytes < MOST_BYTES_AT_ONCE and len(items) < MOST_AT_ONCE)):
            push = large.popleft()
            items += push[0]
            taken.append(push)
            taken_bytes += push[2]
            has_large = True
        self._bytes -= taken_bytes
        if not waiting and not large:
            self._bytes = 0
        return taken, items, arrived

    def _hand_out(self, items: list[Pending]) -> list[Pending]:
        """Hand out items to about MOST_DELIVERIES clients; return the items that are left."""
        try:
            return self._broker.hand_out(items, MOST_DELIVERIES)
        except Exception:
            log.exception("handing out failed")  # the items are stored, so subscribers that missed them recover them
            return []

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the pushes, and of those that wait for the store or are being handed out."""
        yield from self.counts.metrics()
        yield queue_length("store", len(self._waiting) + len(self._large))
        yield queue_length("delivery", self._unfinished)


def _split(pushes: list[Waiting], left: list[Pending]) -> tuple[list[Waiting], list[Waiting]]:
    """Return the pushes that were handed out completely, and those that have items among the ones that are left."""
    unfinished = set(left)
    done = [push for push in pushes if unfinished.isdisjoint(push[0])]
    return done, [push for push in pushes if not unfinished.isdisjoint(push[0])]


def _items_of(pushes: list[Waiting]) -> list[Pending]:
    return [item for push in pushes for item in push[0]]


def _size_of(items: Sequence[Pending]) -> int:
    """Return the approximate bytes of a push's data; 0 for little data, of which even MOST_WAITING pushes are few."""
    if len(items) == 1 and len(items[0].text) <= 1000:
        return 0
    return sum(len(item.text) for item in items)
