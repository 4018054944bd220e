"""One Engine.IO client (Engine.IO protocol, revision 4): what waits for it, and by which way it goes.

A session begins over long polling or over a WebSocket, may move from the first to the second, and is closed once.
It has no thread: it is what the threads that handle its connections do with it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pushrelay.server.connection import NO_RECEIVER, PING_TIMEOUT, SLOW, TRANSPORT_CLOSE, TRANSPORT_ERROR, Connection
from pushrelay.server.fair_queue import TURN_EVENTS, TURN_SECONDS
from pushrelay.server.websocket import GOING_AWAY, NORMAL, POLICY_VIOLATION, PROTOCOL_ERROR

from .packet import CLOSE, CLOSE_PACKET, MESSAGE, NOOP, NOOP_PACKET, PING, PONG, PROBE_ANSWER, UPGRADE, EncodedPacket

CLIENT_DISCONNECT = "client disconnect"
SERVER_DISCONNECT = "server disconnect"
REGISTER_TIMEOUT = "register timeout"
TOO_MANY_EVENTS = "too many events"
DRAINING = "draining"
# Where the server ends a session for one of these, a client that polls hears what was left to say when it polls next.
_TOLD = (SERVER_DISCONNECT, REGISTER_TIMEOUT, TOO_MANY_EVENTS, DRAINING)
_CLOSE_CODES = {
    TRANSPORT_ERROR: PROTOCOL_ERROR,
    DRAINING: GOING_AWAY,
    REGISTER_TIMEOUT: POLICY_VIOLATION,
    TOO_MANY_EVENTS: POLICY_VIOLATION,
}
# Bytes that are kept for a closed client until it polls once more: no limit counts them, because its slot is free
# again. It recovers what it missed when it is back.
LAST_BYTES = 16384
# What a client may send is counted in seconds: an event costs the time in which the allowance for one more grows. A
# client may be so far ahead; then its events are refused.
BURST_SECONDS = 10.0
# A refused event, or a packet or frame that asks for nothing, is so much less work. So somebody who sends ten times as
# much as is allowed, and goes on, gets further and further ahead; and beyond this is closed.
STRAY = 0.1
FLOOD_SECONDS = 20.0
# Work beyond an event's own (see charge) counts up to this many seconds over BURST_SECONDS. So no client waits longer
# than this, even if its one replay was enormous.
MOST_OVERDRAFT = 30.0


class Session:
    """What the Engine keeps for a client. Any thread may send to it and close it."""

    __slots__ = (
        "_buffer",
        "_engine",
        "_lock",
        "_on_clear",
        "_paid_until",
        "_poll",
        "_posting",
        "_probe",
        "_state",
        "_waiting",
        "_worked_until",
        "closed",
        "connected",
        "has_more_time",
        "connection",
        "counted_as",
        "pong_due",
        "refused_at",
        "may_stay",
        "share",
        "sid",
        "upgrading",
    )

    def __init__(self, engine: Any, sid: str, counted_as: str | None = None):
        self.sid = sid
        self.counted_as = counted_as  # what it is counted as while it is open: see limits.ClientLimiter
        self.share = counted_as or ""  # in which it waits for its turn: see fair_queue.FairQueue
        self._engine = engine
        self._state: dict[Any, Any] | None = None  # what the app keeps for it, made when it is first asked for
        # The way out: `connection` is that of its WebSocket; without one, packets wait in the buffer for the next poll.
        self.connection: Any = None
        self._lock = threading.Lock()  # over all that follows, and over the move from polling to the WebSocket
        self._buffer: list[EncodedPacket] | None = []
        self._waiting = 0  # bytes in the buffer; a message shared with others counts in full
        self._on_clear: Callable[[], None] | None = None  # see call_when_clear()
        self._poll: Any = None  # the GET that is parked until there is something to say
        self._posting = False  # a POST is being handled
        # The move to a WebSocket.
        self._probe: Any = None  # the link that tries
        self.upgrading = False  # it was probed: polls are sent back at once
        # How long it lives.
        self.connected = False  # the app has let it in
        self.closed = False
        self.pong_due = 0.0  # monotonic: by when a ping must have been answered; 0 while none is under way
        self.has_more_time = False  # for that ping; see miss_ping
        self.may_stay = False  # it has done what it came for, so it may stay
        # What it sends; both monotonic.
        self._paid_until = 0.0  # how far ahead of its allowance it is
        self._worked_until = 0.0  # the same for work beyond an event's own
        self.refused_at = 0.0  # when it was last told that its events are refused; for who tells

    @property
    def upgraded(self) -> bool:
        """Whether it is on a WebSocket, from the start or since. engineio's name for it."""
        return self.connection is not None

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client, over what the kernel has taken."""
        return self._waiting if self.connection is None else self.connection.backlog

    @property
    def has_outbox(self) -> bool:
        """Whether what is sent waits for the client here. Else whoever sends waits until the client has read."""
        return self.connection is None or not self.connection.blocks

    @property
    def outbox_bytes(self) -> int:
        """How much may wait for this client."""
        return self._engine.outbox_bytes

    @property
    def message_timeout(self) -> float:
        """Seconds within which a message of its own must be complete."""
        return self._engine.message_timeout

    @property
    def session(self) -> dict[Any, Any]:
        """What `get_session` gives. engineio's name for it."""
        if self._state is None:
            self._state = {}
        return self._state

    @session.setter
    def session(self, state: dict[Any, Any]) -> None:
        self._state = state

    # Sending.

    def send(self, message: EncodedPacket) -> None:
        """Send a message, or keep it for the client's next poll. Never blocks; a closed session sends nothing."""
        link = self.connection
        if link is None:
            link = self._keep(message)
        if link is not None:
            link.write(message.frame, self._engine.outbox_bytes)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, from a thread of the poller, when nothing waits for the client, or the session is closed.

        Whoever sends much waits for this in counted_as of filling the outbox. One callback at a time.
        """
        with self._lock:
            self._on_clear = callback
        # It is set before this is looked at, and what was waiting is gone before _cleared() looks: one of both sees it.
        if self.closed or self.backlog == 0:
            self._cleared()

    def _cleared(self) -> None:
        with self._lock:
            callback, self._on_clear = self._on_clear, None
        if callback is not None:
            self._engine.call_soon(callback)

    def _keep(self, message: EncodedPacket) -> Connection | None:
        """Answer the parked poll with the message, or keep it. Returns the WebSocket if there is one after all."""
        with self._lock:
            if self.connection is not None or self.closed or self._buffer is None:
                return self.connection
            slow = False
            poll, self._poll = self._poll, None
            if poll is not None:
                messages = [*self._take_buffer(), message]
            elif self._add_to_buffer(message):
                slow = True
                self._take_buffer()
                self._buffer = None  # from here on it gets nothing: what came behind a gap would hide the gap
        if poll is not None:
            poll.answer(messages)
            if self._on_clear is not None:
                self._cleared()
        elif slow:
            # Not here: whoever sends may hold locks that what the app does about a disconnect needs.
            self._engine.close_soon(self, SLOW)
        return None

    def _add_to_buffer(self, message: EncodedPacket) -> bool:
        """Keep a message for the next poll; returns whether it is one too many.

        As on a WebSocket, what is first and what is next have room whatever their size.
        """
        buffer = self._buffer
        buffer.append(message)
        self._waiting += message.size
        self._engine.outboxes.add(self, message, 2 * message.size)  # it is kept as text and as a frame
        return len(buffer) > 2 and self._waiting - buffer[0].size > self.outbox_bytes

    def _take_buffer(self) -> list[EncodedPacket]:
        messages, self._buffer = self._buffer or [], []
        self._waiting = 0
        if messages:
            self._engine.outboxes.remove(self, messages, True)
        return messages

    def complain(self, cause: str, message: str) -> None:
        """Have the log name this client; `message` is what it did."""
        self._engine.complain(self, cause, message)

    def give_up(self) -> None:
        """Close the session as `slow`: all clients together have too much waiting, and this one has the most."""
        self._engine.close_soon(self, SLOW)

    # Polling.

    def poll(self, park: Callable[[], Any]) -> list[EncodedPacket] | None:
        """What a GET is answered with; None where it was parked, which `park()` does and gives what answers it.

        Raises ValueError where another GET is parked already: the protocol wants the session closed then.
        """
        with self._lock:
            is_second = self._poll is not None
            if not is_second and not self._buffer:
                if self.upgrading or self.closed or self.connection is not None:
                    return [NOOP_PACKET]
                self._poll = park()
                return None
            messages = [] if is_second else self._take_buffer()
        if is_second:
            self.close(reason=TRANSPORT_ERROR)
            raise ValueError("two polls at the same time")
        if self._on_clear is not None:
            self._cleared()
        return messages

    def poll_lost(self, poll: Any) -> None:
        """The client hung up on the GET that was parked."""
        with self._lock:
            if self._poll is not poll:
                return
            self._poll = None
        self.close(abort=True, reason=TRANSPORT_CLOSE)

    def post(self, packets: list[str | bytes], poller: Any = None, share: str | None = None) -> "Posting | None":
        """Take the packets of one POST; the caller has them handled in turns. Raises ValueError.

        `share` is the connection's: see poller.Poller. Returns None if a WebSocket has taken over.
        """
        with self._lock:
            if self.connection is not None:
                return None
            overlapping, self._posting = self._posting, True
        posting = Posting(self, packets, poller, share)
        if overlapping:
            posting.fail()
            raise ValueError("two POSTs at the same time")
        return posting

    def posted(self) -> None:
        """The packets of a POST have been handled; the next one may come."""
        self._posting = False

    # Receiving.

    def receive(self, packet: str | bytes) -> None:
        """Handle one packet on this thread. Raises ValueError where a client may not send such a packet."""
        kind = packet[:1]
        if kind == MESSAGE or isinstance(packet, bytes):
            if self._pays():
                self._engine.dispatch(self.sid, packet)
            else:
                self._engine.refuse_event(self, packet)
        elif kind == PONG and self.pong_due:
            self._engine.heartbeat.begin(self)
        elif kind == CLOSE:
            self.close(abort=True, reason=CLIENT_DISCONNECT)
        elif kind in (PONG, UPGRADE, NOOP):
            self.stray()
        else:
            raise ValueError("an invalid packet")

    def receive_some(self, packets: deque[str | bytes], poller: Any = None) -> None:
        """Handle packets until the turn is over or none is left. Raises ValueError.

        An event stays where it is if this thread is the last free one of the poller: its handler might block.
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

    def _pays(self) -> bool:
        """Count an event against what the client may send; False where it may not."""
        now = time.monotonic()
        paid = max(self._paid_until, now) + self._engine.event_cost
        if paid - now > BURST_SECONDS:
            self.stray()
            return False
        self._paid_until = paid
        return True

    def charge(self, events: float) -> None:
        """Count work that an event caused beyond its own, as the work of this many events."""
        now = time.monotonic()
        until = max(self._worked_until, now) + self._engine.event_cost * events
        self._worked_until = min(until, now + BURST_SECONDS + MOST_OVERDRAFT)

    def overdraft(self) -> float:
        """Return the seconds until events of this client may cause such work again; 0 if they may now."""
        return max(0.0, self._worked_until - time.monotonic() - BURST_SECONDS)

    def stray(self, count: int = 1) -> None:
        """Count packets or frames that ask for nothing; a client that floods is closed."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now) + self._engine.event_cost * STRAY * count
        if self._paid_until - now > FLOOD_SECONDS:
            self.close(reason=TOO_MANY_EVENTS)

    def miss_ping(self) -> None:
        """Close the session because no answer to a ping came in time.

        An answer may lie unread, because the process was stopped or others had their turn. So a client that has sent
        something gets the same time once more.
        """
        if self.connection is not None and not self.has_more_time and self.connection.has_unread():
            self.has_more_time = True
            self._engine.heartbeat.extend(self)
            return
        self.close(abort=True, reason=PING_TIMEOUT)

    # WebSocket.

    def open_on(self, link: Any, start: Callable[[list[EncodedPacket]], Any]) -> bool:
        """Open on this WebSocket; False if the session was closed in the meantime.

        `start(messages)` begins to speak WebSocket, with these messages first. The lock is held, so that close() comes
        before all of it or after it.
        """
        with self._lock:
            if self.closed:
                return False
            messages = self._take_buffer()
            self._buffer = None
            self.connection = link.connection  # before start(), because the client may answer at once
            start(messages)
        return True

    def probe(self, link: Any, start: Callable[[], Any] = lambda: None) -> bool:
        """Let a WebSocket try to take over; False if another one has or tries to, or if the session is closed.

        `start()` begins to speak WebSocket; close() comes before it or after it, as in open_on().
        """
        with self._lock:
            if self._probe is not None or self.connection is not None or self.closed:
                return False
            self._probe = link
            start()
            return True

    def receive_probe(self, link: Any, packet: str | bytes) -> bool:
        """What comes on a WebSocket that has not taken over yet. False where the link has no future."""
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

    def _move_to(self, link: Any) -> bool:
        with self._lock:
            # The protocol has the client wait for the answer to its POST. Else two threads would handle its events.
            if self.closed or self._buffer is None or self._posting:
                return False
            # What waits goes out before anyone who finds `connection` set can send.
            for message in self._take_buffer():
                link.connection.write(message.frame, self._engine.outbox_bytes)
            self.connection = link.connection
            self._buffer, self._probe, self.upgrading = None, None, False
            poll, self._poll = self._poll, None
        if poll is not None:
            poll.answer([NOOP_PACKET])
        self.link_cleared(link)
        return True

    def link_cleared(self, link: Any) -> None:
        """All that waited for the outbox of a WebSocket has been sent."""
        if self._on_clear is not None and self.connection is link.connection and self.backlog == 0:
            self._cleared()

    def link_lost(self, link: Any, reason: str) -> None:
        """A WebSocket of this session is gone."""
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
        """Close the session, once, and tell the app. With `abort` the client is told as little as possible.

        `last` is sent before, if there is such a thing. `wait` is there for engineio's sake: nothing here waits.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
            poll, self._poll = self._poll, None
            probe, self._probe = self._probe, None
        reason = reason or SERVER_DISCONNECT
        self._engine.ended(self, reason)
        words = [CLOSE_PACKET] if last is None else [last, CLOSE_PACKET]
        if self.connection is not None:
            if last is not None:
                self.connection.write(last.frame, self.outbox_bytes)
            self._end_link(reason)
        elif poll is not None:
            poll.answer([NOOP_PACKET] if abort else [*self._take_buffer(), *words])
        elif reason in _TOLD:
            waiting = self._take_buffer() if reason == DRAINING or self._waiting <= LAST_BYTES else []
            self._engine.keep_last_packets(self.sid, [*waiting, *words])
        if probe is not None:
            probe.close(NORMAL)
        self._take_buffer()
        self._buffer, self._state = None, None
        self._cleared()

    def _end_link(self, reason: str) -> None:
        receiver = self.connection.receiver
        if reason in (PING_TIMEOUT, SLOW) or receiver is NO_RECEIVER:
            self.connection.abort(reason)
        else:
            receiver.close(_CLOSE_CODES.get(reason, NORMAL))


class Posting:
    """The packets of one POST, handled in order and in turns. A source for the poller once `go_on` was called."""

    __slots__ = ("_done", "_packets", "_poller", "_session", "share")

    def __init__(self, session: Session, packets: list[str | bytes], poller: Any, share: str | None):
        self._session = session
        self._packets = deque(packets)
        self._poller = poller
        self._done: Any = None  # called with whether all packets were valid
        self.share = share

    def take_turn(self) -> bool:
        """Handle packets, as many as one turn allows; returns whether all are handled.

        Raises ValueError, with the session closed, if one is invalid.
        """
        try:
            self._session.receive_some(self._packets, self._poller)
        except ValueError:
            self.fail()
            raise
        if self._packets:
            return False
        self._session.posted()
        return True

    def fail(self) -> None:
        """Close the session, which the protocol demands for an invalid POST."""
        self._packets.clear()
        self._session.close(abort=True, reason=TRANSPORT_ERROR)
        self._session.posted()

    def go_on(self, done: Callable[[bool], None]) -> None:
        """Handle the rest on threads of the poller, then call `done(were_valid)`."""
        self._done = done
        self._queue()

    def _queue(self) -> None:
        if self._poller.is_short():
            self._poller.run_when_spare(self)
        else:
            self._poller.run_again(self)

    def run(self) -> None:
        """Take the next turn, on a thread of the poller."""
        try:
            if not self.take_turn():
                self._queue()
                return
        except ValueError:
            self._done(False)
        else:
            self._done(True)


def _is_event(packet: str | bytes) -> bool:
    return isinstance(packet, bytes) or packet[:1] == MESSAGE
