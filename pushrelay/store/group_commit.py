"""GroupCommit that are shared: who finds the store busy waits, and the next one to write takes along all that waits."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pushrelay.errors import StoreError

T = TypeVar("T")


class Job:
    """Work that waits for its transaction."""

    __slots__ = ("error", "result", "is_done", "work")

    def __init__(self, work: Callable[[], Any]):
        self.work = work
        self.result: Any = None
        # Why it was not done. Not the exception, whose traceback would know this job: both would stay until the garbage
        # collector comes, which is seldom (server.GC_THRESHOLD).
        self.error: tuple[str, str] | None = None  # StoreError's arguments
        self.is_done = False


class GroupCommit:
    """Has `transact(jobs)` called by one thread at a time, with all the jobs that came while it was busy.

    It does the work of all of them or, raising StoreError, of none.
    """

    def __init__(self, transact: Callable[[list[Job]], None]):
        self._transact = transact
        self._lock = threading.Lock()  # over the three below
        self._turn = threading.Condition(self._lock)
        self._waiting: list[Job] = []  # for the next transaction
        self._busy = False  # a thread is in the transaction
        self._sleepers = 0  # threads that wait for their turn

    def run(self, work: Callable[[], T]) -> T:
        """Do work inside a transaction, together with what else waits for one; returns what work returned.

        No thread is asked to do so for the others: whoever waits and finds the store free does it for all.
        """
        job = Job(work)
        with self._lock:
            self._waiting.append(job)
            while self._busy and not job.is_done:
                self._sleepers += 1
                self._turn.wait()
                self._sleepers -= 1
            if not job.is_done:
                self._busy = True
                jobs, self._waiting = self._waiting, []
        if not job.is_done:
            self._lead(jobs)
        if job.error is not None:
            raise StoreError(*job.error)
        return job.result

    def exclusive(self, work: Callable[[], Any]) -> None:
        """Do work while there is no transaction."""
        with self._lock:
            self._sleepers += 1
            self._turn.wait_for(lambda: not self._busy)
            self._sleepers -= 1
            work()

    def _lead(self, jobs: list[Job]) -> None:
        error, done = None, False
        try:
            self._transact(jobs)
            done = True
        except StoreError as caught:
            error, done = (str(caught), caught.public), True
        finally:
            if not done:
                error = ("the relay was interrupted",) * 2
            with self._lock:
                for job in jobs:
                    job.error, job.is_done = error, True
                self._busy = False
                if self._sleepers:
                    self._turn.notify_all()
