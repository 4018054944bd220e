"""The newcomers that wait while Redis is away for a moment, so that they need not be refused."""

import time
from collections.abc import Callable

from .link import Link


class Newcomers:
    """Calls newcomers back when Redis is back, or when it has been away for `patience` seconds."""

    def __init__(self, link: Link, patience: float):
        self.may_wait = False  # the broker is started
        self._link = link
        self._patience = patience
        self._waiting: list[Callable[[], None]] = []  # the lock of the link guards it

    def must_wait(self) -> bool:
        """Return whether Redis cannot be reached now, and has been away for less than the patience."""
        link = self._link
        return not link.is_up and self.may_wait and time.monotonic() - link.down_since < self._patience

    def call_when_back(self, callback: Callable[[], None]) -> None:
        """Call back once when newcomers need not wait, maybe before this returns."""
        with self._link.lock:
            if self.must_wait():
                if not self._waiting:
                    self._let_in_later()
                self._waiting.append(callback)
                return
        callback()

    def let_in(self) -> None:
        """Let those continue that wait for Redis, unless it was back and has gone again."""
        with self._link.lock:
            if self.must_wait():
                self._let_in_later()
                return
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            each()

    def _let_in_later(self) -> None:
        """Have that done when the patience is over. The lock of the link is held."""
        left = self._link.down_since + self._patience - time.monotonic()
        self._link.loop.call_later(left, self.let_in)
