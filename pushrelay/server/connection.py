"""One TCP connection: its owner reads and closes it, and any thread may write to it.

The owner is the thread to which the poller gave the connection's event. No other thread runs the connection until the
owner's turn is over. Other threads may only add to the outbox, or set the reason for which the owner closes it.

The poller reports edges. A read that returns less than was asked for has taken everything, and there is a new edge when
more arrives. In all other cases the connection is armed again, which brings the edge again: after a full read, after a
read if the other side has already hung up, and when reading or writing becomes possible or necessary again.
"""

import collections
import contextlib
import itertools
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .poller import EDGE, HANGUP, IN, OUT, Poller

log = logging.getLogger(__name__)

# Maximum bytes of one read. A push has a few hundred, and large bodies should not be read in tiny pieces.
READ_BYTES = 65536
# Pieces that are sent in one call. The kernel takes 1,024 (IOV_MAX); most slow clients are a few dozen frames behind.
GATHER = 64

FINISHED = "finished"
TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"
SLOW = "slow"
PING_TIMEOUT = "ping timeout"
# After these reasons nobody reads: the kernel discards its buffer immediately instead of keeping it for minutes.
_ABRUPT = {SLOW, PING_TIMEOUT, TRANSPORT_ERROR}
# Connections share these locks: with one each, a message to 10,000 clients would fetch 10,000 locks from memory. No
# thread holds two of them.
_LOCKS = [threading.Lock() for _ in range(64)]
_RESET = struct.pack("ii", 1, 0)


def _whole(piece: bytes | memoryview) -> Any:
    """Return the written object of which this is the rest."""
    return piece.obj if type(piece) is memoryview else piece


class Receiver(Protocol):
    """The protocol that is spoken on a connection. Its owner calls all methods but `expired`."""

    def received(self, data: bytes) -> None:
        """Handle bytes from the other side."""

    def ended(self) -> None:
        """The other side will send no more."""

    def proceed(self) -> None:
        """Continue, because the outbox is empty again or somebody called `run_soon`."""

    def resume(self) -> None:
        """Continue with the work that was left when the receiver called `yield_turn`. Nothing is read before that."""

    def lost(self, reason: str) -> None:
        """The connection has ended. Called once, last."""

    def expired(self) -> None:
        """The connection's deadline has passed. Any thread may call this."""


class _NoReceiver:
    """The receiver of a connection that has no other yet, or has ended: it ignores everything."""

    def received(self, data: bytes) -> None:
        pass

    def ended(self) -> None:
        pass

    def proceed(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def lost(self, reason: str) -> None:
        pass

    def expired(self) -> None:
        pass


NO_RECEIVER = _NoReceiver()


class Connection:
    """A non-blocking socket on the poller, with an outbox for data that the kernel does not take at once."""

    blocks = False  # a write never waits
    __slots__ = (
        "_again",
        "_armed",
        "_finishing",
        "_lock",
        "_muted",
        "_nudged",
        "_on_close",
        "_outbox",
        "_owned",
        "_needs_spare",
        "_reading",
        "_reason",
        "_unfinished",
        "_watched",
        "backlog",
        "counted_as",
        "deadline",
        "fd",
        "hung_up",
        "peer",
        "poller",
        "receiver",
        "share",
        "sock",
    )

    def __init__(
        self, poller: Poller, sock: socket.socket, peer: Any = None, on_close: Callable[[Any], None] | None = None
    ):
        """`on_close(connection)` is called once, when it has ended, whatever its receiver is."""
        self.sock = sock
        self.peer = peer  # the address at the other end, as accept() returns it
        self.counted_as: str | None = None  # the address that ConnectionLimiter counts it for
        self.fd = sock.fileno()
        self.receiver: Receiver = NO_RECEIVER
        self.deadline = 0.0  # monotonic; 0 for none. The server checks it, once a second
        self.poller = poller
        # Sending. The lock is held while data is sent, which cannot block, and never during anything else.
        self._lock = _LOCKS[self.fd % len(_LOCKS)]
        self._outbox: collections.deque[bytes | memoryview] | None = None
        self.backlog = 0  # bytes in the outbox; a frame that other clients share counts in full
        # Ownership.
        self._owned = False
        self._again = False  # another event came while the owner was busy
        self._nudged = False  # `run_soon` was called: the receiver must proceed
        self._unfinished = False  # the receiver has more to do than one turn allows; nothing is read until it is done
        self._watched = False
        self._armed = False  # the poller watches for the wanted events, and will report the next edge
        self._muted = False  # the poller watches only for errors
        self.hung_up = False  # the other side sends no more; its last data may still be unread
        self._reading = True
        self._needs_spare = False  # the rest of the unfinished work may block
        # The share in which it waits for its turn; None if it goes before others: see Poller and FairQueue.
        self.share: str | None = None
        # The end.
        self._finishing = False  # it ends when the outbox is empty
        self._reason: str | None = None  # it ends now, for this reason
        self._on_close = on_close

    def fileno(self) -> int:
        """Return the file descriptor, for the poller."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._reason is not None

    # Any thread may call these.

    def write(self, data: bytes, limit: int = 0) -> bool:
        """Send bytes, or keep in the outbox what the kernel does not take. Return False if the connection has ended.

        Never blocks. With a `limit`, in bytes, the connection ends as `slow` if more than that would wait after the
        piece that is being sent. The next piece always fits, whatever its size: otherwise a client could never receive
        a large one.
        """
        with self._lock:
            if self._reason is not None or self._finishing:
                return False
            if self._outbox is None:
                try:
                    sent = self.sock.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._abort(TRANSPORT_ERROR)
                    return False
                if sent == len(data):
                    return True
                self._outbox = collections.deque((memoryview(data)[sent:],))
                self.backlog = len(data) - sent
                self.poller.outboxes.add(self, data, len(data))
                self._change_events()
            elif data:  # an empty piece would never leave the outbox: the kernel takes 0 bytes of it
                self._outbox.append(data)
                self.backlog += len(data)
                self.poller.outboxes.add(self, data, len(data))
                if limit and self.backlog > limit and self._is_crowded(self._outbox, limit):
                    self._abort(SLOW)
                    return False
            return True

    def finish(self) -> None:
        """End the connection once the outbox has been sent."""
        with self._lock:
            self._finishing = True
            if self._outbox is None and self._reason is None:
                self._abort(FINISHED)

    def abort(self, reason: str) -> None:
        """End the connection now, and discard the outbox."""
        with self._lock:
            if self._reason is None:
                self._abort(reason)

    def abort_later(self, seconds: float, reason: str) -> None:
        """End the connection after `seconds`, if it has not ended by then."""
        self.poller.call_later(seconds, self.abort, reason)

    def set_reading(self, reading: bool) -> None:
        """Stop or resume reading. While stopped, only a reset of the connection is noticed, not its regular end."""
        with self._lock:
            self._reading = reading
            if self._reason is None:
                self._change_events()

    def shut_down(self) -> None:
        """Close our side of the connection, and keep reading."""
        with self._lock:
            if self._reason is None:
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self._abort(TRANSPORT_ERROR)

    def run_soon(self) -> None:
        """Have the receiver proceed on a thread of the poller, without an event."""
        self._nudged = True
        self.poller.run_soon(self)

    def has_unread(self) -> bool:
        """Return whether the other side has sent data that the receiver has not handled yet."""
        with self._lock:
            if self._reason is not None:
                return False
            if self._unfinished or self._owned:
                return True
            try:
                return bool(self.sock.recv(1, socket.MSG_PEEK))
            except OSError:
                return False

    def yield_turn(self, may_block: bool = False) -> None:
        """End this turn; in the next one the receiver's `resume` is called. Only for the receiver, within its turn.

        With `may_block`, `resume` is not called on the last free thread.
        """
        self._unfinished, self._needs_spare = True, may_block

    def stuck(self) -> None:
        """Notify the receiver, if it has a method for it, that it has blocked its thread. For the watchdog."""
        stuck = getattr(self.receiver, "stuck", None)
        if stuck is not None:
            stuck()

    # The owner's part.

    def run(self) -> None:
        """Handle the event; then close the connection, or let it wait for the next event or the next turn."""
        with self._lock:
            if self._owned:
                self._again = True
                return
            self._owned = True
        if self._reason is None:
            self._take_turn()
        with self._lock:
            if self._reason is None:
                self._owned = False
                if self._unfinished:
                    self._mute()
                elif not self._armed:
                    self._arm()
                if self._again or self._unfinished:
                    self._queue_again()
                return
        self._close()

    def _queue_again(self) -> None:
        """Queue another turn behind others: some work is left, or an event came during this turn."""
        self._again = False
        if not self._unfinished:
            self.poller.run_soon(self)
        elif self._needs_spare:
            self.poller.run_when_spare(self)
        else:
            self.poller.run_again(self)

    def _take_turn(self) -> None:
        try:
            unfinished = self._unfinished
            if unfinished:
                self._unfinished = False
            if self._outbox is not None or self._nudged:
                self._send_and_proceed()
                if self._reason is not None or self._unfinished:
                    return
            if unfinished:
                self.receiver.resume()
                return
            if not self._reading:
                self._check_for_reset()
                return
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            if data:
                if self.hung_up or len(data) == READ_BYTES:
                    self._armed = False  # there may be more, for which no edge would come
                self.receiver.received(data)
            else:
                self._reading = False
                self.receiver.ended()
        except OSError:
            self.abort(TRANSPORT_ERROR)
        except Exception:
            log.exception("%r failed; its connection is closed", self.receiver)
            self.abort(TRANSPORT_ERROR)

    def _check_for_reset(self) -> None:
        """Raise OSError if the connection was reset: epoll reports that even while we are not reading."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _send_and_proceed(self) -> None:
        if self._outbox is not None:
            self.flush()
        if self._outbox is None and self._reason is None:
            self._nudged = False
            self.receiver.proceed()

    def give_up(self) -> None:
        """End the connection as `slow`: all outboxes together are too large, and this is one of the largest."""
        self.abort(SLOW)

    def flush(self) -> None:
        """Send as much of the outbox as the kernel takes."""
        with self._lock:
            before = self.backlog
            sent: list[bytes] = []
            self._flush(sent)
            if self.backlog != before:
                self.poller.outboxes.remove(self, sent, self._outbox is None)

    def _flush(self, gone: list[bytes]) -> None:
        """Send, and append each piece that is sent completely to `gone`. The caller holds the lock."""
        outbox = self._outbox
        while outbox and self._reason is None:
            try:
                sent = self.sock.sendmsg(itertools.islice(outbox, GATHER))
            except BlockingIOError:
                return
            except OSError:
                self._abort(TRANSPORT_ERROR)
                return
            self.backlog -= sent
            while sent:
                first = outbox.popleft()
                if len(first) > sent:
                    outbox.appendleft(memoryview(first)[sent:])
                    break
                gone.append(_whole(first))
                sent -= len(first)
        self._outbox, self._armed = None, False
        if self._finishing and self._reason is None:
            self._abort(FINISHED)

    def _close(self) -> None:
        """Close the connection. Only the owner calls this, once, and it stays the owner.

        The reason is set and checked under the lock, so no thread is inside a `send` on a file descriptor that the
        kernel could reuse for another connection.
        """
        if self._reason in _ABRUPT:
            # A Unix socket has no such option, and a dead socket does not need it.
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with self._lock:
            outbox, self._outbox, self.backlog = self._outbox, None, 0
        if outbox:
            self.poller.outboxes.remove(self, map(_whole, outbox), True)
        receiver, self.receiver = self.receiver, NO_RECEIVER
        try:
            receiver.lost(self._reason or FINISHED)
        except Exception:
            log.exception("%r failed while its connection was closed", receiver)
        self.poller.retire(self.sock)
        if self._on_close is not None:
            self._on_close(self)

    # With the lock held.

    def _is_crowded(self, outbox: collections.deque[bytes | memoryview], limit: int) -> bool:
        return len(outbox) > 2 and self.backlog - len(outbox[0]) > limit

    def _abort(self, reason: str) -> None:
        self._reason = reason
        if not self._owned:
            self.poller.run_soon(self)

    def _change_events(self) -> None:
        """Arm the connection for other events than before: at once, or at the end of the owner's turn."""
        self._armed = False
        if not self._owned and not self._unfinished and self._watched:
            self._arm()

    def _mute(self) -> None:
        """Get no events until the connection is armed again, because work is left from its last turn."""
        self._armed = False
        if self._watched and not self._muted:
            self._muted = True
            self.poller.rearm(self.fd, EDGE)

    def _arm(self) -> None:
        events = EDGE | (IN | HANGUP if self._reading else 0) | (OUT if self._outbox is not None else 0)
        self._armed, self._muted = True, False
        if self._watched:
            self.poller.rearm(self.fd, events)
        else:
            self._watched = True
            self.poller.watch(self, events)
