"""The thread that sends events to watchers, in batches, and lets users leave whose time of grace is over."""

import logging
import math
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# Seconds between two batches of events. The first event after a quiet moment is sent at once.
BATCH_SECONDS = 0.1
# A batch waits this many times as long as the last one took to be sent, so that a burst of joins leaves the processor
# to everything else; but not longer than LONGEST_WAIT.
REST = 9.0
LONGEST_WAIT = 1.0


class Worker:
    """Runs on demand, on a thread of its own. Any thread may call its methods, with any lock held.

    `flush()` sends the events that wait, and returns the seconds that it took. `end_due(now)` lets users leave, and
    returns when it must be called again, if ever. Both times are of time.monotonic().
    """

    def __init__(self, flush: Callable[[], float], end_due: Callable[[float], float | None]):
        self._flush = flush
        self._end_due = end_due
        self._condition = threading.Condition()  # guards all that follows
        self._has_events = False
        self._due = math.inf  # when end_due() must be called
        self._next_flush = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def changed(self) -> None:
        """Have events sent soon."""
        if not self._has_events:
            with self._condition:
                self._has_events = True
                self._wake()

    def wake(self, seconds: float) -> None:
        """Have users leave after this time."""
        due = time.monotonic() + seconds
        if due < self._due:
            with self._condition:
                self._due = min(self._due, due)
                self._wake()

    def close(self) -> None:
        """Stop. Events that were not sent yet are dropped."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join(5)

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._work, name="presence", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: the next change tries again
                self._has_events, self._due = False, math.inf
                return
            self._thread = thread
        else:
            self._condition.notify()

    def _work(self) -> None:
        while True:
            with self._condition:
                while (seconds := self._seconds_left()) > 0 and not self._closed:
                    self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                leaves, self._due = (True, math.inf) if self._due <= time.monotonic() else (False, self._due)
            try:
                self._take_turn(leaves)
            except Exception:
                log.exception("presence failed; it continues")

    def _seconds_left(self) -> float:
        due = min(self._due, self._next_flush) if self._has_events else self._due
        return due - time.monotonic()

    def _take_turn(self, leaves: bool) -> None:
        if leaves and (due := self._end_due(time.monotonic())) is not None:
            self.wake(due - time.monotonic())
        if self._has_events and self._next_flush <= time.monotonic():
            self._has_events = False  # first: what changes from here on needs another batch
            seconds = self._flush()
            self._next_flush = time.monotonic() + max(BATCH_SECONDS, min(REST * seconds, LONGEST_WAIT))
