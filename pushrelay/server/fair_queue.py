"""A queue that serves shares in rotation, so that many entries of one share do not delay those of another.

A share is usually the address of a client. An address with 300 busy connections and an address with one get the same
number of turns; the 300 take turns among themselves.
"""

import threading
from collections import deque
from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

# The bounds of one turn of a connection, in seconds and in events. Both are checked between two events, so one more
# event may run.
TURN_SECONDS = 0.001
TURN_EVENTS = 32


class Shared(Protocol):
    """An entry of a FairQueue."""

    share: str | None


T = TypeVar("T", bound=Shared)


class FairQueue(Generic[T]):
    """A queue of entries that each belong to a share. Any thread may call its methods."""

    __slots__ = ("_by_share", "_lock", "_rotation", "_share_of", "count")

    def __init__(self) -> None:
        self.count = 0  # entries in the queue
        self._lock = threading.Lock()  # guards all of it
        # The share that each entry was queued in. While it waits, its own `share` may change.
        self._share_of: dict[T, str | None] = {}
        self._by_share: dict[str | None, deque[T]] = {}  # shares without an entry are left out
        self._rotation: deque[str | None] = deque()  # each key of `_by_share` once, the next one first

    def __len__(self) -> int:
        return self.count

    def add(self, entry: T) -> None:
        """Queue an entry after the others of its share; an entry that is already queued keeps its place."""
        with self._lock:
            if entry in self._share_of:
                return
            share = self._share_of[entry] = entry.share
            waiting = self._by_share.get(share)
            if waiting is None:
                self._by_share[share] = deque((entry,))
                self._rotation.append(share)
            else:
                waiting.append(entry)
            self.count += 1

    def pop(self) -> T:
        """Remove and return the first entry of the next share. Raises IndexError if the queue is empty."""
        with self._lock:
            share = self._rotation.popleft()
            waiting = self._by_share[share]
            entry = waiting.popleft()
            del self._share_of[entry]
            self.count -= 1
            if waiting:
                self._rotation.append(share)
            else:
                del self._by_share[share]
            return entry

    def remove(self, entry: T) -> bool:
        """Remove an entry; return whether it was queued. Takes a time proportional to the length of its share."""
        with self._lock:
            if entry not in self._share_of:
                return False
            share = self._share_of.pop(entry)
            waiting = self._by_share[share]
            waiting.remove(entry)
            self.count -= 1
            if not waiting:
                del self._by_share[share]
                self._rotation.remove(share)
            return True

    def remove_all(self, entries: Collection[T]) -> None:
        """Remove those of the entries that are queued, in one pass over their shares."""
        with self._lock:
            queued = {entry for entry in entries if entry in self._share_of}
            if not queued:
                return
            for share in {self._share_of.pop(entry) for entry in queued}:
                waiting = deque(entry for entry in self._by_share[share] if entry not in queued)
                if waiting:
                    self._by_share[share] = waiting
                else:
                    del self._by_share[share]
            self._rotation = deque(share for share in self._rotation if share in self._by_share)
            self.count -= len(queued)
