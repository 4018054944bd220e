"""Carriers of clients' requests: the connection of a request, under the server that accepted it.

The classes that are carriers:

- `pushrelay.server.conversation.Conversation`, under the relay's own server;
- `pushrelay.wsgi.hijack.HijackedConnection`, which takes the TCP socket away from another WSGI server;
- `pushrelay.wsgi.blocking.BlockingCarrier`, which holds a thread of a server that keeps its sockets;
- `WaitingCarrier` below, if an Engine has no other: it needs nothing but WSGI.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from pushrelay.answers import Answer
from pushrelay.server.connection import Connection, Receiver
from pushrelay.server.poller import Poller
from pushrelay.server.websocket import HandshakeError

NO_WEBSOCKETS = "WebSocket does not work through this server: use long polling"
# Threads of a server that has one for each connection, or does not reveal how many there are.
NO_BOUND = sys.maxsize


class WebSocketReceiver(Receiver, Protocol):
    """The receiver of a connection that speaks WebSocket."""

    def close(self, code: int) -> None:
        """Begin to close the WebSocket with this code. Any thread may call it."""


class ClientConnection(Protocol):
    """The connection of a client's WebSocket, as its session and its Link see it. Any thread may call it."""

    blocks: bool  # a write may wait until the client has read
    backlog: int  # bytes that wait for the client, beyond what the kernel has taken
    poller: Poller
    receiver: Any  # a WebSocketReceiver, once it has one: Connection has others too

    @property
    def closed(self) -> bool:
        """Whether the connection is over, or about to be."""

    def write(self, data: bytes, limit: int = 0) -> bool:
        """Send bytes; return False if the connection is over. If more than `limit` bytes wait, it ends as slow."""

    def has_unread(self) -> bool:
        """Return whether the client has sent data that has not been handled yet."""

    def set_reading(self, reading: bool) -> None:
        """Stop or resume reading."""

    def yield_turn(self, may_block: bool = False) -> None:
        """Let others have their turn, and have the receiver resume in the next one."""

    def finish(self) -> None:
        """End the connection when everything written has been sent."""

    def abort(self, reason: str) -> None:
        """End the connection now."""

    def abort_later(self, seconds: float, reason: str) -> None:
        """End the connection after this many seconds, if it has not ended by then."""


class Carrier(Protocol):
    """The server that a request came through, as the Engine sees it."""

    @property
    def connection(self) -> Connection | None:
        """The client's connection; None while it is another server's."""

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with the next answer."""

    @property
    def threads(self) -> int | None:
        """The number of the server's threads if each client holds one while it waits; None if clients hold none."""

    @property
    def websockets(self) -> bool:
        """Whether this request can become a WebSocket."""

    # While the request is being handled, on its thread.

    def take(self) -> ClientConnection:
        """Take the client's connection for a WebSocket, and return it. `upgrade` comes next.

        Raises Rejected if no file descriptor is left, and HandshakeError if WebSockets do not work here after all.
        """

    def park(self, on_lost: Callable[[], None] | None = None, is_poll: bool = False) -> None:
        """Leave the request without an answer until `answer` is called.

        `on_lost()` is called instead if the client disconnects first. `is_poll`: the request may wait for a long time.
        Raises Rejected if the connection cannot be kept.
        """

    def upgrade(self, receiver: WebSocketReceiver, head: bytes) -> object:
        """Send `head`: the answer to the handshake, and the first frames. `receiver` gets what the client sends."""

    def returned(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return, or raise, what the WSGI app returns or raises for a request that was parked or upgraded.

        A carrier that holds a thread waits here until the answer has come, or the WebSocket has ended.
        """

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. Call it once; it does nothing if the client is gone."""


class WaitingCarrier:
    """A carrier for any WSGI server: long polling only, and a poll holds its server's thread until it is answered."""

    connection: Connection | None = None
    is_last = False

    def __init__(self, environ: dict[str, Any], poller: Poller):
        self._environ = environ
        self._poller = poller
        self._answer: Answer | None = None
        self._answered = threading.Event()

    @property
    def threads(self) -> int:
        """The number of the server's threads: unknown, so no client is refused for it."""
        return NO_BOUND

    @property
    def websockets(self) -> bool:
        """Return False: nothing is known about the server's sockets."""
        return False

    # In the server's thread, while it handles the request.

    def take(self) -> ClientConnection:
        """Raise HandshakeError: this carrier has no connection."""
        raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)

    def park(self, on_lost: Callable[[], None] | None = None, is_poll: bool = False) -> None:
        """Do nothing: `returned` waits for the answer. Nothing here notices if the client disconnects."""

    def upgrade(self, receiver: WebSocketReceiver, head: bytes) -> object:
        """Raise HandshakeError, as `take`."""
        raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)

    def returned(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Wait until `answer` was called, and give the server that answer."""
        self._answered.wait()  # the heartbeat answers every poll in time
        if self._answer is None:
            return []
        status, headers, body = self._answer
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. Call it once."""
        self._answer = Answer(status, headers, body)
        self._answered.set()
