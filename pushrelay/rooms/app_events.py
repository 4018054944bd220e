"""Events of the app's own handlers, on threads of their own: one client's in order, clients in turn.

A handler may wait, for a database or for a client's answer (`call()`). On the poller's threads a few such handlers
would stop all pushes, and the answer that a handler waits for could not be read.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

# Handlers that run at a time. A thread that waits costs little; python-socketio starts one for each event.
MOST_THREADS = 64
# What may wait of one client: as many events, and messages of the largest size, as in deferred.py.
MOST_WAITING = 100
MOST_MESSAGES = 4
TOO_MANY_WAIT = (
    f"no more than {MOST_WAITING} events, nor very large ones, can wait for this app's handlers: "
    "wait for an answer before you send more"
)


class _Client:
    """The events of one client that have not begun."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events: deque[tuple[Callable[[], None], int]] = deque()
        self.size = 0


class AppEvents:
    """Runs handlers. Any thread may call it. Its threads are daemons: a handler that hangs does not hold up the end."""

    def __init__(self, threads: int = MOST_THREADS):
        self._most_threads = threads
        self._lock = threading.Lock()  # over what follows
        self._clients: dict[str, _Client] = {}  # those with events that wait or run
        self._ready: deque[str] = deque()  # of these, the ones of which no event runs
        self._threads = 0

    def add(self, client: str, run: Callable[[], None], size: int, limit: int) -> bool:
        """Run an event behind those of this client; False if too many wait. `limit`: size of all that may wait."""
        with self._lock:
            waiting = self._clients.get(client)
            if waiting is None:
                waiting = self._clients[client] = _Client()
                self._ready.append(client)
            elif len(waiting.events) >= MOST_WAITING or waiting.size + size > limit:
                return False
            waiting.events.append((run, size))
            waiting.size += size
            needs_thread = bool(self._ready) and self._threads < self._most_threads
            self._threads += needs_thread
        if needs_thread:
            self._start_thread()
        return True

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="app-events", daemon=True).start()
        except (
            RuntimeError
        ):  # the system has no more threads: those that run do the work, or the next event tries again
            log.exception("no thread for an event's handler")
            with self._lock:
                self._threads -= 1

    def _work(self) -> None:
        """Run what is ready; end when nothing is."""
        while True:
            with self._lock:
                if not self._ready:
                    self._threads -= 1
                    return
                client = self._ready.popleft()
                waiting = self._clients[client]
                run, size = waiting.events.popleft()
                waiting.size -= size
            try:
                run()
            except (Exception, SystemExit):
                log.exception("the handler of an event failed")
            with self._lock:
                if waiting.events:
                    self._ready.append(client)
                else:
                    del self._clients[client]
