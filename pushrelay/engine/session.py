"""One Engine.IO client (Engine.IO protocol, revision 4): what waits for it, and how it is sent.

A session begins over long polling or over a WebSocket, may move from the first to the second, and is closed once.
It has no thread of its own: the threads that handle its connections call it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pushrelay.server.connection import NO_RECEIVER, PING_TIMEOUT, SLOW, TRANSPORT_CLOSE, TRANSPORT_ERROR
from pushrelay.server.fair_queue import TURN_EVENTS, TURN_SECONDS
from pushrelay.server.poller import Poller
from pushrelay.server.websocket import GOING_AWAY, NORMAL, POLICY_VIOLATION, PROTOCOL_ERROR
from pushrelay.token_bucket import TokenBucket

from .carrier import ClientConnection
from .host import SessionHost
from .limits import FLOOD_SECONDS, MINOR_COST, MOST_OVERDRAFT
from .packet import CLOSE, CLOSE_PACKET, MESSAGE, NOOP, NOOP_PACKET, PING, PONG, PROBE_ANSWER, UPGRADE, EncodedPacket
from .poll_buffer import Parked, PollBuffer

CLIENT_DISCONNECT = "client disconnect"
SERVER_DISCONNECT = "server disconnect"
REGISTER_TIMEOUT = "register timeout"
TOO_MANY_EVENTS = "too many events"
DRAINING = "draining"
# If the server closes a session for one of these, a polling client gets the last packets with its next poll.
_ANSWERS_NEXT_POLL = (SERVER_DISCONNECT, REGISTER_TIMEOUT, TOO_MANY_EVENTS, DRAINING)
_CLOSE_CODES = {
    TRANSPORT_ERROR: PROTOCOL_ERROR,
    DRAINING: GOING_AWAY,
    REGISTER_TIMEOUT: POLICY_VIOLATION,
    TOO_MANY_EVENTS: POLICY_VIOLATION,
}
# Bytes kept for a closed client until its next poll. No limit counts them, because its slot is free again.
LAST_BYTES = 16384


class ProbingLink(Protocol):
    """The WebSocket of a client, as its session sees it until it has taken over."""

    connection: ClientConnection

    def close(self, code: int) -> None:
        """Begin to close."""


class Session:
    """The Engine's state of one client. Any thread may send to it and close it."""

    __slots__ = (
        "_buffer",
        "_engine",
        "_events",
        "_lock",
        "_on_clear",
        "_poll",
        "_posting",
        "_probe",
        "_state",
        "_work",
        "closed",
        "connected",
        "connection",
        "counted_as",
        "has_more_time",
        "last_get",
        "last_post",
        "may_stay",
        "pong_due",
        "refused_at",
        "share",
        "sid",
        "upgrading",
    )

    def __init__(self, engine: SessionHost["Session"], sid: str, counted_as: str | None = None):
        self.sid = sid
        self.counted_as = counted_as  # the address that ClientLimiter counts it for while it is open
        self.share = counted_as or ""  # the group in which it waits for its turn: see fair_queue
        self._engine = engine
        self._state: dict[Any, Any] | None = None  # the app's data, created when the app first asks for it
        # The way out: the connection of the WebSocket. Without one, packets wait in the buffer for the next poll.
        self.connection: ClientConnection | None = None
        self._lock = threading.Lock()  # over all that follows, and over the move from polling to the WebSocket
        self._buffer: PollBuffer | None = PollBuffer(self)  # None once nothing more may be kept
        self._on_clear: Callable[[], None] | None = None  # see call_when_clear()
        self._poll: Parked | None = None
        self._posting = False  # a POST is being handled
        self.last_get: str | None = None  # the mark of the last GET, and of the last POST: see polling
        self.last_post: str | None = None
        # The move to a WebSocket.
        self._probe: ProbingLink | None = None  # tries to take over
        self.upgrading = False  # it was probed: polls are sent back at once
        # Its life.
        self.connected = False  # the app has accepted it
        self.closed = False
        self.pong_due = 0.0  # monotonic: when the answer to a ping is due; 0 while none is under way
        self.has_more_time = False  # for that ping; see miss_ping
        self.may_stay = False  # it has registered, or the app lets it stay
        # Its events. Most clients send few or none, so a bucket is made when it is needed first.
        self._events: TokenBucket | None = None
        self._work: TokenBucket | None = None  # work beyond an event's own
        self.refused_at = 0.0  # monotonic: when it was last informed that its events are refused

    @property
    def upgraded(self) -> bool:
        """Whether it is on a WebSocket, from the start or by now. engineio's name for it."""
        return self.connection is not None

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client, beyond what the kernel has taken."""
        connection, buffer = self.connection, self._buffer
        if connection is not None:
            return connection.backlog
        return 0 if buffer is None else buffer.bytes

    @property
    def has_outbox(self) -> bool:
        """Whether what is sent waits here for the client. If not, the sender waits until the client has read."""
        return self.connection is None or not self.connection.blocks

    @property
    def outbox_bytes(self) -> int:
        """How much may wait for this client."""
        return self._engine.outbox_bytes

    @property
    def message_timeout(self) -> float:
        """Seconds within which a message of the client must be complete."""
        return self._engine.message_timeout

    @property
    def session(self) -> dict[Any, Any]:
        """The app's data about this client. engineio's name for it."""
        if self._state is None:
            self._state = {}
        return self._state

    @session.setter
    def session(self, state: dict[Any, Any]) -> None:
        self._state = state

    # Sending.

    def send(self, packet: EncodedPacket) -> None:
        """Send a packet, or keep it for the client's next poll. Never blocks; a closed session sends nothing."""
        connection = self.connection
        if connection is None:
            connection = self._keep(packet)
        if connection is not None:
            connection.write(packet.frame, self._engine.outbox_bytes)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, on a thread of the poller, when nothing waits for the client or the session is closed.

        A sender of much data waits for this instead of filling the outbox. There is one callback at a time.
        """
        with self._lock:
            self._on_clear = callback
        # The callback is set before this check, and the buffer is emptied before _cleared() looks: one of them sees it.
        if self.closed or self.backlog == 0:
            self._cleared()

    def _cleared(self) -> None:
        with self._lock:
            callback, self._on_clear = self._on_clear, None
        if callback is not None:
            self._engine.call_soon(callback)

    def _keep(self, packet: EncodedPacket) -> ClientConnection | None:
        """Answer the parked poll with the packet, or keep it. Return the WebSocket's connection if there is one now."""
        with self._lock:
            if self.connection is not None or self.closed or self._buffer is None:
                return self.connection
            slow = False
            poll, self._poll = self._poll, None
            if poll is not None:
                packets = [*self._take_buffer(), packet]
            elif self._buffer.add(packet, self._engine.outboxes, self._engine.outbox_bytes):
                slow = True
                self._take_buffer()
                self._buffer = None  # it gets nothing from here on: anything after a gap would hide the gap
        if poll is not None:
            poll.answer(packets)
            if self._on_clear is not None:
                self._cleared()
        elif slow:
            # Later, because the sender may hold locks that the app's handler of the disconnect needs.
            self._engine.close_soon(self, SLOW)
        return None

    def _take_buffer(self) -> list[EncodedPacket]:
        buffer = self._buffer
        return buffer.take(self._engine.outboxes) if buffer else []

    def complain(self, cause: str, message: str) -> None:
        """Log what this client did (`message`)."""
        self._engine.complain(self, cause, message)

    def give_up(self) -> None:
        """Close the session as `slow`: too much waits for all clients together, and most of it for this one."""
        self._engine.close_soon(self, SLOW)

    # Polling.

    def poll(self, park: Callable[[], Parked]) -> list[EncodedPacket] | None:
        """Return the packets that answer a GET; None if it was parked. `park()` returns what answers it later.

        Raises ValueError, with the session closed as the protocol demands, if another GET is parked already.
        """
        with self._lock:
            is_second = self._poll is not None
            if not is_second and not self._buffer:
                if self.upgrading or self.closed or self.connection is not None:
                    return [NOOP_PACKET]
                self._poll = park()
                return None
            packets = [] if is_second else self._take_buffer()
        if is_second:
            self.close(reason=TRANSPORT_ERROR)
            raise ValueError("two polls at the same time")
        if self._on_clear is not None:
            self._cleared()
        return packets

    def poll_lost(self, poll: Parked) -> None:
        """Close the session because the client hung up on the GET that was parked."""
        with self._lock:
            if self._poll is not poll:
                return
            self._poll = None
        self.close(abort=True, reason=TRANSPORT_CLOSE)

    def begin_post(self) -> bool:
        """Begin to handle a POST; return False if a WebSocket has taken over.

        Raises ValueError if another POST is being handled: the protocol has the client wait for the answer.
        """
        with self._lock:
            if self.connection is not None:
                return False
            if self._posting:
                raise ValueError("two POSTs at the same time")
            self._posting = True
            return True

    def end_post(self) -> None:
        """Allow the next POST: the packets of this one have been handled."""
        self._posting = False

    # Receiving.

    def receive(self, packet: str | bytes) -> None:
        """Handle one packet on this thread. Raises ValueError if a client may not send such a packet."""
        kind = packet[:1]
        if kind == MESSAGE or isinstance(packet, bytes):
            bucket = self._events or self._new_events()
            if bucket is None or not bucket.take():
                self._engine.dispatch(self.sid, packet)
            else:
                self.charge_minor()
                self._engine.refuse_event(self, packet)
        elif kind == PONG and self.pong_due:
            self._engine.heartbeat.begin(self)
        elif kind == CLOSE:
            self.close(abort=True, reason=CLIENT_DISCONNECT)
        elif kind in (PONG, UPGRADE, NOOP):
            self.charge_minor()
        else:
            raise ValueError("an invalid packet")

    def receive_some(self, packets: deque[str | bytes], poller: Poller | None = None) -> None:
        """Handle packets until the turn is over or none is left. Raises ValueError.

        An event stays in `packets` if this thread is the last free one of the poller: its handler might block.
        """
        ends_at = time.monotonic() + TURN_SECONDS if len(packets) > 1 else 0.0
        for _ in range(TURN_EVENTS if poller is not None else len(packets)):
            packet = packets[0]
            if poller is not None and poller.is_short() and _is_event(packet):
                return
            packets.popleft()
            self.receive(packet)
            if self.closed:
                packets.clear()
            if not packets or (poller is not None and time.monotonic() > ends_at):
                return

    def charge(self, events: float) -> None:
        """Count work that an event caused beyond its own, as the work of this many events."""
        if (work := self._work) is None:
            work = self._work = self._engine.new_bucket()
        if work is not None:
            work.overdraw(events, MOST_OVERDRAFT)

    def overdraft(self) -> float:
        """Return the seconds until events of this client may cause such work again; 0 if they may now."""
        return 0.0 if (work := self._work) is None else work.debt()

    def charge_minor(self, count: int = 1) -> None:
        """Count refused events, and packets or frames that ask for nothing; close a client that floods."""
        bucket = self._events or self._new_events()
        if bucket is not None and bucket.overdraw(MINOR_COST * count) > FLOOD_SECONDS:
            self.close(reason=TOO_MANY_EVENTS)

    def forget_events(self) -> None:
        """Count its events from zero, because their rate has changed."""
        self._events = self._work = None

    def _new_events(self) -> TokenBucket | None:
        self._events = bucket = self._engine.new_bucket()
        return bucket

    def miss_ping(self) -> None:
        """Close the session because the answer to a ping is overdue.

        The answer may be unread, because this process was busy: a client that has sent something gets more time.
        """
        connection = self.connection
        if connection is not None and not self.has_more_time and connection.has_unread():
            self.has_more_time = True
            self._engine.heartbeat.extend(self)
            return
        self.close(abort=True, reason=PING_TIMEOUT)

    # WebSocket.

    def open_on(self, link: ProbingLink, start: Callable[[list[EncodedPacket]], object]) -> bool:
        """Open the session on this WebSocket; return False if it was closed in the meantime.

        `start(packets)` begins to speak WebSocket, with these packets first. The lock keeps close() out.
        """
        with self._lock:
            if self.closed:
                return False
            packets = self._take_buffer()
            self._buffer = None
            self.connection = link.connection  # before start(), because the client may answer at once
            start(packets)
        return True

    def probe(self, link: ProbingLink, start: Callable[[], object] = lambda: None) -> bool:
        """Let a WebSocket try to take over; return False if another one has or tries to, or the session is closed.

        `start()` begins to speak WebSocket; close() comes before it or after it, as in open_on().
        """
        with self._lock:
            if self._probe is not None or self.connection is not None or self.closed:
                return False
            self._probe = link
            start()
            return True

    def receive_probe(self, link: ProbingLink, packet: str | bytes) -> bool:
        """Handle a packet of a WebSocket that has not taken over yet; return False if it never will."""
        if self._probe is not link:
            return False
        if packet == PING + "probe":
            with self._lock:
                self.upgrading = True
                poll, self._poll = self._poll, None
            link.connection.write(PROBE_ANSWER.frame, self.outbox_bytes)
            if poll is not None:
                poll.answer([NOOP_PACKET])
            return True
        if packet == UPGRADE and self.upgrading:
            return self._move_to(link)
        return False

    def _move_to(self, link: ProbingLink) -> bool:
        with self._lock:
            # The protocol has the client wait for the answer to its POST. Else two threads would handle its events.
            if self.closed or self._buffer is None or self._posting:
                return False
            # The buffer is sent before any thread that finds `connection` set can send.
            for packet in self._take_buffer():
                link.connection.write(packet.frame, self._engine.outbox_bytes)
            self.connection = link.connection
            self._buffer, self._probe, self.upgrading = None, None, False
            poll, self._poll = self._poll, None
        if poll is not None:
            poll.answer([NOOP_PACKET])
        self.link_cleared(link)
        return True

    def link_cleared(self, link: ProbingLink) -> None:
        """Call back, see call_when_clear: everything in the outbox of a WebSocket has been sent."""
        if self._on_clear is not None and self.connection is link.connection and self.backlog == 0:
            self._cleared()

    def link_lost(self, link: ProbingLink, reason: str) -> None:
        """Close the session if it was carried by the WebSocket that is gone."""
        with self._lock:
            if self._probe is link:
                self._probe, self.upgrading = None, False
                return
        if self.connection is link.connection:
            self.close(abort=True, reason=reason)

    # The end.

    def close(
        self, wait: bool = True, abort: bool = False, reason: str | None = None, last: EncodedPacket | None = None
    ) -> None:
        """Close the session, once, and tell the app. With `abort` the client is sent as little as possible.

        `last` is sent before the close packet. `wait` exists only for compatibility with engineio: nothing here waits.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
            poll, self._poll = self._poll, None
            probe, self._probe = self._probe, None
        reason = reason or SERVER_DISCONNECT
        self._engine.ended(self, reason)
        self._say_goodbye(poll, abort, reason, [CLOSE_PACKET] if last is None else [last, CLOSE_PACKET])
        if probe is not None:
            probe.close(NORMAL)
        self._take_buffer()
        self._buffer, self._state = None, None
        self._cleared()

    def _say_goodbye(self, poll: Parked | None, abort: bool, reason: str, final: Sequence[EncodedPacket]) -> None:
        """Send the `final` packets, the close packet last, by whichever way still reaches the client."""
        if self.connection is not None:
            for packet in final[:-1]:  # a WebSocket gets a close frame instead of the close packet
                self.connection.write(packet.frame, self.outbox_bytes)
            self._end_connection(self.connection, reason)
        elif poll is not None:
            poll.answer([NOOP_PACKET] if abort else [*self._take_buffer(), *final])
        elif reason in _ANSWERS_NEXT_POLL:
            waiting = self._take_buffer() if reason == DRAINING or self.backlog <= LAST_BYTES else []
            self._engine.keep_last_packets(self.sid, [*waiting, *final])

    def _end_connection(self, connection: ClientConnection, reason: str) -> None:
        receiver = connection.receiver
        if reason in (PING_TIMEOUT, SLOW) or receiver is NO_RECEIVER:
            connection.abort(reason)
        else:
            receiver.close(_CLOSE_CODES.get(reason, NORMAL))


def _is_event(packet: str | bytes) -> bool:
    return isinstance(packet, bytes) or packet[:1] == MESSAGE
