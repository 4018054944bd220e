"""Pushes that come at the same time share a transaction, and only one thread ever waits for the store.

A push is added while its request is handled, and its request is left without an answer. When the events at hand have
been handled, all that was added is stored, handed out, and answered. While the store is slow or locked, the other
threads go on, and what they bring is the next transaction.

A transaction is bounded in bytes as well. Pushes with much data wait in a line of their own, from which each
transaction takes a few, so a small push never waits for more than two transactions.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pushrelay.errors import Refused, StoreError
from pushrelay.store import Broker
from pushrelay.store.dispatch import Pending

log = logging.getLogger(__name__)

MOST_AT_ONCE = 256  # publications in one transaction: the first one waits for the last
LARGE = 64 << 10  # bytes of data from which on a push waits in the other line
MOST_BYTES_AT_ONCE = 2 << 20  # of data in one transaction, before its last push: some 20 ms of writing
# What may wait for the store: if that is locked for longer, publishers give up before it is their turn.
MOST_WAITING = 4096  # pushes
MOST_BYTES = 64 << 20  # of data, as JSON, over all destinations

# Done that a push has its receipts, or why it was not stored.
Done = Callable[[StoreError | None], None]


class Batcher:
    """Gathers what is to be published by a broker. Any thread may call its methods."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._waiting: deque[tuple[list[Pending], Done, int]] = deque()  # with the bytes of their data
        self._large: deque[tuple[list[Pending], Done, int]] = deque()  # those with much of it
        self._bytes = 0  # of data that waits; about, as threads add to it at the same time
        self._called = False  # the poller is going to call `_publish`
        self._storing = threading.Lock()  # held by the thread that is in the store

    def is_full(self) -> bool:
        """Whether too many pushes wait for the store."""
        return len(self._waiting) + len(self._large) >= MOST_WAITING or self._bytes >= MOST_BYTES

    def check_room(self, items: Sequence[Pending] = ()) -> None:
        """Raise Refused (503) if there is no room for these items. One push has room whenever nothing waits."""
        if self.is_full() or (self._bytes and self._bytes + _size_of(items) > MOST_BYTES):
            message = "the push was not taken; send it again later: too many wait for the store already"
            raise Refused(503, "store_not_available", message)

    def add(self, items: list[Pending], done: Done, poller: Any) -> None:
        """Publish these items soon. `done` is called once, by a thread of the poller."""
        size = _size_of(items)
        self._bytes += size
        (self._waiting if size < LARGE else self._large).append((items, done, size))
        # It was added before this is looked at, and `_publish` resets it before it takes: nothing stays behind.
        if not self._called:
            self._call(poller)

    def _call(self, poller: Any) -> None:
        self._called = True
        poller.call_afterwards(self._publish, poller)

    def _publish(self, poller: Any) -> None:
        self._called = False
        if not self._storing.acquire(blocking=False):
            return  # whoever is in the store looks for more when it is done
        error: StoreError | None = None
        try:
            taken, items = self._take()
            self._broker.store(items)
        except StoreError as refused:
            # Without the traceback, which refers to this call and so to the error itself.
            error = StoreError(str(refused), refused.public)
        except Exception as failure:
            log.exception("storing failed")
            error = StoreError(f"the relay failed at it ({failure!r}): its log says more")
        finally:
            self._storing.release()
            if self._waiting or self._large:
                self._call(poller)
        if error is None:
            self._hand_out(items)
        for done in taken:
            try:
                done(error)
            except Exception:
                log.exception("a publisher could not be answered")
        if error is None:
            self._broker.sweep_after(len(items))

    def _take(self) -> tuple[list[Done], list[Pending]]:
        waiting, large = self._waiting, self._large
        taken: list[Done] = []
        items: list[Pending] = []
        taken_bytes = 0
        while waiting and len(items) < MOST_AT_ONCE and taken_bytes < MOST_BYTES_AT_ONCE:
            more, done, size = waiting.popleft()
            items += more
            taken.append(done)
            taken_bytes += size
        has_large = False
        while large and (not has_large or (taken_bytes < MOST_BYTES_AT_ONCE and len(items) < MOST_AT_ONCE)):
            more, done, size = large.popleft()
            items += more
            taken.append(done)
            taken_bytes += size
            has_large = True
        self._bytes -= taken_bytes
        if not waiting and not large:
            self._bytes = 0
        return taken, items

    def _hand_out(self, items: list[Pending]) -> None:
        try:
            self._broker.hand_out(items)
        except Exception:
            log.exception("handing out failed")  # it is stored, and who did not get it recovers it


def _size_of(items: Sequence[Pending]) -> int:
    """Return the bytes of a push's data, about; 0 if it is little: there are too few of these to be much."""
    if len(items) == 1 and len(items[0].text) <= 1000:
        return 0
    return sum(len(item.text) for item in items)
