"""Pushes that come at the same time share a transaction, and only one thread ever waits for the store.

A push is added while its request is handled, and its request is left without an answer. When the events at hand have
been handled, all that was added is stored, handed out, and answered. Where the store is slow or locked, the other
threads go on, and what they bring meanwhile is the next transaction.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .broker import Broker
from .errors import Refused
from .handout import Item
from .publication import StoreError

log = logging.getLogger("pushrelay.gathering")

MOST_AT_ONCE = 256  # publications in one transaction: the first one waits for the last
# What may wait for the store: where that is locked for longer, publishers give up before it is their turn.
MOST_WAITING = 4096  # pushes
MOST_BYTES = 64 << 20  # of data, as JSON

# Told that a push has its receipts, or why it was not stored.
Told = Callable[[StoreError | None], None]


class Gathering:
    """Gathers what is to be published by a broker. Any thread may call its methods."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._waiting: deque[tuple[list[Item], Told]] = deque()
        self._bytes = 0  # of data in it, where it is much; about, as threads add to it at the same time
        self._called = False  # the poller is going to call `_publish`
        self._storing = threading.Lock()  # held by the thread that is in the store

    def is_full(self) -> bool:
        """Whether too many pushes wait for the store."""
        return len(self._waiting) >= MOST_WAITING or self._bytes >= MOST_BYTES

    def check_room(self) -> None:
        """Raise Refused (503) where it is full."""
        if self.is_full():
            message = "the push was not taken; send it again later: too many wait for the store already"
            raise Refused(503, "store_not_available", message)

    def add(self, items: list[Item], told: Told, poller: Any) -> None:
        """Publish these items soon. `told` is called once, by a thread of the poller."""
        self._bytes += _size_of(items)
        self._waiting.append((items, told))
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
            if self._waiting:
                self._call(poller)
        if error is None:
            self._hand_out(items)
        for told in taken:
            try:
                told(error)
            except Exception:
                log.exception("a publisher could not be answered")
        if error is None:
            self._broker.sweep_along(len(items))

    def _take(self) -> tuple[list[Told], list[Item]]:
        waiting = self._waiting
        taken: list[Told] = []
        items: list[Item] = []
        while waiting and len(items) < MOST_AT_ONCE:
            more, told = waiting.popleft()
            items += more
            taken.append(told)
            self._bytes -= _size_of(more)
        if not waiting:
            self._bytes = 0
        return taken, items

    def _hand_out(self, items: list[Item]) -> None:
        try:
            self._broker.hand_out(items)
        except Exception:
            log.exception("handing out failed")  # it is stored, and who did not get it recovers it


def _size_of(items: list[Item]) -> int:
    """The data of a push in bytes, about; 0 where it is little, and there are too few for that to be much."""
    if len(items) == 1 and len(items[0].text) <= 1000:
        return 0
    return sum(len(item.text) for item in items)
