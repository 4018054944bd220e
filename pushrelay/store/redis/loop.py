"""The loop that watches the link's socket and calls its timers: the server's poller, or a thread of its own."""

import contextlib
import heapq
import itertools
import logging
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

IN, OUT = 1, 4  # as epoll has them


class Runnable(Protocol):
    """Something that a loop runs."""

    share: str | None

    def run(self) -> None:
        """Do what there is to do now."""


class Source(Runnable, Protocol):
    """A socket that a loop watches."""

    def fileno(self) -> int:
        """Return the file descriptor."""


class Loop(Protocol):
    """The part of server.Poller that the link uses. Any thread may call it."""

    def start(self) -> None:
        """Start, unless that was done."""

    def watch(self, source: Any, events: int) -> None:
        """Watch a new source, and arm it for one event."""

    def rearm(self, fd: int, events: int) -> None:
        """Arm a watched source for one more event."""

    def retire(self, sock: socket.socket) -> None:
        """Forget the source of this socket, and close the socket soon."""

    def run_soon(self, source: Any) -> None:
        """Run a source, as after an event."""

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call back, `seconds` from now at the earliest."""


class Timer:
    """A call that is due at a time on the monotonic clock."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], Any]):
        self._call: Callable[[], Any] | None = call

    def cancel(self) -> None:
        """Prevent the call, if it is not too late."""
        self._call = None

    def run(self) -> None:
        """Make the call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class ThreadLoop:
    """A loop on a thread of its own, for a process that does not run the relay's own server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # over all that follows
        self._sources: dict[int, Source] = {}  # by file descriptor
        self._armed: dict[int, int] = {}  # events, by file descriptor
        self._retired: list[socket.socket] = []  # closed by the thread, between two calls of poll()
        self._soon: deque[Runnable] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._waker, self._woken = socket.socketpair()
        for each in (self._waker, self._woken):
            each.setblocking(False)

    def start(self) -> None:
        """Start the thread, unless that was done."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redis-link", daemon=True)
                self._thread.start()

    def watch(self, source: Source, events: int) -> None:
        """Watch a new source, and arm it for one event."""
        with self._lock:
            self._sources[source.fileno()] = source
        self.rearm(source.fileno(), events)

    def rearm(self, fd: int, events: int) -> None:
        """Arm a watched source for one more event."""
        with self._lock:
            self._armed[fd] = events
        self._wake()

    def retire(self, sock: socket.socket) -> None:
        """Forget the source of this socket, and close the socket soon."""
        with self._lock:
            self._sources.pop(sock.fileno(), None)
            self._armed.pop(sock.fileno(), None)
            self._retired.append(sock)
        self._wake()

    def run_soon(self, source: Runnable) -> None:
        """Run a source, as after an event."""
        self._soon.append(source)
        self._wake()

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back, `seconds` from now at the earliest."""
        timer = Timer(lambda: callback(*args))
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        self._wake()
        return timer

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(5)

    def _wake(self) -> None:
        if threading.current_thread() is not self._thread:
            with contextlib.suppress(OSError):  # it is full, so the thread wakes up anyway, or it has ended
                self._waker.send(b"x")

    def _run(self) -> None:
        while not self._closed:
            for work in self._wait():
                try:
                    work.run()
                except Exception:
                    log.exception("the thread of the connection to Redis failed; it continues")
        self._close_sockets()

    def _wait(self) -> list[Runnable | Timer]:
        """Wait for events and timers, and return what is to be run."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        with self._lock:
            while self._retired:
                self._retired.pop().close()
            for fd, events in self._armed.items():
                poll.register(fd, events)
            left = self._timers[0][0] - time.monotonic() if self._timers else 60.0
        happened = poll.poll(0 if self._soon else max(0, math.ceil(left * 1000)))
        work: list[Runnable | Timer] = []
        with self._lock:
            for fd, _ in happened:
                if self._armed.pop(fd, None) is not None and fd in self._sources:
                    work.append(self._sources[fd])
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            while self._soon:
                work.append(self._soon.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                work.append(heapq.heappop(self._timers)[2])
        return work

    def _close_sockets(self) -> None:
        with self._lock:
            for each in (*self._retired, self._waker, self._woken):
                each.close()
