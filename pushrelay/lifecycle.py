"""Going down: nobody new is let in, what was begun is finished, and every client is told when to come back."""

import logging
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pushrelay.server.systemd import notify

log = logging.getLogger(__name__)

# Requests under way are waited for so long. A push may wait for a store that another program locks, which takes two
# seconds (broker_sqlite.BUSY_SECONDS), and systemd kills after 90.
FINISH_SECONDS = 5.0
# Clients that poll, and are between two polls, have so long to fetch their last words; they come within a round trip.
LAST_POLL_SECONDS = 0.5
# What was sent has so long to be taken, and the connections to be closed from the other side.
GOODBYE_SECONDS = 1.0


# How many clients are asked to come back in one second. The first second is for the restart itself.
CLIENTS_PER_SECOND = 1000


def spread_for(clients: int, most: float) -> float:
    """Return over how many seconds `clients` come back: no longer than their number needs, and `most` at most."""
    return min(most, 1 + clients / CLIENTS_PER_SECOND)


def exit_at_signals() -> None:
    """Have the first SIGTERM or SIGINT raise SystemExit in the main thread; the next one ends the process at once."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit)


def _exit(*_: Any) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    raise SystemExit(0)


class Draining:
    """The end of a relay: of its clients (`manager`), of pushes that wait (`waiters`), of its server.

    `spread`: seconds over which the clients come back at most, see spread_for.
    """

    def __init__(self, manager: Any, waiters: Any, spread: float):
        self.reason: str | None = None  # why the relay is not ready, once it is going down
        self._manager = manager
        self._waiters = waiters
        self._spread = spread

    def serve(self, server: Any) -> None:
        """Serve until an exception comes up in this thread, as a signal makes one, and then go down."""
        try:
            server.serve_forever()
        finally:
            self._go_down(server)

    def send_away(self, finish: Callable[[], None] = lambda: None) -> int:
        """Let nobody in any more, `finish()` what is under way, and tell every client to come back.

        Returns how many there were. Where the server is not ours, it finishes what is under way by itself.
        """
        self.reason = "draining"
        self._manager.shut()
        self._waiters.finish()
        finish()
        return self._manager.drain(self._spread, LAST_POLL_SECONDS)

    def _go_down(self, server: Any) -> None:
        """Takes some seconds at most, whatever clients there are. The server and the store are closed by the caller."""
        began = time.monotonic()
        log.setLevel(logging.INFO)
        log.info(
            "going down: requests are finished, clients come back within %g s at most (setting drain_spread)",
            self._spread,
        )
        notify("STOPPING=1")
        clients = self.send_away(lambda: server.drain(FINISH_SECONDS))
        server.finish(GOODBYE_SECONDS)
        log.info("down: %d clients were sent away, in %.1f s", clients, time.monotonic() - began)
