"""Pings, and the end of clients that do not answer them (Engine.IO protocol, revision 4, "Heartbeat")."""

import time

from .deadlines import Deadlines
from .packet import PING_PACKET
from .session import Session


class Heartbeat:
    """Pings sessions from their `begin` until they are closed. Any thread may call it."""

    def __init__(self, deadlines: Deadlines, interval: float, timeout: float):
        """Ping each session every `interval` seconds; it has `timeout` seconds to answer."""
        self._deadlines = deadlines
        self._interval = interval
        self._timeout = timeout
        self._pings = deadlines.new_queue(self._ping)
        self._pongs = deadlines.new_queue(self._miss_pong)

    def begin(self, session: Session) -> None:
        """Ping the session one interval from now: it was opened, or has answered the last ping."""
        session.pong_due, session.has_more_time = 0.0, False
        self._deadlines.add(self._pings, time.monotonic() + self._interval, session)

    def extend(self, session: Session) -> None:
        """Give the session the same time again to answer. Call it after the deadline."""
        session.pong_due = deadline = time.monotonic() + self._timeout
        self._deadlines.add(self._pongs, deadline, session)

    def _ping(self, session: Session, due: float, now: float) -> None:
        # The time counts from when the ping was due, or clients that keep time themselves would find us late. But if
        # the whole process was held up and no client could have answered, it counts from now.
        deadline = (due if now - due < self._timeout / 4 else now) + self._timeout
        session.pong_due = deadline  # a pong that nobody asked for may come at once, and sets it to 0
        self._deadlines.add(self._pongs, deadline, session)
        session.send(PING_PACKET)

    def _miss_pong(self, session: Session, due: float, now: float) -> None:
        if session.pong_due == due:  # it has not answered
            # Later, because the app's disconnect handler may take a long time, and the others' pings must not wait.
            self._deadlines.poller.call_later(0, session.miss_ping)
