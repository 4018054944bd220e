"""Group commit: writers that find the store busy queue up, and the next writer commits the whole queue.

The order of the commits is the order of each stripe's queue. A lock that is held from the commit to the delivery would
be simpler, but then each push to a busy destination would wait for its own sync.
"""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pushrelay.errors import StoreError

T = TypeVar("T")


class Job(Generic[T]):
    """Work that waits for its transaction."""

    __slots__ = ("error", "is_done", "result", "work")

    result: T  # what `work` returned, set by the transaction

    def __init__(self, work: Callable[[], T]):
        self.work = work
        # Why it was not done, as StoreError's arguments. Not the exception, whose traceback would refer to this job:
        # both would stay until the garbage collector runs, which is seldom (server.GC_THRESHOLD).
        self.error: tuple[str, str] | None = None
        self.is_done = False


class GroupCommit:
    """Calls `transact(jobs)` on one thread at a time, with all the jobs that came while it was busy.

    `transact()` does the work of all of them or, raising StoreError, of none.
    """

    def __init__(self, transact: Callable[[list[Job[Any]]], None]):
        self._transact = transact
        self._lock = threading.Lock()  # guards the fields below
        self._turn = threading.Condition(self._lock)
        self._waiting: list[Job[Any]] = []  # for the next transaction
        self._busy = False  # a thread is in the transaction
        self._sleepers = 0  # threads that wait for their turn

    def run(self, work: Callable[[], T]) -> T:
        """Do work inside a transaction that it shares with others; return what `work()` returned.

        The first waiter to find the store free commits for everyone. Raises StoreError.
        """
        job = Job(work)
        with self._lock:
            self._waiting.append(job)
            if self._busy:
                self._wait_for(job)
            if not job.is_done:
                self._busy = True
                jobs, self._waiting = self._waiting, []
        if not job.is_done:
            self._lead(jobs)
        if job.error is not None:
            raise StoreError(*job.error)
        return job.result

    def _wait_for(self, job: Job[Any]) -> None:
        """Wait until a job is done, or this thread can do it."""
        self._sleepers += 1  # before the check: see _lead()
        while self._busy and not job.is_done:
            self._turn.wait()
        self._sleepers -= 1

    def exclusive(self, work: Callable[[], Any]) -> None:
        """Do work between two transactions."""
        with self._lock:
            self._sleepers += 1
            self._turn.wait_for(lambda: not self._busy)
            self._sleepers -= 1
            work()

    def _lead(self, jobs: list[Job[Any]]) -> None:
        error, is_handled = None, False
        try:
            self._transact(jobs)
            is_handled = True
        except StoreError as caught:
            error, is_handled = (str(caught), caught.public), True
        finally:
            if not is_handled:
                error = ("the relay was interrupted",) * 2
            for job in jobs:
                job.error, job.is_done = error, True
            # No lock if nobody sleeps. A thread counts itself as a sleeper before it checks `_busy`. So either it sees
            # that `_busy` is False, or this thread sees a sleeper.
            self._busy = False
            if self._sleepers:
                with self._lock:
                    self._turn.notify_all()
