"""Engine.IO over HTTP (revision 4 of the protocol): the handling of each request, and the refusal of invalid ones.

Under `pushrelay.server` polls are parked and WebSockets live on the poller. Under other WSGI servers a carrier takes
their sockets or holds their threads: see `carrier.py`.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.answers import NO_STORE, Answer
from pushrelay.log.refusals import refused_handshake, refused_origin, seen_as
from pushrelay.server.host import KEY
from pushrelay.server.websocket import HandshakeError

from .environ import read_query
from .errors import (
    BAD_HANDSHAKE_METHOD,
    BAD_REQUEST,
    CAUSES,
    FORBIDDEN,
    ORIGIN_REFUSED,
    TRANSPORT_UNKNOWN,
    UNSUPPORTED_VERSION,
    WRONG_NODE,
    Rejected,
    limit_answer,
    origin_message,
)
from .handshakes import Handshakes
from .limits import LimitReached
from .polling import Polling
from .request_host import RequestHost
from .response import Responses
from .session import Session


class Requests:
    """Answers the requests of all clients."""

    def __init__(self, engine: RequestHost):
        self._engine = engine
        self._responses = Responses(engine)
        self._handshakes = Handshakes(engine)
        self._polling = Polling(engine, self._responses)

    def handle(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as a WSGI app. If it was parked or became a WebSocket, the carrier knows what to return."""
        readable = False  # by a page of an origin that may not connect
        try:
            if self._may_connect(environ):
                answer = self._route(environ, start_response)
            else:
                readable = _is_handshake(environ)
                answer = self._refuse_origin(environ, start_response)
        except (Rejected, LimitReached, HandshakeError) as error:
            answer = self._refusal(error, environ)
        if not isinstance(answer, Answer):
            return answer
        status, headers, body = self._responses.complete(environ, answer, readable=readable)
        # Our own server counts the bytes itself; under others, a client with a persistent connection waits for its end.
        if KEY not in environ:
            headers = [*headers, ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

    def _route(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer | Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            return Answer("204 No Content", [NO_STORE], b"")
        query = read_query(environ.get("QUERY_STRING", ""))
        sid, transport = query.get("sid"), query.get("transport")
        if transport is None or transport not in self._engine.transports or "j" in query:
            raise _no_transport(query, environ["PATH_INFO"], transport in self._engine.transports)
        carrier = self._engine.carrier_for(environ)
        if sid is None:
            if method != "GET":
                raise Rejected(BAD_HANDSHAKE_METHOD)
            if query.get("EIO") != "4":
                raise Rejected(UNSUPPORTED_VERSION)
            return self._handshakes.open(environ, start_response, transport, carrier)
        session = self._engine.sockets.get(sid)
        if session is None or _is_overdue(session):
            return self._polling.last_packets(sid)
        if not session.connected:
            raise Rejected(BAD_REQUEST)
        if transport == "websocket":
            return self._handshakes.upgrade(session, environ, start_response, carrier)
        if session.upgraded:
            raise Rejected(BAD_REQUEST)
        if method == "GET":
            return self._polling.poll(session, query.get("t"), environ, start_response, carrier)
        if method == "POST":
            return self._polling.post(session, query.get("t"), environ, start_response, carrier)
        raise Rejected(BAD_REQUEST)

    def _may_connect(self, environ: dict[str, Any]) -> bool:
        """Return whether the request is from no page, or from a page of an allowed origin."""
        origin = environ.get("HTTP_ORIGIN")
        return origin is None or self._engine.cors_allowed_origins == [] or self._responses.is_allowed(environ, origin)

    # Refusals.

    def _refuse_origin(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer | Iterable[bytes]:
        """Refuse a page of an origin that may not connect, in a way that it can read if it opens a WebSocket."""
        self._engine.log_limiter.warn(*refused_origin(environ))
        message = origin_message(environ["HTTP_ORIGIN"], environ.get("HTTP_HOST", ""))
        query = read_query(environ.get("QUERY_STRING", ""))
        if query.get("transport") == "websocket" and query.get("EIO") == "4" and _is_handshake(environ):
            with contextlib.suppress(HandshakeError):
                answer = self._handshakes.reject(environ, start_response, ORIGIN_REFUSED, message)
                if answer is not None:
                    self._engine.refusals.add(ORIGIN_REFUSED)
                    return answer
        raise Rejected((FORBIDDEN[0], message), "403 Forbidden", ORIGIN_REFUSED)

    def _refusal(self, error: Rejected | LimitReached | HandshakeError, environ: dict[str, Any]) -> Answer:
        """Return the answer to a request that is refused; count it, and note it for the log."""
        if isinstance(error, LimitReached):
            self._engine.refusals.add(error.error)
            if not self._engine.limiter.draining:
                self._log(environ, error.error, error.message, has_address=error.error == "too_many_of_address")
            return limit_answer(error)
        self._engine.refusals.add("bad_request" if isinstance(error, HandshakeError) else error.metric_code)
        if isinstance(error, HandshakeError):
            self._log(environ, "websocket", str(error))
            return Rejected((BAD_REQUEST[0], str(error)), error.status).answer()
        if error.word != ORIGIN_REFUSED and not self._engine.is_shut:
            self._log_rejected(environ, error)
        return error.answer()

    def _log_rejected(self, environ: dict[str, Any], rejected: Rejected) -> None:
        query, message = read_query(environ.get("QUERY_STRING", "")), rejected.message
        cause = "too_large" if rejected.status.startswith("413") else CAUSES.get(rejected.code, message)
        if cause == "session" and query.get("sid", self._engine.sid_prefix).startswith(self._engine.sid_prefix):
            return  # the session ended here; this is a computer that wakes up and returns to it
        if rejected.word == WRONG_NODE:
            self._log(environ, "node", message, has_address=False)  # the proxy chose this node, and not the client
            return
        detail = {"old_client": "EIO", "transport": "transport"}.get(cause, "")
        if detail:
            message += f" ({detail}={query.get(detail, '')[:20]!r})"
        self._log(environ, cause, message, has_address=not rejected.status.startswith("503"))

    def _log(self, environ: dict[str, Any], cause: str, message: str, has_address: bool = True) -> None:
        """Log a client that was refused; without its address if the client is not at fault."""
        seen = seen_as(self._engine.limiter.address_of(environ), environ)
        line = refused_handshake(environ, seen, cause, message)
        self._engine.log_limiter.warn(*(line if has_address else line._replace(subject="")))


def _is_handshake(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] == "GET" and "sid" not in read_query(environ.get("QUERY_STRING", ""))


def _no_transport(query: dict[str, str], path: str, is_known: bool) -> Rejected:
    """Return the refusal of a request for a transport that is not offered, or that asks for JSONP."""
    if not is_known:
        is_old = path.startswith("/socket.io/1/")  # Socket.IO 0.9
        return Rejected(UNSUPPORTED_VERSION if is_old else TRANSPORT_UNKNOWN)
    is_old = "sid" not in query and query.get("EIO") != "4"  # the first one without JSONP
    return Rejected(UNSUPPORTED_VERSION if is_old else (BAD_REQUEST[0], "JSONP is not offered"))


def _is_overdue(session: Session) -> bool:
    """Return whether a session's answer to a ping is overdue, although the heartbeat has not noticed it yet."""
    if not 0 < session.pong_due <= time.monotonic():
        return False
    session.miss_ping()
    return True
