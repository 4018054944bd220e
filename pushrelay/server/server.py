"""The server: listens, accepts, and lets the poller's threads speak HTTP with who comes."""

import contextlib
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import NOBODY
from pushrelay.waiting import wait_until

from .connection import Connection, bound_send_buffer
from .conversation import Conversation, Lingering
from .limiter import Doors
from .poller import IN, Poller
from .request import Limits, Parser, Refused, Remembered, Request
from .response import FileWrapper, Response
from .sockets import bind_unix
from .systemd import passed_socket

log = logging.getLogger(__name__)
access_logger = logging.getLogger("pushrelay.access_log")

BACKLOG = 4096  # connections that wait to be accepted; after a restart every browser is back at once
# Accepted at a time, so that a storm of connections does not keep those that are there from their turn.
ACCEPT_AT_ONCE = 64
# With no file descriptor left, accepting is tried again after so many seconds.
ACCEPT_PAUSE = 0.2
# A signal is heard within so many seconds, where it is not heard at once.
SIGNAL_SECONDS = 0.5
# For so long a path is held to be slow after it blocked a thread.
SLOW_SECONDS = 5.0
# A path is known to be quick once it was answered in so many seconds; so many paths are remembered, slow or quick.
QUICK_SECONDS = 0.005
KNOWN_PATHS = 1024
LONGEST_PATH = 256  # characters of a path that is remembered; strangers choose paths, and the relay's own are short
# Objects until the collector looks at the youngest; Python's own 700 would have it look all the time while thousands
# of clients connect. What ends here dies by its reference count: connections, parsers and sessions leave no cycles.
GC_THRESHOLD = 50_000


class Server:
    """Serves a WSGI app over HTTP/1.1 on one address.

    `host` is a name, an IPv4 or IPv6 address, or `unix:PATH`; a socket that systemd passes is taken in its place.
    `socket_mode` and `socket_group` are the file's at PATH.
    The constructor binds and listens, so `port` is the real one also where 0 was asked for; no thread runs before
    `start` or `serve_forever`. Raises OSError where it cannot listen.

    `shortcut(environ)` is asked once for each header that clients send again and again. It may return a function
    `take(body, conversation)`, which is called for the requests with this very header: it answers them through the
    conversation, after parking it, and returns True; or it returns False, and the app is called as ever.

    `share_of(environ)` returns None for a request that goes before others, a push; for others the share in which they
    wait for their turn, such as their client's address (see shares.Shares). Without it all requests are equal.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        host: str = "127.0.0.1",
        port: int = 8080,
        threads: int = 8,
        limits: Limits | None = None,
        access_log: bool = False,
        poller: Poller | None = None,
        shortcut: Callable[[dict[str, Any]], Any] | None = None,
        doors: Doors | None = None,
        share_of: Callable[[dict[str, Any]], str | None] | None = None,
        log_limiter: LogLimiter | None = None,
        socket_mode: int | None = None,
        socket_group: str = "",
    ):
        self.app = app
        self._log_limiter = log_limiter or LogLimiter()
        self._shortcut = None if access_log else shortcut  # the log is of requests, of which a shortcut makes none
        self.share_of = share_of or (lambda environ: None)
        self._has_shares = share_of is not None
        self.limits = limits or Limits()
        self.access_log = access_logger if access_log else None
        self.poller = poller or Poller(threads)
        self.ending = False  # connections are ended as soon as no request is under way on them
        self.closing = False
        self._doors = doors or Doors()
        self._socket, self._path = _listening_socket(host, port, socket_mode, socket_group)
        name = self._socket.getsockname()
        self.host, self.port = name[:2] if isinstance(name, tuple) else (host, 0)
        self._base = self._shared_environ()
        self._remembered: Remembered = {}
        self._connections: set[Connection] = set()  # those that speak HTTP
        self._slow: dict[str, float] = {}  # paths that blocked a thread, and until when that counts
        self._quick: set[str] = set()  # paths that were answered without blocking one
        self._listener: _Listener | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to serve, on threads of the poller; returns at once."""
        self.poller.start()
        self._listener = _Listener(self, self._socket)
        self.poller.watch(self._listener, IN)
        self._sweep()

    def serve_forever(self) -> None:
        """Serve until `close` is called, or an exception such as KeyboardInterrupt comes up in this thread."""
        _tune_collector()
        self.start()
        # Not without end: a signal that comes just before this thread sleeps, or to another one, does not wake it, and
        # Python's handler runs in this one alone.
        while not self._closed.wait(SIGNAL_SECONDS):
            pass

    def drain(self, seconds: float) -> None:
        """Stop listening, and wait until the requests under way are answered, parked polls excepted, or time is up.

        Connections stay, and what else is asked on them is answered, each for the last time.
        """
        self._unlink()  # before another process may have made a socket of this name
        if self._listener is None:  # a signal came before it had begun
            self._socket.close()
            return
        self._listener.close()
        for conversation in self._conversations():
            conversation.is_last = True
        wait_until(
            lambda: self._socket.fileno() < 0 and not any(each.is_owed() for each in self._conversations()), seconds
        )

    def finish(self, seconds: float) -> None:
        """End the connections that are still there, and wait until they are closed, or time is up."""
        self.ending = True
        for conversation in self._conversations():
            conversation.leave()
        wait_until(lambda: not self._doors.count, seconds)

    def close(self) -> None:
        """Stop listening, end every connection, and wait for the threads that are not inside a handler."""
        if self.closing:
            return
        self.ending = self.closing = True
        self._closed.set()
        self.poller.close()
        for connection in {*self._connections, *self.poller.sources()} - {self._listener}:
            connection.sock.close()
        self._connections.clear()
        self._socket.close()
        self._unlink()

    def _unlink(self) -> None:
        path, self._path = self._path, ""
        if path:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _conversations(self) -> list[Conversation]:
        receivers = [connection.receiver for connection in list(self._connections)]
        return [receiver for receiver in receivers if isinstance(receiver, Conversation)]

    # For conversations.

    def parser(self, connection: Connection) -> Parser:
        """A parser for this connection's requests."""
        peer = connection.peer
        known = {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])} if isinstance(peer, tuple) else {}
        return Parser(self._base, known, self.limits, self._remembered, self._shortcut)

    def share_of_peer(self, peer: Any) -> str | None:
        """Return the share of a connection that has sent no push; None if pushes or other visitors may come on it."""
        return self._doors.counted_as(peer) if self._has_shares else None

    def forget(self, connection: Connection) -> None:
        """The connection no longer speaks HTTP."""
        self._connections.discard(connection)

    def note_refusal(self, peer: Any, refused: Refused) -> None:
        """Have the log name a connection whose request cannot be read."""
        if not self.ending:
            address = peer[0] if isinstance(peer, tuple) else NOBODY
            sentence = f"a request from {address} was refused ({refused.status}): {refused.message}"
            self._log_limiter.warn(f"request {refused.error}", address, sentence)

    def log_access(self, request: Request, response: Response, user: str) -> None:
        environ = request.environ
        access_logger.info(
            '%s %s "%s %s %s" %s %d',
            environ.get("REMOTE_ADDR") or "-",
            user,
            environ["REQUEST_METHOD"],
            environ["RAW_URI"].encode("unicode_escape").decode(),
            environ["SERVER_PROTOCOL"],
            (response.status or "-")[:3],
            response.sent,
        )

    def note_slow(self, path: str) -> None:
        """A request for this path has blocked a thread."""
        if len(path) > LONGEST_PATH:
            return
        if len(self._slow) >= KNOWN_PATHS:
            self._slow.clear()
        self._slow[path] = time.monotonic() + SLOW_SECONDS

    def note_time(self, path: str, seconds: float) -> None:
        """A request for this path took a thread for so long."""
        if seconds < QUICK_SECONDS and path not in self._quick and len(path) <= LONGEST_PATH:
            if len(self._quick) >= KNOWN_PATHS:
                self._quick.clear()  # the paths of strangers must not keep others out
            self._quick.add(path)

    def has_to_wait(self, path: str, share: str | None) -> bool:
        """Return whether a request has to wait for a thread: the last free thread handles quick requests only.

        So slow requests, however many they are, cannot take all threads. Pushes need not be known as quick: they
        rarely come this way, and visitors, who choose paths, can fill what is remembered.
        """
        if not self.poller.is_short():
            return False
        if self._slow.get(path, 0.0) > time.monotonic():
            return True
        is_push = self._has_shares and share is None
        return not is_push and path not in self._quick

    def welcome(self, sock: socket.socket, peer: Any) -> None:
        """Take a connection in. It may have been talking before it was accepted, so it is looked at right away."""
        sock.setblocking(False)
        doors = self._doors
        refusal = doors.let_in(peer)
        if refusal:
            self._turn_away(sock, peer, refusal)
            return
        connection = Connection(self.poller, sock, peer, doors.left)
        connection.receiver = conversation = Conversation(connection, self)
        if doors.is_spare():
            conversation.hurry()
        self._connections.add(connection)
        self.poller.run_soon(connection)

    def _turn_away(self, sock: socket.socket, peer: Any, refusal: bytes) -> None:
        """Say why there is no room. So that it can be read the connection stays a moment, where few others do."""
        doors = self._doors
        if not doors.may_linger():
            with contextlib.suppress(OSError):
                sock.send(refusal)
            sock.close()
            return
        connection = Connection(self.poller, sock, peer, doors.lingered)
        connection.receiver = lingering = Lingering(connection, self)
        self._connections.add(connection)
        if connection.write(refusal):
            lingering.proceed()
            self.poller.run_soon(connection)

    def _shared_environ(self) -> dict[str, Any]:
        return {
            "SERVER_NAME": self.host,
            "SERVER_PORT": str(self.port),
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": "",  # a Unix socket's peer has none
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def _sweep(self) -> None:
        """End the connections whose deadline has passed."""
        if self.closing:
            return
        now = time.monotonic()
        for connection in list(self._connections):
            receiver = connection.receiver
            if 0 < connection.deadline < now and receiver is not None:
                connection.deadline = 0.0
                receiver.expired()
        limits = self.limits
        shortest = min(limits.header_timeout, limits.body_timeout, limits.idle_timeout, limits.send_timeout)
        self.poller.call_later(min(1.0, shortest / 4), self._sweep)


class _Listener:
    """The source that accepts."""

    def __init__(self, server: Server, sock: socket.socket):
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._full = False  # it has been said that there are no file descriptors left
        self._closed = False
        self._lock = threading.Lock()  # held while it accepts, and while it is closed

    def fileno(self) -> int:
        return self._fd

    def run(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._accept(ACCEPT_AT_ONCE)
                self._full = False
            except (BlockingIOError, ConnectionAbortedError):
                self._full = False
            except OSError as error:
                self._complain(error)
                self._server.poller.call_later(ACCEPT_PAUSE, self.rearm)
                return
            self._rearm()

    def rearm(self) -> None:
        with self._lock:
            self._rearm()

    def close(self) -> None:
        """Take in who was connected by the kernel already, and listen no more."""
        with self._lock, contextlib.suppress(OSError):
            self._closed = True
            self._accept(BACKLOG)
        self._server.poller.retire(self._sock)

    def _accept(self, most: int) -> None:
        """Accept so many; raises BlockingIOError where there are no more."""
        for _ in range(most):
            self._server.welcome(*self._sock.accept())

    def _rearm(self) -> None:
        if not self._closed and not self._server.closing:
            self._server.poller.rearm(self._fd, IN)

    def _complain(self, error: OSError) -> None:
        if not self._full and not self._server.closing:
            log.error("cannot accept connections: %s; raise the limit on open files (ulimit -n)", error.strerror)
        self._full = True


def _listening_socket(host: str, port: int, mode: int | None, group: str) -> tuple[socket.socket, str]:
    """The socket to accept on, and the path to remove at the end where it is a Unix socket of our own."""
    path = ""
    sock = passed_socket()
    if sock is None and host.startswith("unix:"):
        path = host.removeprefix("unix:")
        sock = bind_unix(path, mode, group)
    elif sock is None:
        sock = _bind_tcp(host, port)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        bound_send_buffer(sock)
        # Accepted sockets inherit it. A push is one small packet that is not to wait for the last one's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, path


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _tune_collector() -> None:
    """What is here when serving begins stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
