"""The WebSocket of one client: between the bytes of its connection and the packets of its session."""

import time
from collections import deque

from pushrelay.server.connection import SLOW, TRANSPORT_CLOSE, TRANSPORT_ERROR
from pushrelay.server.fair_queue import TURN_SECONDS
from pushrelay.server.sources import Timer
from pushrelay.server.websocket import NORMAL, POLICY_VIOLATION, TOO_BIG, WebSocket

from .carrier import ClientConnection
from .session import Session

# Seconds for a client to answer a close frame.
CLOSE_SECONDS = 3.0
# A client that is being closed has little left to send: if it sends more bytes than this at once, we stop reading.
PARTING_BYTES = 16384
# Bytes of a WebSocket that are parsed at a time, unless they belong to one large frame: 700 empty frames, 1 ms of work.
PIECE_BYTES = 4096
# Shared by links whose packets are all handled: a deque for each would be a quarter of an idle client's memory.
_NO_PACKETS: deque[str | bytes] = deque()


class Link:
    """The receiver of a connection that speaks WebSocket. Set its `connection` before anything is received."""

    __slots__ = (
        "_begun",
        "_ended",
        "_packets",
        "_rest",
        "_session",
        "_socket",
        "_timer",
        "connection",
        "upgrade_timer",
    )

    def __init__(self, session: Session, limit: int):
        self._session = session
        self._socket = WebSocket(limit)
        self._begun = 0.0  # monotonic: when the client began an incomplete message; 0 if the last one is complete
        self._timer: Timer | None = None  # checks that
        self.upgrade_timer: Timer | None = None  # closes the WebSocket if it does not take over in time
        # Input that did not fit into one turn.
        self._packets = _NO_PACKETS  # parsed
        self._rest = b""  # bytes after them, not parsed yet
        self._ended = False  # the client sends no more
        self.connection: ClientConnection

    @property
    def limit(self) -> int:
        """Bytes that a message of the client may have."""
        return self._socket.limit

    # The receiver, for the owner of the connection.

    def received(self, data: bytes) -> None:
        """Parse and handle bytes from the client."""
        if self._session.closed and len(data) > PARTING_BYTES:
            self.connection.set_reading(False)
            return
        self._rest = self._rest + data if self._rest else data
        if not self._packets:
            self._parse()
        self.resume()

    def resume(self) -> None:
        """Handle the input until the turn is over."""
        began = 0.0
        while True:
            if self._packets and not self._handle():
                return
            self._answer_frames()
            if not self._rest:
                break
            began = began or time.monotonic()
            self._parse()
            if time.monotonic() - began > TURN_SECONDS:
                self.connection.yield_turn()
                return
        if self._socket.close_code is not None or self._ended:
            self.connection.finish()

    def _answer_frames(self) -> None:
        """Charge for frames without a message, and answer them after the answers to messages."""
        socket, session = self._socket, self._session
        if socket.strays:
            strays, socket.strays = socket.strays, 0
            session.charge_minor(strays)
        if socket.output:
            # A client that asks for pongs and does not read them is as slow as any other.
            self.connection.write(socket.take_output(), session.outbox_bytes)

    def _parse(self) -> None:
        """Parse a piece of the input."""
        socket, rest = self._socket, self._rest
        size = max(PIECE_BYTES, socket.left)
        if len(rest) > size:
            rest, self._rest = rest[:size], rest[size:]
        else:
            self._rest = b""
        packets = socket.receive(rest)
        if self._packets:
            self._packets.extend(packets)
        elif packets:
            self._packets = deque(packets)
        if packets or not socket.unfinished:
            self._begun = 0.0
        if socket.unfinished and not self._begun:
            self._expect_the_rest()
        if socket.close_code is not None:
            self._rest = b""
        if socket.close_code == TOO_BIG:
            message = f"was closed because it sent a message of more than {socket.limit} bytes (setting max_message)"
            self._session.complain("too_large", message)

    def _handle(self) -> bool:
        """Handle the parsed packets; return False if the turn is over before the last one."""
        session, packets, connection = self._session, self._packets, self.connection
        try:
            while packets and not session.closed and session.connection is not connection:
                if not session.receive_probe(self, packets.popleft()):
                    packets.clear()  # it can never take over
                    self.close(NORMAL)
            if session.closed:
                packets.clear()
            if packets:
                session.receive_some(packets, connection.poller)
        except ValueError:
            packets.clear()
            session.close(reason=TRANSPORT_ERROR)
        if packets:
            connection.yield_turn(may_block=connection.poller.is_short())
            return False
        self._packets = _NO_PACKETS
        return True

    def receive_message(self, packet: str | bytes) -> None:
        """Handle a message on this thread, for a carrier that speaks WebSocket itself."""
        session = self._session
        try:
            if session.closed:
                return
            if session.connection is self.connection:
                session.receive(packet)
            elif not session.receive_probe(self, packet):
                self.close(NORMAL)  # it can never take over
        except ValueError:
            session.close(reason=TRANSPORT_ERROR)

    def close(self, code: int) -> None:
        """Begin to close; the client has CLOSE_SECONDS to answer before its connection is dropped. Any thread."""
        self.connection.write(self._socket.begin_close(code))
        self.connection.abort_later(CLOSE_SECONDS, TRANSPORT_CLOSE)

    def _expect_the_rest(self) -> None:
        """Start the client's time to complete the message that it has begun. All its messages share one timer."""
        self._begun = time.monotonic()
        if self._timer is None:
            self._timer = self.connection.poller.call_later(self._session.message_timeout, self._check_the_rest)

    def _check_the_rest(self) -> None:
        begun, connection = self._begun, self.connection
        self._timer = None
        if not begun or connection.closed:
            return
        seconds = self._session.message_timeout
        left = begun + seconds - time.monotonic()
        if left > 0:
            self._timer = connection.poller.call_later(left, self._check_the_rest)
            return
        why = f"a message must be complete within {seconds:g} seconds (setting body_timeout)"
        connection.write(self._socket.begin_close(POLICY_VIOLATION, why))
        self._session.complain("body_timeout", f"was closed: {why}")
        if self._session.connection is connection:
            self._session.close(reason=TRANSPORT_ERROR)
        else:
            self.close(POLICY_VIOLATION)

    def ended(self) -> None:
        """Finish once the input is handled: the client sends no more."""
        if self._packets or self._rest:
            self._ended = True
        else:
            self.connection.finish()

    def proceed(self) -> None:
        """Tell the session that the outbox is empty."""
        self._session.link_cleared(self)

    def expired(self) -> None:
        """Do nothing: the heartbeat and _check_the_rest have their own deadlines."""

    def lost(self, reason: str) -> None:
        """Close the session, on a thread that the app's disconnect handler may block."""
        poller = self.connection.poller
        for timer in (self._timer, self.upgrade_timer):
            if timer is not None:
                timer.cancel()  # or it would keep all of this in memory for a minute
        self._timer = self.upgrade_timer = None
        if poller.is_short():
            poller.call_when_spare(self.lost, reason)
            return
        self._session.link_lost(self, reason if reason in (SLOW, TRANSPORT_ERROR) else TRANSPORT_CLOSE)
