"""The one connection over which a relay publishes, subscribes, and proves that nothing is missing.

So publishing and subscribing have one fate: a relay that no longer hears the others cannot answer pushes either. TCP
keeps the order, and Redis leaves nothing out on a connection that lives. So publications can be missing only after a
new connection, or if this one has ended without a sign. Therefore

- every connection begins with a subscription and with `hello` (whose store is that?), then asks for what was missed;
- once a second, a *beat* writes to Redis, and must come back within BEAT_SECONDS with the number of the last batch that
  this node has seen. A PING would not do: a Redis that is paused for writes answers it.

The socket is a source of the loop: whichever thread has its event reads it, and so do threads that wait for a reply.
Connections are made by a thread of their own, because that may take seconds.
"""

import logging
import random
import secrets
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import hiredis

from pushrelay.errors import StoreError

from .facts import Facts
from .held import Hole
from .loop import IN, OUT, Loop
from .measures import Measures
from .place import Place
from .scripts import ALL, BEAT, HELLO, Script
from .telling import Telling
from .wire import INCOMPLETE, Wire, is_want_read, packed
from .work import Work

log = logging.getLogger(__name__)

READ_BYTES = 262_144
BEAT_EVERY = 1.0  # seconds
BEAT_SECONDS = 2.0  # within which a beat must come back
CONNECT_SECONDS = 5.0  # for one attempt to connect
RESYNC_SECONDS = 30.0  # for reading what was missed
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two attempts
SHORT_SECONDS = 0.5  # a connection that ends sooner delays the next one
LEASE_SECONDS = 10  # a node is gone if its beat has been missing for this time

Callback = Callable[[Any, Work], None]  # `callback(reply, work)`, with the lock held
PUBLIC = "the relay cannot reach its store"  # for everybody who is not on this machine


class State(NamedTuple):
    """The store as a node knows it."""

    epoch: str = ""
    run: str = ""  # Redis's run_id
    seq: int = 0  # number of the last batch of any node when the connection was made
    generation: int = 0
    order: int = 0  # number of the last order when the connection was made


class Talk(Wire):
    """A connection that is not a source of the loop yet. `pushes` collects the messages that arrive."""

    def __init__(self, sock: Any, place: Place, meta: str, deadline: float):
        super().__init__(sock, pushes=[])
        self.deadline = deadline
        self._place = place
        self._meta = meta

    def run(self, script: Script, *args: Any) -> Any:
        """Return a script's answer. Raises StoreError, with what to do, and OSError."""
        return self.checked(*self.command(script, *args))

    def checked(self, *command: Any) -> Any:
        """Return the reply to a command. Raises StoreError, with what to do, and OSError."""
        reply = self.ask(self.deadline, *command)
        if isinstance(reply, hiredis.ReplyError):
            raise self.explained(reply)
        return reply

    def command(self, script: Script, *args: Any) -> tuple[Any, ...]:
        """Return the command that runs a script."""
        return ("EVALSHA", script.sha, 1, self._meta, *args)

    def explained(self, error: hiredis.ReplyError) -> StoreError:
        """Return the StoreError for an error reply."""
        return self._place.explained(error)


class Owner(Protocol):
    """The part of a broker that a link calls. All methods except resync() are called with the lock of the link held."""

    def resync(self, talk: Talk, before: State, now: State) -> Callable[[Work], None]:
        """Read what was missed. Return a function that hands it out; that is called with the lock held."""

    def message(self, fields: list[Any], work: Work) -> None:
        """Take a message of any node. Raises Hole if something before it is missing."""

    def beaten(self, holding: int, users: int, nodes: int, refusal: str | None, gone: list[str]) -> None:
        """Take the answer to a beat: see beat.lua. `refusal` is why Redis takes no writes, with what to do."""

    def up(self, work: Work) -> None:
        """Go on: the link can be used."""

    def cut(self, work: Work) -> None:
        """Expect no reply any more."""

    def information(self) -> str:
        """Return what other nodes may know about this one."""

    def last_order(self) -> int:
        """Return the number of the last order that this node has seen."""


class Link:
    """The connection. `lock` guards it and all that depends on its order. Any thread may call its methods.

    `place` makes connections. `prefix` is the setting `redis_prefix`, with the hash tag of the shard. `durable`: what
    Redis has accepted outlives its restart.
    """

    share: str | None = None  # as a source, it goes before visitors

    def __init__(self, place: Place, loop: Loop, node: str, prefix: str, durable: bool, measures: Measures):
        self.lock = threading.RLock()
        self.place = place
        self.loop = loop
        self.node = node
        self.node_bytes = node.encode()
        self.keys = prefix  # the beginning of all keys
        self.meta = f"{prefix}meta"
        self.channel = prefix[:-1]
        self.state = State()
        self.seq = 0  # number of the last batch of any node that was seen
        self._epoch = b""  # the state's, as messages have it
        self.is_up = False
        self.down_since = time.monotonic()
        self.trouble = "the connection to Redis is not there yet"  # why it is down, if it is
        self.session = 0  # number of the connection
        self._measures = measures
        self.owner: Owner  # set by the broker
        self._durable = durable
        self._sock: Any = None
        self._fd = -1
        self._reader: Any = None
        self._inner = hiredis.Reader(notEnoughData=INCOMPLETE)
        self._out = bytearray()  # what the socket has not taken yet
        self._expected: deque[Callback] = deque()  # one for each command whose reply has not come
        self._beat_sent = 0.0  # monotonic; 0 while no beat is under way
        self._timer: Any = None
        self._closed = False
        self._wake = threading.Event()  # ends the pause between two attempts
        self._connected = 0.0  # when the connection was made (monotonic)
        self._pause = 0.0  # seconds before the first attempt, after a connection that ended at once
        self._telling = Telling(place)

    def start(self) -> Facts:
        """Connect, in this thread, and return what Redis says about itself. Raises StoreError, with what to do."""
        self.loop.start()
        self._closed = False
        try:
            facts = self._connect()
        except OSError as error:
            raise self.place.lost(error) from None
        with self.lock:
            if self._timer is None:
                self._timer = self.loop.call_later(BEAT_EVERY, self._beat)
        return facts

    def close(self) -> None:
        """Close the connection, and make no other."""
        with self.lock:
            self._closed = True
            self._wake.set()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._sock is not None:
                self._drop_socket()
            self.is_up = False
            work = Work()
            self.owner.cut(work)
        work.run()

    # Sending. The lock is held.

    def require_up(self) -> None:
        """Raise StoreError if the link is not up."""
        if not self.is_up:
            raise StoreError(self.trouble, PUBLIC)

    def run_script(self, script: Script, args: tuple[Any, ...], callback: Callback) -> None:
        """Run a script; `callback` gets its answer or a hiredis.ReplyError. The link must be up."""
        self.send(("EVALSHA", script.sha, 1, self.meta, *args), callback)

    def send(self, command: tuple[Any, ...], callback: Callback) -> None:
        """Send a command; `callback` gets its reply. The link must be up."""
        data = packed(*command)  # first: if it raises ValueError, there will be no reply
        self._expected.append(callback)
        if self._out:
            self._out += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if not _would_block(error):
                return  # the loop reads the same error, and cuts
            sent = 0
        if sent < len(data):
            self._out += data[sent:]
            self.loop.rearm(self._fd, IN | OUT)

    # Receiving.

    def fileno(self) -> int:
        return self._fd

    def run(self) -> None:
        """Read and take apart what has come; then hand it out."""
        work = Work()
        with self.lock:
            if self._sock is None or not self.is_up:
                return
            try:
                self._flush()
                self._receive(work)
            except Hole:
                self.cut("hole", "something is missing", work)
            except (OSError, hiredis.ProtocolError, ValueError, LookupError) as error:
                self.cut("eof" if isinstance(error, OSError) else "protocol", str(error) or repr(error), work)
            if self.is_up:
                self.loop.rearm(self._fd, IN | OUT if self._out else IN)
        work.run()

    def wait(self, done: threading.Event, seconds: float) -> bool:
        """Wait until `done` is set. Read the socket while waiting, because this may be the loop's only free thread."""
        deadline = time.monotonic() + seconds
        while not done.is_set():
            if time.monotonic() > deadline:
                return False
            with self.lock:
                fd = self._fd if self.is_up else -1
            if fd < 0:
                done.wait(0.01)
                continue
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if poll.poll(1):
                self.run()
        return True

    def _flush(self) -> None:
        if self._out:
            try:
                del self._out[: self._sock.send(self._out)]
            except OSError as error:
                if not _would_block(error):
                    raise

    def _receive(self, work: Work) -> None:
        for _ in range(16):
            try:
                data = self._sock.recv(READ_BYTES)
            except OSError as error:
                if _would_block(error):
                    return
                raise
            if not data:
                raise ConnectionAbortedError("Redis closed the connection")
            self._reader.feed(data)
            self._take_apart(work)
            if not self.is_up or not hasattr(self._sock, "pending"):
                return
        self.loop.run_soon(self)  # TLS: the loop does not see what waits inside the socket

    def _take_apart(self, work: Work) -> None:
        gets, expected = self._reader.gets, self._expected
        while self.is_up and (reply := gets()) is not INCOMPLETE:
            if type(reply) is hiredis.PushNotification:
                self._take_push(reply, work)
            else:
                expected.popleft()(reply, work)

    def _take_push(self, push: Any, work: Work) -> None:
        if push[0] != b"message":
            return
        self._inner.feed(push[2])
        fields = self._inner.gets()
        if fields[2] == b"p":
            seq = fields[1]
            if fields[0] != self._epoch or seq > self.seq + 1:
                raise Hole(seq)
            if seq <= self.seq:
                return  # it came while the connection was made: see resync.py
            self.seq = seq
        self.owner.message(fields, work)

    # The beat.

    def _beat(self) -> None:
        work = Work()
        with self.lock:
            if self._closed:
                return
            self._timer = self.loop.call_later(BEAT_EVERY, self._beat)
            if self.is_up:
                late = self._beat_sent and time.monotonic() - self._beat_sent
                if late > BEAT_SECONDS:
                    self.cut("beat", f"a beat did not come back within {BEAT_SECONDS:g} s", work)
                elif not self._beat_sent:
                    self._beat_sent = time.monotonic()
                    self.run_script(BEAT, (self.node, LEASE_SECONDS, self.owner.information()), self._beaten)
        work.run()

    def _beaten(self, reply: Any, work: Work) -> None:
        self._measures.echo.observe(time.monotonic() - self._beat_sent)
        self._beat_sent = 0.0
        if isinstance(reply, hiredis.ReplyError):
            self.cut("beat", str(self.place.explained(reply)), work)
            return
        epoch, run, seq, _, holding, nodes, refusal, users, *gone = reply
        state = self.state
        if (epoch.decode(), run.decode()) != (state.epoch, state.run):
            self.cut("epoch", "the store has another epoch", work)
        elif seq != self.seq:
            self.cut("hole", f"batch {seq} was published, and {self.seq} was seen last", work)
        elif self.place.may_be_replaced(refusal.decode()):
            self.cut("demoted", refusal.decode(), work)
        else:
            error = str(self.place.explained(hiredis.ReplyError(refusal.decode()))) if refusal else None
            self.owner.beaten(holding, users, nodes, error, [each.decode() for each in gone])

    # The end of a connection, and the next one.

    def cut(self, reason: str, message: str, work: Work) -> None:
        """End the connection, and have another one made. The lock is held."""
        if not self.is_up:
            return
        self.is_up = False
        self.trouble = f"the connection to {self.place} was lost: {message}"
        self.down_since = time.monotonic()
        self._measures.cuts.add(reason)
        self._measures.is_up = False
        self._drop_socket()
        self.owner.cut(work)
        if not self._closed:
            self._telling.ended(reason, message)
            is_short = self.down_since - self._connected < SHORT_SECONDS
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause)) if is_short else 0.0
            self._wake.clear()
            threading.Thread(target=self._connect_again, name="redis-connect", daemon=True).start()

    def _drop_socket(self) -> None:
        sock, self._sock, self._fd = self._sock, None, -1
        self._expected.clear()
        self._out.clear()
        self._beat_sent = 0.0
        self.loop.retire(sock)

    def _connect_again(self) -> None:
        pause = FIRST_PAUSE
        if self._pause and self._wake.wait(self._pause):
            return
        while not self._closed:
            try:
                self._connect()
                return
            except (StoreError, OSError) as error:
                self.trouble = str(self.place.lost(error) if isinstance(error, OSError) else error)
                self._telling.failed(self.trouble)
            except Exception as error:
                self.trouble = repr(error)
                self._telling.failed(traceback.format_exc())
            if self._wake.wait(random.uniform(0.5, 1) * pause):  # noqa: S311 - spreads the nodes' attempts
                return
            pause = min(LONGEST_PAUSE, pause * 2)

    def _connect(self) -> Facts:
        """Connect, catch up, and go on; return what Redis says about itself. Raises StoreError and OSError."""
        began = time.monotonic()
        connected = self.place.connect(began + CONNECT_SECONDS, blocking=True)
        talk = Talk(connected.sock, self.place, self.meta, began + CONNECT_SECONDS)
        try:
            self._prepare(talk)
            before = self.state
            now = self._hello(talk, connected.facts.run_id)
            talk.deadline = time.monotonic() + RESYNC_SECONDS
            apply = self.owner.resync(talk, before, now)
        except BaseException:
            connected.sock.close()
            raise
        work = Work()
        with self.lock:
            if self._closed and self.session:
                connected.sock.close()
                return connected.facts
            if before.epoch and before.epoch != now.epoch:
                self._measures.epochs += 1
            self.state, self.seq, self._epoch = now, now.seq, now.epoch.encode()
            apply(work)
            self._install(talk, work)
        work.run()
        if self.is_up:
            self._telling.back(time.monotonic() - self.down_since)
        return connected.facts

    def _prepare(self, talk: Talk) -> None:
        talk.tell(talk.deadline, "SUBSCRIBE", self.channel)
        for reply in talk.ask_all(talk.deadline, [("SCRIPT", "LOAD", each.text) for each in ALL]):
            if isinstance(reply, hiredis.ReplyError):
                raise self.place.explained(reply)

    def _hello(self, talk: Talk, run: str) -> State:
        state = self.state
        known = (run, state.epoch, self.seq, int(self._durable), secrets.token_hex(5))
        about = (self.node, LEASE_SECONDS, self.owner.information(), self.channel, self.owner.last_order())
        epoch, seq, generation, order = talk.run(HELLO, *known, *about)
        return State(epoch.decode(), run, seq, generation, order)

    def _install(self, talk: Talk, work: Work) -> None:
        self._sock, self._fd, self._reader = talk.sock, talk.sock.fileno(), talk.reader
        self._sock.setblocking(False)
        self.session += 1
        self._connected = time.monotonic()
        self.is_up = self._measures.is_up = True
        self.loop.watch(self, IN)
        try:
            for push in talk.pushes or ():
                self._take_push(push, work)
            self._take_apart(work)
            self.owner.up(work)
        except Exception as error:  # otherwise there would be two connections at last
            if not isinstance(error, Hole):
                log.exception("a message of Redis could not be handled")
            self.cut("hole", "something is missing", work)
            return
        work.call(partial(self.loop.run_soon, self))


def _would_block(error: OSError) -> bool:
    """Return whether a socket only has nothing to read, or takes nothing now."""
    return isinstance(error, BlockingIOError) or is_want_read(error) or type(error).__name__ == "SSLWantWriteError"
