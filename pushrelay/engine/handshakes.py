"""New sessions, and WebSockets: the handshake, the move from polling, and refusals that a page can read."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pushrelay.answers import NO_STORE, Answer
from pushrelay.server.connection import TRANSPORT_ERROR
from pushrelay.server.quota import Quota
from pushrelay.server.websocket import NORMAL, HandshakeError, close_frame, handshake

from .carrier import NO_WEBSOCKETS, Carrier
from .environ import trimmed
from .errors import BAD_REQUEST, Rejected
from .link import Link
from .packet import EncodedPacket
from .polling import payload_answer
from .rejected_websocket import MOST_AT_ONCE, RejectedWebSocket, rejection_frames
from .request_host import RequestHost
from .session import Session

# A WebSocket that was opened to take over from polling does so within a round trip or two, or is closed.
UPGRADE_SECONDS = 10.0
# If clients hold threads of their server, this many are reserved for pushes and for what clients send.
FREE_THREADS = 2
_SWITCHING = f"{': '.join(NO_STORE)}\r\n".encode()  # in the answer that makes a request a WebSocket


class Handshakes:
    """Opens sessions and WebSockets."""

    def __init__(self, engine: RequestHost):
        self._engine = engine
        self._rejections = Quota(MOST_AT_ONCE, MOST_AT_ONCE)

    # A new session.

    def open(
        self, environ: dict[str, Any], start_response: Callable[..., Any], transport: str, carrier: Carrier
    ) -> Answer | Iterable[bytes]:
        """Open a session, if a slot is free and the app lets the client in.

        Raises Rejected, LimitReached and HandshakeError.
        """
        engine, is_websocket = self._engine, transport == "websocket"
        head = handshake(environ, _SWITCHING) if is_websocket else b""
        if carrier.threads is not None:
            self._check_threads(carrier.threads)
        has_websockets = carrier.websockets
        if is_websocket and not has_websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        engine.limiter.check(carrier)
        counted_as = engine.limiter.acquire(environ)
        session = Session(engine, engine.new_sid(), counted_as)
        if carrier.connection is not None:
            session.share = carrier.connection.share or session.share
        offers_upgrade = (
            not is_websocket and has_websockets and engine.allow_upgrades and "websocket" in engine.transports
        )
        upgrades = '["websocket"]' if offers_upgrade else "[]"
        session.send(EncodedPacket(engine.open_text % (session.sid, upgrades)))
        engine.sockets[session.sid] = session
        denied = engine.connect(session, trimmed(environ))
        if denied is not None:
            return denied
        engine.connects.add(transport)
        if is_websocket:
            return self._open_websocket(session, start_response, carrier, head)
        return payload_answer(session.poll(_never_parked) or [], engine.cookie_headers(session.sid))

    def _check_threads(self, threads: int) -> None:
        """Raise Rejected for a client that would hold one of the last of its server's `threads`."""
        if len(self._engine.sockets) >= max(1, threads - FREE_THREADS):
            message = f"each client holds one of the {threads} threads of this server, and no more can be spared"
            raise Rejected((BAD_REQUEST[0], message), "503 Service Unavailable")

    def _open_websocket(
        self, session: Session, start_response: Callable[..., Any], carrier: Carrier, head: bytes
    ) -> Iterable[bytes]:
        link = Link(session, self._engine.max_http_buffer_size)
        try:
            link.connection = carrier.take()
        except (Rejected, HandshakeError):
            session.close(abort=True, reason=TRANSPORT_ERROR)
            raise

        def start(packets: list[EncodedPacket]) -> None:
            """Send the answer to the handshake and the first packets in one piece."""
            carrier.upgrade(link, head + b"".join([packet.frame for packet in packets]))

        if not session.open_on(link, start):
            _upgrade_and_close(carrier, link, head)
        return carrier.returned(start_response)

    # The move from polling to a WebSocket.

    def upgrade(
        self, session: Session, environ: dict[str, Any], start_response: Callable[..., Any], carrier: Carrier
    ) -> Iterable[bytes]:
        """Open a WebSocket that may take over from polling. Raises Rejected, LimitReached and HandshakeError."""
        head = handshake(environ, _SWITCHING)
        self._engine.limiter.check(carrier)
        if not carrier.websockets:
            raise HandshakeError("400 Bad Request", NO_WEBSOCKETS)
        link = Link(session, self._engine.max_http_buffer_size)
        link.connection = carrier.take()
        if session.probe(link, partial(carrier.upgrade, link, head)):
            link.upgrade_timer = self._engine.call_later(UPGRADE_SECONDS, _end_idle_probe, session, link)
        else:
            _upgrade_and_close(carrier, link, head)
        return carrier.returned(start_response)

    # A refusal.

    def reject(
        self, environ: dict[str, Any], start_response: Callable[..., Any], error: str, message: str
    ) -> Iterable[bytes] | None:
        """Accept a WebSocket to tell a page why it may not connect; return None if that cannot be done now.

        Raises HandshakeError, and Rejected once the Engine was shut down.
        """
        engine, head = self._engine, handshake(environ, _SWITCHING)
        carrier = engine.carrier_for(environ)
        if carrier.threads is not None or not carrier.websockets or carrier.is_last or engine.limiter.draining:
            return None
        if self._rejections.acquire(None):
            return None
        try:
            rejected = RejectedWebSocket(carrier.take(), partial(self._rejections.release, None))
        except Rejected:
            self._rejections.release(None)
            return None
        opening = engine.open_text % (engine.new_sid(), "[]")
        head += rejection_frames(opening, error, message) + rejected.closing(error)
        carrier.upgrade(rejected, head)
        return carrier.returned(start_response)


def _never_parked() -> Any:
    raise RuntimeError("a new session has its first packet to send")


def _upgrade_and_close(carrier: Carrier, link: Link, head: bytes) -> None:
    """Open a WebSocket only to close it, as the reference server does with one that it cannot use."""
    carrier.upgrade(link, head + close_frame(NORMAL))
    link.connection.finish()


def _end_idle_probe(session: Session, link: Link) -> None:
    if session.connection is not link.connection:
        link.close(NORMAL)
