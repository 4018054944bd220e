"""An Engine.IO server whose sessions cost no thread: `engineio.Server`, on the poller.

It answers for all that python-socketio asks of engineio's server and takes the same options. Under `pushrelay.server`
polls are parked and WebSockets live on the poller. So it is under another WSGI server whose sockets can be taken
(`takeover.py`); where they cannot, a client holds that server's thread while it waits (`foreign.py`).
"""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import engineio
import socketio
from engineio.packet import Packet

from .admission import Admission, Full
from .connection import TRANSPORT_ERROR, Connection
from .doors import raise_file_limit
from .draining import until
from .foreign import ForeignPoll, can_serve, serve_foreign, threads_of
from .handshakes import kept_of, read_query
from .headers import NO_SNIFFING, cors
from .heartbeat import Heartbeat
from .http1 import KEY, Conversation
from .message import OPEN, Message, data_of, payload, split_payload
from .newcomers import Newcomers
from .poller import Poller
from .rejections import (
    BAD_HANDSHAKE_METHOD,
    BAD_REQUEST,
    FORBIDDEN,
    GOING_DOWN,
    NO_FILES,
    NO_WEBSOCKETS,
    SESSION_UNKNOWN,
    TRANSPORT_UNKNOWN,
    UNSUPPORTED_VERSION,
    Answer,
    Rejected,
    full_answer,
)
from .session import DRAINING, REGISTER_TIMEOUT, Link, Session
from .takeover import NotTaken, Taken
from .takeover import conversation as taken_over
from .websocket import NORMAL, HandshakeError, close_frame, handshake

# Of what the server has to say to one client, so much may wait. A page that is slow for some seconds is within it; one
# that does not read at all costs no more than this, and gets the rest from history when it is back.
OUTBOX_BYTES = 1024 * 1024
# A WebSocket that was opened to take over from polling does so within a round trip or two.
UPGRADE_SECONDS = 10.0
# Where a client holds a thread of its server, so many are kept for pushes and for what clients send.
FREE_THREADS = 2
_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), NO_SNIFFING]


def install(**options: Any) -> None:
    """Let every `socketio.Server` made from now on run on this Engine, so also Flask-SocketIO's.

    `options` are the Engine's own, which Flask-SocketIO would not let pass.
    """
    engine = partial(Engine, **options)
    socketio.Server._engineio_server_class = lambda _: engine  # the hook by which its AsyncServer has its own engine


class Engine(engineio.Server):
    """`engineio.Server` with sessions on the poller. Its options, and its own:

    `outbox_bytes`: what may wait for one client. `message_timeout`: seconds within which a message must be complete.
    `settle_timeout`: seconds within which somebody must set a session's `settled`, or `see_out` is called; 0 for ever.
    `event_rate`: messages a second that a client may send in the long run; 0 for any number. `admission`: who gets in.
    `threads`: of the poller that it makes where it is given none.
    """

    _default_monitor_clients = False  # the heartbeat does it

    def __init__(
        self,
        outbox_bytes: int = OUTBOX_BYTES,
        message_timeout: float = 60.0,
        settle_timeout: float = 0.0,
        event_rate: float = 0.0,
        admission: Admission | None = None,
        threads: int = 8,
        **options: Any,
    ):
        options["async_mode"] = "threading"
        super().__init__(**options)
        self.outbox_bytes = outbox_bytes
        self.message_timeout = message_timeout
        self.event_cost = 1 / event_rate if event_rate else 0.0  # seconds: see session.BURST_SECONDS
        self.admission = admission or Admission()
        self.threads = threads
        self._settle_timeout = settle_timeout
        self._newcomers: Any = None  # from start() on, as the next two
        self._poller: Any = None
        self._heartbeat: Any = None
        self._own_poller = False
        self._over = False  # on a poller of its own: nobody is taken in any more
        self._start_lock = threading.Lock()
        self._last_words: dict[str, list[Message]] = {}  # for who polls once more after the server closed its session
        self._open_text = self._open_packet()

    # What the sessions need.

    @property
    def heartbeat(self) -> Heartbeat:
        if self._heartbeat is None:
            self.start(None)
        return self._heartbeat

    def start(self, poller: Poller | None) -> None:
        """Run on this poller; without one, on one of its own. The first request does this; then it changes nothing."""
        with self._start_lock:
            if self._heartbeat is None:
                if poller is None:
                    self._own_poller = True
                    raise_file_limit()
                self._poller = poller or Poller(self.threads)
                self._poller.start()
                if self._settle_timeout:
                    self._newcomers = Newcomers(self._poller, self._settle_timeout, self._look_at_newcomer)
                self._heartbeat = Heartbeat(self._poller, self.ping_interval, self.ping_timeout)

    def dispatch(self, sid: str, packet: str | bytes) -> None:
        """Hand a message to the app, on this thread: one client's messages are handled in their order."""
        handler = self.handlers.get("message")
        if handler is None:
            return
        try:
            handler(sid, data_of(packet) if isinstance(packet, str) else packet)
        except Exception:
            self.logger.exception("message handler error")

    def close_soon(self, session: Session, reason: str) -> None:
        """Close a session on a thread of the poller."""
        self.call_soon(session.close, False, True, reason)

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back on a thread of the poller. Any thread may call this, once there was a session."""
        self._poller.call_later(0, callback, *args)

    def refuse_event(self, session: Session, packet: str | bytes) -> None:
        """A client sends too much, and this is not handled. For who speaks a protocol on top to say so."""

    def see_out(self, session: Session) -> None:
        """Close a session that did not settle in time. For who speaks a protocol on top to say why."""
        session.close(reason=REGISTER_TIMEOUT)

    def _look_at_newcomer(self, session: Session) -> None:
        if not session.settled:
            self.see_out(session)

    def ended(self, session: Session, reason: str) -> None:
        """A session was closed; called once for each."""
        self.sockets.pop(session.sid, None)
        self.admission.leave(session.place)
        self.heartbeat.end()
        if self._newcomers is not None:
            self._newcomers.end()
        if session.connected:
            self._trigger_event("disconnect", session.sid, reason, run_async=False)

    def leave_word(self, sid: str, messages: list[Message]) -> None:
        """Keep what a client that polls is to hear when it comes next, for as long as it may take to come."""
        self._last_words[sid] = messages
        self._poller.call_later(self.ping_timeout, self._last_words.pop, sid, None)

    # engineio.Server's methods.

    def send_packet(self, sid: str, pkt: Packet) -> None:
        """Send an engineio packet. It is encoded once, to however many it is sent."""
        session = self.sockets.get(sid)
        if session is None:
            self.logger.warning("Cannot send to sid %s", sid)
            return
        message = getattr(pkt, "message", None)
        if message is None:
            message = pkt.message = Message(pkt.encode())
        session.send(message)

    def disconnect(self, sid: str | None = None) -> None:
        """Close one session, or all of them."""
        sessions = list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]
        for session in sessions:
            if session is not None:
                session.close(reason=self.reason.SERVER_DISCONNECT)

    def shut(self) -> None:
        """Let nobody in any more."""
        self.admission.draining = True

    def drain(self, last: Callable[[str], Message | None], seconds: float) -> int:
        """Close all sessions; `last(sid)` is what each is to hear last. Returns how many there were.

        Who polls and is between two polls has so many seconds to hear it.
        """
        count = 0
        for _ in range(2):  # somebody may have been let in just before it was shut
            for sid, session in list(self.sockets.items()):
                count += not session.closed
                session.close(reason=DRAINING, last=last(sid))
        until(lambda: not self._last_words, seconds)
        return count

    def shutdown(self) -> None:
        """Stop what runs in the background. Sessions stay as they are; the server that carries them ends them.

        Connections that were taken over from a server are closed here; who comes after that is sent away.
        """
        super().shutdown()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._own_poller and self._poller is not None and not self._over:
            self._over = True
            self._poller.close()
            for source in self._poller.sources():
                if isinstance(source, Connection):
                    source.sock.close()

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The WSGI application. Of a request that was parked or became a WebSocket, the return value says nothing."""
        try:
            self._check_origin(environ)
            answer = self._route(environ, start_response)
        except Rejected as rejected:
            answer = rejected.answer()
        except Full as full:
            answer = full_answer(full)
        except HandshakeError as error:
            answer = Rejected((BAD_REQUEST[0], str(error)), error.status).answer()
        except NotTaken:
            answer = Rejected(NO_FILES, "503 Service Unavailable").answer()
        if not isinstance(answer, Answer):
            return answer
        status, headers, body = answer
        body, encoding = self._compressed(environ, body)
        # Our own server counts by itself; others leave a client that keeps its connection to wait for the end.
        length = [] if KEY in environ else [("Content-Length", str(len(body)))]
        start_response(status, headers + encoding + length + self._cors_headers(environ))
        return [body]

    # Requests.

    def _is_allowed(self, environ: dict[str, Any], origin: str) -> bool:
        allowed = self._cors_allowed_origins(environ)
        return allowed is None or origin in allowed

    def _check_origin(self, environ: dict[str, Any]) -> None:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or self.cors_allowed_origins == [] or self._is_allowed(environ, origin):
            return
        self._log_error_once(f"{origin} is not an accepted origin.", "bad-origin")
        raise Rejected((FORBIDDEN[0], "Not an accepted origin."), "403 Forbidden")

    def _cors_headers(self, environ: dict[str, Any]) -> list[tuple[str, str]]:
        is_allowed = partial(self._is_allowed, environ)
        return [] if self.cors_allowed_origins == [] else cors(environ, is_allowed, self.cors_credentials)

    def _route(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer | Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            return Answer("204 No Content", [], b"")
        query = read_query(environ.get("QUERY_STRING", ""))
        transport, sid = query.get("transport"), query.get("sid")
        if transport not in self.transports:
            raise Rejected(TRANSPORT_UNKNOWN)
        if "j" in query:
            raise Rejected((BAD_REQUEST[0], "JSONP is not offered"))
        conversation: Conversation | Taken | None = environ.get(KEY)
        if self._heartbeat is None:
            self.start(conversation.connection.poller if conversation is not None else None)
        if conversation is None:
            if self._over:
                raise Rejected(GOING_DOWN, "503 Service Unavailable")
            conversation = taken_over(environ, self._poller)
        if sid is None:
            self._check_handshake(method, query)
            return self._open(environ, start_response, transport, conversation)
        session = self.sockets.get(sid)
        if session is None or self._is_overdue(session):
            return self._last_word(sid)
        if not session.connected:
            raise Rejected(BAD_REQUEST)
        if transport == "websocket":
            return self._begin_upgrade(session, environ, start_response, conversation)
        if session.upgraded:
            raise Rejected(BAD_REQUEST)
        if method == "GET":
            return self._answer_poll(session, environ, conversation)
        if method == "POST":
            return self._answer_post(session, environ)
        raise Rejected(BAD_REQUEST)

    def _check_handshake(self, method: str, query: dict[str, str]) -> None:
        if method != "GET":
            raise Rejected(BAD_HANDSHAKE_METHOD)
        if query.get("EIO") != "4":
            raise Rejected(UNSUPPORTED_VERSION)

    def _is_overdue(self, session: Session) -> bool:
        """Whether its time is up, though the heartbeat has not come round to it yet."""
        if not 0 < session.pong_due <= time.monotonic():
            return False
        session.miss_ping()
        return True

    def _last_word(self, sid: str) -> Answer:
        messages = self._last_words.pop(sid, None)
        if messages is None:
            raise Rejected(SESSION_UNKNOWN)
        return self._payload_answer(messages)

    # The handshake.

    def _open_packet(self) -> str:
        """The first packet of every session, with `%s` for its sid and its upgrades."""
        interval = round((self.ping_interval + self.ping_interval_grace_period) * 1000)
        return (
            f'{OPEN}{{"sid":"%s","upgrades":%s,"pingTimeout":{round(self.ping_timeout * 1000)},'
            f'"pingInterval":{interval},"maxPayload":{self.max_http_buffer_size}}}'
        )

    def _open(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        transport: str,
        conversation: Conversation | Taken | None,
    ) -> Answer | Iterable[bytes]:
        head = handshake(environ) if transport == "websocket" else b""
        if conversation is None:
            self._check_threads(environ)
        has_websockets = can_serve(environ) if conversation is None else conversation.websockets
        if transport == "websocket" and not has_websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        self.admission.check(conversation)
        place = self.admission.enter(environ)
        sid = self.generate_id()
        session = Session(self, sid, place)
        upgrades = '["websocket"]' if has_websockets and self._offers_upgrade(transport) else "[]"
        session.send(Message(self._open_text % (sid, upgrades)))
        self.sockets[sid] = session
        refusal = self._trigger_event("connect", sid, kept_of(environ, sid), run_async=False)
        if refusal is not None and refusal is not True:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            denied = self._unauthorized(refusal or None)
            return Answer(denied["status"], denied["headers"], denied["response"])
        session.connected = True
        if session.closed:  # while the app was asked
            self._trigger_event("disconnect", sid, TRANSPORT_ERROR, run_async=False)
            raise Rejected(SESSION_UNKNOWN)
        self.heartbeat.begin(session)
        if self._newcomers is not None:
            self._newcomers.add(session)
        if transport == "websocket":
            return self._open_websocket(session, environ, start_response, conversation, head)
        return self._payload_answer(session.poll(lambda: None) or [], self._cookie_headers(sid))

    def _open_websocket(
        self,
        session: Session,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        conversation: Conversation | Taken | None,
        head: bytes,
    ) -> Iterable[bytes]:
        if conversation is None:
            return serve_foreign(self, session, environ, start_response, opening=True)
        link = Link(session, self.max_http_buffer_size)
        try:
            link.connection = conversation.take()
        except NotTaken:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise
        # The answer to the handshake and the first packets leave in one piece.
        conversation.upgrade(link, head + b"".join([message.frame for message in session.begin_on(link)]))
        return conversation.returned()

    def _check_threads(self, environ: dict[str, Any]) -> None:
        """Refuse a client that would hold a thread of its server, if it would be one of the last."""
        threads = threads_of(environ)
        if threads is not None and len(self.sockets) >= max(1, threads - FREE_THREADS):
            message = f"each client holds one of the {threads} threads of this server, and no more can be spared"
            raise Rejected((BAD_REQUEST[0], message), "503 Service Unavailable")

    def _offers_upgrade(self, transport: str) -> bool:
        return self.allow_upgrades and transport == "polling" and "websocket" in self.transports

    def _cookie_headers(self, sid: str) -> list[tuple[str, str]]:
        if not self.cookie:
            return []
        cookie = self.cookie
        attributes = cookie if isinstance(cookie, dict) else {"name": cookie, "path": "/", "SameSite": "Lax"}
        return [("Set-Cookie", self._generate_sid_cookie(sid, attributes))]

    # Polling.

    def _payload_answer(self, messages: list[Message], headers: list[tuple[str, str]] | None = None) -> Answer:
        return Answer("200 OK", [*_TEXT, *(headers or ())], payload(messages))

    def _answer_poll(
        self, session: Session, environ: dict[str, Any], conversation: Conversation | Taken | None
    ) -> Answer | Iterable[bytes]:
        poll = ForeignPoll() if conversation is None else ParkedPoll(self, session, environ, conversation)
        try:
            messages = session.poll(poll.park)
        except ValueError:
            raise Rejected(BAD_REQUEST) from None
        if messages is None:
            if conversation is not None:
                return conversation.returned()
            messages = poll.wait()
        return self._payload_answer(messages)

    def _answer_post(self, session: Session, environ: dict[str, Any]) -> Answer:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self.max_http_buffer_size:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            message = f"a payload has {self.max_http_buffer_size} bytes at most"
            raise Rejected((BAD_REQUEST[0], message), "413 Content Too Large")
        try:
            session.post(split_payload(environ["wsgi.input"].read(length)))
        except ValueError:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise Rejected(BAD_REQUEST) from None
        return Answer("200 OK", _TEXT, b"ok")

    def poll_answer(self, environ: dict[str, Any], messages: list[Message]) -> Answer:
        """The whole answer to a GET that was parked."""
        status, headers, body = self._payload_answer(messages)
        body, encoding = self._compressed(environ, body)
        return Answer(status, headers + encoding + self._cors_headers(environ), body)

    def _compressed(self, environ: dict[str, Any], body: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        if not self.http_compression or len(body) < self.compression_threshold:
            return body, []
        for coding in environ.get("HTTP_ACCEPT_ENCODING", "").split(","):
            name = coding.partition(";")[0].strip()
            if name in self.compression_methods:
                body = self._gzip(body) if name == "gzip" else self._deflate(body)
                return body, [("Content-Encoding", name), ("Vary", "Accept-Encoding")]
        return body, []

    # The move from polling to WebSocket.

    def _begin_upgrade(
        self,
        session: Session,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        conversation: Conversation | Taken | None,
    ) -> Iterable[bytes]:
        head = handshake(environ)
        self.admission.check(conversation)
        if conversation is None:
            return serve_foreign(self, session, environ, start_response, opening=False)
        if not conversation.websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        link = Link(session, self.max_http_buffer_size)
        link.connection = conversation.take()
        if session.probe(link):
            conversation.upgrade(link, head)
            self._poller.call_later(UPGRADE_SECONDS, _end_idle_probe, session, link)
        else:
            # The reference server also takes the WebSocket first and closes it then.
            conversation.upgrade(link, head + close_frame(NORMAL))
            link.connection.finish()
        return conversation.returned()


class ParkedPoll:
    """A GET that waits for something to say, and no thread with it."""

    __slots__ = ("_conversation", "_engine", "_environ", "_session")

    def __init__(self, engine: Engine, session: Session, environ: dict[str, Any], conversation: Conversation | Taken):
        self._engine = engine
        self._session = session
        self._environ = environ if KEY in environ else dict(environ)  # uWSGI empties its own when the app returns
        self._conversation = conversation

    def park(self) -> "ParkedPoll":
        self._conversation.park(self._lost, is_poll=True)
        return self

    def answer(self, messages: list[Message]) -> None:
        """Answer it, from any thread."""
        self._conversation.answer(*self._engine.poll_answer(self._environ, messages))

    def _lost(self) -> None:
        self._session.poll_lost(self)


def _end_idle_probe(session: Session, link: Link) -> None:
    if session.link is not link.connection:
        link.close(NORMAL)
