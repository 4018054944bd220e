"""A WebSocket that tells a page why it may not connect, and ends.

A page can read nothing of an HTTP error on a WebSocket handshake (WHATWG WebSockets, "Feedback from the protocol"). So
the WebSocket is accepted, gets a CONNECT_ERROR, and is closed. There is no session: the sid in the open packet is made
up, so no request that names it is answered.
"""

import json
from collections.abc import Callable
from typing import Any

from socketio import packet as sio

from pushrelay.server.connection import TRANSPORT_CLOSE
from pushrelay.server.websocket import POLICY_VIOLATION, WebSocket, text_frame

from .packet import MESSAGE

# The client has this many seconds to read the reason and to close its side; a browser does so at once.
REJECTION_SECONDS = 2.0
# Bytes that are read of such a client: its CONNECT and its close frame are 20.
MOST_BYTES = 4096
# Clients that are told at a time; the others get the HTTP error.
MOST_AT_ONCE = 32


def rejection_frames(opening: str, error: str, message: str) -> bytes:
    """Return the Engine.IO open packet and the CONNECT_ERROR with which a client is refused."""
    reason = {"message": message, "data": {"error": error, "message": message}}
    return text_frame(opening) + text_frame(f"{MESSAGE}{sio.CONNECT_ERROR}{json.dumps(reason)}")


class RejectedWebSocket:
    """The receiver of such a connection: it reads until the client has closed its side, and handles nothing of it."""

    __slots__ = ("_left", "_on_over", "_socket", "connection")

    def __init__(self, connection: Any, on_over: Callable[[], None]):
        """`on_over()` is called once, when the connection is over."""
        self.connection = connection
        self._socket = WebSocket(MOST_BYTES)
        self._left = MOST_BYTES
        self._on_over = on_over
        connection.abort_later(REJECTION_SECONDS, TRANSPORT_CLOSE)

    def closing(self, reason: str) -> bytes:
        """Return the close frame, behind which only the client's is waited for."""
        return self._socket.begin_close(POLICY_VIOLATION, reason)

    def received(self, data: bytes) -> None:
        self._left -= len(data)
        self._socket.receive(data)
        if self._left < 0 or self._socket.close_code is not None:
            self.connection.finish()

    def ended(self) -> None:
        self.connection.finish()

    def resume(self) -> None:
        """Nothing is left to do."""

    def proceed(self) -> None:
        """Nothing was waiting for the outbox."""

    def expired(self) -> None:
        """It has no such deadline: see REJECTION_SECONDS."""

    def lost(self, reason: str) -> None:
        self._on_over()
