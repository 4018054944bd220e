"""One Engine.IO client (Engine.IO protocol, revision 4): what waits for it, and by which way it goes.

A session begins over long polling or over a WebSocket, may move from the first to the second, and is closed once.
It has no thread: it is what the threads that handle its connections do with it.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from .connection import PING_TIMEOUT, SLOW, TRANSPORT_CLOSE, TRANSPORT_ERROR, Connection
from .message import CLOSE, CLOSE_MESSAGE, MESSAGE, NOOP, NOOP_MESSAGE, PING, PONG, PROBE_ANSWER, UPGRADE, Message
from .websocket import GOING_AWAY, NORMAL, POLICY_VIOLATION, PROTOCOL_ERROR, WebSocket

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
# A client that was told to close a WebSocket has so many seconds to do its part.
CLOSE_SECONDS = 3.0
# What it has still to say then is little: who goes on sending more than this at a time is not read any more.
PARTING_BYTES = 16384
# Of what waits for a client that polls and was closed, no more bytes than these are kept until it comes: its place is
# somebody else's, and no limit would count them. It recovers what it missed when it is back.
LAST_BYTES = 16384
# What a client may send is counted in seconds: an event costs the time in which the allowance for one more grows. A
# client may be so far ahead; then its events are refused.
BURST_SECONDS = 10.0
# A refused event, or a packet or frame that asks for nothing, is so much less work. So somebody who sends ten times as
# much as is allowed, and goes on, gets further and further ahead; and beyond this is closed.
STRAY = 0.1
FLOOD_SECONDS = 20.0


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
        "closed",
        "connected",
        "link",
        "place",
        "pong_due",
        "refused_at",
        "settled",
        "sid",
        "upgrading",
    )

    def __init__(self, engine: Any, sid: str, place: str | None = None):
        self.sid = sid
        self.place = place  # what it is counted as while it is open: see admission.Admission
        self._engine = engine
        self._state: dict[Any, Any] | None = None  # what the app keeps for it, made when it is first asked for
        # The way out: `link` once there is a WebSocket. Before that messages wait in the buffer for the next poll.
        self.link: Any = None
        self._lock = threading.Lock()  # over all that follows, and over the move from polling to the WebSocket
        self._buffer: list[Message] | None = []
        self._waiting = 0  # bytes in the buffer; a message shared with others counts in full
        self._on_clear: Callable[[], None] | None = None  # see call_when_clear()
        self._poll: Any = None  # the GET that is parked until there is something to say
        self._posting = False  # a POST is being read
        # The move to a WebSocket.
        self._probe: Any = None  # the link that tries
        self.upgrading = False  # it was probed: polls are sent back at once
        # How long it lives.
        self.connected = False  # the app has let it in
        self.closed = False
        self.pong_due = 0.0  # monotonic: by when a ping must have been answered; 0 while none is under way
        self.settled = False  # it has done what it came for, so it may stay
        # What it sends; both monotonic.
        self._paid_until = 0.0  # how far ahead of its allowance it is
        self.refused_at = 0.0  # when it was last told that its events are refused; for who tells

    @property
    def upgraded(self) -> bool:
        """Whether it is on a WebSocket, from the start or since. engineio's name for it."""
        return self.link is not None

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client, over what the kernel has taken."""
        return self._waiting if self.link is None else self.link.backlog

    @property
    def has_outbox(self) -> bool:
        """Whether what is sent waits for the client here. Else whoever sends waits until the client has read."""
        return self.link is None or not self.link.blocks

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

    def send(self, message: Message) -> None:
        """Send a message, or keep it for the client's next poll. Never blocks; a closed session sends nothing."""
        link = self.link
        if link is None:
            link = self._keep(message)
        if link is not None:
            link.write(message.frame, self._engine.outbox_bytes)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, from a thread of the poller, when nothing waits for the client, or the session is closed.

        Whoever sends much waits for this in place of filling the outbox. One callback at a time.
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

    def _keep(self, message: Message) -> Connection | None:
        """Answer the parked poll with the message, or keep it. Returns the WebSocket if there is one after all."""
        with self._lock:
            if self.link is not None or self.closed or self._buffer is None:
                return self.link
            self._buffer.append(message)
            self._waiting += message.size
            buffer = self._buffer  # as on a WebSocket, what is first and what is next have room whatever their size
            slow = len(buffer) > 2 and self._waiting - buffer[0].size > self.outbox_bytes
            poll, self._poll = self._poll, None
            messages = self._take_buffer() if poll is not None else []
            if slow and poll is None:
                self._buffer = None  # from here on it gets nothing: what came behind a gap would hide the gap
        if poll is not None:
            poll.answer(messages)
            if self._on_clear is not None:
                self._cleared()
        elif slow:
            # Not here: whoever sends may hold locks that what the app does about a disconnect needs.
            self._engine.close_soon(self, SLOW)
        return None

    def _take_buffer(self) -> list[Message]:
        messages, self._buffer = self._buffer or [], []
        self._waiting = 0
        return messages

    # Polling.

    def poll(self, park: Callable[[], Any]) -> list[Message] | None:
        """What a GET is answered with; None where it was parked, which `park()` does and gives what answers it.

        Raises ValueError where another GET is parked already: the protocol wants the session closed then.
        """
        with self._lock:
            is_second = self._poll is not None
            if not is_second and not self._buffer:
                if self.upgrading or self.closed or self.link is not None:
                    return [NOOP_MESSAGE]
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

    def post(self, packets: list[str | bytes]) -> None:
        """Take the packets of one POST, in order. Raises ValueError, with the session closed, if one is invalid."""
        with self._lock:
            overlapping, self._posting = self._posting, True
        try:
            if overlapping:
                raise ValueError("two POSTs at the same time")
            for packet in packets:
                if self.closed:
                    break
                self.receive(packet)
        except ValueError:
            self.close(abort=True, reason=TRANSPORT_ERROR)
            raise
        finally:
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

    def _pays(self) -> bool:
        """Count an event against what the client may send; False where it may not."""
        now = time.monotonic()
        paid = max(self._paid_until, now) + self._engine.event_cost
        if paid - now > BURST_SECONDS:
            self.stray()
            return False
        self._paid_until = paid
        return True

    def stray(self, count: int = 1) -> None:
        """Count packets or frames that ask for nothing; a client that floods is closed."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now) + self._engine.event_cost * STRAY * count
        if self._paid_until - now > FLOOD_SECONDS:
            self.close(reason=TOO_MANY_EVENTS)

    def miss_ping(self) -> None:
        """The client has not answered a ping in time."""
        self.close(abort=True, reason=PING_TIMEOUT)

    # WebSocket.

    def begin_on(self, link: Any) -> list[Message]:
        """Take the WebSocket on which the session opens; returns what has been waiting for it and is to go first."""
        with self._lock:
            self.link = link.connection
            messages = self._take_buffer()
            self._buffer = None
        return messages

    def probe(self, link: Any) -> bool:
        """Let a WebSocket try to take over. False where one has, or is about to."""
        with self._lock:
            if self._probe is not None or self.link is not None or self.closed:
                return False
            self._probe = link
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
                poll.answer([NOOP_MESSAGE])
            return True
        if packet == UPGRADE and self.upgrading:
            return self._move_to(link)
        return False

    def _move_to(self, link: Any) -> bool:
        with self._lock:
            if self.closed or self._buffer is None:
                return False
            # What waits goes out before anyone who finds `link` set can send.
            for message in self._take_buffer():
                link.connection.write(message.frame, self._engine.outbox_bytes)
            self.link = link.connection
            self._buffer, self._probe, self.upgrading = None, None, False
            poll, self._poll = self._poll, None
        if poll is not None:
            poll.answer([NOOP_MESSAGE])
        self.link_cleared(link)
        return True

    def link_cleared(self, link: Any) -> None:
        """All that waited for the outbox of a WebSocket has been sent."""
        if self._on_clear is not None and self.link is link.connection and self.backlog == 0:
            self._cleared()

    def link_lost(self, link: Any, reason: str) -> None:
        """A WebSocket of this session is gone."""
        with self._lock:
            if self._probe is link:
                self._probe, self.upgrading = None, False
                return
        if self.link is link.connection:
            self.close(abort=True, reason=reason)

    # The end.

    def close(
        self, wait: bool = True, abort: bool = False, reason: str | None = None, last: Message | None = None
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
        words = [CLOSE_MESSAGE] if last is None else [last, CLOSE_MESSAGE]
        if self.link is not None:
            if last is not None:
                self.link.write(last.frame, self.outbox_bytes)
            self._end_link(reason)
        elif poll is not None:
            poll.answer([NOOP_MESSAGE] if abort else [*self._take_buffer(), *words])
        elif reason in _TOLD:
            waiting = self._take_buffer() if reason == DRAINING or self._waiting <= LAST_BYTES else []
            self._engine.leave_word(self.sid, [*waiting, *words])
        if probe is not None:
            probe.close(NORMAL)
        self._buffer, self._state = None, None
        self._cleared()

    def _end_link(self, reason: str) -> None:
        receiver = self.link.receiver
        if reason in (PING_TIMEOUT, SLOW) or receiver is None:
            self.link.abort(reason)
        else:
            receiver.close(_CLOSE_CODES.get(reason, NORMAL))


class Link:
    """The receiver of a connection that speaks WebSocket: between the frames and the session."""

    __slots__ = ("_begun", "_is_timed", "_session", "_socket", "connection")

    def __init__(self, session: Session, limit: int):
        self._session = session
        self._socket = WebSocket(limit)
        self._begun = 0.0  # when the message began that is under way, monotonic; 0 for none
        self._is_timed = False  # a timer is going to look at that
        self.connection: Any = None

    def received(self, data: bytes) -> None:
        socket, session = self._socket, self._session
        if session.closed and len(data) > PARTING_BYTES:
            self.connection.read_on(False)
            return
        packets = socket.receive(data)
        try:
            for packet in packets:
                if session.closed:
                    break
                if session.link is self.connection:
                    session.receive(packet)
                elif not session.receive_probe(self, packet):
                    self.close(NORMAL)
        except ValueError:
            session.close(reason=TRANSPORT_ERROR)
        if socket.strays:
            strays, socket.strays = socket.strays, 0
            session.stray(strays)
        if packets or not socket.unfinished:
            self._begun = 0.0
        if socket.unfinished and not self._begun:
            self._expect_the_rest()
        if socket.output:
            # A client that asks for pongs and does not read them is as slow as any other.
            self.connection.write(socket.take_output(), session.outbox_bytes)
        if socket.close_code is not None:
            self.connection.finish()

    def close(self, code: int) -> None:
        """Begin to close; the client has a few seconds to answer before its connection is cut. Any thread."""
        self.connection.write(self._socket.begin_close(code))
        self.connection.abort_later(CLOSE_SECONDS, TRANSPORT_CLOSE)

    def _expect_the_rest(self) -> None:
        """Give the client its time for the message that it has begun. One timer at a time, however many there are."""
        self._begun = time.monotonic()
        if not self._is_timed:
            self._is_timed = True
            self.connection.poller.call_later(self._session.message_timeout, self._check_the_rest)

    def _check_the_rest(self) -> None:
        begun, connection = self._begun, self.connection
        self._is_timed = False
        if not begun or connection.closed:
            return
        seconds = self._session.message_timeout
        left = begun + seconds - time.monotonic()
        if left > 0:
            self._is_timed = True
            connection.poller.call_later(left, self._check_the_rest)
            return
        why = f"a message must be complete within {seconds:g} seconds (setting body_timeout)"
        connection.write(self._socket.begin_close(POLICY_VIOLATION, why))
        if self._session.link is connection:
            self._session.close(reason=TRANSPORT_ERROR)
        else:
            self.close(POLICY_VIOLATION)

    def ended(self) -> None:
        self.connection.finish()

    def proceed(self) -> None:
        """Nothing waits in the outbox any more."""
        self._session.link_cleared(self)

    def expired(self) -> None:
        """It has no such deadline: the heartbeat ends it, or _check_the_rest does."""

    def lost(self, reason: str) -> None:
        self._session.link_lost(self, reason if reason in (SLOW, TRANSPORT_ERROR) else TRANSPORT_CLOSE)
