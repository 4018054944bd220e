"""The carrier for WSGI servers whose sockets cannot be taken (waitress, or TLS): each client holds one of its threads.

If the server passes its socket to the app, a WebSocket goes through simple-websocket, as in Flask-SocketIO itself.
Sending to it may block the sender for as long as its client does not read.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pushrelay.engine.carrier import NO_BOUND, WaitingCarrier, WebSocketReceiver
from pushrelay.engine.errors import BAD_REQUEST, Rejected
from pushrelay.engine.link import Link
from pushrelay.server.connection import TRANSPORT_CLOSE, TRANSPORT_ERROR
from pushrelay.server.poller import Poller
from pushrelay.server.websocket import BINARY, CLOSE, NORMAL, TEXT, TOO_BIG, HandshakeError

from .hosts import gunicorn_setting, waitress_settings

# Threads of a server that does not show how many it has.
UNKNOWN_THREADS = 8


class BlockingCarrier(WaitingCarrier):
    """The carrier of a request that holds its server's thread until it is answered, or its WebSocket has ended."""

    def __init__(self, environ: dict[str, Any], poller: Poller):
        super().__init__(environ, poller)
        self._taken: BlockingConnection | None = None

    @property
    def threads(self) -> int:
        """How many requests the server handles at a time."""
        if "werkzeug.socket" in self._environ:  # a thread for each connection
            return NO_BOUND
        if (waitress := waitress_settings(self._environ)) is not None:
            return int(waitress.threads)
        return int(gunicorn_setting("threads", UNKNOWN_THREADS))

    @property
    def websockets(self) -> bool:
        """Whether simple-websocket finds a socket to work with."""
        return "werkzeug.socket" in self._environ or "gunicorn.socket" in self._environ

    def take(self) -> "BlockingConnection":
        """Open the WebSocket, which sends the answer to the handshake.

        Raises HandshakeError if simple-websocket is not installed, and Rejected if the connection has broken.
        """
        try:
            from simple_websocket import Server
        except ImportError:
            message = "WebSocket is not available here: install simple-websocket"
            raise HandshakeError("400 Bad Request", message) from None
        try:
            self._taken = BlockingConnection(Server(self._environ), self._poller)
        except Exception as error:  # whatever the server's socket raises, the client is gone
            raise Rejected(BAD_REQUEST) from error
        return self._taken

    def upgrade(self, receiver: WebSocketReceiver, head: bytes) -> "BlockingConnection":
        """Send the frames after the first empty line of `head`; `returned` then gives `receiver` what arrives."""
        connection = self._taken
        if connection is None or not isinstance(receiver, Link):
            raise RuntimeError("only a session's WebSocket can be opened here, and after take()")
        connection.begin(receiver, head.partition(b"\r\n\r\n")[2])
        return connection

    def returned(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Wait until the WebSocket has ended, or the poll is answered, and return what the app returns then."""
        if self._taken is None:
            return super().returned(start_response)
        self._taken.serve()
        return self._taken.leave()


class BlockingConnection:
    """A WebSocket that simple-websocket holds, as engine.carrier.ClientConnection."""

    backlog = 0
    blocks = True  # sending waits until the client has read

    def __init__(self, websocket: Any, poller: Poller):
        self._websocket = websocket
        self._lock = threading.Lock()  # simple-websocket's own sending is not safe between threads
        self._first: bytearray | None = bytearray()  # frames to be sent when `serve` begins
        self.poller = poller
        self.receiver: Link | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return not self._websocket.connected

    # Any thread.

    def write(self, data: bytes, limit: int = 0) -> bool:
        """Send frames of ours; simple-websocket builds its own, so it gets what is in them."""
        try:
            with self._lock:
                if self._first is not None:
                    self._first += data
                else:
                    self._send(data)
        except Exception:  # whatever the server's socket raises, the client is gone
            self.abort(TRANSPORT_ERROR)
            return False
        return True

    def has_unread(self) -> bool:
        """Return False: a thread reads what comes at once."""
        return False

    def set_reading(self, reading: bool) -> None:
        """Do nothing: simple-websocket reads all the time."""

    def yield_turn(self, may_block: bool = False) -> None:
        """Do nothing: this client has its own thread."""

    def finish(self) -> None:
        """End the connection; everything written has been sent."""
        self.abort(TRANSPORT_CLOSE)

    def abort(self, reason: str) -> None:
        """End the connection, and free the thread that serves it. Raises nothing."""
        websocket = self._websocket
        with contextlib.suppress(Exception):  # whatever the server's socket raises, also if it is already being closed
            websocket.close()
        with contextlib.suppress(Exception):
            websocket.sock.shutdown(socket.SHUT_RDWR)  # ends all reading, which would wait for the client's answer

    def abort_later(self, seconds: float, reason: str) -> None:
        """End the connection after this many seconds."""
        self.poller.call_later(seconds, self.abort, reason)

    # The thread that the client holds.

    def begin(self, link: Link, frames: bytes) -> None:
        """Have `serve` give messages to `link`, and send these frames first.

        Sending them here might block, and the caller holds the session's lock.
        """
        self.receiver = link
        with self._lock:
            if self._first is not None:
                self._first[:0] = frames

    def serve(self) -> None:
        """Send and read until the client is gone."""
        with self._lock:
            first, self._first = self._first, None
            with contextlib.suppress(Exception):  # the loop below notices if the client is gone
                self._send(bytes(first or b""))
        link = self.receiver
        if link is None:
            return
        try:
            while (packet := self._receive()) is not None:
                # simple-websocket has a limit too, but a reader that waits while it is exceeded may miss its end.
                if len(packet) > link.limit:
                    link.close(TOO_BIG)
                    break
                link.receive_message(packet)
        finally:  # whatever fails, the session ends with its connection
            link.lost(TRANSPORT_CLOSE)

    def leave(self) -> Iterable[bytes]:
        """Return or raise what makes the server believe that its client is gone."""
        if self._websocket.mode == "gunicorn":
            raise StopIteration
        raise ConnectionError("the WebSocket has ended")

    def _receive(self) -> str | bytes | None:
        try:
            return self._websocket.receive()  # type: ignore[no-any-return]  # it has no type hints
        except Exception:  # ConnectionClosed, above all
            return None

    def _send(self, data: bytes) -> None:
        for opcode, payload in _frames(data):
            if opcode == TEXT:
                self._websocket.send(payload.decode("utf-8"))
            elif opcode == BINARY:
                self._websocket.send(payload)
            elif opcode == CLOSE:
                self._websocket.close(int.from_bytes(payload[:2]) or NORMAL, payload[2:].decode("utf-8") or None)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and payload of each of our own frames, which are not masked (RFC 6455, 5.2)."""
    while data:
        length, start = data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start])
        yield data[0] & 0x0F, data[start : start + length]
        data = data[start + length :]
