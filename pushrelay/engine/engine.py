"""An Engine.IO server whose sessions cost no thread: `engineio.Server`, on the poller.

It does everything that python-socketio expects of engineio's server, and takes the same options. The sessions are here;
`requests.py` answers the requests.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import engineio
import socketio
from engineio.packet import Packet

from pushrelay.answers import Answer
from pushrelay.counters import Counters, Family, refusals
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import refused_session
from pushrelay.server.connection import PING_TIMEOUT, SLOW, TRANSPORT_CLOSE, TRANSPORT_ERROR, Connection
from pushrelay.server.host import KEY
from pushrelay.server.outboxes import Outboxes
from pushrelay.server.poller import Poller, Turn
from pushrelay.server.sources import Timer
from pushrelay.settings import Settings
from pushrelay.token_bucket import TokenBucket
from pushrelay.waiting import wait_until

from .carrier import Carrier, WaitingCarrier
from .deadlines import DeadlineQueue, Deadlines
from .errors import CODES, GOING_DOWN, SESSION_UNKNOWN, Rejected
from .heartbeat import Heartbeat
from .limits import BURST_SECONDS, ClientLimiter, client_count
from .packet import OPEN, EncodedPacket, data_of
from .requests import Requests
from .session import CLIENT_DISCONNECT, DRAINING, REGISTER_TIMEOUT, SERVER_DISCONNECT, TOO_MANY_EVENTS, Session

# Messages for the log about clients that were closed because of a setting.
_CLOSED_BY_SETTING = {
    SLOW: "was closed because it does not read what it is sent (settings max_outbox and max_outboxes): it reconnects",
    REGISTER_TIMEOUT: "was closed because it registered nothing: have the page call register(), or raise the setting "
    "register_timeout",
    TOO_MANY_EVENTS: "was closed because it keeps sending more events than the setting max_event_rate allows",
}
# The reasons for which sessions end.
REASONS = (
    *(TRANSPORT_CLOSE, TRANSPORT_ERROR, PING_TIMEOUT, SLOW, CLIENT_DISCONNECT, SERVER_DISCONNECT),
    *(REGISTER_TIMEOUT, TOO_MANY_EVENTS, DRAINING),
)


def install(**options: Any) -> None:
    """Make every `socketio.Server` created from now on run on this Engine, with these Engine options.

    Flask-SocketIO creates its `socketio.Server` itself and takes no class for it. So the class that python-socketio
    uses for its engine is replaced for the whole process, through the method that its AsyncServer overrides for this
    purpose.
    """

    def engine_class(server: socketio.Server) -> Callable[..., Engine]:
        return partial(Engine, **options)

    socketio.Server._engineio_server_class = engine_class


class Engine(engineio.Server):  # type: ignore[misc]  # engineio has no type hints
    """`engineio.Server` with sessions on the poller."""

    _default_monitor_clients = False  # the heartbeat does it
    sockets: dict[str, Session]  # by sid

    def __init__(
        self,
        outbox_bytes: int = Settings.max_outbox,
        outboxes_bytes: int = Settings.max_outboxes,
        message_timeout: float = Settings.body_timeout,
        settle_timeout: float = 0.0,
        event_rate: float = 0.0,
        admission: ClientLimiter | None = None,
        log_limiter: LogLimiter | None = None,
        threads: int = Settings.threads,
        node: str = "",
        carrier_of: Callable[[dict[str, Any], Poller], Carrier] = WaitingCarrier,
        **options: Any,
    ):
        """Take engineio.Server's options, and these:

        `outbox_bytes` may wait for one client, and `outboxes_bytes` for all clients together. A message must be
        complete within `message_timeout` seconds. `close_unregistered` is called for sessions whose `may_stay` is not
        set within `settle_timeout` seconds; 0: never. A client may send `event_rate` messages a second on average; 0:
        any number. `admission` limits the clients. `log_limiter` logs refusals. An Engine that must create its own
        poller gives it `threads` threads. `node` is the name of this relay among several behind one balancer; sids end
        with it. `carrier_of(environ, poller)` returns the carrier of a request that came
        through a server other than pushrelay.server.
        """
        options["async_mode"] = "threading"
        super().__init__(**options)
        self.outbox_bytes = outbox_bytes
        self.message_timeout = message_timeout
        self.limiter = admission or ClientLimiter()
        self.log_limiter = log_limiter or LogLimiter()
        self.threads = threads
        self.node = node
        self.sid_prefix = secrets.token_urlsafe(3)
        self.open_text = self._open_text()
        self.is_shut = False  # its own poller was closed: no request can be carried from then on
        self._most_waiting = outboxes_bytes
        self._event_rate = event_rate
        self._settle_timeout = settle_timeout
        self._carrier_of = carrier_of
        self._last_packets: dict[str, list[EncodedPacket]] = {}  # by sid: for a poll after the session was closed
        self.connects = Counters(self.transports)  # sessions that were opened, by their first transport
        self.refusals = Counters(CODES)
        self._disconnects = Counters(REASONS)
        self.handle_request = Requests(self).handle  # the WSGI app, by engineio's name
        # From start() on.
        self._start_lock = threading.Lock()
        self._poller: Poller | None = None
        self._has_own_poller = False
        self._deadlines: Deadlines | None = None
        self._registrations: DeadlineQueue | None = None
        self._heartbeat: Heartbeat | None = None

    def _open_text(self) -> str:
        interval = round((self.ping_interval + self.ping_interval_grace_period) * 1000)
        return (
            f'{OPEN}{{"sid":"%s","upgrades":%s,"pingTimeout":{round(self.ping_timeout * 1000)},'
            f'"pingInterval":{interval},"maxPayload":{self.max_http_buffer_size}}}'
        )

    def reload(
        self,
        outbox_bytes: int,
        outboxes_bytes: int,
        message_timeout: float,
        settle_timeout: float,
        event_rate: float,
        message_bytes: int,
    ) -> None:
        """Use these options from now on, as the constructor has them; `message_bytes` is `max_http_buffer_size`.

        A client on a WebSocket keeps the limit on its messages.
        """
        self.outbox_bytes, self.message_timeout = outbox_bytes, message_timeout
        self.max_http_buffer_size = message_bytes
        self.open_text = self._open_text()
        self._most_waiting = outboxes_bytes
        if self._poller is not None:
            self._poller.outboxes.limit = outboxes_bytes
        if settle_timeout != self._settle_timeout:
            self._settle_timeout = settle_timeout
            if self._deadlines is not None:  # the sessions of a queue have the same time
                self._registrations = self._deadlines.new_queue(self._check_registered)
        if event_rate != self._event_rate:
            self._event_rate = event_rate
            for session in list(self.sockets.values()):
                session.forget_events()

    # Life.

    def start(self, poller: Poller | None) -> Poller:
        """Run on this poller, or on a new one, and return it. Only the first call has an effect."""
        with self._start_lock:
            if self._poller is None or self._deadlines is None:
                if poller is None:
                    self._has_own_poller = True
                    from pushrelay.server.open_files import raise_file_limit  # not on every system

                    raise_file_limit()
                    poller = Poller(self.threads)
                poller.outboxes.limit = self._most_waiting
                poller.start()
                self._deadlines = deadlines = Deadlines(poller)
                if self._settle_timeout:
                    self._registrations = deadlines.new_queue(self._check_registered)
                self._heartbeat = Heartbeat(deadlines, self.ping_interval, self.ping_timeout)
                self._poller = poller
            return self._poller

    @property
    def poller(self) -> Poller:
        """The poller that everything runs on."""
        return self._poller or self.start(None)

    @property
    def heartbeat(self) -> Heartbeat:
        """The pings of all sessions."""
        if self._heartbeat is None:
            self.start(None)
        return self._heartbeat  # type: ignore[return-value]  # start() has made it

    @property
    def outboxes(self) -> Outboxes:
        """The memory of all outboxes together."""
        poller = self._poller or self.start(None)
        return poller.outboxes

    def stop_accepting(self) -> None:
        """Refuse new clients from now on."""
        self.limiter.draining = True

    def drain(self, last: Callable[[str], EncodedPacket | None], seconds: float) -> int:
        """Close all sessions, each after the packet `last(sid)`, if there is one; return the number of sessions.

        Clients that are between two polls have at most `seconds` to fetch it.
        """
        count = 0
        for _ in range(2):  # a client may have been accepted just before stop_accepting()
            for sid, session in list(self.sockets.items()):
                count += not session.closed
                self._close(session, DRAINING, last(sid))
        wait_until(lambda: not self._last_packets, seconds)
        return count

    def shutdown(self) -> None:
        """Stop all background work. Sessions stay as they are; the server that carries them ends them.

        Connections that were taken from another server are closed, and its later requests are refused.
        """
        super().shutdown()
        if self._deadlines is not None:
            self._deadlines.stop()
        if self._has_own_poller and self._poller is not None and not self.is_shut:
            self.is_shut = True
            self._poller.close()
            for source in self._poller.sources():
                if isinstance(source, Connection):
                    source.sock.close()

    # Requests.

    def carrier_for(self, environ: dict[str, Any]) -> Carrier:
        """Return what parks and upgrades this request. Raises Rejected once the Engine was shut down."""
        carrier: Carrier | None = environ.get(KEY)
        if self._poller is None:
            self.start(None if carrier is None or carrier.connection is None else carrier.connection.poller)
        if carrier is not None:
            return carrier
        if self.is_shut:
            raise Rejected(GOING_DOWN, "503 Service Unavailable")
        return self._carrier_of(environ, self.poller)

    def allowed_origins(self, environ: dict[str, Any]) -> Sequence[str] | None:
        """Return the origins whose pages may connect; None for all."""
        origins: Sequence[str] | None = self._cors_allowed_origins(environ)
        return origins

    def cookie_headers(self, sid: str) -> list[tuple[str, str]]:
        """Return the header that sets engineio's cookie, if the app wants one."""
        cookie = self.cookie
        if not cookie:
            return []
        attributes = cookie if isinstance(cookie, dict) else {"name": cookie, "path": "/", "SameSite": "Lax"}
        return [("Set-Cookie", self._generate_sid_cookie(sid, attributes))]

    def generate_id(self) -> str:
        """Return a random name: one that shows whether this process made it. Socket.IO's sids are such names."""
        sid: str = super().generate_id()
        return self.sid_prefix + sid

    def new_sid(self) -> str:
        """Return the sid of a new session. Behind a dot it has the node, so that a balancer can route by the query."""
        return f"{self.generate_id()}.{self.node}" if self.node else self.generate_id()

    def connect(self, session: Session, environ: dict[str, Any]) -> Answer | None:
        """Open the session, or return the answer to a client that the app rejected.

        Raises Rejected if the session was closed while the app was asked.
        """
        refusal = self._trigger_event("connect", session.sid, environ, run_async=False)
        if refusal is not None and refusal is not True:
            session.close(abort=True, reason=TRANSPORT_ERROR)
            denied = self._unauthorized(refusal or None)
            return Answer(denied["status"], denied["headers"], denied["response"])
        session.connected = True
        if session.closed:
            self._trigger_event("disconnect", session.sid, TRANSPORT_ERROR, run_async=False)
            raise Rejected(SESSION_UNKNOWN)
        heartbeat = self._heartbeat or self.heartbeat
        heartbeat.begin(session)
        if self._deadlines is not None and self._registrations is not None:
            self._deadlines.add(self._registrations, time.monotonic() + self._settle_timeout, session)
        return None

    # Sessions.

    def new_bucket(self) -> TokenBucket | None:
        """Return a bucket for the events of one client; None if they are not limited."""
        rate = self._event_rate
        return TokenBucket(rate, rate * BURST_SECONDS) if rate else None

    def dispatch(self, sid: str, packet: str | bytes) -> None:
        """Hand a message to the app, on this thread: one client's messages are handled in their order."""
        handler = self.handlers.get("message")
        if handler is None:
            return
        try:
            handler(sid, data_of(packet) if isinstance(packet, str) else packet)
        except Exception:
            self.logger.exception("message handler error")

    def refuse_event(self, session: Session, packet: str | bytes) -> None:
        """Do nothing about an event that was not handled. RoomManager replaces this, and tells the client."""

    def close_unregistered(self, session: Session) -> None:
        """Close a session that did not register in time. RoomManager replaces this, and sends the reason first."""
        session.close(reason=REGISTER_TIMEOUT)

    def _check_registered(self, session: Session, due: float, now: float) -> None:
        if not session.may_stay:
            # Later, because the app's disconnect handler may take a long time.
            self.call_soon(self._close_if_unregistered, session)

    def _close_if_unregistered(self, session: Session) -> None:
        if not session.may_stay:
            self.close_unregistered(session)

    def complain(self, session: Session, cause: str, message: str) -> None:
        """Log a client that was closed, or one of whose events was not handled."""
        self.log_limiter.warn(*refused_session(cause, session.counted_as or "this machine", message))

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back on a thread of the poller."""
        self.poller.call_later(0, callback, *args)

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back after this many seconds, on a thread of the poller."""
        return self.poller.call_later(seconds, callback, *args)

    def call_in_turn(self, sid: str, callback: Callable[..., Any], *args: Any) -> None:
        """Call back when it is the turn of this client's address."""
        session = self.sockets.get(sid)
        self.poller.run_again(Turn(self.poller, None if session is None else session.share, callback, *args))

    def close_soon(self, session: Session, reason: str) -> None:
        """Close a session on a thread of the poller."""
        self.call_soon(session.close, False, True, reason)

    def ended(self, session: Session, reason: str) -> None:
        """Forget a session that was closed, and tell the app; every end of a session calls this once."""
        self.sockets.pop(session.sid, None)
        self.limiter.release(session.counted_as)
        self._disconnects.add(reason)
        if self._deadlines is not None:
            self._deadlines.count_closed()
        if reason in _CLOSED_BY_SETTING:
            self.complain(session, reason, _CLOSED_BY_SETTING[reason])
        if session.connected:
            self._trigger_event("disconnect", session.sid, reason, run_async=False)

    def keep_last_packets(self, sid: str, packets: list[EncodedPacket]) -> None:
        """Keep what a client gets if it polls again, for as long as that may take."""
        self._last_packets[sid] = packets
        self.call_later(self.ping_timeout, self._last_packets.pop, sid, None)

    def pop_last_packets(self, sid: str) -> list[EncodedPacket] | None:
        """Return what a client gets if it polls again after its session was closed; None if there is nothing."""
        return self._last_packets.pop(sid, None)

    # Metrics.

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the clients, and of the poller that serves them."""
        sessions = list(self.sockets.values())
        websockets = sum(session.connection is not None for session in sessions)
        yield client_count(websockets, len(sessions) - websockets)
        yield Family("relay_clients_limit", "gauge", "Clients that may be connected at a time.", self.limiter.most)
        help_ = "Clients that connected, by the transport of their first request."
        yield Family("relay_connects_total", "counter", help_, self.connects.values(), ("transport",))
        help_ = "Clients that disconnected or were disconnected."
        yield Family("relay_disconnects_total", "counter", help_, self._disconnects.values(), ("reason",))
        yield refusals(self.refusals)
        if self._has_own_poller and self._poller is not None:  # otherwise it is the server's
            yield from self._poller.metrics()

    # engineio.Server's methods.

    def send_packet(self, sid: str, pkt: Packet) -> None:
        """Send an engineio packet. It is encoded once, however many clients get it."""
        session = self.sockets.get(sid)
        if session is None:
            self.logger.warning("Cannot send to sid %s", sid)
            return
        encoded = getattr(pkt, "encoded_once", None)
        if encoded is None:
            encoded = pkt.encoded_once = EncodedPacket(pkt.encode())
        session.send(encoded)

    def disconnect(self, sid: str | None = None) -> None:
        """Close one session, or all of them."""
        sessions = list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]
        for session in sessions:
            if session is not None:
                self._close(session, self.reason.SERVER_DISCONNECT)

    def _close(self, session: Session, reason: str, last: EncodedPacket | None = None) -> None:
        """Close one of several sessions: a failure must not keep the others from being closed."""
        try:
            session.close(reason=reason, last=last)
        except Exception:
            self.logger.exception("closing the client %s failed", session.sid)
