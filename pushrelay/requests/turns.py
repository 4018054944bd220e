"""The order in which requests of pages are sent: clients take turns, and none of them occupies all threads.

A request that PHP answers slowly holds its thread until then. So each share, which is a client's address, may have
only half of the threads at a time. Its further requests are held back, and others overtake them.
"""

from collections import Counter, deque
from typing import Generic, TypeVar

from pushrelay.server.fair_queue import FairQueue, Shared

T = TypeVar("T", bound=Shared)


class Turns(Generic[T]):
    """Requests that wait to be sent. The caller of each method holds the lock that guards it.

    Its length is the number of those that can be sent at once. The `share` of an entry must not change.
    """

    def __init__(self, threads: int):
        self._threads = threads  # that send requests
        self.waiting: set[T] = set()  # all that have not been taken
        self._ready: FairQueue[T] = FairQueue()  # those of them that can be sent
        self._held: dict[str | None, deque[T]] = {}  # the others, by share; without empty ones
        self._slots: Counter[str | None] = Counter()  # by share: those that are ready or being sent
        self._waiting_of: Counter[str | None] = Counter()  # by share: those that have not been taken

    def __len__(self) -> int:
        return len(self._ready)

    def waiting_of(self, share: str | None) -> int:
        """Return the number of those of one share that have not been taken."""
        return self._waiting_of[share]

    def add(self, entry: T) -> bool:
        """Add an entry, and return whether it can be sent at once."""
        self.waiting.add(entry)
        self._waiting_of[entry.share] += 1
        if self._has_slot(entry.share):
            self._make_ready(entry)
            return True
        self._held.setdefault(entry.share, deque()).append(entry)
        return False

    def resize(self, threads: int) -> None:
        """Have another number of threads that send requests."""
        self._threads = threads
        for share in list(self._held):
            self._release(share)

    def pop(self) -> T:
        """Remove and return the entry whose turn it is. Call done() when it has been sent and answered."""
        entry = self._ready.pop()
        self._leave(entry)
        return entry

    def done(self, share: str | None) -> bool:
        """Note that an entry of this share needs no thread any more. Return whether a held one can be sent instead."""
        decrement(self._slots, share)
        return self._release(share)

    def remove(self, entry: T) -> bool:
        """Remove an entry, and return whether it was still waiting."""
        if entry not in self.waiting:
            return False
        self._leave(entry)
        if self._ready.remove(entry):
            self.done(entry.share)
        else:
            held = self._held[entry.share]
            held.remove(entry)
            self._drop_if_empty(entry.share, held)
        return True

    def _has_slot(self, share: str | None) -> bool:
        return self._slots[share] < max(1, self._threads // 2)

    def _release(self, share: str | None) -> bool:
        """Make the held entries of a share ready that can be sent now. Return whether there are any."""
        held = self._held.get(share)
        if held is None or not self._has_slot(share):
            return False
        while held and self._has_slot(share):
            self._make_ready(held.popleft())
        self._drop_if_empty(share, held)
        return True

    def _make_ready(self, entry: T) -> None:
        self._slots[entry.share] += 1
        self._ready.add(entry)

    def _leave(self, entry: T) -> None:
        self.waiting.discard(entry)
        decrement(self._waiting_of, entry.share)

    def _drop_if_empty(self, share: str | None, held: deque[T]) -> None:
        if not held:
            del self._held[share]


def decrement(counter: "Counter[str | None]", key: str | None) -> None:
    """Count one fewer. A key without any is not kept."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
