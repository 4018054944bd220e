"""The memory of all outboxes together: each piece is counted once, however many clients it waits for, and bounded."""

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Protocol

from pushrelay.counters import Family

MOST_BYTES = 256 << 20
# Above the limit, the slowest clients are closed until only this fraction of it is in use, so that the next message
# fits again.
LEFT_SHARE = 0.75


class Consumer(Hashable, Protocol):
    """A client for which something waits. `backlog` is in bytes."""

    @property
    def backlog(self) -> int:
        """Bytes that wait."""

    def give_up(self) -> None:
        """Drop what waits, and close the client. Called without locks, on a thread that may close clients."""


class Outboxes:
    """The sum of all outboxes. Any thread may call it; clients that keep up are never counted."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]):
        """`call_soon` runs a function soon, on a thread that may close clients."""
        self.limit = MOST_BYTES
        self.bytes = 0
        self._call_soon = call_soon
        self._lock = threading.Lock()  # guards all of these
        self._held: dict[int, list[int]] = {}  # by the identity of a piece: the number of its consumers, and its bytes
        self._consumers: set[Consumer] = set()
        self._is_shedding = False

    def add(self, consumer: Consumer, piece: Any, size: int) -> None:
        """Count a piece of `size` bytes for a consumer, which keeps a reference to it until it calls `remove`."""
        key = id(piece)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                self._held[key] = [1, size]
                self.bytes += size
            else:
                held[0] += 1
            self._consumers.add(consumer)
            if self.bytes <= self.limit or self._is_shedding:
                return
            self._is_shedding = True
        self._call_soon(self._shed)

    def remove(self, consumer: Consumer, gone: Iterable[Any], is_empty: bool) -> None:
        """Stop counting the pieces `gone`; `is_empty` is set if nothing else waits for this consumer."""
        with self._lock:
            for each in gone:
                key = id(each)
                held = self._held[key]
                held[0] -= 1
                if not held[0]:
                    del self._held[key]
                    self.bytes -= held[1]
            if is_empty:
                self._consumers.discard(consumer)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of all outboxes."""
        yield Family("relay_outbox_bytes", "gauge", "Bytes that wait for clients, all together.", self.bytes)
        help_ = "Bytes that may wait for all clients together (setting max_outboxes)."
        yield Family("relay_outbox_limit_bytes", "gauge", help_, self.limit)
        yield Family("relay_outbox_clients", "gauge", "Clients for which something waits.", len(self._consumers))

    def _shed(self) -> None:
        """Close the consumers with the largest backlog until the next message fits again."""
        with self._lock:
            self._is_shedding = False
            excess = self.bytes - self.limit * LEFT_SHARE
            consumers = list(self._consumers)
        for consumer in sorted(consumers, key=lambda each: each.backlog, reverse=True):
            if excess <= 0:
                break
            excess -= consumer.backlog
            consumer.give_up()
