"""Engine.IO over HTTP: what a request is answered with, by long polling and by WebSocket (revision 4 of the protocol).

Under `pushrelay.server` polls are parked and WebSockets live on the poller. Other WSGI servers need a carrier, which
takes their sockets or holds their threads: see `carrier.py`.
"""

import contextlib
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import engineio

from pushrelay.answers import NO_STORE, PRIVATE, Answer, cors
from pushrelay.log.refusals import refused_handshake, refused_origin, seen_as
from pushrelay.server.connection import TRANSPORT_ERROR
from pushrelay.server.conversation import KEY
from pushrelay.server.websocket import NORMAL, HandshakeError, close_frame, handshake

from .carrier import NO_WEBSOCKETS, Carrier
from .environ import read_query, trimmed
from .errors import (
    BAD_HANDSHAKE_METHOD,
    BAD_REQUEST,
    CAUSES,
    FORBIDDEN,
    GOING_DOWN,
    ORIGIN_REFUSED,
    SESSION_UNKNOWN,
    TRANSPORT_UNKNOWN,
    UNSUPPORTED_VERSION,
    Rejected,
    limit_answer,
    origin_message,
)
from .limits import LimitReached
from .link import Link
from .packet import OPEN, EncodedPacket, payload, split_payload
from .rejected_websocket import RejectedWebSocket, rejection_frames
from .session import Session

# A WebSocket that was opened to take over from polling does so within a round trip or two.
UPGRADE_SECONDS = 10.0
# Where a client holds a thread of its server, so many are kept for pushes and for what clients send.
FREE_THREADS = 2
COMPRESSION_LEVEL = 1  # of 1, the fastest, to 9
GZIP = 31  # zlib's wbits for the gzip format
_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), *PRIVATE]
_SWITCHING = f"{': '.join(NO_STORE)}\r\n".encode()  # in the answer that makes a request a WebSocket


class Transports(engineio.Server):
    """The requests' side of the Engine, which has the sessions."""

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The WSGI application. Of a request that was parked or became a WebSocket, the return value says nothing."""
        readable = False  # for a page of an origin that may not connect
        try:
            if self._may_come(environ):
                answer = self._route(environ, start_response)
            else:
                readable = self._is_handshake(environ)
                answer = self._refuse_origin(environ, start_response)
        except (Rejected, LimitReached, HandshakeError) as error:
            answer = self._refusal(error, environ)
        if not isinstance(answer, Answer):
            return answer
        status, headers, body = answer
        body, encoding = self._compressed(environ, body)
        # Our own server counts by itself; others leave a client that keeps its connection to wait for the end.
        length = [] if KEY in environ else [("Content-Length", str(len(body)))]
        start_response(status, [*headers, *encoding, *length, *self._cors_headers(environ, readable)])
        return [body]

    # Requests.

    def _is_allowed(self, environ: dict[str, Any], origin: str) -> bool:
        allowed = self._cors_allowed_origins(environ)
        return allowed is None or origin in allowed

    def _may_come(self, environ: dict[str, Any]) -> bool:
        """Return whether a page of this origin may connect."""
        origin = environ.get("HTTP_ORIGIN")
        return origin is None or self.cors_allowed_origins == [] or self._is_allowed(environ, origin)

    def _is_handshake(self, environ: dict[str, Any]) -> bool:
        return environ["REQUEST_METHOD"] == "GET" and "sid" not in read_query(environ.get("QUERY_STRING", ""))

    def _refuse_origin(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer | Iterable[bytes]:
        """Refuse a page of an origin that may not connect, in a way that it can read if it opens a WebSocket."""
        self.log_limiter.warn(*refused_origin(environ))
        message = origin_message(environ["HTTP_ORIGIN"], environ.get("HTTP_HOST", ""))
        query = read_query(environ.get("QUERY_STRING", ""))
        if query.get("transport") == "websocket" and query.get("EIO") == "4" and self._is_handshake(environ):
            with contextlib.suppress(HandshakeError):
                carrier = self._reject_over_websocket(environ, ORIGIN_REFUSED, message)
                if carrier is not None:
                    return carrier.returned(start_response)
        raise Rejected((FORBIDDEN[0], message), "403 Forbidden", ORIGIN_REFUSED)

    def _reject_over_websocket(self, environ: dict[str, Any], error: str, message: str) -> Carrier | None:
        """Accept a WebSocket to tell a page why it may not connect; return None if that cannot be done now.

        Raises HandshakeError.
        """
        head = handshake(environ, _SWITCHING)
        carrier = self._carrier(environ)
        if carrier.threads is not None or not carrier.websockets or carrier.is_last or self.limiter.draining:
            return None
        if self._rejections.acquire(None):
            return None
        try:
            rejected = RejectedWebSocket(carrier.take(), partial(self._rejections.release, None))
        except Rejected:
            self._rejections.release(None)
            return None
        opening = self._open_text % (self.generate_id(), "[]")
        head += rejection_frames(opening, error, message) + rejected.closing(error)
        carrier.upgrade(rejected, head)
        return carrier

    def _refusal(self, error: Rejected | LimitReached | HandshakeError, environ: dict[str, Any]) -> Answer:
        """Return the answer to a request that is refused, and note it for the log."""
        if isinstance(error, LimitReached):
            if not self.limiter.draining:
                self._note(environ, error.error, error.message, has_address=error.error == "too_many_of_address")
            return limit_answer(error)
        if isinstance(error, HandshakeError):
            self._note(environ, "websocket", str(error))
            return Rejected((BAD_REQUEST[0], str(error)), error.status).answer()
        if error.word != ORIGIN_REFUSED and not self._over:
            self._note_rejected(environ, error)
        return error.answer()

    def _note_rejected(self, environ: dict[str, Any], rejected: Rejected) -> None:
        query, message = read_query(environ.get("QUERY_STRING", "")), rejected.message
        cause = "too_large" if rejected.status.startswith("413") else CAUSES.get(rejected.code, message)
        if cause == "session" and query.get("sid", self._mark).startswith(self._mark):
            return  # it ended here: a computer that was asleep comes back to it
        detail = {"old_client": "EIO", "transport": "transport"}.get(cause, "")
        if detail:
            message += f" ({detail}={query.get(detail, '')[:20]!r})"
        self._note(environ, cause, message, has_address=not rejected.status.startswith("503"))

    def _note(self, environ: dict[str, Any], cause: str, message: str, has_address: bool = True) -> None:
        """Have the log name a client that was refused; all together if none of them can help it."""
        cause, address, sentence = refused_handshake(environ, self.seen_as(environ), cause, message)
        self.log_limiter.warn(cause, address if has_address else "", sentence)

    def seen_as(self, environ: dict[str, Any]) -> str:
        """Return how the log names a client."""
        return seen_as(self.limiter.address_of(environ), environ)

    def _cors_headers(self, environ: dict[str, Any], readable: bool = False) -> list[tuple[str, str]]:
        """Return the headers of CORS; `readable` for a refusal that a page of any origin may read, as it says why."""
        if self.cors_allowed_origins == []:
            return []
        is_allowed = partial(self._is_allowed, environ)
        return cors(environ, (lambda origin: True) if readable else is_allowed, self.cors_credentials)

    def _route(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer | Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            return Answer("204 No Content", [NO_STORE], b"")
        query = read_query(environ.get("QUERY_STRING", ""))
        transport, sid = query.get("transport"), query.get("sid")
        if transport not in self.transports:
            is_old = environ["PATH_INFO"].startswith("/socket.io/1/")  # Socket.IO 0.9
            raise Rejected(UNSUPPORTED_VERSION if is_old else TRANSPORT_UNKNOWN)
        if "j" in query:
            is_old = sid is None and query.get("EIO") != "4"  # the first one without JSONP
            raise Rejected(UNSUPPORTED_VERSION if is_old else (BAD_REQUEST[0], "JSONP is not offered"))
        carrier = self._carrier(environ)
        if sid is None:
            self._check_handshake(method, query)
            return self._open(environ, start_response, transport, carrier)
        session = self.sockets.get(sid)
        if session is None or self._is_overdue(session):
            return self._answer_last_packets(sid)
        if not session.connected:
            raise Rejected(BAD_REQUEST)
        if transport == "websocket":
            return self._begin_upgrade(session, environ, start_response, carrier)
        if session.upgraded:
            raise Rejected(BAD_REQUEST)
        if method == "GET":
            return self._answer_poll(session, environ, start_response, carrier)
        if method == "POST":
            return self._answer_post(session, environ, start_response, carrier)
        raise Rejected(BAD_REQUEST)

    def _carrier(self, environ: dict[str, Any]) -> Carrier:
        """Return what parks and upgrades this request. Raises Rejected once the Engine was shut down."""
        carrier: Carrier | None = environ.get(KEY)
        if self._heartbeat is None:
            self.start(None if carrier is None or carrier.connection is None else carrier.connection.poller)
        if carrier is not None:
            return carrier
        if self._over:
            raise Rejected(GOING_DOWN, "503 Service Unavailable")
        return self._carrier_of(environ, self._poller)

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

    def _answer_last_packets(self, sid: str) -> Answer:
        messages = self._last_packets.pop(sid, None)
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
        carrier: Carrier,
    ) -> Answer | Iterable[bytes]:
        head = handshake(environ, _SWITCHING) if transport == "websocket" else b""
        if carrier.threads is not None:
            self._check_threads(carrier.threads)
        has_websockets = carrier.websockets
        if transport == "websocket" and not has_websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        self.limiter.check(carrier)
        counted_as = self.limiter.acquire(environ)
        sid = self.generate_id()
        session = Session(self, sid, counted_as)
        if carrier.connection is not None:
            session.share = carrier.connection.share or session.share
        upgrades = '["websocket"]' if has_websockets and self._offers_upgrade(transport) else "[]"
        session.send(EncodedPacket(self._open_text % (sid, upgrades)))
        self.sockets[sid] = session
        refusal = self._trigger_event("connect", sid, trimmed(environ), run_async=False)
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
            return self._open_websocket(session, start_response, carrier, head)
        return self._payload_answer(session.poll(lambda: None) or [], self._cookie_headers(sid))

    def _open_websocket(
        self,
        session: Session,
        start_response: Callable[..., Any],
        carrier: Carrier,
        head: bytes,
    ) -> Iterable[bytes]:
        link = Link(session, self.max_http_buffer_size)
        try:
            link.connection = carrier.take()
        except (Rejected, HandshakeError):
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise

        def start(messages: list[EncodedPacket]) -> None:
            """Send the answer to the handshake and the first packets in one piece."""
            carrier.upgrade(link, head + b"".join([message.frame for message in messages]))

        if not session.open_on(link, start):
            _upgrade_and_close(carrier, link, head)
        return carrier.returned(start_response)

    def _check_threads(self, threads: int) -> None:
        """Raise Rejected for a client that would hold one of the last of its server's `threads`."""
        if len(self.sockets) >= max(1, threads - FREE_THREADS):
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

    def _payload_answer(self, messages: list[EncodedPacket], headers: list[tuple[str, str]] | None = None) -> Answer:
        return Answer("200 OK", [*_TEXT, *(headers or ())], payload(messages))

    def _answer_poll(
        self, session: Session, environ: dict[str, Any], start_response: Callable[..., Any], carrier: Carrier
    ) -> Answer | Iterable[bytes]:
        try:
            messages = session.poll(ParkedPoll(self, session, environ, carrier).park)
        except ValueError:
            raise Rejected(BAD_REQUEST) from None
        return carrier.returned(start_response) if messages is None else self._payload_answer(messages)

    def _answer_post(
        self, session: Session, environ: dict[str, Any], start_response: Callable[..., Any], carrier: Carrier
    ) -> Answer | Iterable[bytes]:
        try:
            body = _read_payload(environ, self.max_http_buffer_size)
            if len(body) > self.max_http_buffer_size:
                session.close(abort=True, reason=TRANSPORT_ERROR)
                message = f"a payload has {self.max_http_buffer_size} bytes at most (setting max_message)"
                raise Rejected((BAD_REQUEST[0], message), "413 Content Too Large")
            packets = split_payload(body)
            connection = carrier.connection
            poller, share = (None, None) if connection is None else (connection.poller, connection.share)
            posting = session.post(packets, poller, share)
            if posting is None:  # it was read while a WebSocket took over
                raise Rejected(BAD_REQUEST)
            if not posting.take_turn():  # with a poller only
                carrier.park()
                posting.go_on(partial(self._answer_posting, environ, carrier))
                return carrier.returned(start_response)
        except ValueError:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise Rejected(BAD_REQUEST) from None
        return Answer("200 OK", _TEXT, b"ok")

    def _answer_posting(self, environ: dict[str, Any], carrier: Carrier, were_valid: bool) -> None:
        """Answer a POST whose packets took more than one turn."""
        answer = Answer("200 OK", _TEXT, b"ok") if were_valid else Rejected(BAD_REQUEST).answer()
        carrier.answer(answer.status, [*answer.headers, *self._cors_headers(environ)], answer.body)

    def poll_answer(self, environ: dict[str, Any], messages: list[EncodedPacket]) -> Answer:
        """The whole answer to a GET that was parked."""
        status, headers, body = self._payload_answer(messages)
        body, encoding = self._compressed(environ, body, messages)
        return Answer(status, [*headers, *encoding, *self._cors_headers(environ)], body)

    def _compressed(
        self, environ: dict[str, Any], body: bytes, messages: Sequence[EncodedPacket] = ()
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """Return the body as the client wants it, and the headers that name this; `messages` if it consists of them."""
        if not self.http_compression or len(body) < self.compression_threshold:
            return body, []
        for coding in environ.get("HTTP_ACCEPT_ENCODING", "").split(","):
            name = coding.partition(";")[0].strip()
            if name in self.compression_methods:
                compress = self._gzip if name == "gzip" else self._deflate
                # Parked polls nearly always get one message, the same for all; the next publication waits for them.
                body = messages[0].compressed(name, compress) if len(messages) == 1 else compress(body)
                return body, [("Content-Encoding", name), ("Vary", "Accept-Encoding")]
        return body, []

    def _gzip(self, response: bytes) -> bytes:
        """Compress, fast: engineio takes the highest level, which costs several times as much for a few percent."""
        deflate = zlib.compressobj(COMPRESSION_LEVEL, wbits=GZIP)
        return deflate.compress(response) + deflate.flush()

    def _deflate(self, response: bytes) -> bytes:
        return zlib.compress(response, COMPRESSION_LEVEL)

    # The move from polling to WebSocket.

    def _begin_upgrade(
        self,
        session: Session,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        carrier: Carrier,
    ) -> Iterable[bytes]:
        head = handshake(environ, _SWITCHING)
        self.limiter.check(carrier)
        if not carrier.websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        link = Link(session, self.max_http_buffer_size)
        link.connection = carrier.take()
        if session.probe(link, partial(carrier.upgrade, link, head)):
            link.upgrade_timer = self._poller.call_later(UPGRADE_SECONDS, _end_idle_probe, session, link)
        else:
            _upgrade_and_close(carrier, link, head)
        return carrier.returned(start_response)


class ParkedPoll:
    """A GET that waits for something to say, and no thread with it."""

    __slots__ = ("_carrier", "_engine", "_environ", "_session")

    def __init__(self, engine: Transports, session: Session, environ: dict[str, Any], carrier: Carrier):
        self._engine = engine
        self._session = session
        self._environ = environ if KEY in environ else dict(environ)  # uWSGI empties its own when the app returns
        self._carrier = carrier

    def park(self) -> "ParkedPoll":
        self._carrier.park(self._lost, is_poll=True)
        return self

    def answer(self, messages: list[EncodedPacket]) -> None:
        """Answer it, from any thread."""
        self._carrier.answer(*self._engine.poll_answer(self._environ, messages))

    def _lost(self) -> None:
        self._session.poll_lost(self)


def _read_payload(environ: dict[str, Any], limit: int) -> bytes:
    """Return the body of a POST, or the first `limit` + 1 bytes of a longer one. Raises ValueError if it breaks off."""
    # Our own server gives every body its length; others pass chunks on, and say that reading ends with the last one.
    length = environ.get("CONTENT_LENGTH") or str(limit + 1 if environ.get("wsgi.input_terminated") else 0)
    if not (length.isascii() and length.isdigit()):
        raise ValueError("the length of the body is no number")
    try:
        return environ["wsgi.input"].read(min(int(length[:18]), limit + 1))
    except Exception as error:  # each WSGI server has a class of its own for it
        raise ValueError("the body broke off") from error


def _upgrade_and_close(carrier: Carrier, link: Link, head: bytes) -> None:
    """Take a WebSocket only to close it, as the reference server does if there is no use for it."""
    carrier.upgrade(link, head + close_frame(NORMAL))
    link.connection.finish()


def _end_idle_probe(session: Session, link: Link) -> None:
    if session.connection is not link.connection:
        link.close(NORMAL)
