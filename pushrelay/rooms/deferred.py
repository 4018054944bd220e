"""Packets of clients whose first one has to wait for something: kept, and handled behind it, in their order."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pushrelay.errors import NotYet
from pushrelay.server.fair_queue import TURN_SECONDS

log = logging.getLogger(__name__)

# Of one client so many may wait, far more than a page sends in those seconds; and so many bytes, in messages of the
# largest size.
MOST_PACKETS = 100
MOST_MESSAGES = 4


class _Packets:
    """Those of one client."""

    __slots__ = ("not_yet", "queue", "size")

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self.size = 0
        self.not_yet: NotYet | None = None  # what the first of them waits for

    def take(self) -> Any:
        packet = self.queue.popleft()
        self.size -= len(packet)
        return packet

    def keep(self, packet: Any, first: bool = False) -> None:
        (self.queue.appendleft if first else self.queue.append)(packet)
        self.size += len(packet)


class DeferredPackets:
    """Hands packets to `handle(client, packet)`, which may raise NotYet. Any thread may call it.

    `call_soon(callback, client)` has a thread call back, when it is the turn of this client.
    """

    def __init__(self, handle: Callable[[str, Any], None], call_soon: Callable[[Callable[[str], None], str], None]):
        self._handle = handle
        self._call_soon = call_soon
        self._lock = threading.Lock()  # over what follows
        self._held: dict[str, _Packets] = {}  # by client

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._held)

    def receive(self, client: str, packet: Any, message_bytes: int) -> bool:
        """Handle a packet, or keep it behind those of this client that wait. False where more wait than may.

        `message_bytes`: what one message may have.
        """
        if client in self._held:
            with self._lock:
                held = self._held.get(client)
                if held is not None:
                    held.keep(packet)
                    return len(held.queue) <= MOST_PACKETS and held.size <= MOST_MESSAGES * message_bytes
        try:
            self._handle(client, packet)
        except NotYet as not_yet:
            with self._lock:
                held = self._held.setdefault(client, _Packets())
                held.keep(packet)
                held.not_yet = NotYet(not_yet.then, not_yet.leave)  # without the traceback, which knows this call
            self._resume_after(not_yet, client)
        return True

    def forget(self, client: str) -> None:
        """The client is gone, and what waits with it."""
        with self._lock:
            held = self._held.pop(client, None)
            not_yet = None if held is None else held.not_yet
        if not_yet is not None:
            not_yet.leave()

    def _resume_after(self, not_yet: NotYet, client: str) -> None:
        not_yet.then(lambda: self._call_soon(self._resume, client))

    def _resume(self, client: str) -> None:
        """Handle what waits, and what is added, until the turn is over or something has to wait again."""
        ends_at = time.monotonic() + TURN_SECONDS
        while True:
            with self._lock:
                held = self._held.get(client)
                if held is None:
                    return
                if not held.queue:
                    del self._held[client]
                    return
                packet, held.not_yet = held.take(), None
            try:
                self._handle(client, packet)
            except NotYet as not_yet:
                with self._lock:
                    held.keep(packet, first=True)
                    held.not_yet = NotYet(not_yet.then, not_yet.leave)
                    is_here = self._held.get(client) is held
                if is_here:
                    self._resume_after(not_yet, client)
                else:  # it went away while its packet was handled
                    not_yet.leave()
                return
            except Exception:
                log.exception("a packet failed that had to wait")
            if time.monotonic() > ends_at:
                self._call_soon(self._resume, client)
                return
