"""Requests to auth_url, one for each visitor."""

import threading
import time
from collections.abc import Callable

from pushrelay.errors import Refused

from .tokens import Rights
from .visitor import Visitor

BEGIN_SECONDS = 30.0  # a request that has not been sent by then fails
MOST_SECONDS = 70.0  # longer than the largest auth_timeout


class AuthRequest:
    """A request to auth_url for the rights of one visitor. Any thread may call it.

    `share` identifies the client in whose turn the request is sent, such as its address. Requests of the same share
    wait for each other: see FairQueue. A client can make up any number of cookies, and each is another visitor in the
    same share.
    """

    def __init__(self, visitor: Visitor, share: str | None = None):
        self.visitor = visitor
        self.share = share
        # AuthBackend changes these, most of them under its lock.
        self.clients = 1  # that wait for the result
        self.created = time.monotonic()
        self.started: float | None = None  # when it was sent (monotonic)
        self.valid_until = 0.0  # until when its result may be used for other clients (monotonic)
        self.is_stale = False  # its result may be older than the last forget_results()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._outcome: Rights | Refused | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_done(self) -> bool:
        """Return whether there is a result."""
        return self._done.is_set()

    def call_when_done(self, callback: Callable[[], None]) -> None:
        """Call back from some thread when there is a result; immediately if there already is one."""
        with self._lock:
            if not self.is_done:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self) -> None:
        """Block until there is a result, at most for the time that it can take."""
        self._done.wait(BEGIN_SECONDS + MOST_SECONDS)

    def result(self) -> Rights:
        """Return the rights that the site grants. Raises Refused if it grants none or the request fails."""
        outcome = self._outcome
        if isinstance(outcome, Rights):
            return outcome
        if outcome is None:
            raise not_available("it takes too long")
        raise Refused(outcome.status, outcome.error, outcome.message)

    def finish(self, outcome: Rights | Refused) -> None:
        """Set the result and call back all waiters. Does nothing if there already is a result."""
        with self._lock:
            if self.is_done:
                return
            self._outcome = outcome
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def not_available(reason: str) -> Refused:
    """Return the refusal (503) for a request to the site that failed."""
    return Refused(503, "auth_not_available", f"the request to the site failed (setting auth_url): {reason}")
