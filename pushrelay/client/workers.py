"""Threads on demand for requests to other servers: started when there is work, ended when they are idle."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

IDLE_SECONDS = 10.0  # a thread ends after this time without work


class Queue(Protocol[T_co]):
    """Items that no thread has taken."""

    def __len__(self) -> int: ...

    def pop(self) -> T_co:
        """Remove and return the next item."""
        ...


class Workers(Generic[T]):
    """At most `most` daemon threads that take the items of `queue` and call `work` with each.

    `name` is the threads' name. `lock` is the one that guards the queue. `work` is called without it, and must not
    raise.
    """

    def __init__(self, name: str, most: int, lock: threading.Lock, queue: Queue[T], work: Callable[[T], None]):
        self._name = name
        self.most = most  # changed by resize()
        self._queue = queue
        self._work = work
        self._added = threading.Condition(lock)
        self._threads = 0
        self._idle = 0  # of these

    def notify(self) -> None:
        """Have a thread process the item that was just added to the queue. The caller holds the lock."""
        self._added.notify()
        if len(self._queue) > self._idle and self._threads < self.most:
            self._start()

    def resize(self, most: int) -> None:
        """Use at most this number of threads from now on. Those beyond it end with the item that they process."""
        with self._added:
            self.most = most
            for _ in range(min(len(self._queue) - self._idle, most - self._threads)):
                self._start()
            self._added.notify_all()

    def _start(self) -> None:
        self._threads += 1
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:  # the system has no more threads: the item waits for a thread or the next attempt
            self._threads -= 1

    def _run(self) -> None:
        """Do the work of one thread: take items until none has come for IDLE_SECONDS, or it is one too many."""
        while True:
            with self._added:
                self._idle += 1
                self._added.wait_for(lambda: len(self._queue) > 0 or self._threads > self.most, IDLE_SECONDS)
                self._idle -= 1
                if not len(self._queue) or self._threads > self.most:
                    self._threads -= 1
                    self._added.notify()  # in case this thread was woken for an item
                    return
                item = self._queue.pop()
            self._work(item)
