"""Long polling as a transport of Engine.IO: the relay holds a GET until it has packets, and each packet is a POST."""

import contextlib
import time
from collections.abc import Mapping

from .deadline import Reply
from .dialer import TIMEOUT, Dialer, SentRequest
from .errors import ClientError, ClientTimeout

CLOSE_PACKET = "1"
SEPARATOR = "\x1e"  # between two packets in a body
SEND_STEP = 0.02  # seconds to wait for a POST before checking the held GET again


class Polling:
    """Long polling at `target`, a path with a query relative to the dialer's address.

    `patience` is how many seconds the relay may hold a GET. The relay decides that, so set it after the handshake.
    """

    def __init__(self, dialer: Dialer, target: str, headers: Mapping[str, str]):
        self.patience = TIMEOUT
        self._dialer = dialer
        self._headers = headers
        self._target = target
        self._has_session = False
        self._poll: SentRequest | None = None  # the GET that is held
        self._received: list[str] = []  # while something was sent

    def join(self, sid: str) -> None:
        """Make further requests those of the session `sid`, which the relay has opened."""
        self._target += f"&sid={sid}"
        self._has_session = True

    def send(self, packet: str) -> None:
        """Send a packet. Raises ClientError.

        A relay with much to send answers the POST late, so this method receives packets while it waits.
        """
        with contextlib.closing(self._post(packet)) as post:
            end = time.monotonic() + self.patience
            while not post.is_answered(SEND_STEP):
                if time.monotonic() > end:
                    raise ClientTimeout(f"there was no answer within {self.patience:g} s")
                self._received += self._take_poll(0)
            _checked(post.reply(), "POST")

    def receive(self, timeout: float) -> list[str]:
        """Return the packets that have come, none after `timeout` seconds. Raises ClientError."""
        received, self._received = self._received, []
        return received or self._take_poll(timeout)

    def close(self) -> None:
        """Close the session. Raises ClientError if the relay does not answer."""
        if self._poll is not None:
            self._poll.close()
        if self._has_session:
            with contextlib.closing(self._post(CLOSE_PACKET)) as post:
                post.reply()

    def _post(self, packet: str) -> SentRequest:
        headers = {**self._headers, "Content-Type": "text/plain"}
        return self._dialer.begin("POST", self._target, packet.encode(), headers)

    def _take_poll(self, timeout: float) -> list[str]:
        """Return the packets that answer the held GET, none after `timeout` seconds; send a GET if none is held."""
        if self._poll is None:
            self._poll = self._dialer.begin("GET", self._target, b"", self._headers, self.patience)
        if not self._poll.is_answered(timeout):
            return []
        poll, self._poll = self._poll, None
        try:
            return _checked(poll.reply()).body.decode("utf-8", "replace").split(SEPARATOR)
        finally:
            poll.close()


def _checked(reply: Reply, method: str = "GET") -> Reply:
    """Return the response. Raises ClientError unless it is a 200."""
    if reply.status != 200:
        raise ClientError(f"the answer was {reply.status} {reply.reason}", reply, method)
    return reply
