"""The server: it listens, accepts connections, and has the poller's threads serve HTTP on them."""

import contextlib
import functools
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from pushrelay.counters import Counters, Family, refusals
from pushrelay.log.access_log import AccessLog
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import NOBODY
from pushrelay.waiting import wait_until

from .connection import Connection
from .conversation import Conversation
from .known_headers import KnownHeaders, Shortcut, Take
from .limiter import ConnectionLimiter
from .lingering import linger
from .path_times import PathTimes
from .poller import IN, ONE_SHOT, Poller
from .request import Limits, Parser, Request
from .request_error import CODES, RequestError
from .response import FileWrapper, WSGIApp
from .sockets import BACKLOG, listen

log = logging.getLogger(__name__)

# Connections accepted at a time, so that a storm of new ones does not delay those that exist.
ACCEPT_AT_ONCE = 64
# Seconds before the next attempt to accept after the file descriptors have run out.
ACCEPT_PAUSE = 0.2
# Maximum seconds until a signal is handled.
SIGNAL_SECONDS = 0.5
# New objects before the garbage collector looks at the youngest. With Python's own 700 it would run all the time while
# thousands of clients connect. Ended objects are freed by their reference counts: connections, parsers and sessions
# leave no cycles, and nothing else that happens often may leave any. This applies above all to exceptions: never keep
# one in an object that its own traceback refers to.
GC_THRESHOLD = 50_000


class Server:
    """Serves a WSGI app over HTTP/1.1 on one address.

    `host` is a name, an IPv4 or IPv6 address, or `unix:PATH`; a socket that systemd passes replaces it. `socket_mode`
    and `socket_group` are for the file at PATH. `threads` is the number of threads, at least 2; `poller` replaces the
    server's own. The constructor binds and listens, so `port` is the real one even if 0 was requested; no thread runs
    before `start` or `serve_forever`. Raises OSError if it cannot listen.

    `shortcut(environ)` is called once for each header that clients send repeatedly. It may return a function
    `take(body, conversation)`, which is then called for all requests with exactly this header. That function either
    answers the request through the conversation, which it parks first, and returns True; or it returns False, and the
    app is called as usual. With `access_log` the shortcut is not used, because the log needs a request object.

    `share_of(environ)` returns None for a request that goes before others, such as a push. For others it returns the
    share in which they wait for their turn, such as their client's address (see FairQueue). Without it all requests are
    equal.

    `limiter` accepts or rejects connections. `log_limiter` logs requests that cannot be read.
    """

    def __init__(
        self,
        app: WSGIApp,
        host: str = "127.0.0.1",
        port: int = 8080,
        threads: int = 8,
        limits: Limits | None = None,
        access_log: AccessLog | bool = False,
        poller: Poller | None = None,
        shortcut: Shortcut | None = None,
        limiter: ConnectionLimiter | None = None,
        share_of: Callable[[dict[str, Any]], str | None] | None = None,
        log_limiter: LogLimiter | None = None,
        socket_mode: int | None = None,
        socket_group: str = "",
    ):
        self.app = app
        self._log_limiter = log_limiter or LogLimiter()
        self._shortcut = shortcut
        self.share_of = share_of or (lambda environ: None)
        self._has_shares = share_of is not None
        self.limits = limits or Limits()
        self.access_log = AccessLog() if access_log is True else access_log or None
        self.poller = poller or Poller(threads)
        self.ending = False  # each connection ends as soon as it has no request in progress
        self.closing = False
        self._limiter = limiter or ConnectionLimiter()
        self._socket, self._path = listen(host, port, socket_mode, socket_group)
        name = self._socket.getsockname()
        self.host, self.port = name[:2] if isinstance(name, tuple) else (host, 0)
        self._base = self._shared_environ()
        self._known = KnownHeaders(self._shortcut_for)
        self._connections: set[Connection] = set()  # those that speak HTTP
        self.paths = PathTimes()
        self._listener: _Listener | None = None
        self._closed = threading.Event()
        self._refusals = Counters(CODES)

    def start(self) -> None:
        """Start to serve on threads of the poller, and return at once."""
        self.poller.start()
        self._listener = _Listener(self, self._socket)
        self.poller.watch(self._listener, IN | ONE_SHOT)
        self._sweep()

    def serve_forever(self) -> None:
        """Serve until `close` is called, or until an exception such as KeyboardInterrupt is raised in this thread."""
        _tune_collector()
        self.start()
        # Waiting needs a time-out. A signal that arrives just before this thread sleeps, or in another thread, does not
        # wake it, and Python runs signal handlers in this thread only.
        while not self._closed.wait(SIGNAL_SECONDS):
            pass

    def drain(self, seconds: float) -> None:
        """Stop listening, and wait at most `seconds` until requests in progress are answered, except parked polls.

        Connections stay open, and the next request on each of them is answered as its last one.
        """
        self._unlink()  # before another process may have bound a socket of this name
        if self._listener is None:  # a signal arrived before `start`
            self._socket.close()
            return
        self._listener.close()
        for conversation in self._conversations():
            conversation.is_last = True
        wait_until(
            lambda: self._socket.fileno() < 0 and not any(each.is_owed() for each in self._conversations()), seconds
        )

    def finish(self, seconds: float) -> None:
        """End the remaining connections, and wait at most `seconds` until they are closed.

        Their owners end them, between two requests, so that no response is lost in transit.
        """
        self.ending = True
        for conversation in self._conversations():
            conversation.end_soon()
        wait_until(lambda: not self._limiter.count, seconds)

    def close(self) -> None:
        """Stop listening, close every connection, and wait for the threads that are not inside a handler."""
        if self.closing:
            return
        self.ending = self.closing = True
        self._closed.set()
        self.poller.close()
        watched = {each for each in self.poller.sources() if isinstance(each, Connection)}
        for connection in self._connections | watched:
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

    def reload(self, limits: Limits, access_log: AccessLog | None) -> None:
        """Use these limits for all connections from now on, and write an access log or none.

        The functions of the shortcut are forgotten, because they may depend on what has changed in the app.
        """
        for field in fields(Limits):
            setattr(self.limits, field.name, getattr(limits, field.name))
        self.access_log = access_log
        self._known.forget()

    def _shortcut_for(self, environ: dict[str, Any]) -> Take | None:
        return None if self._shortcut is None or self.access_log is not None else self._shortcut(environ)

    # For conversations.

    def parser(self, connection: Connection) -> Parser:
        """Return a parser for this connection's requests."""
        peer = connection.peer
        of_peer = {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])} if isinstance(peer, tuple) else {}
        return Parser(self._base, of_peer, self.limits, self._known)

    def share_of_peer(self, peer: Any) -> str | None:
        """Return the share of a connection that has sent no push; None if pushes or other visitors may come on it."""
        return self._limiter.counted_address(peer) if self._has_shares else None

    def forget(self, connection: Connection) -> None:
        """Forget a connection that no longer speaks HTTP."""
        self._connections.discard(connection)

    def log_access(self, request: Request | None, status: int, sent: int) -> None:
        """Log a request that was answered, if there is an access log. Does nothing without a request."""
        if self.access_log is not None and request is not None:
            self.access_log.end(request.environ, status, sent)

    def log_rejection(self, peer: Any, error: RequestError) -> None:
        """Count a request that cannot be read, and log the address of its connection and the reason."""
        self._refusals.add(error.error)
        if not self.ending:
            address = peer[0] if isinstance(peer, tuple) else NOBODY
            sentence = f"a request from {address} was refused ({error.status}): {error.message}"
            its = {"address": address, "reason": error.error}
            self._log_limiter.warn(f"request {error.error}", address, sentence, its)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the connections, and of the poller that serves them."""
        yield from self.poller.metrics()
        help_ = "Open TCP connections and connections to the Unix socket, of clients and programs."
        yield Family("relay_connections", "gauge", help_, self._limiter.count)
        help_ = "Connections that may be open at a time; the limit on open files decides."
        yield Family("relay_connections_limit", "gauge", help_, self._limiter.unrestricted)
        yield refusals(self._refusals)

    def has_to_wait(self, path: str, share: str | None) -> bool:
        """Return whether a request must wait for a thread, because the last free thread handles quick requests only.

        So slow requests cannot take all threads. Pushes need not be known as quick: they rarely reach this point, and
        visitors, who choose paths, can fill the table of quick paths.
        """
        if not self.poller.is_short():
            return False
        if self.paths.is_slow(path):
            return True
        is_push = self._has_shares and share is None
        return not is_push and not self.paths.is_quick(path)

    def accept(self, sock: socket.socket, peer: Any) -> None:
        """Accept or reject a connection. Its first request may be here already, so it is read at once."""
        sock.setblocking(False)
        limiter = self._limiter
        address = limiter.counted_address(peer)
        rejection = limiter.acquire(peer, address)
        if rejection:
            self._reject(sock, peer, rejection)
            return
        connection = Connection(self.poller, sock, peer, limiter.release)
        connection.counted_as = address
        connection.receiver = conversation = Conversation(connection, self)
        if limiter.has_spare_only():
            conversation.allow_one_request()
        self._connections.add(connection)
        self.poller.run_soon(connection)

    def _reject(self, sock: socket.socket, peer: Any, rejection: bytes) -> None:
        """Send the response for a connection without a slot. It lingers so that the client can read it, if few do."""
        limiter = self._limiter
        self._refusals.add("too_many_connections")
        if not limiter.acquire_lingering():
            with contextlib.suppress(OSError):
                sock.send(rejection)
            sock.close()
            return
        connection = Connection(self.poller, sock, peer, limiter.release_lingering)
        self._connections.add(connection)
        lingering = linger(connection, functools.partial(self.forget, connection))
        if connection.write(rejection):
            lingering.proceed()
            self.poller.run_soon(connection)

    def _shared_environ(self) -> dict[str, Any]:
        return {
            "SERVER_NAME": self.host,
            "SERVER_PORT": str(self.port),
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": "",  # the peer of a Unix socket has none
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
        """Notify the receivers of connections whose deadline has passed, and schedule the next check."""
        if self.closing:
            return
        now = time.monotonic()
        for connection in list(self._connections):
            if 0 < connection.deadline < now:
                connection.deadline = 0.0
                connection.receiver.expired()
        limits = self.limits
        shortest = min(limits.header_timeout, limits.body_timeout, limits.idle_timeout, limits.send_timeout)
        self.poller.call_later(min(1.0, shortest / 4), self._sweep)


class _Listener:
    """The poller's source that accepts connections."""

    share: str | None = None
    hung_up = False

    def __init__(self, server: Server, sock: socket.socket):
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._is_full = False  # the missing file descriptors have been logged
        self._closed = False
        self._lock = threading.Lock()  # held while it accepts, and while it is closed

    def fileno(self) -> int:
        return self._fd

    def run(self) -> None:
        """Accept some of the connections that wait."""
        with self._lock:
            if self._closed:
                return
            try:
                self._accept(ACCEPT_AT_ONCE)
                self._is_full = False
            except (BlockingIOError, ConnectionAbortedError):
                self._is_full = False
            except OSError as error:
                self._complain(error)
                self._server.poller.call_later(ACCEPT_PAUSE, self.rearm)
                return
            self._rearm()

    def rearm(self) -> None:
        """Watch for connections again."""
        with self._lock:
            self._rearm()

    def close(self) -> None:
        """Accept the connections that the kernel has established already, and stop listening."""
        with self._lock, contextlib.suppress(OSError):
            self._closed = True
            self._accept(BACKLOG)
        self._server.poller.retire(self._sock)

    def _accept(self, limit: int) -> None:
        """Accept `limit` connections. Raises BlockingIOError if there are fewer."""
        for _ in range(limit):
            self._server.accept(*self._sock.accept())

    def _rearm(self) -> None:
        if not self._closed and not self._server.closing:
            self._server.poller.rearm(self._fd, IN | ONE_SHOT)

    def _complain(self, error: OSError) -> None:
        """Log the error once, until a connection is accepted again."""
        if not self._is_full and not self._server.closing:
            log.error("cannot accept connections: %s; raise the limit on open files (ulimit -n)", error.strerror)
        self._is_full = True


def _tune_collector() -> None:
    """Exempt the objects that exist when serving begins from garbage collection, and collect less often."""
    # In its own thread: Python runs signal handlers in the main thread, and drops the SystemExit of one that interrupts
    # a finalizer (__del__). The relay would not stop.
    collector = threading.Thread(target=gc.collect, name="gc")
    collector.start()
    collector.join()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
