"""Pushes that wait for an acknowledgement. They are answered when it comes or when their time has passed.

On our own server a waiting push is a parked request and holds no thread.
"""

import threading
from collections.abc import Callable

from pushrelay.errors import Refused
from pushrelay.store.publication import Receipt, offset_of


class Waiter:
    """One push that waits. Created before the push is published, so that it misses no acknowledgement."""

    def __init__(self, waiters: "Waiters", destinations: list[str]):
        self.destinations = destinations
        self._waiters = waiters
        self._lock = threading.Lock()  # over all that follows
        # By destination: the offset to be acknowledged, once the push is published; and the sids that did so.
        self._targets: dict[str, int] | None = None
        self._acked: dict[str, set[str]] = {each: set() for each in destinations}
        self._seen: list[tuple[str, int, str]] = []  # acknowledgements that came before the offsets were known
        self._answer: Callable[[dict[str, int]], None] | None = None
        self._is_over = False  # finish() was called, maybe before expect()

    def expect(self, receipts: list[Receipt], answer: Callable[[dict[str, int]], None]) -> None:
        """Wait for acknowledgements of these publications, one for each destination.

        `answer(acked)` is called once, by any thread, and maybe before this returns. `acked` has the number of clients
        that acknowledged the push, by destination.
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
        """Count an acknowledgement: the client `sid` has everything up to an offset of a destination."""
        with self._lock:
            if self._targets is None:
                self._seen.append((destination, offset, sid))
                return
            self._count(destination, offset, sid)
            done = self._is_done()
        if done:
            self.finish()

    def finish(self) -> None:
        """Answer now, unless that was done: time is up, everything is acknowledged, or the publisher has left."""
        with self._lock:
            self._is_over = True
            answer, self._answer = self._answer, None
            acked = {each: len(sids) for each, sids in self._acked.items()}
        self._waiters.leave(self)
        if answer is not None:
            answer(acked)

    def _count(self, destination: str, offset: int, sid: str) -> None:
        if self._targets is not None and offset >= self._targets[destination]:
            self._acked[destination].add(sid)  # a set: a client that acknowledges more later counts once

    def _is_done(self) -> bool:
        return all(self._acked.values())


class Waiters:
    """All pushes that wait: at most `limit` at a time. Any thread may call it."""

    def __init__(self, limit: int):
        self.limit = limit  # may be changed
        self._lock = threading.Lock()  # over both that follow
        self._count = 0
        self._ending = False
        self._by_destination: dict[str, set[Waiter]] = {}

    def enter(self, destinations: list[str]) -> Waiter:
        """Return the waiter of a push that is about to be published. Raises Refused (503) if too many wait."""
        waiter = Waiter(self, destinations)
        with self._lock:
            if self._count >= self.limit:
                message = f"{self.limit} pushes wait already (setting max_waiting): push without wait, or later"
                raise Refused(503, "too_many_waiting", message)
            self._count += 1
            for each in destinations:
                self._by_destination.setdefault(each, set()).add(waiter)
        if self._ending:
            waiter.finish()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter, if it is still known."""
        with self._lock:
            if waiter not in self._by_destination.get(waiter.destinations[0], ()):
                return
            self._count -= 1
            for each in waiter.destinations:
                self._by_destination[each].discard(waiter)
                if not self._by_destination[each]:
                    del self._by_destination[each]

    def note(self, destination: str, offset: int, sid: str) -> None:
        """Notify the pushes to a destination that the client `sid` has everything up to an offset."""
        with self._lock:
            waiting = list(self._by_destination.get(destination, ()))
        for waiter in waiting:
            waiter.note(destination, offset, sid)

    def destinations(self) -> list[str]:
        """Return the destinations of the pushes that wait."""
        with self._lock:
            return list(self._by_destination)

    def finish(self) -> None:
        """Answer all pushes that wait, because the relay stops; they are stored. Later pushes do not wait."""
        self._ending = True
        with self._lock:
            waiting = set().union(*self._by_destination.values())
        for waiter in waiting:
            waiter.finish()

    def __len__(self) -> int:
        return self._count


class BlockingWait:
    """Blocks the thread that serves a waiting push, for servers that cannot park requests."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._acked: dict[str, int] = {}

    def answer(self, acked: dict[str, int]) -> None:
        """Make wait() return this."""
        self._acked = acked
        self._done.set()

    def wait(self, waiter: Waiter, seconds: float) -> dict[str, int]:
        """Wait until the push is acknowledged or `seconds` have passed; return the acknowledgements by then."""
        if not self._done.wait(seconds):
            waiter.finish()
            self._done.wait()
        return self._acked
