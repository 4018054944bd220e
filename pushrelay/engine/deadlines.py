"""Deadlines of sessions: one queue for each kind, and one timer for all.

The sessions of a queue all have the same time, so their deadlines expire in the order in which they were created. No
heap is needed, and 10,000 idle clients cost 400 pings a second and nothing else.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from pushrelay.server.poller import Poller
from pushrelay.server.sources import Timer

from .session import Session

log = logging.getLogger(__name__)

# Seconds: deadlines this close together are handled together.
GRAIN = 0.005
# Closed sessions are removed from a queue once there are more of them than this, and more than open ones.
SWEEP_AT = 1000


class DeadlineQueue:
    """The deadlines of one kind. The lock of Deadlines is held for every call."""

    def __init__(self, when_due: Callable[[Session, float, float], None]):
        self.when_due = when_due
        self.entries: deque[tuple[float, Session]] = deque()
        self._closed = 0  # closed sessions still in it, at most

    def take_due(self, now: float) -> list[tuple[float, Session]]:
        """Remove the deadlines that have passed from the queue, and return those of open sessions."""
        due = []
        while self.entries and self.entries[0][0] <= now:
            entry = self.entries.popleft()
            if not entry[1].closed:
                due.append(entry)
        return due

    def count_closed(self) -> None:
        """Count a session that was closed, and drop such entries once they are many."""
        self._closed += 1
        if self._closed > SWEEP_AT and self._closed > len(self.entries) // 2:
            self.entries = deque(entry for entry in self.entries if not entry[1].closed)
            self._closed = 0


class Deadlines:
    """Calls back for sessions whose deadlines have passed. Any thread may call it."""

    def __init__(self, poller: Poller):
        self.poller = poller
        self._lock = threading.Lock()  # over all that follows
        self._queues: list[DeadlineQueue] = []
        self._timer: Timer | None = None

    def new_queue(self, when_due: Callable[[Session, float, float], None]) -> DeadlineQueue:
        """Return a queue whose sessions are given to `when_due(session, deadline, now)`, on a thread of the poller.

        It must be quick, because the deadlines of all sessions wait for it.
        """
        queue = DeadlineQueue(when_due)
        with self._lock:
            self._queues.append(queue)
        return queue

    def add(self, queue: DeadlineQueue, deadline: float, session: Session) -> None:
        """Add a deadline, by time.monotonic(). It is later than those in this queue."""
        with self._lock:
            queue.entries.append((deadline, session))
            if self._timer is not None and deadline < self._timer.deadline:
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._set_timer(deadline)

    def count_closed(self) -> None:
        """Count a session that was closed. Its entries are removed later, together with others."""
        with self._lock:
            for queue in self._queues:
                queue.count_closed()

    def stop(self) -> None:
        """Forget all deadlines."""
        with self._lock:
            for queue in self._queues:
                queue.entries.clear()
            if self._timer is not None:
                self._timer.cancel()

    def meet(self, now: float) -> None:
        """Call back for all deadlines that have passed by `now`."""
        with self._lock:
            due = [(queue, *entry) for queue in self._queues for entry in queue.take_due(now)]
        for queue, deadline, session in due:
            try:
                queue.when_due(session, deadline, now)
            except Exception:  # the other sessions have their deadlines too
                log.exception("a deadline of the client %s failed", session.sid)

    def _tick(self) -> None:
        self.meet(time.monotonic())
        with self._lock:
            heads = [queue.entries[0][0] for queue in self._queues if queue.entries]
            self._timer = None
            if heads:
                self._set_timer(min(heads))

    def _set_timer(self, deadline: float) -> None:
        self._timer = self.poller.call_later(max(GRAIN, deadline - time.monotonic()), self._tick)
