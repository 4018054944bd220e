"""HTTP/1.1 requests with one deadline for the whole exchange, which a server that sends single bytes cannot extend.

`http.client` and libraries such as requests limit the time of each read only. The command line and the doctor use this
through `dialer`, and requests to the site use `get` and `post` through `site`.
"""

import contextlib
import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult

from .lookups import LOOKUPS

DEFAULT_PORTS = {"http": 80, "https": 443}
CHUNK_BYTES = 65536  # read at a time


class InvalidResponse(Exception):
    """The bytes that a server sent are not HTTP/1."""


class IncompleteResponse(InvalidResponse):
    """A response ended before the length that its header announced, or the connection ended before any response."""

    def __init__(self, has_begun: bool = True):
        super().__init__()
        self.has_begun = has_begun  # whether anything was received


class Reply(NamedTuple):
    """A response over HTTP. `missing` is the number of bytes that its header announced but that did not arrive."""

    status: int
    reason: str
    headers: Any  # http.client.HTTPMessage
    body: bytes
    missing: int = 0

    @property
    def server(self) -> str:
        """Return the name of the server's software, or an empty string."""
        return str(self.headers.get("Server", ""))


def seconds_left(deadline: float) -> float:
    """Return the seconds until `deadline` (monotonic). Raises TimeoutError if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def netloc_of(scheme: str, host: str, port: int) -> str:
    """Return the value of the header Host: the port is left out if it is the scheme's default (RFC 9110, 7.2)."""
    host = f"[{host}]" if ":" in host else host
    return host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"


class TimedSocket(io.RawIOBase):
    """A connected socket in the form in which http.client uses one. Closing it leaves the socket open.

    Everything that is sent and read must be done by `deadline` (monotonic). `early` are bytes that were read from the
    socket before. With `waits` set to False, a read returns what has arrived, and None if nothing has.
    """

    def __init__(self, sock: socket.socket, deadline: float, early: bytes = b""):
        super().__init__()
        self.waits = True
        self._sock = sock
        self._deadline = deadline
        self._early = early

    def sendall(self, data: Any) -> None:
        """Send all bytes. Raises TimeoutError if they are not sent by the deadline."""
        self._sock.settimeout(seconds_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader with the same deadline. http.client closes it and the socket separately."""
        return io.BufferedReader(TimedSocket(self._sock, self._deadline, self._early))

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes. Raises TimeoutError if none come by the deadline."""
        if self._early:
            size = min(len(buffer), len(self._early))
            buffer[:size], self._early = self._early[:size], self._early[size:]
            return size
        self._sock.settimeout(seconds_left(self._deadline) if self.waits else 0.0)
        try:
            return self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):  # only if it does not wait
            return None


class _Response(http.client.HTTPResponse):
    """A final response. Those that may precede it are skipped (RFC 9110, 15.2), such as 103 Early Hints.

    http.client itself only skips 100. A 101 is final, because the bytes after it are not HTTP.
    """

    def begin(self) -> None:
        """Read the header."""
        super().begin()
        while 100 <= self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first call
            super().begin()


class Exchange:
    """One request and its response on a connected socket, which it closes.

    The constructor sends the request; `headers` must include Host. All methods raise TimeoutError at their deadline
    (monotonic), OSError, and http.client.HTTPException for bytes that are not HTTP.
    """

    def __init__(
        self, sock: socket.socket, method: str, target: str, headers: Mapping[str, str], body: bytes, deadline: float
    ):
        self.sock = sock
        self._early = b""
        self._connection = http.client.HTTPConnection("")  # the name would only be used for Host
        self._connection.response_class = _Response
        self._connection.sock = TimedSocket(sock, deadline)
        self._connection.request(method, target, body or None, dict(headers))

    def is_answered(self, seconds: float) -> bool:
        """Wait until the response begins or the connection ends. Return False if neither happens in time."""
        end = time.monotonic() + seconds
        while select.select([self.sock], (), (), max(end - time.monotonic(), 0.0))[0]:
            self.sock.setblocking(False)
            try:
                self._early += self.sock.recv(CHUNK_BYTES)
            except ssl.SSLWantReadError:  # the bytes were for TLS itself, such as a session ticket (RFC 8446, 4.6.1)
                continue
            except OSError:
                pass  # reading the response raises it again
            return True
        return False

    def response(self, deadline: float) -> http.client.HTTPResponse:
        """Read the header of the response."""
        self._connection.sock = TimedSocket(self.sock, deadline, self._early)
        return self._connection.getresponse()

    def reply(self, deadline: float, limit: int) -> Reply:
        """Read the whole response, but at most `limit` bytes of its body."""
        return read_reply(self.response(deadline), limit)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self.sock.close()


def read_reply(response: http.client.HTTPResponse, limit: int) -> Reply:
    """Read the body of a response, at most `limit` bytes."""
    pieces, size = [], 0
    while size < limit and (piece := response.read(min(CHUNK_BYTES, limit - size))):
        pieces.append(piece)
        size += len(piece)
    missing = (response.length or 0) if size < limit else 0
    return Reply(response.status, response.reason, response.headers, b"".join(pieces), missing)


class NotConnected(Exception):
    """No connection was made, so nothing was sent. The cause is the TimeoutError, OSError or ValueError."""


def get(
    url: SplitResult, headers: Mapping[str, str], deadline: float, limit: int, context: ssl.SSLContext | None = None
) -> Reply:
    """GET a URL with the scheme http, or with https if there is a `context`; read at most `limit` bytes of the body.

    It returns or raises by `deadline` (monotonic), which includes the lookup of the name. Raises NotConnected,
    TimeoutError, OSError (ssl.SSLError included), ValueError, InvalidResponse and IncompleteResponse.
    """
    return _request("GET", url, headers, b"", deadline, limit, context)


def post(
    url: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    deadline: float,
    limit: int,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """POST a body to a URL; otherwise as get(). `headers` should include Content-Type.

    The request is sent at most once, on a new connection. After any exception except NotConnected, the server may have
    received it.
    """
    return _request("POST", url, headers, body, deadline, limit, context)


def _request(
    method: str,
    url: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    deadline: float,
    limit: int,
    context: ssl.SSLContext | None,
) -> Reply:
    host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    sent = {"Host": netloc_of(url.scheme, host, port), "Connection": "close", **headers}
    try:
        sock = _connect(host, port, deadline, context)
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        raise NotConnected from error
    with sock:
        try:
            reply = Exchange(sock, method, target, sent, body, deadline).reply(deadline, limit)
        except http.client.IncompleteRead as error:
            raise IncompleteResponse from error
        except http.client.RemoteDisconnected as error:
            raise IncompleteResponse(has_begun=False) from error
        except http.client.HTTPException as error:
            raise InvalidResponse from error
    if reply.missing:
        raise IncompleteResponse
    return reply


def _connect(host: str, port: int, deadline: float, context: ssl.SSLContext | None) -> socket.socket:
    """Connect to one of a host's addresses, with TLS if there is a `context`."""
    addresses = LOOKUPS.addresses(host, port, deadline)
    for number, address in enumerate(addresses, 1):
        try:
            sock = socket.create_connection((address, port), seconds_left(deadline))
            break
        except TimeoutError:
            raise
        except OSError:
            if number == len(addresses):
                raise
    with contextlib.ExitStack() as opened:
        opened.callback(sock.close)
        # Otherwise the body, which is sent separately, might wait until the server acknowledges the header.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock.settimeout(seconds_left(deadline))
            sock = context.wrap_socket(sock, server_hostname=host)
        opened.pop_all()
    return sock
