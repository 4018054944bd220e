"""What carries a client's request: the connection that it came on, under the server that accepted it.

Three classes are carriers. `pushrelay.server.conversation.Conversation` is one under the relay's own server,
`pushrelay.wsgi.hijack.HijackedConnection` takes the TCP socket away from another WSGI server, and
`pushrelay.wsgi.blocking.BlockingCarrier` holds a thread of a server that keeps its sockets.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from pushrelay.server.connection import Connection, Receiver
from pushrelay.server.poller import Poller


class ClientConnection(Protocol):
    """What a session writes to when its client has a WebSocket. Any thread may call it."""

    blocks: bool  # a write may wait until the client has read
    backlog: int  # bytes that wait for the client, beyond what the kernel has taken
    poller: Poller
    receiver: Any

    @property
    def closed(self) -> bool:
        """Whether the connection is over, or about to be."""

    def write(self, data: bytes, limit: int = 0) -> bool:
        """Send bytes; return False if the connection is over. With more than `limit` bytes waiting it ends as slow."""

    def has_unread(self) -> bool:
        """Return whether the client has sent something that was not handled yet."""

    def read_on(self, reading: bool) -> None:
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
    """What the Engine needs of the server that a request came through."""

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

        `on_lost()` is called instead if the client goes away first. `is_poll`: the request may wait for long. Raises
        Rejected if the connection cannot be kept.
        """

    def upgrade(self, receiver: Receiver, head: bytes) -> object:
        """Send the answer to the handshake and the first frames, `head`. From here on `receiver` gets what comes."""

    def returned(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return what the WSGI app returns for a request that was parked or upgraded. May raise what stands for it.

        A carrier that holds a thread waits here until the answer has come, or the WebSocket has ended.
        """

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. Call it once; it does nothing if the client is gone."""


def no_carrier(environ: dict[str, Any], poller: Poller) -> Carrier:
    """Raise RuntimeError: an Engine without `carrier_of` runs under the relay's own server only."""
    raise RuntimeError(
        "this Engine was made for pushrelay.server: to run it under another WSGI server, "
        "pass carrier_of=pushrelay.wsgi.carriers.carrier_of"
    )
