"""Asking a web server over HTTP/1.1 and over WebSocket: by hand, so that it can be said what came instead.

The doctor and the terminal's client use it. No thread, and nothing waits longer than it was told to.
"""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import ProtocolError

from pushrelay.server.websocket import accept_key

from . import deadline
from .deadline import DEFAULT_PORTS, Reply, netloc_of, read_reply
from .tls import client_context

TIMEOUT = 10.0  # seconds for one answer; a relay needs some milliseconds
LARGEST_BODY = 64 << 20  # bytes of an answer that are read: a poll may bring a long history


class Trouble(Exception):
    """What was asked for did not come. The text says what happened; `reply` is what came instead, if anything did.

    `method` is that of the request.
    """

    def __init__(self, message: str, reply: "Reply | None" = None, method: str = "GET"):
        super().__init__(message)
        self.reply = reply
        self.method = method


class TooSlow(Trouble):
    """No answer came in time."""


class Address(NamedTuple):
    """Where a relay is: below a path that begins and ends with a slash, on a port or on a Unix socket."""

    scheme: str
    host: str
    port: int
    path: str
    unix: str = ""

    @property
    def netloc(self) -> str:
        """The host, and the port where it is not the scheme's own: what `Host` says (RFC 9110, 7.2)."""
        return netloc_of(self.scheme, self.host, self.port)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def url(self) -> str:
        return f"unix:{self.unix}" if self.unix else self.origin + self.path


def address_of(url: str) -> Address:
    """Read an address that somebody wrote, of the relay or of its script. Raises ValueError with a sentence."""
    if url.startswith("unix:") and len(url) > 5:
        return Address("http", "localhost", 80, "/", url.removeprefix("unix:"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = url.isascii() and url.isprintable() and " " not in url and parts.username is None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0 or not plain:
        raise ValueError(f"{url!r} is no address of a relay: write it as https://example.com/relay/")
    path = parts.path.removesuffix("static/relay.js").rstrip("/") + "/"
    return Address(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], path)


class Dialer:
    """Opens connections to one address. `connect_to` is a host or an IP address to call in place of the name's own.

    `headers` go with every request.
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
        """The IP addresses of the name. Raises Trouble."""
        try:
            found = socket.getaddrinfo(self.connect_to, self.address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Trouble(f"{self.connect_to} is not known ({getattr(error, 'strerror', None) or error})") from None
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    def open_tcp(self, timeout: float = TIMEOUT) -> socket.socket:
        """A connection, which may be to a Unix socket. Raises Trouble."""
        with saying(timeout):
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
        """A connection on which HTTP can be spoken: with TLS, where the scheme says so. Raises Trouble."""
        sock = self.open_tcp(timeout)
        if self.address.scheme != "https":
            return sock
        try:
            with saying(timeout):
                context = self.context or tls_context()
                return context.wrap_socket(sock, server_hostname=self.address.host)
        except Trouble:
            sock.close()
            raise

    def begin(
        self, method: str, rest: str, body: bytes = b"", headers: Mapping[str, str] | None = None, timeout=TIMEOUT
    ) -> "Exchange":
        """Send a request for what is at `rest`, below the address's path. Raises Trouble."""
        return Exchange(self, method, self.address.path + rest, body, {**self.headers, **(headers or {})}, timeout)

    def ask(
        self, method: str, rest: str, body: bytes = b"", headers: Mapping[str, str] | None = None, timeout=TIMEOUT
    ) -> Reply:
        """Send a request, and read the answer. Raises Trouble where there is none."""
        with contextlib.closing(self.begin(method, rest, body, headers, timeout)) as exchange:
            return exchange.reply()

    def open_websocket(
        self, rest: str, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT
    ) -> "WebSocketWire":
        """Open a WebSocket (RFC 6455, 4.1). Raises Trouble, with what came in place of the 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        asking = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        exchange = self.begin("GET", rest, b"", {**(headers or {}), **asking}, timeout)
        try:
            early = exchange.switched(key)
        except Trouble:
            exchange.close()
            raise
        return WebSocketWire(exchange.sock, early)


class Exchange:
    """One request and its answer, on a connection of its own."""

    def __init__(
        self, dialer: Dialer, method: str, target: str, body: bytes, headers: Mapping[str, str], timeout: float
    ):
        self._timeout = timeout
        self.sock = dialer.open(timeout)
        sent = {"Host": dialer.address.netloc, "Connection": "close", "Accept-Encoding": "identity", **headers}
        try:
            with saying(timeout):
                self._exchange = deadline.Exchange(self.sock, method, target, sent, body, time.monotonic() + timeout)
        except Trouble:
            self.sock.close()
            raise

    def is_answered(self, timeout: float) -> bool:
        """Wait until the answer begins, or the connection ends; False if neither happens in time."""
        return self._exchange.is_answered(timeout)

    def reply(self) -> Reply:
        """Read the answer. Raises Trouble."""
        with saying(self._timeout):
            return self._exchange.reply(time.monotonic() + self._timeout, LARGEST_BODY)

    def switched(self, key: str) -> bytes:
        """Return the bytes that came behind the 101. Raises Trouble if none came, or one for another key."""
        with saying(self._timeout):
            response = self._exchange.response(time.monotonic() + self._timeout)
            if response.status != 101:
                reply = read_reply(response, LARGEST_BODY)
                raise Trouble(f"the answer was {reply.status} {reply.reason} in place of 101", reply)
            if response.headers.get("Sec-WebSocket-Accept", "").encode() != accept_key(key):
                raise Trouble("the 101 is not the answer to this question (Sec-WebSocket-Accept)")
            # http.client has filled a buffer, and the bytes behind the header are ours.
            response.fp.raw.waits = False
            return response.fp.peek()

    def close(self) -> None:
        """Close the connection."""
        self._exchange.close()


class WebSocketWire:
    """An open WebSocket, of which one thread at a time makes use."""

    def __init__(self, sock: socket.socket, early: bytes):
        self._sock = sock
        self._frames = Connection(ConnectionType.CLIENT, trailing_data=early)
        self._partial = ""  # of a message in several frames

    def send(self, packet: str) -> None:
        """Raises Trouble."""
        with saying(TIMEOUT):
            self._sock.settimeout(TIMEOUT)
            self._sock.sendall(self._frames.send(TextMessage(data=packet)))

    def receive(self, timeout: float) -> list[str]:
        """What has come, at the latest after so many seconds; Trouble where the connection ended."""
        if packets := self._packets():
            return packets
        with saying(timeout):
            self._sock.settimeout(max(timeout, 0.001))
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                return []
            if not data:
                raise Trouble("the connection was closed without a word")
            self._frames.receive_data(data)
        return self._packets()

    def _packets(self) -> list[str]:
        packets = []
        with saying(TIMEOUT):
            for event in self._frames.events():
                if isinstance(event, TextMessage):
                    self._partial += event.data
                    if event.message_finished:
                        packets.append(self._partial)
                        self._partial = ""
                elif isinstance(event, Ping):
                    self._sock.sendall(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    raise Trouble(f"the connection was closed with code {event.code}")
        return packets

    def close(self) -> None:
        with contextlib.suppress(OSError, ProtocolError):
            self._sock.settimeout(1.0)
            self._sock.sendall(self._frames.send(CloseConnection(code=1000)))
        self._sock.close()


def tls_context(ca: str = "", verify: bool = True) -> ssl.SSLContext:
    """Return what certificates are checked against, for HTTP/1.1. Raises OSError for the file `ca`."""
    context = client_context(ca, verify)
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.contextmanager
def saying(timeout: float) -> Iterator[None]:
    """Make one kind of error, with a text for people, of all that can happen to a connection."""
    try:
        yield
    except TimeoutError:
        raise TooSlow(f"there was no answer within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise Trouble("the connection was refused: nothing listens there") from None
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        raise Trouble("the connection was closed without an answer") from None
    except ssl.SSLCertVerificationError as error:
        raise Trouble(f"the certificate is not good: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise Trouble(f"TLS failed: {error.reason or error}") from None
    except http.client.HTTPException as error:
        raise Trouble(f"the answer is not HTTP ({type(error).__name__})") from None
    except ProtocolError:
        raise Trouble("what came is not WebSocket") from None
    except UnicodeError:
        raise Trouble("there can be no host of this name") from None
    except OSError as error:
        raise Trouble(error.strerror or str(error)) from None
