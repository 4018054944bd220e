"""Rings among the nodes: a program rang at one of them, and another one takes the work."""

import time
from collections.abc import Callable

from .link import Link
from .wire import packed

EVERY_SECONDS = 0.02  # between two messages of this node: rings in between share the next one


class RedisRings:
    """Rings: see there."""

    def __init__(self, link: Link):
        self._link = link
        self._bells: list[Callable[[], None]] = []
        self._due = 0.0  # when the next message may be sent (monotonic)
        self._is_waiting = False  # a message will be sent then

    def pass_on(self) -> None:
        """Ring at all nodes, now or within EVERY_SECONDS."""
        link = self._link
        with link.lock:
            if self._is_waiting:
                return
            wait = self._due - time.monotonic()
            if wait <= 0:
                self._send()
            else:
                self._is_waiting = True
                link.loop.call_later(wait, self._send_late)

    def call_on_ring(self, bell: Callable[[], None]) -> None:
        """Have `bell()` called when some node passes a ring on."""
        self._bells.append(bell)

    def wake(self) -> None:
        """Ring here."""
        for each in self._bells:
            each()

    def _send_late(self) -> None:
        with self._link.lock:
            self._is_waiting = False
            self._send()

    def _send(self) -> None:
        link = self._link
        self._due = time.monotonic() + EVERY_SECONDS
        if link.is_up:  # otherwise the node that takes the work finds it without a ring
            message = packed(link.state.epoch, 0, "b")
            link.send(("PUBLISH", link.channel, message), lambda reply, work: None)
