"""Connections to one server, for the commands and the doctor: HTTP/1.1 requests and WebSockets.

Every failure is a ClientError that reports exactly what the server answered. No call starts a thread, and each has a
deadline. simple-websocket's client is not sufficient: it reports at most a status, has no deadlines, and overlooks
frames that arrive together with the 101.
"""

import base64
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Mapping

from pushrelay.server.websocket import accept_key

from . import deadline
from .address import Address
from .deadline import Reply, TimedSocket, read_reply
from .errors import ClientError, client_errors
from .tls import tls_context
from .websocket import WebSocket

TIMEOUT = 10.0  # seconds for one response; a relay needs some milliseconds
LARGEST_BODY = 64 << 20  # bytes of a response's body that are read; a poll may bring a long history


class Dialer:
    """Opens connections to one address.

    `connect_to` is a host or an IP address to connect to instead of the address's own host. `headers` are sent with
    every request.
    """

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None = None,
        connect_to: str = "",
        headers: Mapping[str, str] | None = None,
    ):
        self.address = address
        self.headers = dict(headers or {})
        self.context = context
        self.connect_to = connect_to or address.host

    def at(self, path: str) -> "Dialer":
        """Return a dialer for another path of the same host."""
        return Dialer(self.address._replace(path=path), self.context, self.connect_to, self.headers)

    def resolve(self) -> list[str]:
        """Return the IP addresses of the host. Raises ClientError."""
        try:
            found = socket.getaddrinfo(self.connect_to, self.address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ClientError(f"{self.connect_to} is not known ({reason})") from None
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    def open_tcp(self, timeout: float = TIMEOUT) -> socket.socket:
        """Connect, over TCP or to the Unix socket. Raises ClientError."""
        with client_errors(timeout):
            if not self.address.unix:
                return socket.create_connection((self.connect_to, self.address.port), timeout)
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(timeout)
                sock.connect(self.address.unix)
            except OSError:
                sock.close()
                raise
            return sock

    def open(self, timeout: float = TIMEOUT) -> socket.socket:
        """Connect, with TLS if the scheme is https. Raises ClientError."""
        return self.open_tls(timeout) if self.address.scheme == "https" else self.open_tcp(timeout)

    def open_tls(self, timeout: float = TIMEOUT) -> ssl.SSLSocket:
        """Connect with TLS. Raises ClientError."""
        sock = self.open_tcp(timeout)
        try:
            with client_errors(timeout):
                context = self.context or tls_context()
                return context.wrap_socket(sock, server_hostname=self.address.host)
        except ClientError:
            sock.close()
            raise

    def begin(
        self,
        method: str,
        rest: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> "SentRequest":
        """Send a request for `rest`, which is relative to the address's path. Raises ClientError."""
        return SentRequest(self, method, self.address.path + rest, body, {**self.headers, **(headers or {})}, timeout)

    def ask(
        self,
        method: str,
        rest: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Reply:
        """Send a request and return the response, whatever its status. Raises ClientError if there is none."""
        with contextlib.closing(self.begin(method, rest, body, headers, timeout)) as request:
            return request.reply()

    def open_websocket(
        self, rest: str, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT
    ) -> WebSocket:
        """Open a WebSocket (RFC 6455, 4.1). Raises ClientError, with the response if it is not a 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        request = self.begin("GET", rest, b"", {**(headers or {}), **upgrade}, timeout)
        try:
            early = request.upgraded(key)
        except ClientError:
            request.close()
            raise
        return WebSocket(request.sock, early, TIMEOUT)


class SentRequest:
    """A request that was sent on its own connection, and its response."""

    def __init__(
        self, dialer: Dialer, method: str, target: str, body: bytes, headers: Mapping[str, str], timeout: float
    ):
        self._timeout = timeout
        self.sock = dialer.open(timeout)
        sent = {"Host": dialer.address.netloc, "Connection": "close", "Accept-Encoding": "identity", **headers}
        try:
            with client_errors(timeout):
                self._exchange = deadline.Exchange(self.sock, method, target, sent, body, time.monotonic() + timeout)
        except ClientError:
            self.sock.close()
            raise

    def is_answered(self, timeout: float) -> bool:
        """Wait until the response begins or the connection ends. Return False if neither happens in `timeout` s."""
        return self._exchange.is_answered(timeout)

    def reply(self) -> Reply:
        """Read the response. Raises ClientError."""
        with client_errors(self._timeout):
            return self._exchange.reply(time.monotonic() + self._timeout, LARGEST_BODY)

    def upgraded(self, key: str) -> bytes:
        """Return the bytes that came after the 101. Raises ClientError if no 101 comes, or one for another key."""
        with client_errors(self._timeout):
            response = self._exchange.response(time.monotonic() + self._timeout)
            if response.status != 101:
                reply = read_reply(response, LARGEST_BODY)
                raise ClientError(f"the answer was {reply.status} {reply.reason} in place of 101", reply)
            if response.headers.get("Sec-WebSocket-Accept", "").encode() != accept_key(key):
                raise ClientError("the 101 does not answer this request: its Sec-WebSocket-Accept is for another key")
            # http.client has filled a buffer, and the bytes after the header are ours.
            raw: object = response.fp.raw
            if isinstance(raw, TimedSocket):
                raw.waits = False
            return response.fp.peek()

    def close(self) -> None:
        """Close the connection."""
        self._exchange.close()
