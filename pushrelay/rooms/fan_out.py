"""A message for many clients, which is sent in turns, so that others need not wait until the last client has it."""

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Any

from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.session import Session

# A message for more clients than this is sent in turns.
FEW = 32


class Sessions:
    """The sessions of the clients in rooms of namespace "/".

    The list of a room is made for a fan-out, and kept until a client enters or leaves. So consecutive fan-outs look no
    client up.
    """

    def __init__(self, rooms: dict[str, dict[Any, dict[str, str]]], lock: Any) -> None:
        """`rooms` are the manager's, and `lock` guards them."""
        self._rooms = rooms
        self._lock = lock
        self._known: dict[str, list[Session]] = {}

    def of(self, room: str, sessions: dict[str, Session], only: Collection[str] | None = None) -> list[Session]:
        """Return the clients of a room, or those with these Engine.IO sids, except those that have no session.

        `sessions` has all sessions by their Engine.IO sid. The returned list is never changed.
        """
        with self._lock:
            found = self._known.get(room)
            if found is None:
                eio_sids = self._rooms.get("/", {}).get(room, {}).values()
                found = [session for each in eio_sids if (session := sessions.get(each)) is not None]
                if len(found) == len(eio_sids):
                    self._known[room] = found
        if not only:
            return found
        kept = set(only)
        return [session for session in found if session.sid in kept]

    def changed(self, room: str) -> None:
        """Forget a room, because a client has entered or left. The lock is held."""
        self._known.pop(room, None)


class FanOut:
    """A message for these clients. One thread at a time may call it.

    If sending to a client raises, `failed(session)` is called while that exception is handled.
    """

    __slots__ = ("_failed", "_limit", "_message", "_sessions", "connections", "left")

    def __init__(
        self, message: EncodedPacket, sessions: list[Session], limit: int, failed: Callable[[Session], None]
    ) -> None:
        """`limit` is how many bytes may wait for one client. The list must never be changed."""
        self._message = message
        self._sessions = iter(sessions)
        self._limit = limit
        self._failed = failed
        self.connections = self.left = len(sessions)

    def go_on(self, most: float) -> None:
        """Send the message to the next `most` clients. Those that have disconnected in the meantime count too."""
        count = min(self.left, max(0, most))
        self.left -= int(count)
        self._send(islice(self._sessions, int(count)))

    def _send(self, sessions: Iterable[Session]) -> None:
        message, frame, limit = self._message, self._message.frame, self._limit
        for session in sessions:
            try:
                if session.closed:
                    continue
                connection = session.connection
                if connection is None:
                    session.send(message)
                else:
                    connection.write(frame, limit)
            except Exception:
                self._failed(session)
