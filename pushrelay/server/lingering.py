"""A lingering close: after an error response, read on for a while so that the client can receive it.

The client may still be sending. Closing immediately would make the kernel reset the connection, and the response would
be lost in transit (RFC 9112, 9.6).
"""

import time
from collections.abc import Callable
from typing import Protocol

from .connection import TRANSPORT_CLOSE, Connection
from .quota import retry_after
from .request_error import RequestError
from .response import error_response

# Seconds for which we read from the client after an error response, and bytes that it may still send.
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


class Endable(Protocol):
    """The part of a connection that is needed to end it."""

    def finish(self) -> None:
        """End the connection once the outbox has been sent."""

    def abort(self, reason: str) -> None:
        """End the connection now."""


class DiscardingReceiver:
    """The receiver of a connection that has its last data in the outbox.

    It discards what the client sends, until the client closes the connection or has sent more than `limit` bytes.
    `on_lost()` is called once, when the connection has ended.
    """

    __slots__ = ("_left", "_on_lost", "connection")

    def __init__(self, connection: Endable, limit: int, on_lost: Callable[[], None]):
        self.connection = connection
        self._left = limit
        self._on_lost = on_lost

    def received(self, data: bytes) -> None:
        """Discard the data."""
        self._left -= len(data)
        if self._left < 0:
            self.connection.finish()

    def ended(self) -> None:
        """End the connection: the client has closed it."""
        self.connection.finish()

    def proceed(self) -> None:
        """Do nothing when the outbox has been sent."""

    def resume(self) -> None:
        """Do nothing: no work is ever left for another turn."""

    def expired(self) -> None:
        """Abort the connection: the client took too long."""
        self.connection.abort(TRANSPORT_CLOSE)

    def lost(self, reason: str) -> None:
        """Report the end of the connection."""
        self._on_lost()


class LingeringClose(DiscardingReceiver):
    """The receiver of a connection whose last response is in the outbox."""

    __slots__ = ("_shut_down",)

    def __init__(self, connection: Connection, limit: int, on_lost: Callable[[], None]):
        super().__init__(connection, limit, on_lost)
        self._shut_down = connection.shut_down

    def proceed(self) -> None:
        """Close our side once the response has been sent."""
        self._shut_down()


def linger(connection: Connection, on_lost: Callable[[], None]) -> LingeringClose:
    """Make a LingeringClose the receiver of a connection that has its last response in its outbox, and return it."""
    connection.deadline = time.monotonic() + LINGER_SECONDS
    connection.receiver = lingering = LingeringClose(connection, LINGER_BYTES, on_lost)
    return lingering


def send_last(connection: Connection, error: RequestError, on_lost: Callable[[], None]) -> None:
    """Send the response to a request that is rejected, as the connection's last one, and linger."""
    retry = f"Retry-After: {retry_after()}\r\n" if error.status.startswith("503") else ""
    connection.write(error_response(error.status, error.body, retry))
    lingering = linger(connection, on_lost)
    if not connection.backlog:
        lingering.proceed()
