"""Questions to auth_url, and the order in which those that wait are asked."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from pushrelay.errors import Refused

from .tokens import Rights

BEGIN_SECONDS = 30.0  # a request that has not begun by then fails
LONGEST = 70.0  # seconds; more than auth_timeout can be


class AuthRequest:
    """Which ids may this visitor register? Any thread may call it."""

    def __init__(self, visitor: Any, share: str | None = None):
        self.visitor = visitor  # an auth_site.Visitor
        self.share = share
        self.waiting = 1  # clients that wait for the answer; AuthBackend's lock is over it
        self.asked = time.monotonic()
        self.begun: float | None = None  # when PHP was asked, monotonic
        self.counts_until = 0.0  # its answer, monotonic
        self.outdated = False  # what PHP says now, or said, may be of before forget()
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._outcome: Rights | Refused | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cookies(self) -> str:
        return self.visitor.cookies

    @property
    def is_settled(self) -> bool:
        return self._settled.is_set()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back when there is an answer; at once if there is one."""
        with self._lock:
            if not self.is_settled:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self) -> None:
        """Wait for an answer in this thread, no longer than it can take."""
        self._settled.wait(BEGIN_SECONDS + LONGEST)

    def answer(self) -> Rights:
        """Return what PHP allows. Raises Refused."""
        outcome = self._outcome
        if isinstance(outcome, Rights):
            return outcome
        if outcome is None:
            raise not_available("it takes too long")
        raise Refused(outcome.status, outcome.error, outcome.message)

    def settle(self, outcome: Rights | Refused) -> None:
        """Set the outcome, unless there is one, and call back all who wait."""
        with self._lock:
            if self.is_settled:
                return
            self._outcome = outcome
            self._settled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class AuthQueue:
    """Questions that wait: one of each share in rotation. The caller holds a lock.

    So the clients of one address, however many cookies they make up, do not keep those of another from their answer.
    """

    def __init__(self) -> None:
        self._by_share: dict[str | None, OrderedDict[AuthRequest, None]] = {}
        self._rotation: deque[str | None] = deque()  # each share with a request at least once, the next one first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, request: AuthRequest) -> None:
        """Queue a request behind the others of its share."""
        if request.share not in self._by_share:
            self._by_share[request.share] = OrderedDict()
            self._rotation.append(request.share)
        self._by_share[request.share][request] = None
        self._count += 1

    def pop(self) -> AuthRequest:
        """Take the first request of the share whose turn it is. Raises IndexError if none waits."""
        share = self._rotation.popleft()
        request, _ = self._by_share[share].popitem(last=False)
        self._count -= 1
        if self._by_share[share]:
            self._rotation.append(share)
        else:
            del self._by_share[share]
        return request

    def remove(self, request: AuthRequest) -> bool:
        """Take a request out; returns whether it was there."""
        waiting = self._by_share.get(request.share, {})
        if request not in waiting:
            return False
        del waiting[request]
        self._count -= 1
        if not waiting:
            del self._by_share[request.share]
            self._rotation.remove(request.share)
        return True


def not_available(why: str) -> Refused:
    return Refused(503, "auth_not_available", f"the site could not be asked (setting auth_url): {why}")
