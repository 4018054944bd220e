"""An Engine.IO server whose sessions cost no thread: `engineio.Server`, on the poller.

It answers for all that python-socketio asks of engineio's server and takes the same options. Here are the sessions, and
what others call; `transports.py` has the requests.
"""

import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import socketio
from engineio.packet import Packet

from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import refused_session
from pushrelay.server.connection import Connection
from pushrelay.server.outboxes import MOST_BYTES, Outboxes
from pushrelay.server.poller import Poller, Timer, Turn
from pushrelay.server.quota import Quota
from pushrelay.waiting import wait_until

from .carrier import Carrier, WaitingCarrier
from .deadlines import Newcomers
from .heartbeat import Heartbeat
from .limits import ClientLimiter
from .packet import EncodedPacket, data_of
from .rejected_websocket import MOST_AT_ONCE
from .requests import Transports
from .session import DRAINING, REGISTER_TIMEOUT, SLOW, TOO_MANY_EVENTS, Session

# Of what the server has to say to one client, so much may wait. A page that is slow for some seconds is within it; one
# that does not read at all costs no more than this, and gets the rest from history when it is back.
OUTBOX_BYTES = 1024 * 1024
# Why a client was closed, if that is a setting's doing.
_CLOSED_BY_SETTING = {
    SLOW: "was closed because it does not read what it is sent (settings max_outbox and max_outboxes): it comes back",
    REGISTER_TIMEOUT: "was closed because it registered nothing: have the page call register(), or raise the setting "
    "register_timeout",
    TOO_MANY_EVENTS: "was closed because it goes on sending more events than the setting max_event_rate allows",
}


def install(**options: Any) -> None:
    """Let every `socketio.Server` made from now on run on this Engine, so also Flask-SocketIO's.

    `options` are the Engine's own, which Flask-SocketIO would not let pass.
    """
    engine = partial(Engine, **options)
    socketio.Server._engineio_server_class = lambda _: engine  # the hook by which its AsyncServer has its own engine


class Engine(Transports):
    """`engineio.Server` with sessions on the poller. Its options, and its own:

    `outbox_bytes`: what may wait for one client, and `outboxes_bytes`: for all together.
    `message_timeout`: seconds within which a message must be complete.
    `settle_timeout`: seconds until `close_unregistered` is called if a session's `may_stay` is not set; 0: never.
    `event_rate`: messages a second that a client may send in the long run; 0 for any number. `admission`: who gets in.
    `threads`: of the poller that it makes where it is given none. `log_limiter`: gets what is refused.
    `carrier_of(environ, poller)`: gives the carrier of a request that came through another server than the relay's.
    """

    _default_monitor_clients = False  # the heartbeat does it

    def __init__(
        self,
        outbox_bytes: int = OUTBOX_BYTES,
        outboxes_bytes: int = MOST_BYTES,
        message_timeout: float = 60.0,
        settle_timeout: float = 0.0,
        event_rate: float = 0.0,
        admission: ClientLimiter | None = None,
        log_limiter: LogLimiter | None = None,
        threads: int = 8,
        carrier_of: Callable[[dict[str, Any], Poller], Carrier] = WaitingCarrier,
        **options: Any,
    ):
        options["async_mode"] = "threading"
        super().__init__(**options)
        self.outbox_bytes = outbox_bytes
        self._most_waiting = outboxes_bytes
        self.message_timeout = message_timeout
        self.event_cost = 1 / event_rate if event_rate else 0.0  # seconds: see session.BURST_SECONDS
        self.limiter = admission or ClientLimiter()
        self.log_limiter = log_limiter or LogLimiter()
        self._mark = secrets.token_urlsafe(3)  # that all sids of this process begin with
        self.threads = threads
        self._carrier_of = carrier_of
        self._rejections = Quota(MOST_AT_ONCE, MOST_AT_ONCE)
        self._settle_timeout = settle_timeout
        self._newcomers: Any = None  # from start() on, as the next two
        self._poller: Any = None
        self._heartbeat: Any = None
        self._own_poller = False
        self._over = False  # on a poller of its own: nobody is taken in any more
        self._start_lock = threading.Lock()
        self._last_packets: dict[
            str, list[EncodedPacket]
        ] = {}  # for who polls once more after the server closed its session
        self._open_text = self._open_packet()

    # What the sessions need.

    @property
    def heartbeat(self) -> Heartbeat:
        if self._heartbeat is None:
            self.start(None)
        return self._heartbeat

    @property
    def outboxes(self) -> Outboxes:
        """What waits for all clients together."""
        if self._heartbeat is None:
            self.start(None)
        return self._poller.outboxes

    def start(self, poller: Poller | None) -> None:
        """Run on this poller; without one, on one of its own. The first request does this; then it changes nothing."""
        with self._start_lock:
            if self._heartbeat is None:
                if poller is None:
                    from pushrelay.server.open_files import raise_file_limit  # not on every system

                    self._own_poller = True
                    raise_file_limit()
                self._poller = poller or Poller(self.threads)
                self._poller.outboxes.limit = self._most_waiting
                self._poller.start()
                if self._settle_timeout:
                    self._newcomers = Newcomers(self._poller, self._settle_timeout, self._check_registered)
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

    def generate_id(self) -> str:
        """Return a new sid: one that shows whether this process made it."""
        return self._mark + super().generate_id()

    def complain(self, session: Session, cause: str, message: str) -> None:
        """Have the log name a client that was closed, or one of whose events was not handled."""
        self.log_limiter.warn(*refused_session(cause, session.counted_as or "this machine", message))

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back on a thread of the poller. Any thread may call this, once there was a session."""
        self._poller.call_later(0, callback, *args)

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back after this many seconds, on a thread of the poller."""
        return self._poller.call_later(seconds, callback, *args)

    def call_in_turn(self, sid: str, callback: Callable[..., Any], *args: Any) -> None:
        """Call back when it is the turn of this client's share."""
        session = self.sockets.get(sid)
        self._poller.run_again(Turn(self._poller, None if session is None else session.share, callback, *args))

    def refuse_event(self, session: Session, packet: str | bytes) -> None:
        """A client sends too much, and this is not handled. For who speaks a protocol on top to say so."""

    def close_unregistered(self, session: Session) -> None:
        """Close a session that did not settle in time. For who speaks a protocol on top to say why."""
        session.close(reason=REGISTER_TIMEOUT)

    def _check_registered(self, session: Session) -> None:
        if not session.may_stay:
            self.close_unregistered(session)

    def ended(self, session: Session, reason: str) -> None:
        """A session was closed; called once for each."""
        self.sockets.pop(session.sid, None)
        self.limiter.release(session.counted_as)
        self.heartbeat.end()
        if self._newcomers is not None:
            self._newcomers.end()
        if reason in _CLOSED_BY_SETTING:
            self.complain(session, reason, _CLOSED_BY_SETTING[reason])
        if session.connected:
            self._trigger_event("disconnect", session.sid, reason, run_async=False)

    def keep_last_packets(self, sid: str, messages: list[EncodedPacket]) -> None:
        """Keep what a client that polls is to hear when it comes next, for as long as it may take to come."""
        self._last_packets[sid] = messages
        self._poller.call_later(self.ping_timeout, self._last_packets.pop, sid, None)

    # engineio.Server's methods.

    def send_packet(self, sid: str, pkt: Packet) -> None:
        """Send an engineio packet. It is encoded once, to however many it is sent."""
        session = self.sockets.get(sid)
        if session is None:
            self.logger.warning("Cannot send to sid %s", sid)
            return
        message = getattr(pkt, "message", None)
        if message is None:
            message = pkt.message = EncodedPacket(pkt.encode())
        session.send(message)

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

    def stop_accepting(self) -> None:
        """Let nobody in any more."""
        self.limiter.draining = True

    def drain(self, last: Callable[[str], EncodedPacket | None], seconds: float) -> int:
        """Close all sessions; `last(sid)` is what each is to hear last. Returns how many there were.

        Who polls and is between two polls has so many seconds to hear it.
        """
        count = 0
        for _ in range(2):  # somebody may have been let in just before it was shut
            for sid, session in list(self.sockets.items()):
                count += not session.closed
                self._close(session, DRAINING, last(sid))
        wait_until(lambda: not self._last_packets, seconds)
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
