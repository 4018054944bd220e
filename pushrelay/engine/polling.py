"""Long polling: GETs wait for packets, POSTs bring some (Engine.IO protocol, revision 4, "HTTP long-polling").

Browsers repeat a request by themselves if a connection that they had used before breaks off without a response. So the
response to the first one, and the packets in it, may be lost, and a POST may be handled already. Clients give each
request another value of the parameter `t`, by which a repeated one is recognized: here, it is the `mark`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pushrelay.answers import PRIVATE, Answer
from pushrelay.server.connection import TRANSPORT_ERROR
from pushrelay.server.host import KEY

from .carrier import Carrier
from .errors import BAD_REQUEST, Rejected, session_unknown
from .packet import EncodedPacket, payload, split_payload
from .posting import Posting
from .request_host import RequestHost
from .response import Responses, Whole
from .session import Session

_TEXT = [("Content-Type", "text/plain; charset=UTF-8"), *PRIVATE]


def payload_answer(packets: list[EncodedPacket], headers: list[tuple[str, str]] | None = None) -> Answer:
    """Return the answer that brings these packets."""
    return Answer("200 OK", [*_TEXT, *(headers or ())], payload(packets))


class Polling:
    """Answers the GETs and POSTs of sessions that poll."""

    def __init__(self, engine: RequestHost, responses: Responses):
        self._engine = engine
        self._responses = responses

    def poll(
        self,
        session: Session,
        mark: str | None,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        carrier: Carrier,
    ) -> Answer | Iterable[bytes]:
        """Answer a GET, or park it until there is something to send.

        Raises Rejected, with the session closed, if another one is parked or if this one is repeated.
        """
        if mark and mark == session.last_get:
            session.close(abort=True, reason=TRANSPORT_ERROR)  # the client connects again and recovers
            raise Rejected(BAD_REQUEST)
        session.last_get = mark
        try:
            packets = session.poll(ParkedPoll(self, session, environ, carrier).park)
        except ValueError:
            raise Rejected(BAD_REQUEST) from None
        return carrier.returned(start_response) if packets is None else payload_answer(packets)

    def complete(self, environ: dict[str, Any], packets: list[EncodedPacket]) -> Whole:
        """Return the whole answer to a GET that was parked."""
        return self._responses.complete(environ, payload_answer(packets), packets)

    def last_packets(self, sid: str) -> Answer:
        """Answer a client that polls again after its session was closed. Raises Rejected if nothing is left."""
        packets = self._engine.pop_last_packets(sid)
        if packets is None:
            raise session_unknown(sid, self._engine.node)
        return payload_answer(packets)

    def post(
        self,
        session: Session,
        mark: str | None,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        carrier: Carrier,
    ) -> Answer | Iterable[bytes]:
        """Handle the packets of a POST, unless it is repeated.

        Raises Rejected, with the session closed, if it is not valid.
        """
        if mark and mark == session.last_post:
            return _posted()
        try:
            packets = self._read_packets(session, environ)
            if not session.begin_post():  # it was read while a WebSocket took over
                raise Rejected(BAD_REQUEST)
            session.last_post = mark
            connection = carrier.connection
            poller, share = (None, None) if connection is None else (connection.poller, connection.share)
            posting = Posting(session, packets, poller, share)
            if not posting.take_turn():  # with a poller only
                carrier.park()
                posting.finish_later(partial(self._answer_posting, environ, carrier))
                return carrier.returned(start_response)
        except ValueError:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise Rejected(BAD_REQUEST) from None
        return _posted()

    def _read_packets(self, session: Session, environ: dict[str, Any]) -> list[str | bytes]:
        """Read the packets of a POST. Raises ValueError, and Rejected, with the session closed, if it is too large."""
        limit = self._engine.max_http_buffer_size
        body = _read_body(environ, limit)
        if len(body) > limit:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            message = f"a payload has {limit} bytes at most (setting max_message)"
            raise Rejected((BAD_REQUEST[0], message), "413 Content Too Large")
        return split_payload(body)

    def _answer_posting(self, environ: dict[str, Any], carrier: Carrier, were_valid: bool) -> None:
        """Answer a POST whose packets took more than one turn."""
        answer = _posted() if were_valid else Rejected(BAD_REQUEST).answer()
        carrier.answer(*self._responses.complete(environ, answer))


class ParkedPoll:
    """A GET that waits for packets without holding a thread."""

    __slots__ = ("_carrier", "_environ", "_polling", "_session")

    def __init__(self, polling: Polling, session: Session, environ: dict[str, Any], carrier: Carrier):
        self._polling = polling
        self._session = session
        self._environ = environ if KEY in environ else dict(environ)  # uWSGI empties its environ when the app returns
        self._carrier = carrier

    def park(self) -> "ParkedPoll":
        """Park the request, and return what answers it."""
        self._carrier.park(self._lost, is_poll=True)
        return self

    def answer(self, packets: list[EncodedPacket]) -> None:
        """Answer the GET with these packets, from any thread."""
        self._carrier.answer(*self._polling.complete(self._environ, packets))

    def _lost(self) -> None:
        self._session.poll_lost(self)


def _posted() -> Answer:
    return Answer("200 OK", [*_TEXT], b"ok")  # its own list, because a WSGI middleware may add headers to it


def _read_body(environ: dict[str, Any], limit: int) -> bytes:
    """Return the body of a POST, or the first `limit` + 1 bytes of a longer one. Raises ValueError if it breaks off."""
    # Our own server gives every body its length; others pass chunks on, and signal that reading ends with the last one.
    length = environ.get("CONTENT_LENGTH") or str(limit + 1 if environ.get("wsgi.input_terminated") else 0)
    if not (length.isascii() and length.isdigit()):
        raise ValueError("the length of the body is not a number")
    try:
        body: bytes = environ["wsgi.input"].read(min(int(length[:18]), limit + 1))
    except Exception as error:  # each WSGI server raises its own class
        raise ValueError("the body broke off") from error
    return body
