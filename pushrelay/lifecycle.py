"""Graceful shutdown: accept no new clients, finish requests under way, and ask every client to reconnect later.

It takes some seconds at most. Clients reconnect over a longer time if there are thousands of them, so that the next
process is not overloaded.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from pushrelay.server.systemd import notify

log = logging.getLogger(__name__)

# Seconds to finish requests under way. A push may wait two seconds for a store that another program locks
# (BUSY_SECONDS in store/sqlite_opening.py), and systemd kills the process after 90.
FINISH_SECONDS = 5.0
# Seconds for clients between two polls to fetch their last packets. They need one round trip.
LAST_POLL_SECONDS = 0.5
# Seconds for clients to read what was sent to them and to close their connections.
GOODBYE_SECONDS = 1.0


# Clients asked to reconnect in one second. The first second is reserved for the restart itself.
CLIENTS_PER_SECOND = 1000


class Clients(Protocol):
    """The connected clients, as the shutdown needs them: a manager of rooms."""

    def shut(self) -> None:
        """Accept no new clients."""

    def drain(self, spread: float, seconds: float) -> int:
        """Ask each client to reconnect within `spread` seconds, and close it; return how many there were.

        Wait at most `seconds` until the clients have received that.
        """


class Waiters(Protocol):
    """The pushes that wait for an acknowledgement."""

    def finish(self) -> None:
        """Answer all of them now."""


class DrainableServer(Protocol):
    """A server that can stop in three steps."""

    def serve_forever(self) -> None:
        """Serve until an exception such as SystemExit is raised in this thread."""

    def drain(self, seconds: float) -> None:
        """Stop listening, and wait at most `seconds` for requests under way."""

    def finish(self, seconds: float) -> None:
        """End the remaining connections, and wait at most `seconds` until they are closed."""


def spread_for(clients: int, most: float) -> float:
    """Return the seconds over which `clients` reconnect: enough for their number, but at most `most`."""
    return min(most, 1 + clients / CLIENTS_PER_SECOND)


def exit_at_signals() -> None:
    """Make the first SIGTERM or SIGINT raise SystemExit in the main thread; the next one kills the process."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, exit_at_signal)


def exit_at_signal(*_: object) -> NoReturn:
    """Raise SystemExit, as the handler of a signal; the next one kills the process."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    raise SystemExit(0)


class Draining:
    """The shutdown of a relay: of its clients, of the pushes that wait for an acknowledgement, and of its server.

    `spread` is the longest time in seconds over which the clients reconnect (see spread_for). It may be changed.
    """

    def __init__(self, clients: Clients, waiters: Waiters, spread: float):
        self.reason: str | None = None  # why the relay is not ready, once the shutdown has begun
        self.spread = spread
        self._clients = clients
        self._waiters = waiters
        self._ending = threading.Lock()  # held while end() works
        self._ended = False

    def serve(self, server: DrainableServer) -> None:
        """Serve until an exception is raised in this thread, as signals do, and then shut down in order.

        The caller closes the server and the store.
        """
        try:
            server.serve_forever()
        finally:
            self._shut_down(server)

    def send_away(self, finish: Callable[[], None] = lambda: None) -> int:
        """Accept no new clients, call `finish()` for requests under way, and ask every client to reconnect.

        Return how many clients there were. A server that is not ours finishes its own requests.
        """
        self.reason = "draining"
        self._clients.shut()
        self._waiters.finish()
        finish()
        return self._clients.drain(self.spread, LAST_POLL_SECONDS)

    def end(self, *closers: Callable[[], Any]) -> None:
        """Disconnect the clients and then call each of `closers`: for a relay whose process another server ends.

        Only the first call does so. A call from another thread returns when the first one is done, because the process
        may exit after it.
        """
        with self._ending:
            if self._ended:
                return
            self._ended = True
            self.send_away()
            for close in closers:
                close()

    def _shut_down(self, server: DrainableServer) -> None:
        """Shut down within some seconds, whatever the clients do."""
        began = time.monotonic()
        log.info(
            "going down: finishing requests; clients reconnect within at most %g s (setting drain_spread)",
            self.spread,
        )
        notify("STOPPING=1")
        clients = self.send_away(lambda: server.drain(FINISH_SECONDS))
        server.finish(GOODBYE_SECONDS)
        were = "client was" if clients == 1 else "clients were"
        log.info("down: %d %s sent away, in %.1f s", clients, were, time.monotonic() - began)
