"""Pings, and the end of who does not answer them (Engine.IO protocol, revision 4, "Heartbeat").

The interval is the same for everyone, so the deadlines come in the order in which they were made: two queues and one
timer serve all sessions, and 10,000 idle clients cost 400 pings a second and nothing else.
"""

import threading
import time
from collections import deque
from typing import Any

from pushrelay.server.poller import Poller, Timer

from .packet import PING_PACKET

# Deadlines so close together are met at one time.
GRAIN = 0.005
# Ended sessions are swept out of the queue when there are so many, and more of them than of others.
SWEEP_AT = 1000


class Heartbeat:
    """Pings the sessions that `begin` was called for until they are closed."""

    def __init__(self, poller: Poller, interval: float, timeout: float):
        self._poller = poller
        self._interval = interval
        self._timeout = timeout
        self._lock = threading.Lock()  # over all that follows
        self._pings: deque[tuple[float, Any]] = deque()  # when each session is to be pinged
        self._pongs: deque[tuple[float, Any]] = deque()  # by when each has to have answered
        self._ended = 0  # closed sessions still in `_pings`, at most
        self._timer: Timer | None = None

    def begin(self, session: Any) -> None:
        """Ping the session one interval from now: it has been opened, or it has answered the last ping."""
        with self._lock:
            session.pong_due, session.has_more_time = 0.0, False
            due = time.monotonic() + self._interval
            self._pings.append((due, session))
            if self._timer is not None and due < self._timer.deadline:
                # It waits for an answer that is due later, as ping_timeout is the longer one.
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._timer = self._poller.call_later(self._interval, self._tick)

    def extend(self, session: Any) -> None:
        """Give a session the time for its answer once more. After its deadline, so that deadlines stay in order."""
        with self._lock:
            session.pong_due = time.monotonic() + self._timeout
            self._pongs.append((session.pong_due, session))
            if self._timer is None:
                self._timer = self._poller.call_later(self._timeout, self._tick)

    def end(self) -> None:
        """A session was closed. Its entry is let go with the others' some time."""
        with self._lock:
            self._ended += 1
            if self._ended > SWEEP_AT and self._ended > len(self._pings) // 2:
                self._pings = deque(entry for entry in self._pings if not entry[1].closed)
                self._ended = 0

    def stop(self) -> None:
        with self._lock:
            self._pings.clear()
            self._pongs.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self) -> None:
        with self._lock:
            to_ping, late = self._take_due(time.monotonic())
        try:
            for session in to_ping:
                session.send(PING_PACKET)
        finally:
            # What the app does when a client is gone may take long, and the others' pings must not wait for it.
            for session in late:
                self._poller.call_later(0, session.miss_ping)
            self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            heads = [queue[0][0] for queue in (self._pings, self._pongs) if queue]
            self._timer = None
            if heads:
                delay = max(GRAIN, min(heads) - time.monotonic())
                self._timer = self._poller.call_later(delay, self._tick)

    def _take_due(self, now: float) -> tuple[list[Any], list[Any]]:
        to_ping, late = [], []
        while self._pings and self._pings[0][0] <= now:
            due, session = self._pings.popleft()
            if not session.closed:
                # From when the ping was due, or clients that count themselves would find us late; but not where the
                # whole process was held up and nobody could have answered.
                session.pong_due = (due if now - due < self._timeout / 4 else now) + self._timeout
                self._pongs.append((session.pong_due, session))
                to_ping.append(session)
        while self._pongs and self._pongs[0][0] <= now:
            due, session = self._pongs.popleft()
            if session.pong_due == due and not session.closed:
                late.append(session)
        return to_ping, late
