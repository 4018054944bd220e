"""A WebSocket that tells a page why it may not connect, and ends.

A page cannot read an HTTP error on a WebSocket handshake (WHATWG WebSockets, "Feedback from the protocol"). So the
WebSocket is accepted, gets a CONNECT_ERROR, and is closed. There is no session: the sid in the open packet is made up,
so no request that names it is answered. Only permanent refusals are answered this way, because socket.io-client treats
a CONNECT_ERROR as final.
"""

import json
from collections.abc import Callable

from pushrelay.server.connection import TRANSPORT_CLOSE
from pushrelay.server.lingering import DiscardingReceiver
from pushrelay.server.websocket import POLICY_VIOLATION, WebSocket, text_frame

from .carrier import ClientConnection
from .packet import MESSAGE

CONNECT_ERROR = 4  # Socket.IO protocol, revision 5, "Packet encoding"
# Seconds for the client to read the reason and to close its side; a browser does so at once.
REJECTION_SECONDS = 2.0
# Bytes that are read from such a client: its CONNECT and its close frame take 20.
MOST_BYTES = 4096
# Clients that are informed in this way at a time; the others get the HTTP error.
MOST_AT_ONCE = 32


def rejection_frames(opening: str, error: str, message: str) -> bytes:
    """Return the Engine.IO open packet and the CONNECT_ERROR with which a client is refused."""
    reason = {"message": message, "data": {"error": error, "message": message}}
    return text_frame(opening) + text_frame(f"{MESSAGE}{CONNECT_ERROR}{json.dumps(reason)}")


class RejectedWebSocket(DiscardingReceiver):
    """The receiver of such a connection: it discards all data until the client has closed the WebSocket."""

    __slots__ = ("_websocket",)

    def __init__(self, connection: ClientConnection, on_lost: Callable[[], None]):
        """`on_lost()` is called once, when the connection has ended."""
        super().__init__(connection, MOST_BYTES, on_lost)
        self._websocket = WebSocket(MOST_BYTES)
        connection.abort_later(REJECTION_SECONDS, TRANSPORT_CLOSE)

    def closing(self, reason: str) -> bytes:
        """Return the close frame. After it, only the client's close frame is expected."""
        return self._websocket.begin_close(POLICY_VIOLATION, reason)

    def received(self, data: bytes) -> None:
        """Discard the data, and end the connection after the client's close frame."""
        super().received(data)
        self._websocket.receive(data)
        if self._websocket.close_code is not None:
            self.connection.finish()

    def close(self, code: int) -> None:
        """Do nothing: it is being closed already."""
