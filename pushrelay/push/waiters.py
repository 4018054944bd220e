"""Pushes that wait for an acknowledgement: answered when one comes, or when their time is up."""

import threading
from collections.abc import Callable
from typing import Any

from pushrelay.errors import Refused
from pushrelay.store.publication import Receipt, offset_of


class Waiter:
    """One push that waits. It is made before the push is published, so that no acknowledgement is too quick for it."""

    def __init__(self, waiters: "Waiters", destinations: list[str]):
        self.destinations = destinations
        self._waiters = waiters
        self._lock = threading.Lock()  # over all that follows
        self._targets: dict[str, int] | None = None  # the offset to be acknowledged, once they are known
        self._seen: list[tuple[str, int, str]] = []  # what was acknowledged before that
        self._acked: dict[str, set[str]] = {each: set() for each in destinations}  # by whom
        self._answer: Callable[[dict[str, int]], None] | None = None
        self._is_over = False  # the time was up, or nobody waits any more, maybe before there was an answer to give

    def expect(self, receipts: list[Receipt], answer: Callable[[dict[str, int]], None]) -> None:
        """Wait for these publications, one for each destination; `answer(acked)` is called once, by whichever thread.

        `acked` is how many clients acknowledged each destination's. It may be called before this returns.
        """
        with self._lock:
            self._answer = answer
            self._targets = {
                each: offset_of(receipt.position) for each, receipt in zip(self.destinations, receipts, strict=True)
            }
            for noted in self._seen:
                self._count(*noted)
            done = self._is_over or self._is_done()
        if done:
            self.finish()

    def note(self, destination: str, offset: int, sid: str) -> None:
        """A client acknowledged all up to an offset of one of its destinations."""
        with self._lock:
            if self._targets is None:
                self._seen.append((destination, offset, sid))
                return
            self._count(destination, offset, sid)
            done = self._is_done()
        if done:
            self.finish()

    def finish(self) -> None:
        """Answer now, unless that was done: all is acknowledged, or the time is up, or nobody waits any more."""
        with self._lock:
            self._is_over = True
            answer, self._answer = self._answer, None
            acked = {each: len(sids) for each, sids in self._acked.items()}
        self._waiters.leave(self)
        if answer is not None:
            answer(acked)

    def _count(self, destination: str, offset: int, sid: str) -> None:
        if self._targets is not None and offset >= self._targets[destination]:
            self._acked[destination].add(sid)  # who goes on and acknowledges more is still one

    def _is_done(self) -> bool:
        return all(self._acked.values())


class Waiters:
    """The pushes that wait, at most `most` of them."""

    def __init__(self, most: int):
        self._most = most
        self._lock = threading.Lock()  # over both that follow
        self._count = 0
        self._ending = False
        self._by_destination: dict[str, set[Waiter]] = {}

    def enter(self, destinations: list[str]) -> Waiter:
        """Make a waiter for a push that is about to be published. Raises Refused (503) where too many wait."""
        waiter = Waiter(self, destinations)
        with self._lock:
            if self._count >= self._most:
                message = f"{self._most} pushes wait already (setting max_waiting): push again without wait, or later"
                raise Refused(503, "too_many_waiting", message)
            self._count += 1
            for each in destinations:
                self._by_destination.setdefault(each, set()).add(waiter)
        if self._ending:
            waiter.finish()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter; no harm if it was forgotten before."""
        with self._lock:
            if waiter not in self._by_destination.get(waiter.destinations[0], ()):
                return
            self._count -= 1
            for each in waiter.destinations:
                self._by_destination[each].discard(waiter)
                if not self._by_destination[each]:
                    del self._by_destination[each]

    def note(self, destination: str, offset: int, sid: str) -> None:
        """A client acknowledged all up to an offset of this destination."""
        with self._lock:
            waiting = list(self._by_destination.get(destination, ()))
        for waiter in waiting:
            waiter.note(destination, offset, sid)

    def finish(self) -> None:
        """Answer all that wait, because the relay ends: they were taken. Those that come after this do not wait."""
        self._ending = True
        with self._lock:
            waiting = set().union(*self._by_destination.values())
        for waiter in waiting:
            waiter.finish()

    def __len__(self) -> int:
        return self._count


class Held:
    """What answers a waiting push in the thread that serves it, where requests cannot be parked."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._acked: dict[str, int] = {}

    def answer(self, acked: dict[str, int]) -> None:
        self._acked = acked
        self._done.set()

    def wait(self, waiter: Waiter, seconds: float) -> dict[str, Any]:
        """Wait until it is answered or the time is up; returns what was acknowledged by then."""
        if not self._done.wait(seconds):
            waiter.finish()
            self._done.wait()
        return self._acked
