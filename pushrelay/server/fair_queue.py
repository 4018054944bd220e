"""Sources that wait for their turn: one source of each share in rotation, so that nobody gets more turns by numbers.

A share is usually the address of a client. An address with 300 busy connections and an address with one get the same
number of turns, and the 300 take turns among themselves.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

# What one turn of a connection may take: this many seconds, and this many events. Both are checked between two events,
# so one event more may run.
TURN_SECONDS = 0.001
TURN_EVENTS = 32


class Turn:
    """A call that waits for its turn. A source for the poller: give it to `run_again`."""

    __slots__ = ("_args", "_callback", "_poller", "queued", "share")

    def __init__(self, poller: Any, share: str | None, callback: Callable[..., Any], *args: Any):
        self._poller = poller
        self._callback = callback
        self._args = args
        self.share = share
        self.queued = False

    def run(self) -> None:
        """Call back, or wait until there is a thread that may be blocked."""
        if self._poller.is_short():
            self._poller.run_when_spare(self)
        else:
            self._callback(*self._args)


class Shares:
    """A queue of sources with a `share` and a `queued` flag of their own. Any thread may call its methods."""

    __slots__ = ("_by_share", "_lock", "_rotation", "count")

    def __init__(self) -> None:
        self.count = 0  # sources that wait
        self._lock = threading.Lock()  # over all of it
        self._by_share: dict[str | None, deque[Any]] = {}
        self._rotation: deque[str | None] = deque()  # each key of `_by_share` once, the next one first

    def add(self, source: Any) -> None:
        """Queue a source behind the others of its share; a source that waits already keeps its place."""
        with self._lock:
            if source.queued:
                return
            source.queued = True
            waiting = self._by_share.get(source.share)
            if waiting is None:
                self._by_share[source.share] = waiting = deque()
                self._rotation.append(source.share)
            waiting.append(source)
            self.count += 1

    def pop(self) -> Any:
        """Take the first source of the share whose turn it is. Raises IndexError if none waits."""
        with self._lock:
            share = self._rotation.popleft()
            waiting = self._by_share[share]
            source = waiting.popleft()
            source.queued = False
            self.count -= 1
            if waiting:
                self._rotation.append(share)
            else:
                del self._by_share[share]
            return source
