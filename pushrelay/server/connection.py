"""One TCP connection: read by the thread that owns it, written by any, and closed by its owner alone.

An owner is the thread to which the poller gave the connection's event. Until it arms the connection again nobody else
runs it. Everybody else may only add to the outbox, or say that the connection is to end.
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

from .poller import HANGUP, IN, OUT, Poller

log = logging.getLogger(__name__)

# What one read takes at most. A push is a few hundred bytes; a large body is not read in tiny pieces either.
READ_BYTES = 65536
# The kernel takes 1,024 buffers in one call (IOV_MAX); most clients that lag are behind by a few dozen frames.
GATHER = 64

FINISHED = "finished"
TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"
SLOW = "slow"
PING_TIMEOUT = "ping timeout"
# Nobody reads any more: what lies in the kernel's buffer is thrown away with the connection, not kept for minutes.
_ABRUPT = {SLOW, PING_TIMEOUT, TRANSPORT_ERROR}
_RESET = struct.pack("ii", 1, 0)


# Bytes that the kernel holds for one connection, as asked for; Linux doubles this for its own records, and so grants at
# most that much. Without, it would hold some 4 MB for a client that does not read, which no limit of ours counts.
# Over a way of 100 ms it still lets a megabyte a second through.
SEND_BUFFER = 131_072


def bound_send_buffer(sock: socket.socket) -> None:
    """Bound what the kernel holds for this socket, and for those that it accepts."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def _whole(piece: bytes | memoryview) -> bytes:
    """Return what was written, of which this is the end."""
    return piece.obj if type(piece) is memoryview else piece


class Receiver(Protocol):
    """What is spoken on a connection. All but `expired` is called by the connection's owner."""

    def received(self, data: bytes) -> None:
        """Bytes came in."""

    def ended(self) -> None:
        """The other side will send no more."""

    def proceed(self) -> None:
        """What was in the way is gone: all that waited has been sent, or somebody called `run_soon`."""

    def resume(self) -> None:
        """Go on with what was left when the receiver called `yield_turn`. Nothing is read before."""

    def lost(self, reason: str) -> None:
        """The connection is over. Called once, last."""

    def expired(self) -> None:
        """The connection's deadline has passed; any thread."""


class Connection:
    """A non-blocking socket on the poller, with an outbox for what the kernel does not take at once."""

    blocks = False  # a write never waits
    __slots__ = (
        "_again",
        "_finishing",
        "_lock",
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
        "deadline",
        "fd",
        "peer",
        "poller",
        "queued",
        "receiver",
        "share",
        "sock",
    )

    def __init__(
        self, poller: Poller, sock: socket.socket, peer: Any = None, on_close: Callable[[Any], None] | None = None
    ):
        """`on_close(connection)` is called once it is over, whatever was spoken on it."""
        self.sock = sock
        self.peer = peer  # the address at the other end, as accept() gives it
        self.fd = sock.fileno()
        self.receiver: Any = None
        self.deadline = 0.0  # monotonic; 0 for none. Who put the connection on the poller looks at it
        self.poller = poller
        # Sending. The lock is held while something is sent, which cannot block, and never while anything else is done.
        self._lock = threading.Lock()
        self._outbox: collections.deque[bytes | memoryview] | None = None
        self.backlog = 0  # bytes in the outbox; a frame shared with others counts in full
        # Who has it.
        self._owned = False
        self._again = False  # something came for the owner while it was busy
        self._nudged = False  # somebody wants the receiver to proceed
        self._unfinished = False  # the receiver has more to do than one turn allows; nothing is read until it is done
        self._watched = False
        self._reading = True
        self._needs_spare = False  # and may block in it
        # When it has its turn: see poller.Poller and shares.Shares, which keep these.
        self.share: str | None = None
        self.queued = False
        # How it ends.
        self._finishing = False  # when the outbox is empty
        self._reason: str | None = None  # at once
        self._on_close = on_close

    def fileno(self) -> int:
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether it is over, or about to be."""
        return self._reason is not None

    # Any thread may call these.

    def write(self, data: bytes, limit: int = 0) -> bool:
        """Send bytes, or keep in the outbox what the kernel does not take. False where the connection is over.

        Never blocks. With a `limit`, in bytes, the connection ends as `slow` when more than that would wait behind
        what is being sent. What is next has room whatever its size: else a client could never receive it.
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
                if not self._owned and not self._unfinished:
                    self._arm()
            elif data:  # an empty one would be in the outbox for ever: the kernel takes 0 bytes of it
                self._outbox.append(data)
                self.backlog += len(data)
                self.poller.outboxes.add(self, data, len(data))
                if limit and self.backlog > limit and self._is_crowded(limit):
                    self._abort(SLOW)
                    return False
            return True

    def finish(self) -> None:
        """End the connection when all that was written has been sent."""
        with self._lock:
            self._finishing = True
            if self._outbox is None and self._reason is None:
                self._abort(FINISHED)

    def abort(self, reason: str) -> None:
        """End the connection now. What is in the outbox is lost."""
        with self._lock:
            if self._reason is None:
                self._abort(reason)

    def abort_later(self, seconds: float, reason: str) -> None:
        """End the connection after some seconds, if it has not ended by then."""
        self.poller.call_later(seconds, self.abort, reason)

    def read_on(self, reading: bool) -> None:
        """Stop or resume reading. While stopped, the other side's end is not noticed, only that it broke off."""
        with self._lock:
            self._reading = reading
            if not self._owned and not self._unfinished and self._watched and self._reason is None:
                self._arm()

    def shut_down(self) -> None:
        """Tell the other side that nothing more will come, and go on reading."""
        with self._lock:
            if self._reason is None:
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self._abort(TRANSPORT_ERROR)

    def run_soon(self) -> None:
        """Let the receiver proceed on a thread of the poller, though no event came."""
        self._nudged = True
        self.poller.run_soon(self)

    def has_unread(self) -> bool:
        """Return whether the other side has sent something that the receiver has not handled yet."""
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
        """Let others have their turn; in the next one the receiver's `resume` is called.

        With `may_block` it is not called on the last free thread. For the receiver, within its turn.
        """
        self._unfinished, self._needs_spare = True, may_block

    def stuck(self) -> None:
        """The watchdog says that whoever runs this is taking long; the receiver may want to know."""
        heard = getattr(self.receiver, "stuck", None)
        if heard is not None:
            heard()

    # The owner's part.

    def run(self) -> None:
        """Handle what happened, and everything that happens meanwhile; then arm the connection again, or close it."""
        with self._lock:
            if self._owned:
                self._again = True
                return
            self._owned = True
        while True:
            if self._reason is None:
                self._take_turn()
            with self._lock:
                if self._reason is not None:
                    break
                if self._unfinished:
                    self._again = self._owned = False
                    self._queue_again()
                    return
                if not self._again:
                    self._arm()
                    self._owned = False
                    return
                self._again = False
        self._close()

    def _queue_again(self) -> None:
        if self._needs_spare:
            self.poller.run_when_spare(self)
        else:
            self.poller.run_again(self)

    def _take_turn(self) -> None:
        try:
            unfinished, self._unfinished = self._unfinished, False
            if self._outbox is not None or self._nudged:
                self._go_on()
            if self._reason is not None or self._unfinished:
                return
            if unfinished:
                self.receiver.resume()
                return
            if not self._reading:
                self._look_for_an_error()
                return
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            if data:
                self.receiver.received(data)
            else:
                self._reading = False  # the end would be an event again and again
                self.receiver.ended()
        except OSError:
            self.abort(TRANSPORT_ERROR)
        except Exception:
            log.exception("%r failed; its connection is closed", self.receiver)
            self.abort(TRANSPORT_ERROR)

    def _look_for_an_error(self) -> None:
        """A reset is told also to who does not read, at once and for ever."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _go_on(self) -> None:
        if self._outbox is not None:
            self.flush()
        if self._outbox is None and self._reason is None:
            self._nudged = False
            self.receiver.proceed()

    def give_up(self) -> None:
        """End the connection as `slow`: all clients together have too much waiting, and this one has the most."""
        self.abort(SLOW)

    def flush(self) -> None:
        """Send of what waits as much as the kernel takes."""
        with self._lock:
            before = self.backlog
            sent: list[bytes] = []
            self._flush(sent)
            if self.backlog != before:
                self.poller.outboxes.remove(self, sent, self._outbox is None)

    def _flush(self, gone: list[bytes]) -> None:
        """Do so, and add to `gone` what was sent to its end. The caller holds the lock."""
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
        self._outbox = None
        if self._finishing and self._reason is None:
            self._abort(FINISHED)

    def _close(self) -> None:
        """Only the owner comes here, once; it stays the owner, so that nobody is after it.

        The reason was set under the lock, and who sends looks at it under the lock: nobody is in a `send` whose file
        descriptor could become another connection's.
        """
        if self._reason in _ABRUPT:
            # A Unix socket has no such thing, and a dead one needs none.
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with self._lock:
            outbox, self._outbox, self.backlog = self._outbox, None, 0
        if outbox:
            self.poller.outboxes.remove(self, map(_whole, outbox), True)
        receiver, self.receiver = self.receiver, None
        try:
            receiver.lost(self._reason)
        except Exception:
            log.exception("%r failed while its connection was closed", receiver)
        self.poller.retire(self.sock)
        if self._on_close is not None:
            self._on_close(self)

    # With the lock held.

    def _is_crowded(self, limit: int) -> bool:
        return len(self._outbox) > 2 and self.backlog - len(self._outbox[0]) > limit

    def _abort(self, reason: str) -> None:
        self._reason = reason
        if not self._owned:
            self.poller.run_soon(self)

    def _arm(self) -> None:
        events = (IN | HANGUP if self._reading else 0) | (OUT if self._outbox is not None else 0)
        if self._watched:
            self.poller.rearm(self.fd, events)
        else:
            self._watched = True
            self.poller.watch(self, events)
