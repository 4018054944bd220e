"""A client's TCP socket, taken from another WSGI server: the Engine then serves it on its own poller.

gunicorn, uWSGI and Werkzeug give the app the socket, or its number, and then want it back: they read on, answer, shut
it down, close it. So the container keeps the number and loses what is behind it. The connection is duplicated, and over
the container's own file descriptor comes one end of a pair whose other end is closed: whatever is read there is at its
end, whatever is written is lost, and closing it closes nothing of ours.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pushrelay.server.connection import SLOW, TRANSPORT_CLOSE, Connection, bound_send_buffer
from pushrelay.server.poller import Poller
from pushrelay.server.request import Request
from pushrelay.server.response import Response

# A client that takes nothing of its answer has so many seconds, as with the setting send_timeout of our own server.
SEND_SECONDS = 60.0
# What uWSGI's sockets put around the bytes: there is more to the connection than what comes out of its number.
_WRAPPED = ("https-socket", "fastcgi-", "puwsgi-", "suwsgi-")
# uWSGI's routers: they pass nothing of a WebSocket on unless they are told to.
_ROUTERS = {"http", "httprouter", "https", "https2", "http-to-https"}

# All that an answer needs to know of a parked request.
_POLL = Request({"REQUEST_METHOD": "GET"}, "1.1", keep_alive=False)

try:
    import uwsgi  # only inside uWSGI
except ImportError:
    uwsgi = None


class NotTaken(Exception):
    """There is no file descriptor left for it. The request is the container's as before."""


class Container(NamedTuple):
    """What a container says about the connection of one request, and how it is left without it."""

    fd: int
    read_ahead: Callable[[], bytes]  # what was read beyond the request; called when the socket is no longer there
    leave: Callable[[], Iterable[bytes]]
    websockets: bool = True


def conversation(environ: dict[str, Any], poller: Poller) -> "Taken | None":
    """What the Engine parks and upgrades for this request; None where the connection cannot be taken."""
    container = _container_of(environ)
    return Taken(container, poller) if container is not None else None


class Taken:
    """For the Engine what `http1.Conversation` is on our own server, and the receiver while a poll is parked.

    The socket is taken when the request is parked or upgraded, not before: what is answered at once is the container's.
    """

    is_last = False  # the next answer may be any

    __slots__ = ("_container", "_early", "_on_lost", "_poller", "connection")

    def __init__(self, container: Container, poller: Poller):
        self._container = container
        self._poller = poller
        self._early = b""  # what the container had read beyond the request
        self._on_lost: Callable[[], None] | None = None
        self.connection: Connection = None  # type: ignore[assignment]

    @property
    def websockets(self) -> bool:
        """Whether a WebSocket would work here."""
        return self._container.websockets

    # In the container's thread, while it handles the request.

    def take(self) -> Connection:
        """Make the connection ours. Raises NotTaken."""
        container = self._container
        try:
            sock = _swapped(container.fd)
            bound_send_buffer(sock)
            self.connection = Connection(self._poller, sock)
        except OSError as error:
            raise NotTaken(error.strerror) from error
        self._early = container.read_ahead()
        return self.connection

    def park(self, on_lost: Callable[[], None], is_poll: bool = False) -> None:
        """Leave the request without an answer until `answer` is called; `on_lost` is, if the client goes away first.

        What the client sent behind the request is dropped, and the connection ends with the answer. Raises NotTaken.
        """
        connection = self.take()
        self._on_lost = on_lost
        connection.receiver = self
        self._poller.run_soon(connection)

    def upgrade(self, link: Any, head: bytes) -> Connection:
        """Send `head` and speak WebSocket from here on. After `take`."""
        connection = self.connection
        connection.receiver = ReadAhead(link, self._early) if self._early else link
        connection.write(head)
        connection.run_soon()
        return connection

    def returned(self) -> Iterable[bytes]:
        """What the app returns, if it does: the container is to think that its client has gone."""
        return self._container.leave()

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. To be called once; no harm if the client is gone."""
        self._on_lost = None
        response = Response(None, _POLL, 0.0)
        response.start(status, headers)
        self.connection.write(response.head(len(body)).data + body)
        if self.connection.backlog:
            self.connection.abort_later(SEND_SECONDS, SLOW)
        self.connection.finish()

    # The receiver, while the request is parked.

    def received(self, data: bytes) -> None:
        """Another request behind this one: it will have to come again, on a new connection."""

    def ended(self) -> None:
        self.connection.abort(TRANSPORT_CLOSE)

    def proceed(self) -> None:
        """Nothing was waiting for the outbox."""

    def expired(self) -> None:
        """It has no deadline: the heartbeat sees to it that it is answered."""

    def lost(self, reason: str) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()


class ReadAhead:
    """The receiver of a WebSocket whose first bytes the container has read: they come first, by the owner's hand."""

    __slots__ = ("_early", "_link")

    def __init__(self, link: Any, early: bytes):
        self._link = link
        self._early = early

    def _hand_over(self) -> None:
        self._link.connection.receiver = self._link
        self._link.received(self._early)

    def proceed(self) -> None:
        self._hand_over()

    def received(self, data: bytes) -> None:
        self._hand_over()
        self._link.received(data)

    def ended(self) -> None:
        self._hand_over()
        self._link.ended()

    def expired(self) -> None:
        """It has no deadline."""

    def close(self, code: int) -> None:
        self._link.close(code)

    def lost(self, reason: str) -> None:
        self._link.lost(reason)


def _swapped(fd: int) -> socket.socket:
    """The socket of a file descriptor, which has a dead end in its place from here on. Raises OSError, before that."""
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


def _container_of(environ: dict[str, Any]) -> Container | None:
    has_body = environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
    # HTTP/2 has many requests on one connection.
    if has_body or environ["REQUEST_METHOD"] != "GET" or not environ["SERVER_PROTOCOL"].startswith("HTTP/1."):
        return None
    if uwsgi is not None:
        return _in_uwsgi()
    sock = environ.get("gunicorn.socket")
    if _is_plain(sock):
        return Container(sock.fileno(), lambda: _read_by_gunicorn(environ), _leave_gunicorn)
    sock = environ.get("werkzeug.socket")
    if _is_plain(sock):
        # The buffered reader has what it read, and then the end.
        return Container(sock.fileno(), environ["wsgi.input"].read, _leave_werkzeug)
    return None


def _is_plain(sock: Any) -> bool:
    """Whether it is a socket whose bytes are those of the connection: not so with TLS."""
    return isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)


def _in_uwsgi() -> Container | None:
    options = set(uwsgi.opt)
    if any(option.startswith(_WRAPPED) for option in options):
        return None
    websockets = not options & _ROUTERS or "http-websockets" in options
    # What a client sends before it has the 101 stays with uWSGI, which shows it to nobody: RFC 6455, 4.1 forbids it.
    return Container(uwsgi.connection_fd(), bytes, tuple, websockets)


def _read_by_gunicorn(environ: dict[str, Any]) -> bytes:
    """What is in its buffer: with the socket gone, there is nothing else to be read."""
    unreader = getattr(getattr(environ["wsgi.input"], "reader", None), "unreader", None)
    return unreader.read() if unreader is not None else b""


def _leave_gunicorn() -> Iterable[bytes]:
    raise StopIteration  # its word for a connection that is to be closed without an answer


def _leave_werkzeug() -> Iterable[bytes]:
    raise ConnectionError("the connection was taken over")  # its word for a client that has gone
