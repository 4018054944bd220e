"""Sessions that have to do something soon after they were opened, or are looked at.

The time is the same for all, so they come due in the order in which they came: one queue and one timer.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pushrelay.server.poller import Poller

from .heartbeat import GRAIN, SWEEP_AT


class Newcomers:
    """Calls `look_at(session)`, on threads of the poller, so many seconds after `add`, for those still open."""

    def __init__(self, poller: Poller, seconds: float, look_at: Callable[[Any], None]):
        self._poller = poller
        self._seconds = seconds
        self._look_at = look_at
        self._lock = threading.Lock()  # over all that follows
        self._queue: deque[tuple[float, Any]] = deque()
        self._ended = 0  # closed sessions still in it, at most
        self._is_timed = False  # a timer is going to look at the queue

    def add(self, session: Any) -> None:
        """The session has been opened."""
        with self._lock:
            self._queue.append((time.monotonic() + self._seconds, session))
            if not self._is_timed:
                self._is_timed = True
                self._poller.call_later(self._seconds, self._tick)

    def end(self) -> None:
        """A session was closed. Its entry is let go with the others' some time."""
        with self._lock:
            self._ended += 1
            if self._ended > SWEEP_AT and self._ended > len(self._queue) // 2:
                self._queue = deque(entry for entry in self._queue if not entry[1].closed)
                self._ended = 0

    def _tick(self) -> None:
        now = time.monotonic()
        with self._lock:
            while self._queue and self._queue[0][0] <= now:
                session = self._queue.popleft()[1]
                if not session.closed:
                    # By itself: closing one may take long, as the app is told.
                    self._poller.call_later(0, self._look_at, session)
            self._is_timed = bool(self._queue)
            if self._is_timed:
                self._poller.call_later(max(GRAIN, self._queue[0][0] - now), self._tick)
