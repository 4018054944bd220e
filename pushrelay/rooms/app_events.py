"""Events for an app's own handlers, on separate threads: each client's events in order, and clients take turns.

A handler may wait for a database or for a client's answer (`call()`). On the poller's threads, a few such handlers
would stop all pushes, and the answers that handlers wait for could not be read. python-socketio itself starts a thread
for each event, without order and without a limit.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

# Handlers that run at the same time. A waiting thread costs little.
MOST_THREADS = 64
# The same limits as for packets that wait (deferred.py): events of one client, and largest messages.
MOST_WAITING = 100
MOST_MESSAGES = 4
TOO_MANY_WAIT = (
    f"at most {MOST_WAITING} events, and no very large ones, can wait for this app's handlers: "
    "wait for an answer before you send more"
)


class _Client:
    """The events of one client whose handlers have not begun."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events: deque[tuple[Callable[[], None], int]] = deque()
        self.size = 0


class AppEvents:
    """Runs handlers on daemon threads, so that a handler that hangs does not delay the exit. Any thread may call it."""

    def __init__(self, threads: int = MOST_THREADS):
        self._most_threads = threads
        self._lock = threading.Lock()  # over what follows
        self._clients: dict[str, _Client] = {}  # that have waiting or running events
        self._ready: deque[str] = deque()  # those of them without a running event
        self._threads = 0

    def add(self, client: str, run: Callable[[], None], size: int, limit: int) -> bool:
        """Run an event after the earlier ones of this client. Return False if too many of them wait.

        `size` is the event's, and `limit` the size of all events of a client that may wait.
        """
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
        ):  # the system has no more threads: running threads do the work, or the next event tries again
            log.exception("no thread could be started for the handler of an event")
            with self._lock:
                self._threads -= 1

    def _work(self) -> None:
        """Run events, and end the thread when none is ready."""
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
