"""The Engine under a WSGI server whose sockets cannot be taken (waitress, or TLS): a client holds a thread of it.

A WebSocket goes through simple-websocket there, as in stock Flask-SocketIO, where the server gives its socket at all.
Sending to it may block the sender for as long as its client does not read.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.engine.packet import Message
from pushrelay.engine.session import Session
from pushrelay.server.connection import FINISHED, TRANSPORT_CLOSE, TRANSPORT_ERROR
from pushrelay.server.websocket import TEXT, HandshakeError

from .hosts import gunicorn_setting, waitress_settings

# Of a server that does not say how many threads it has.
UNKNOWN_THREADS = 8


def can_serve(environ: dict[str, Any]) -> bool:
    """Whether simple-websocket finds a socket to work with."""
    return "werkzeug.socket" in environ or "gunicorn.socket" in environ


def threads_of(environ: dict[str, Any]) -> int | None:
    """How many requests the server handles at a time; None where there is no such bound."""
    if "werkzeug.socket" in environ:  # a thread for each connection
        return None
    if (waitress := waitress_settings(environ)) is not None:
        return waitress.threads
    return gunicorn_setting("threads", UNKNOWN_THREADS)


class ForeignPoll:
    """A GET that waits in its server's thread until there is something to say."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._messages: list[Message] = []

    def park(self) -> "ForeignPoll":
        return self

    def answer(self, messages: list[Message]) -> None:
        self._messages = messages
        self._answered.set()

    def wait(self) -> list[Message]:
        """The messages; the heartbeat sees to it that there are some in time."""
        self._answered.wait()
        return self._messages


class ForeignLink:
    """A WebSocket that simple-websocket holds: link and connection in one."""

    backlog = 0
    blocks = True  # sending waits until the client has read

    def __init__(self, session: Session, websocket: Any):
        self._session = session
        self._websocket = websocket
        self._lock = threading.Lock()  # simple-websocket's own sending is not safe between threads
        self._reason = FINISHED
        self.connection = self.receiver = self

    def has_unread(self) -> bool:
        """Return False: a thread of its own reads what comes, at once."""
        return False

    def write(self, frame: bytes, limit: int = 0) -> bool:
        """Send one of our frames; simple-websocket builds its own, so this gives it what is in it."""
        length = frame[1]
        payload = frame[{126: 4, 127: 10}.get(length, 2) :]
        data: str | bytes = payload.decode("utf-8") if frame[0] & 0x0F == TEXT else payload
        try:
            with self._lock:
                self._websocket.send(data)
        except Exception:  # whatever the container's socket raises: the client is gone
            self.abort(TRANSPORT_ERROR)
            return False
        return True

    def close(self, code: int) -> None:
        self.abort(FINISHED)

    def abort(self, reason: str) -> None:
        """End the connection. Raises nothing: simple-websocket's close() fails if the connection has broken."""
        self._reason = reason
        with contextlib.suppress(Exception):  # whatever the container's socket raises
            self._websocket.close()

    def serve(self) -> None:
        """Read until the client is gone."""
        session = self._session
        while not session.closed:
            packet = self._websocket.wait()
            if packet is None:
                break
            if session.link is self:
                session.receive(packet)
            elif not session.receive_probe(self, packet):
                break


def serve_foreign(
    engine: Any, session: Session, environ: dict[str, Any], start_response: Callable[..., Any], opening: bool
) -> Iterable[bytes]:
    """Speak WebSocket in the calling thread until the client is gone.

    Raises HandshakeError where simple-websocket is not installed.
    """
    transport = engine._async["websocket"]
    if transport is None:
        raise HandshakeError("400 Bad Request", "WebSocket is not available here: install simple-websocket")

    def run(websocket: Any) -> None:
        link = ForeignLink(session, websocket)
        try:
            if opening:
                messages: list[Message] = []
                session.begin_on(link, messages.extend)
                for message in messages:  # without the lock: this may block
                    link.write(message.frame)
            if opening or session.probe(link):
                link.serve()
        except ValueError:
            session.close(reason=TRANSPORT_ERROR)
        except Exception:
            engine.logger.debug("a foreign WebSocket ended", exc_info=True)
        session.link_lost(link, TRANSPORT_CLOSE)

    return transport(run, engine)(environ, start_response)
