"""The carrier that takes a client's TCP socket away from another WSGI server: our own poller serves it from then on.

gunicorn, uWSGI and Werkzeug give the app the socket, or its number, and later use it again: they keep reading, answer,
shut it down and close it. So the server keeps the number, but no longer the connection. The connection is duplicated,
and the server's own file descriptor gets one end of a socket pair whose other end is closed. A read there finds the end
of the stream, a write is lost, and closing it closes nothing of ours. To the server, that client is gone: gunicorn
learns this from StopIteration, Werkzeug from ConnectionError, uWSGI from a response without anything in it.

Polls that wait are taken too, not only WebSockets. If they held threads, as many polls as there are threads would stop
all pushes; and a poll that is answered early only makes its client poll again at once.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

from pushrelay.engine.carrier import WebSocketReceiver
from pushrelay.engine.errors import NO_FILES, Rejected
from pushrelay.server.connection import SLOW, TRANSPORT_CLOSE, Connection
from pushrelay.server.poller import Poller
from pushrelay.server.request import Request
from pushrelay.server.response import Response
from pushrelay.server.sockets import bound_send_buffer

# Seconds for a client that takes nothing of its answer, like the setting send_timeout of our own server.
SEND_SECONDS = 60.0
# uWSGI's sockets that wrap the bytes: there is more to the connection than what comes out of its number.
_WRAPPED = ("https-socket", "fastcgi-", "puwsgi-", "suwsgi-")
# uWSGI's routers: they forward WebSockets only with the option http-websockets.
_ROUTERS = {"http", "httprouter", "https", "https2", "http-to-https"}

# All that an answer needs to know of a parked request.
_POLL = Request({"REQUEST_METHOD": "GET"}, "1.1", keep_alive=False)

try:
    import uwsgi  # only inside uWSGI
except ImportError:
    uwsgi = None


class Host(NamedTuple):
    """The connection of one request, as its server offers it."""

    fd: int
    read_ahead: Callable[[], bytes]  # returns what was read beyond the request; called when the socket is taken
    leave: Callable[[], Iterable[bytes]]  # returns or raises what makes the server believe that its client is gone
    websockets: bool = True


def carrier_of(environ: dict[str, Any], poller: Poller) -> "HijackedConnection | None":
    """Return the carrier of this request; None if its connection cannot be taken."""
    host = _host_of(environ)
    return HijackedConnection(host, poller) if host is not None else None


class HijackedConnection:
    """The carrier of a request whose connection is taken from its server; its receiver while the request is parked.

    The socket is taken when the request is parked or upgraded, not before: the server itself sends what is answered
    at once.
    """

    is_last = False
    threads = None  # a client holds none

    __slots__ = ("_early", "_host", "_on_lost", "_poller", "_taken")

    def __init__(self, host: Host, poller: Poller):
        self._host = host
        self._poller = poller
        self._early = b""  # what the server had read beyond the request
        self._on_lost: Callable[[], None] | None = None
        self._taken: Connection | None = None

    @property
    def connection(self) -> Connection | None:
        """The connection once it was taken."""
        return self._taken

    @property
    def websockets(self) -> bool:
        """Whether this request can become a WebSocket."""
        return self._host.websockets

    # In the server's thread, while it handles the request.

    def take(self) -> Connection:
        """Take the connection from its server. Raises Rejected if no file descriptor is left."""
        host = self._host
        try:
            sock = _hijack(host.fd)
            bound_send_buffer(sock)
            self._taken = Connection(self._poller, sock)
        except OSError as error:
            raise Rejected(NO_FILES, "503 Service Unavailable") from error
        self._early = host.read_ahead()
        return self._taken

    def park(self, on_lost: Callable[[], None] | None = None, is_poll: bool = False) -> None:
        """Leave the request without an answer until `answer` is called; `on_lost()` is if the client leaves first.

        Later data of the client is dropped, and the connection ends with the answer. Raises Rejected.
        """
        connection = self.take()
        self._on_lost = on_lost
        connection.receiver = self
        self._poller.run_soon(connection)

    def upgrade(self, receiver: WebSocketReceiver, head: bytes) -> Connection:
        """Send `head` and give `receiver` what the client sends from here on. Call `take` before."""
        connection = self._held()
        connection.receiver = ReadAhead(receiver, connection, self._early) if self._early else receiver
        connection.write(head)
        connection.run_soon()
        return connection

    def returned(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return or raise what makes the server believe that its client is gone."""
        return self._host.leave()

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. Call it once; it does nothing if the client is gone."""
        self._on_lost = None
        connection = self._held()
        response = Response(None, _POLL, 0.0)
        response.start(status, headers)
        connection.write(response.head(len(body)).data + body)
        if connection.backlog:
            connection.abort_later(SEND_SECONDS, SLOW)
        connection.finish()

    def _held(self) -> Connection:
        if self._taken is None:
            raise RuntimeError("the connection was not taken")
        return self._taken

    # The receiver, while the request is parked.

    def received(self, data: bytes) -> None:
        """Drop a further request after this one: the client sends it again on a new connection."""

    def ended(self) -> None:
        """End the connection: the client sends no more, so it waits for no answer."""
        self._held().abort(TRANSPORT_CLOSE)

    def proceed(self) -> None:
        """Nothing was waiting for the outbox."""

    def resume(self) -> None:
        """Nothing is left to do."""

    def expired(self) -> None:
        """There is no deadline: the heartbeat answers the poll in time."""

    def lost(self, reason: str) -> None:
        """Tell the session that the client is gone, unless the poll was answered."""
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()


class ReadAhead:
    """The receiver of a WebSocket whose first bytes its server has read; it hands them over, and then the WebSocket."""

    __slots__ = ("_connection", "_early", "_link")

    def __init__(self, link: WebSocketReceiver, connection: Connection, early: bytes):
        self._link = link
        self._connection = connection
        self._early = early

    def _hand_over(self) -> None:
        self._connection.receiver = self._link
        self._link.received(self._early)

    def proceed(self) -> None:
        """Hand over: this is the first turn."""
        self._hand_over()

    def received(self, data: bytes) -> None:
        """Hand over, and then pass on what came after the first bytes."""
        self._hand_over()
        self._link.received(data)

    def ended(self) -> None:
        """Hand over, and pass the end on."""
        self._hand_over()
        self._link.ended()

    def resume(self) -> None:
        """Do nothing: no turn was left unfinished."""

    def expired(self) -> None:
        """Do nothing: there is no deadline."""

    def close(self, code: int) -> None:
        """Pass on that the session closes its WebSocket."""
        self._link.close(code)

    def lost(self, reason: str) -> None:
        """Pass on that the connection is over."""
        self._link.lost(reason)


def _hijack(fd: int) -> socket.socket:
    """Return the socket of a file descriptor, and put a dead end in its place. Raises OSError before that."""
    mine = socket.socket(fileno=os.dup(fd))
    try:
        end, other = socket.socketpair()
    except OSError:
        mine.close()
        raise
    other.close()
    os.dup2(end.fileno(), fd, inheritable=False)
    end.close()
    mine.setblocking(False)
    with contextlib.suppress(OSError):  # a Unix socket has no such thing
        mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return mine


def _host_of(environ: dict[str, Any]) -> Host | None:
    """Return what the server offers of this connection; None if it cannot be taken."""
    has_body = environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
    # HTTP/2 has many requests on one connection.
    if has_body or environ["REQUEST_METHOD"] != "GET" or not environ["SERVER_PROTOCOL"].startswith("HTTP/1."):
        return None
    if uwsgi is not None:
        return _in_uwsgi()
    sock = environ.get("gunicorn.socket")
    if _is_plain(sock):
        return Host(sock.fileno(), lambda: _read_by_gunicorn(environ), _leave_gunicorn)
    sock = environ.get("werkzeug.socket")
    if _is_plain(sock):
        # The buffered reader returns what it has read, and then finds the end.
        return Host(sock.fileno(), environ["wsgi.input"].read, _leave_werkzeug)
    return None


def _is_plain(sock: Any) -> TypeGuard[socket.socket]:
    """Return whether the bytes of this socket are those of the connection, which they are not with TLS."""
    return isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)


def _in_uwsgi() -> Host | None:
    options = set(uwsgi.opt)
    if any(option.startswith(_WRAPPED) for option in options):
        return None
    websockets = not options & _ROUTERS or "http-websockets" in options
    # Frames that a client sends before it has the 101 stay in uWSGI, which does not release them. RFC 6455, 4.1
    # forbids such frames.
    return Host(uwsgi.connection_fd(), bytes, tuple, websockets)


def _read_by_gunicorn(environ: dict[str, Any]) -> bytes:
    """Return what is in gunicorn's buffer; with the socket gone, there is nothing else to be read."""
    unreader = getattr(getattr(environ["wsgi.input"], "reader", None), "unreader", None)
    return bytes(unreader.read()) if unreader is not None else b""


def _leave_gunicorn() -> Iterable[bytes]:
    raise StopIteration  # gunicorn then closes the connection without an answer


def _leave_werkzeug() -> Iterable[bytes]:
    raise ConnectionError("the connection was taken over")  # Werkzeug treats it as a client that is gone
