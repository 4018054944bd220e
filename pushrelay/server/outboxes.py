"""What waits for all clients together: counted once however many it waits for, and bounded."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

MOST_BYTES = 256 << 20
# When it is too much, the clients for which most waits are closed until this part of it is left, so that the next
# message does not find it full again.
LEFT_SHARE = 0.75


class Holder(Protocol):
    """For whom something waits. `backlog` is in bytes."""

    backlog: int

    def give_up(self) -> None:
        """Drop what waits, and the client with it. Called without locks, by a thread that may do so."""


class Outboxes:
    """The sum of all outboxes. Any thread may call it; nothing is counted for clients that keep up."""

    def __init__(self, call_soon: Callable[..., Any]):
        self.limit = MOST_BYTES
        self.bytes = 0
        self._call_soon = call_soon
        self._lock = threading.Lock()  # over all of these
        self._held: dict[int, list[int]] = {}  # by the identity of what waits: for how many it does, and its bytes
        self._holders: set[Any] = set()
        self._is_shedding = False

    def add(self, holder: Holder, waiting: Any, size: int) -> None:
        """Count what waits for a holder from now on. It keeps a reference to that until it calls remove()."""
        key = id(waiting)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                self._held[key] = [1, size]
                self.bytes += size
            else:
                held[0] += 1
            self._holders.add(holder)
            if self.bytes <= self.limit or self._is_shedding:
                return
            self._is_shedding = True
        self._call_soon(self._shed)

    def remove(self, holder: Holder, gone: Iterable[Any], is_empty: bool) -> None:
        """What waited no longer does; `is_empty` is whether nothing else waits for this holder."""
        with self._lock:
            for each in gone:
                key = id(each)
                held = self._held[key]
                held[0] -= 1
                if not held[0]:
                    del self._held[key]
                    self.bytes -= held[1]
            if is_empty:
                self._holders.discard(holder)

    def _shed(self) -> None:
        with self._lock:
            self._is_shedding = False
            excess = self.bytes - self.limit * LEFT_SHARE
            holders = list(self._holders)
        for holder in sorted(holders, key=lambda each: each.backlog, reverse=True):
            if excess <= 0:
                break
            excess -= holder.backlog
            holder.give_up()
