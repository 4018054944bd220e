"""The relay without epoll: on Werkzeug's server, and on python-socketio's own engine and manager.

They need a thread for each connection, and four for each WebSocket client.
"""

import json
import logging
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import socketio
from engineio.payload import Payload
from socketio import packet as sio
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from pushrelay.answers import PRIVATE, http_error, refusal
from pushrelay.counters import Family
from pushrelay.engine.limits import client_count
from pushrelay.engine.packet import MAX_PACKETS
from pushrelay.lifecycle import spread_for
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import refused_handshake, refused_origin, refused_session, seen_as
from pushrelay.rooms.app_events import AppEvents
from pushrelay.rooms.client_log import ClientLog
from pushrelay.rooms.packet_dispatch import is_known, receive, unknown_namespace
from pushrelay.rooms.presence import Presence
from pushrelay.rooms.rooms import largest_of, room_metrics
from pushrelay.server.sockets import BACKLOG, bind_tcp
from pushrelay.waiting import wait_until

log = logging.getLogger(__name__)

# How engineio's refusals begin, and their causes for the log: see refused_handshake().
_CAUSES = {
    "Not an accepted origin": "origin",
    "The client is using an unsupported version": "old_client",
    "Invalid transport": "transport",
    "Invalid session": "session",
    "Invalid websocket upgrade": "websocket",
}


WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WerkzeugManager(socketio.Manager):  # type: ignore[misc]  # socketio has no type hints
    """python-socketio's manager, with the methods that RoomManager has besides."""

    can_defer = False  # a client has its own thread here, which can wait
    on_change: Callable[[str, bool], None] | None = None  # see Rooms for these
    on_leave: Callable[[str, str], None] | None = None
    watch_rooms = watches = 0

    def __init__(
        self,
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
        log_limiter: LogLimiter | None = None,
        client_log: ClientLog | None = None,
    ) -> None:
        super().__init__()
        self._client_log = client_log or ClientLog()
        self._address_of = address_of
        self._log_limiter = log_limiter or LogLimiter()
        self._presence = Presence()
        self._presence_lock = threading.RLock()
        self.app_events = AppEvents()

    def set_server(self, server: Any) -> None:
        """Replace engineio's handling of messages, requests and disconnects."""
        super().set_server(server)
        server.eio.on("message", self.receive)
        server.eio.disconnect = self._close_transports
        server.eio.handle_request = partial(self._handle_request, server.eio.handle_request)
        # engineio logs each cause once in the life of the process; _log_refusal() logs it once a minute.
        log_once = server.eio._log_error_once
        server.eio._log_error_once = lambda message, key: log_once(message, key) if key == "no-websocket" else None
        self._client_log.watch(server)
        # engineio allows 16 packets in one POST, and a page that registers and pushes at once sends more.
        Payload.max_decode_packets = MAX_PACKETS

    def _handle_request(
        self, handle: Callable[..., Iterable[bytes]], environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Have engineio answer, add the headers of an answer for one client alone, and log what it refuses."""
        answered: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            answered.append(status)
            return start_response(status, [*headers, *PRIVATE], *more)

        body = handle(environ, start)
        if answered and answered[0].startswith("4"):
            self._log_refusal(environ, b"".join(body))
        return body

    def _log_refusal(self, environ: dict[str, Any], body: bytes) -> None:
        message = body.decode("utf-8", "replace").strip('"')
        address = seen_as(self._address_of(environ), environ)
        cause = next((cause for start, cause in _CAUSES.items() if message.startswith(start)), message[:50])
        if cause == "session":
            message = "Invalid session"  # without the session's id, with which others could take it over
        line = refused_handshake(environ, address, cause, message)
        self._log_limiter.warn(*(refused_origin(environ) if cause == "origin" else line))

    def log_client(self, eio_sid: str, cause: str, message: str) -> None:
        """Log what a client did, at most once a minute for each cause and address."""
        environ = self.server.environ.get(eio_sid, {})
        self._log_limiter.warn(*refused_session(cause, seen_as(self._address_of(environ), environ), message))

    def _close_transports(self, eio_sid: str | None = None) -> None:
        """Close the transport of one client, or of all clients: engineio's disconnect(), but without waiting.

        engineio waits until the client has polled everything, even in the thread of the client's own POST; and a client
        may never poll.
        """
        sockets = self.server.eio.sockets
        for each in list(sockets) if eio_sid is None else [eio_sid]:
            session = sockets.get(each)
            if session is not None:
                session.close(wait=False)
                sockets.pop(each, None)

    def connect(self, sid: str, namespace: str) -> str | None:
        """Note that a client has entered a namespace."""
        accepted: str | None = super().connect(sid, namespace)
        if accepted is not None:
            self._client_log.connected(self.server, accepted, namespace)
        return accepted

    def receive(self, eio_sid: str, data: Any) -> None:
        """Handle a Socket.IO packet."""

        def connect(eio_sid: str, packet: Any) -> None:
            if not is_known(self.server, packet.namespace or "/"):
                self.log_client(eio_sid, *unknown_namespace(packet.namespace))
            self.server._handle_connect(eio_sid, packet.namespace, packet.data)

        receive(self.server, eio_sid, data, connect)

    def deliver_text(self, write: Callable[[], str], room: str, skip_sid: str | list[str] | None = None) -> int:
        """Emit an event to a room, and return the number of recipients.

        `write()` returns the event as a JSON array of its name and its argument.
        """
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        sids = [sid for sid, _ in self.get_participants("/", room) if sid not in skipped]
        if sids:
            event, argument = json.loads(write())
            self.emit(event, argument, "/", room=room, skip_sid=skip_sid)
        return len(sids)

    deliver_in_turns = deliver_text  # each client has a thread of its own

    def send_text(self, text: str, sid: str) -> None:
        """Emit an event, as a JSON array of its name and its argument, to one client."""
        event, argument = json.loads(text)
        self.emit(event, argument, "/", room=sid)

    def send_answer(self, text: str, sid: str, ack: int) -> None:
        """Send the acknowledgement with this number, whose one argument has this JSON text, to one client."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self.server._send_packet(eio_sid, self.server.packet_class(sio.ACK, [json.loads(text)], "/", ack))

    def presence(self, rooms: list[str]) -> dict[str, float]:
        """Return the number of clients in these rooms, and since when there are any (seconds since 1970)."""
        return self._presence.of(rooms, len(self.sids_in(rooms)))

    def disconnect_all(self, sids: Iterable[str]) -> None:
        """Disconnect clients, with the reason that the server did it."""
        for sid in sids:
            self.server.disconnect(sid)

    def close_transport(self, sid: str) -> None:
        """Close a client's transport, so that it reconnects automatically."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:  # None stands for all clients in disconnect()
            self.server.eio.disconnect(eio_sid)

    def sids_in(self, rooms: list[str]) -> set[str]:
        """Return the sids of all clients that are in any of these rooms."""
        return {sid for room in rooms for sid, _ in self.get_participants("/", room)}

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        """Return the rooms that a client is in, including its own.

        Under the lock, because the base class fails if another client enters a new room at the same time.
        """
        with self._presence_lock:
            rooms: list[str] = super().get_rooms(sid, namespace)
        return rooms

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Enter a room, and note that a first client may have come."""
        with self._presence_lock:
            super().basic_enter_room(sid, namespace, room, eio_sid)
            if namespace == "/" and isinstance(room, str) and room != sid:
                self._presence.entered(room)
                self._note_change(room, False)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Leave a room, and note that the last client may be gone."""
        with self._presence_lock:
            super().basic_leave_room(sid, namespace, room)
            if namespace == "/":
                if self.on_leave is not None and isinstance(room, str):
                    self.on_leave(room, sid)
                is_empty = room not in self.rooms.get(namespace, ())
                if is_empty:
                    self._presence.emptied(room)
                self._note_change(room, is_empty)

    def _note_change(self, room: Any, is_empty: bool) -> None:
        if self.on_change is not None and isinstance(room, str):
            self.on_change(room, is_empty)

    def send_if_clear(self, text: str, sid: str) -> bool:
        """Emit an event to one client, and return True: engineio's queues have no bound, so it always fits."""
        self.send_text(text, sid)
        return True

    def has_room(self, sid: str, size: int) -> bool:
        """Return True: see send_if_clear()."""
        return True

    def has_outbox(self, sid: str) -> bool:
        """Return False: see send_if_clear()."""
        return False

    def call_when_clear(self, sid: str, callback: Callable[[], None]) -> None:
        """Call back at once: see send_if_clear()."""
        callback()

    def charge(self, sid: str, events: float) -> None:
        """Do nothing: the stock engine does not limit events."""

    def overdraft(self, sid: str) -> float:
        """Return 0: see charge()."""
        return 0.0

    def call_later(self, seconds: float, callback: Callable[[], None]) -> threading.Timer:
        """Call back after this number of seconds. Return a timer with `cancel()`."""
        timer = threading.Timer(seconds, callback)
        timer.start()
        return timer

    def share_of(self, sid: str) -> str | None:
        """Return None: all clients share one turn."""
        return None

    def let_client_stay(self, eio_sid: str, namespace: str) -> None:
        """Do nothing, as let_stay()."""

    def let_stay(self, sid: str) -> None:
        """Do nothing: this engine closes no client that registers nothing."""

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the rooms of destinations that have the most clients."""
        return largest_of(self.rooms.get("/", {}), most)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the clients and of the rooms that they are in."""
        sessions = list(self.server.eio.sockets.values())
        websockets = sum(session.upgraded for session in sessions)
        yield client_count(websockets, len(sessions) - websockets)
        # Each client is also in a room of its own, and in None, the room of all.
        rooms = {room: len(sids) for room, sids in list(self.rooms.get("/", {}).items())}
        clients = rooms.get(None, 0)
        registrations = sum(rooms.values()) - 2 * clients - self.watches
        yield from room_metrics(registrations, max(0, len(rooms) - 1 - clients - self.watch_rooms))

    def shut(self) -> None:
        """Do nothing: a client that connects at the last moment gets relay_drain like the others."""

    def drain(self, spread: float, seconds: float) -> int:
        """Ask every client to reconnect after a random time of at most `spread` seconds, and close it.

        Return the number of clients. Wait at most `seconds` until they have taken what was sent.
        """
        sids = [sid for sid, _ in self.get_participants("/", None)]
        for sid in sids:
            delay = secrets.randbelow(round(spread_for(len(sids), spread) * 1000) + 1)
            self.emit("relay_drain", {"reconnect_in_ms": delay}, "/", room=sid)
        sockets = list(self.server.eio.sockets.values())
        for each in sockets:
            each.close(wait=False)  # after what it was sent
        wait_until(lambda: all(each.queue.empty() for each in sockets), seconds)
        return len(sids)


class WerkzeugServer:
    """Serves a WSGI app on one address until it is closed."""

    def __init__(self, app: WSGIApp, host: str, port: int, max_body: int):
        """Bind the address. Raises OSError if that fails."""
        self._listener = bind_tcp(host, port)
        self._listener.listen(BACKLOG)
        self.port: int = self._listener.getsockname()[1]  # also if 0 was asked for
        self._server = _Server(host, self.port, app, _RequestHandler, fd=self._listener.fileno())
        self._server.max_body = max_body

    def reload(self, max_body: int) -> None:
        """Accept bodies of at most this many bytes from now on."""
        self._server.max_body = max_body

    def serve_forever(self) -> None:
        """Serve until another thread calls close(), or an exception such as KeyboardInterrupt comes up."""
        self._server.serve_forever()

    def drain(self, seconds: float) -> None:
        """Stop listening, and wait at most this many seconds until the requests under way are answered."""
        self._server.is_ending = True
        self._listener.close()
        self._server.server_close()
        wait_until(lambda: not self._server.under_way, seconds)

    def finish(self, seconds: float) -> None:
        """Do nothing: connections end with the process."""

    def close(self) -> None:
        """Stop listening. Connections end with the process; clients reconnect automatically."""
        self._server.server_close()
        self._listener.close()


class _Server(ThreadedWSGIServer):
    """Werkzeug's server, and what its request handlers share."""

    max_body = 0  # bytes of a body that are accepted
    is_ending = False

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.under_way: set[_RequestHandler] = set()  # requests, without those of Socket.IO

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection failed; not while the relay ends, because its connections break then."""
        if not (self.is_ending and isinstance(sys.exc_info()[1], OSError)):
            log.exception("a connection from %s failed", client_address)


class _RequestHandler(WSGIRequestHandler):
    server: _Server

    def handle_expect_100(self) -> bool:
        """Leave it to run_wsgi, or the client would get "100 Continue" twice."""
        return True

    def run_wsgi(self) -> None:
        """Answer the request with the app."""
        # RFC 9110, 10.1.1: a client that asks first need not send a body that would be refused. Werkzeug answers
        # "100 Continue" to every client, and then must read all of it.
        length = self.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > self.server.max_body):
            del self.headers["Expect"]
        # RFC 9110, 7.8: HTTP/1.0 has no upgrade; and the bytes of a body must never be read as frames.
        if self.request_version == "HTTP/1.0" or length not in ("", "0") or "Transfer-Encoding" in self.headers:
            del self.headers["Upgrade"]
        if self.path.startswith("/socket.io/"):
            super().run_wsgi()
            return
        self.server.under_way.add(self)
        try:
            super().run_wsgi()
        finally:
            self.server.under_way.discard(self)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP in JSON, as the relay answers all errors; http.server would send a page."""
        status, headers, body = refusal(http_error(code))
        self.close_connection = True
        if self.request_version == "HTTP/0.9":  # http.server mistakes garbage for it, and would send no head
            self.request_version = "HTTP/1.0"
        self.send_response(code, status.partition(" ")[2])
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        """Do nothing: nobody needs a line for each push."""
