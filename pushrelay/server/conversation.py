"""HTTP/1.1 on one connection: each request to the app, each answer back, in order.

An app may also *park* its request: it returns, no thread waits, and whoever has something to say answers later. Or it
takes the connection over for another protocol. Both are what the Engine needs, and it finds them in the environ under
`pushrelay.http`.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pushrelay.server.quota import NO_ROOM, retry_after

from .connection import SLOW, TRANSPORT_CLOSE, Connection
from .fair_queue import TURN_SECONDS
from .request import Known, Parser, Refused, Request
from .response import AHEAD_BYTES, INTERNAL_ERROR, Response, plain_answer, whole_head

log = logging.getLogger(__name__)

KEY = "pushrelay.http"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A request that might block the last free thread is looked at again after this many seconds.
WAIT_SECONDS = 0.02
# What a client may send ahead while its request is being answered; beyond it nothing is read.
EARLY_BYTES = 65536
# On a connection that may not stay the request must be complete after so many seconds.
HURRY_SECONDS = 3.0
# Bytes that are parsed at a time: 150 requests of the shortest kind, 1 ms of work.
PIECE_BYTES = 4096
# Reads that a visitor's new connection may take before other visitors': a push and its body come in two or three.
FIRST_READS = 4
# After a refusal the client is still sending. It is read and thrown away for this long, and so much of it, because
# closing at once makes the kernel reset the connection and the answer is lost on its way (RFC 9112, 9.6).
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


class Conversation:
    """The receiver of a connection that speaks HTTP."""

    # What engine.carrier.Carrier has besides: here a client holds no thread, and WebSockets always work.
    threads = None
    websockets = True

    __slots__ = (
        "_app",
        "_busy",
        "_early",
        "_ended",
        "_expired",
        "_first_reads",
        "_is_poll",
        "_known",
        "_limits",
        "_lock",
        "_on_lost",
        "_parked",
        "_parser",
        "_refused",
        "_request",
        "_response",
        "_server",
        "_taken",
        "connection",
        "is_last",
        "user",
    )

    def __init__(self, connection: Connection, server: Any):
        self.connection = connection
        self._server = server
        self._app = server.app
        self._limits = server.limits
        self._parser: Parser = server.parser(connection)
        self._refused: Refused | None = None  # answered after the requests that came before it
        self._ended = False  # the client sends no more
        self._expired = False
        self._taken = False  # another protocol is spoken from here on
        self._first_reads = FIRST_READS  # that are left
        self.is_last = False  # the next answer ends the connection
        # The request that is being answered.
        self._known: Known | None = None  # where the app's shortcut took it: there is no request then, and no response
        self._request: Request | None = None
        self.user = "-"  # whose it is, where the app says so; for the access log
        self._response: Response | None = None
        self._busy = False  # its answer is not complete, though no thread is at it
        self._parked = False  # it is not the app's return that answers it
        self._is_poll = False  # it was parked until there is news, and that may never be
        self._on_lost: Callable[[], None] | None = None  # tells who parked it that nobody waits any more
        self._early = b""  # what came in meanwhile
        self._lock = threading.Lock()  # over `_busy` and `_early`, which another thread's answer() changes
        connection.deadline = time.monotonic() + server.limits.header_timeout

    # The receiver.

    def received(self, data: bytes) -> None:
        # Where there is something early and no request is waited for any more, proceed() is about to be called.
        if self._waits() or self._early:
            with self._lock:
                if self._waits() or self._early:
                    self._keep_for_later(data)
                    return
        known = self._parser.recognize(data)
        if known is None or self.connection.poller.is_short():
            self._early = data
            self._count_read()
            self._read_early()
        elif known.take is None or not self._take(known, data):
            self._answer(self._parser.request_of(known, data))
            if self.connection.backlog > AHEAD_BYTES and not self._parked:
                self._busy = True

    def _take(self, known: Known, data: bytes) -> bool:
        """Let the app's shortcut take the request."""
        if self.is_last:
            return False  # its answer's header is not the usual one
        self._known = known
        self.connection.deadline = 0.0
        if known.take(data[len(data) - known.length :], self):
            self.connection.share = None
            return True
        self._known = None
        return False

    def resume(self) -> None:
        if not self._busy:
            self._serve()
            self._read_early()

    def proceed(self) -> None:
        if self._expired and not self._busy:
            self._give_up()
            return
        if self._busy and not self._parked:
            if self._response is not None:
                self._pump(self._response)
            else:
                self._busy = False
        self.resume()

    def ended(self) -> None:
        self._ended = True
        if self._on_lost is not None:
            self.connection.abort(TRANSPORT_CLOSE)
        elif self._waits():
            self.connection.read_on(False)  # it may have said all it had to say, and still read the answer
        else:
            self.connection.finish()

    def expired(self) -> None:
        if self._busy or self.connection.backlog:
            self.connection.abort(SLOW)
        else:
            self._expired = True
            self.connection.run_soon()

    def lost(self, reason: str) -> None:
        self._server.forget(self.connection)
        self._parser.close()
        self._refused = None  # its traceback knows this conversation
        on_lost, self._on_lost = self._on_lost, None
        response, self._response = self._response, None
        self._request = self._known = None
        if on_lost is not None:
            on_lost()
        elif response is not None:
            response.close()

    def stuck(self) -> None:
        """The watchdog's thread: the app is taking long over the request."""
        request = self._request
        if request is not None:
            self._server.note_slow(request.environ["PATH_INFO"])

    # What the app may do, while it handles the request.

    def park(self, on_lost: Callable[[], None] | None = None, is_poll: bool = False) -> None:
        """Leave the request without an answer until `answer` is called; `on_lost` is, if the client goes away first.

        Without it a client that has said all it has to say, and has closed its half of the connection, is answered.
        `is_poll`: it waits for news that may never come, so nobody waits for its answer before the server ends.
        """
        self._on_lost = on_lost
        self._is_poll = is_poll
        self._parked = self._busy = True
        self.connection.deadline = 0.0

    def take(self) -> Connection:
        """The connection, for who is about to upgrade it."""
        return self.connection

    def upgrade(self, receiver: Any, head: bytes) -> Connection:
        """Send `head` and speak another protocol from here on; its receiver is the connection's."""
        self._taken = True
        connection = self.connection
        connection.deadline = 0.0
        connection.receiver = receiver
        self._server.forget(connection)
        connection.write(head)
        return connection

    def returned(self, start_response: Callable[..., Any]) -> tuple[()]:
        """Return what the app returns for a request that was parked or upgraded."""
        return ()

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the request that was parked. To be called once; no harm if the client is gone."""
        known, request, response = self._known, self._request, self._response
        if known is not None:
            self._known = None
            self.connection.write(whole_head(known, status, headers, len(body)) + body)
            self._go_on(known.keep_alive)
        elif request is not None and response is not None:
            self._on_lost = None
            request.keep_alive &= not self.is_last
            response.start(status, headers)
            response.send_whole(body)
            self._finish_request(request, response)
        else:
            return
        with self._lock:
            self._busy = False
            more = bool(self._early or self._ended or self._parser.requests or self._refused)
        if more:
            self.connection.run_soon()

    def is_owed(self) -> bool:
        """Whether the client has begun a request and has not got its answer; polls do not count."""
        if self._parked and self._busy:
            return not self._is_poll
        begun = self._parser.phase != "idle" or self._early or self._waits() or self._request is not None
        return bool(begun or self._known is not None or self._refused or self.connection.backlog)

    def hurry(self) -> None:
        """Take one request, which is to come at once: there are so many connections that this one may not stay."""
        self.is_last = True
        self.connection.deadline = time.monotonic() + HURRY_SECONDS

    def leave(self) -> None:
        """End the connection, once no request is under way; one that has only begun to come is refused."""
        self._expired = True
        self.connection.run_soon()

    # How it goes on.

    def _keep_for_later(self, data: bytes) -> None:
        self._early += data
        if len(self._early) >= EARLY_BYTES:
            self.connection.read_on(False)

    def _count_read(self) -> None:
        """Put a visitor's connection behind pushes if it has sent much and no push."""
        if self._first_reads:
            self._first_reads -= 1
        elif self.connection.share is None:
            self.connection.share = self._server.share_of_peer(self.connection.peer)

    def _waits(self) -> bool:
        """Whether a request has not been answered yet, so that what comes behind it has to wait."""
        return self._busy or bool(self._parser.requests)

    def _read_early(self) -> None:
        """Read what came until the turn is over.

        It is read in pieces: no more requests are made of it than are answered, as each takes up a KiB.
        """
        was_full, ends_at = len(self._early) >= EARLY_BYTES, time.monotonic() + TURN_SECONDS
        while self._early and not self._waits() and not self.connection.closed:
            if self.connection.receiver is not self:
                rest, self._early = self._early, b""
                self._pass_on(rest)
                break
            with self._lock:
                piece, self._early = self._early[:PIECE_BYTES], self._early[PIECE_BYTES:]
            self._feed(piece)
            self._serve()
            if self._early and time.monotonic() > ends_at and self.connection.receiver is self:
                self.connection.yield_turn()
                break
        if was_full and len(self._early) < EARLY_BYTES and not self._ended:
            self.connection.read_on(True)

    def _feed(self, data: bytes) -> None:
        parser, before = self._parser, self._parser.phase
        try:
            parser.feed(data)
        except Refused as refused:
            self._refused = refused
        if parser.phase != before:
            self._set_deadline()

    def _set_deadline(self) -> None:
        """Give the client the time that what it is at may take."""
        limits, phase = self._limits, self._parser.phase
        if self.is_last and phase != "idle":
            return  # it has had all the time that there is
        seconds = limits.idle_timeout
        if phase != "idle":
            seconds = limits.header_timeout if phase == "header" else limits.body_timeout
        self.connection.deadline = time.monotonic() + seconds

    def _serve(self) -> None:
        """Answer what is complete, until an answer has to wait for something or the turn is over."""
        requests, connection, ends_at = self._parser.requests, self.connection, 0.0
        while requests and not self._busy and not connection.closed:
            path = requests[0].environ["PATH_INFO"]
            share = self._server.share_of(requests[0].environ)
            if self._server.has_to_wait(path, share):
                connection.poller.call_later(WAIT_SECONDS, connection.run_soon)
                return
            if share is not None and connection.share is None and connection.poller.has_urgent_work():
                connection.share = share
                connection.yield_turn()
                return
            connection.share = share
            began = time.monotonic()
            self._answer(requests.popleft())
            now = time.monotonic()
            self._server.note_time(path, now - began)
            if self._taken:
                return
            if share is not None or not self._parked:  # no push was accepted
                connection.share = self._server.share_of_peer(connection.peer)
            if connection.backlog > AHEAD_BYTES and not self._parked:
                self._busy = True
            ends_at = ends_at or began + TURN_SECONDS
            if requests and now > ends_at:
                connection.yield_turn()
                return
        if self._busy or self.connection.closed:
            return
        if self._refused is not None:
            self._refuse(self._refused)
        elif not self._early:
            if self._parser.wants_continue and self._parser.phase == "body":
                self.connection.write(CONTINUE)
            self._parser.wants_continue = False
            if self._ended:
                self.connection.finish()

    def _answer(self, request: Request) -> None:
        environ = request.environ
        environ[KEY] = self
        request.keep_alive &= not self.is_last
        self.connection.deadline = 0.0  # the app may take its time
        self._request, self._parked, self.user = request, False, "-"
        self._response = response = Response(self.connection, request, self._limits.send_timeout)
        try:
            result = self._app(environ, response.start)
            if self._parked or self._taken:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
                if self._taken:
                    self._hand_over()
            elif response.deliver(result):
                self._finish_request(request, response)
            else:
                self._stall()
        except Exception:
            self._fail(response)

    def _pump(self, response: Response) -> None:
        """Go on with an answer that was too much to send at once."""
        request = self._request
        try:
            if request is not None and not response.pump():
                self._stall()
                return
        except Exception:
            self._fail(response)
        self._busy = False
        if request is not None:
            self._finish_request(request, response)

    def _stall(self) -> None:
        self._busy = True
        self.connection.deadline = time.monotonic() + self._limits.send_timeout

    def _finish_request(self, request: Request, response: Response) -> None:
        self._request = self._response = None
        if self._server.access_log is not None:
            self._server.log_access(request, response, self.user)
        if request.spilled:
            request.environ["wsgi.input"].close()
        self._go_on(request.keep_alive)

    def _go_on(self, keep_alive: bool) -> None:
        if keep_alive and not self._server.ending:
            self._set_deadline()  # it may have sent the beginning of its next request already
        else:
            self._finish()

    def _finish(self) -> None:
        """End the connection when its answer has been sent, for which the client is not waited for without end."""
        self.connection.deadline = time.monotonic() + self._limits.send_timeout
        self.connection.finish()

    def _fail(self, response: Response) -> None:
        log.exception("the app failed")
        response.close()
        if not response.head_sent:
            self.connection.write(plain_answer("500 Internal Server Error", INTERNAL_ERROR))
        self._finish()

    def _hand_over(self) -> None:
        """Give what came behind the request to the receiver of the new protocol."""
        rest = self._parser.upgrade_rest
        self._parser.close()
        self._request = self._response = None
        self._pass_on(rest)

    def _pass_on(self, rest: bytes | None) -> None:
        """Give the receiver of the new protocol what came for it; also the end, where that came before its time."""
        receiver = self.connection.receiver
        if rest:
            receiver.received(rest)
        if self._ended and not self._early:
            receiver.ended()

    def _give_up(self) -> None:
        """The deadline has passed: say so to who is in the middle of a request, and leave who is not."""
        if self._parser.phase == "idle":
            self.connection.finish()
        elif self._server.ending:
            message = "the relay is going down: what was asked is not done; ask again later"
            self._refuse(Refused("503 Service Unavailable", "draining", message))
        elif self.is_last:
            self._refuse(Refused("503 Service Unavailable", "too_many_connections", NO_ROOM))
        else:
            what = f"{self._parser.phase}_timeout"
            seconds = getattr(self._limits, what)
            message = f"the request must be complete within {seconds:g} seconds (setting {what})"
            self._refuse(Refused("408 Request Timeout", "request_timeout", message))

    def _refuse(self, refused: Refused) -> None:
        connection = self.connection
        self._server.note_refusal(connection.peer, refused)
        self._refused = None
        self._parser.close()
        again = f"Retry-After: {retry_after()}\r\n" if refused.status.startswith("503") else ""
        connection.write(plain_answer(refused.status, refused.body, again))
        connection.receiver = lingering = Lingering(connection, self._server)
        if not connection.backlog:
            lingering.proceed()


class Lingering:
    """What is spoken after a refusal: nothing. It reads until the client has read the answer and closes."""

    __slots__ = ("_left", "_server", "connection")

    def __init__(self, connection: Connection, server: Any):
        self.connection = connection
        self._server = server
        self._left = LINGER_BYTES
        connection.deadline = time.monotonic() + LINGER_SECONDS

    def received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.connection.finish()

    def resume(self) -> None:
        """Nothing is left to do: what came before the refusal has been answered."""

    def proceed(self) -> None:
        self.connection.shut_down()

    def ended(self) -> None:
        self.connection.finish()

    def expired(self) -> None:
        self.connection.abort(TRANSPORT_CLOSE)

    def lost(self, reason: str) -> None:
        self._server.forget(self.connection)
