"""The client's end of a WebSocket (RFC 6455), as a transport of Engine.IO."""

import contextlib
import socket

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import ProtocolError

from .deadline import CHUNK_BYTES
from .errors import ClientError, client_errors

CLOSE_SECONDS = 1.0  # to send the close frame


class WebSocket:
    """An open WebSocket. Only one thread at a time may use it.

    `early` are bytes that came after the 101, `timeout` the seconds within which a packet must be sent.
    """

    def __init__(self, sock: socket.socket, early: bytes, timeout: float):
        self._sock = sock
        self._timeout = timeout
        self._frames = Connection(ConnectionType.CLIENT, trailing_data=early)
        self._partial = ""  # of a message in several frames

    def send(self, packet: str) -> None:
        """Send a packet. Raises ClientError."""
        with client_errors(self._timeout):
            self._sock.settimeout(self._timeout)
            self._sock.sendall(self._frames.send(TextMessage(data=packet)))

    def receive(self, timeout: float) -> list[str]:
        """Return the packets that have come, none after `timeout` seconds. Raises ClientError if the connection ends.

        The list may be empty before that, if only a part of a packet has come.
        """
        if packets := self._packets():
            return packets
        with client_errors(timeout):
            self._sock.settimeout(max(timeout, 0.001))
            try:
                data = self._sock.recv(CHUNK_BYTES)
            except TimeoutError:
                return []
            if not data:
                raise ClientError("the connection was closed without a close frame")
            self._frames.receive_data(data)
        return self._packets()

    def _packets(self) -> list[str]:
        """Return the packets in the frames that have come, and answer pings. Raises ClientError for a close frame."""
        packets = []
        with client_errors(self._timeout):
            for event in self._frames.events():
                if isinstance(event, TextMessage):
                    self._partial += event.data
                    if event.message_finished:
                        packets.append(self._partial)
                        self._partial = ""
                elif isinstance(event, Ping):
                    self._sock.sendall(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    raise ClientError(f"the connection was closed with code {event.code}")
        return packets

    def close(self) -> None:
        """Close the connection, with a close frame if it can be sent."""
        with contextlib.suppress(OSError, ProtocolError):
            self._sock.settimeout(CLOSE_SECONDS)
            self._sock.sendall(self._frames.send(CloseConnection(code=1000)))
        self._sock.close()
