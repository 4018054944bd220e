"""Packets of clients whose first packet must wait for something: they are kept, and handled after it in order."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from pushrelay.errors import NotYet
from pushrelay.server.fair_queue import TURN_SECONDS

log = logging.getLogger(__name__)

Data = str | bytes  # one Socket.IO packet, or an attachment, as the client sent it

MOST_PACKETS = 100  # that may wait for one client: far more than a page sends until PHP has answered
MOST_MESSAGES = 4  # the bytes that may wait for one client, in messages of the largest size


class _Packets:
    """The packets of one client that wait."""

    __slots__ = ("not_yet", "queue", "size")

    def __init__(self) -> None:
        self.queue: deque[Data] = deque()
        self.size = 0  # of the queue, in bytes or characters
        self.not_yet: NotYet | None = None  # what the first of them waits for

    def take(self) -> Data:
        packet = self.queue.popleft()
        self.size -= len(packet)
        return packet

    def add(self, packet: Data) -> None:
        self.queue.append(packet)
        self.size += len(packet)

    def put_back(self, packet: Data) -> None:
        self.queue.appendleft(packet)
        self.size += len(packet)


class DeferredPackets:
    """Hands packets to `handle(client, packet)`, which may raise NotYet: then the packet waits, and no thread does.

    When that is available, the packet is handled again from its beginning, followed by all later packets of this
    client. So handlers are written as if nothing ever waited, and each client's packets stay in order.

    `call_soon(callback, client)` has some thread call `callback(client)` when it is the turn of this client. Any thread
    may call these methods.
    """

    def __init__(self, handle: Callable[[str, Data], None], call_soon: Callable[[Callable[[str], None], str], None]):
        self._handle = handle
        self._call_soon = call_soon
        self._lock = threading.Lock()  # over what follows
        self._waiting: dict[str, _Packets] = {}  # by client

    def __len__(self) -> int:
        """Return the number of clients whose packets wait."""
        return len(self._waiting)

    def receive(self, client: str, packet: Data, message_bytes: int) -> bool:
        """Handle a packet, or queue it after this client's waiting packets. Return False if too much waits then.

        `message_bytes` is the size of the largest message that a client may send.
        """
        if client in self._waiting:
            with self._lock:
                waiting = self._waiting.get(client)
                if waiting is not None:
                    waiting.add(packet)
                    return len(waiting.queue) <= MOST_PACKETS and waiting.size <= MOST_MESSAGES * message_bytes
        try:
            self._handle(client, packet)
        except NotYet as not_yet:
            with self._lock:
                waiting = self._waiting.setdefault(client, _Packets())
                waiting.add(packet)
                waiting.not_yet = _without_traceback(not_yet)
            self._resume_after(not_yet, client)
        return True

    def forget(self, client: str) -> None:
        """Drop the packets of a client that has disconnected, and cancel what they wait for."""
        with self._lock:
            waiting = self._waiting.pop(client, None)
            not_yet = None if waiting is None else waiting.not_yet
        if not_yet is not None:
            not_yet.cancel()

    def _resume_after(self, not_yet: NotYet, client: str) -> None:
        not_yet.call_when_ready(lambda: self._call_soon(self._resume, client))

    def _resume(self, client: str) -> None:
        """Handle the packets that wait, until the turn is over or one of them must wait again."""
        ends_at = time.monotonic() + TURN_SECONDS
        while True:
            with self._lock:
                waiting = self._waiting.get(client)
                if waiting is None:
                    return
                if not waiting.queue:
                    del self._waiting[client]
                    return
                packet, waiting.not_yet = waiting.take(), None
            try:
                self._handle(client, packet)
            except NotYet as not_yet:
                self._wait_again(client, waiting, packet, not_yet)
                return
            except Exception:
                log.exception("a packet that had to wait could not be handled")
            if time.monotonic() > ends_at:
                self._call_soon(self._resume, client)
                return

    def _wait_again(self, client: str, waiting: _Packets, packet: Data, not_yet: NotYet) -> None:
        with self._lock:
            waiting.put_back(packet)
            waiting.not_yet = _without_traceback(not_yet)
            is_connected = self._waiting.get(client) is waiting
        if is_connected:
            self._resume_after(not_yet, client)
        else:  # it disconnected while its packet was handled
            not_yet.cancel()


def _without_traceback(not_yet: NotYet) -> NotYet:
    """Return a copy that keeps no frames alive: the traceback of the original refers to this call itself."""
    return NotYet(not_yet.call_when_ready, not_yet.cancel)
