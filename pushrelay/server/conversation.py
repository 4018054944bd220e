"""HTTP/1.1 on one connection: each request goes to the app and each response back, in order.

An app may also *park* its request: it returns, no thread waits, and any thread answers later. Or it takes the
connection over for another protocol. It finds the conversation in the environ, under `pushrelay.http`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pushrelay.log.access_log import CLIENT_LEFT

from .connection import SLOW, TRANSPORT_CLOSE, Connection, Receiver
from .fair_queue import TURN_SECONDS
from .host import KEY, Host
from .known_headers import KnownHeader, Take
from .lingering import send_last
from .request import Parser, Request
from .request_error import RequestError, late_error
from .response import AHEAD_BYTES, INTERNAL_ERROR, Response, error_response, whole_head

log = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WAIT_SECONDS = 0.02  # until the next attempt to serve a request that must not have the last free thread
EARLY_BYTES = 65536  # that a client may send ahead while its request is answered; then nothing more is read
ONE_REQUEST_SECONDS = 3.0  # for the request on a connection that may have only one
PIECE_BYTES = 4096  # parsed at a time: 150 of the shortest requests, or 1 ms of work
FIRST_READS = 4  # for which a new connection goes before visitors: a push and its body arrive in two or three


class Conversation:
    """The receiver of a connection that speaks HTTP."""

    # The rest of what engine.carrier.Carrier needs: clients hold no thread here, and WebSockets always work.
    threads = None
    websockets = True

    __slots__ = (
        "_app",
        "_busy",
        "_early",
        "_ended",
        "_error",
        "_expired",
        "_first_reads",
        "_is_poll",
        "_known",
        "_limits",
        "_on_lost",
        "_parked",
        "_parser",
        "_request",
        "_response",
        "_server",
        "_taken",
        "connection",
        "is_last",
    )

    def __init__(self, connection: Connection, server: Host):
        self.connection = connection
        self._server = server
        self._app = server.app
        self._limits = server.limits
        self._parser: Parser = server.parser(connection)
        self._error: RequestError | None = None  # answered after the requests that came before it
        self._ended = False  # the client sends no more
        self._expired = False
        self._taken = False  # the app has upgraded it to another protocol
        self._first_reads = FIRST_READS  # the number that is left
        self.is_last = False  # the next response ends the connection
        # The request that is being answered.
        self._known: KnownHeader | None = None  # set if the app's shortcut took it, without a Request or Response
        self._request: Request | None = None
        self._response: Response | None = None
        self._busy = False  # its response is not complete, though no thread works on it
        self._parked = False  # `answer` will respond, not the app's return
        self._is_poll = False  # it was parked until there is news, which may never come
        self._on_lost: Callable[[], None] | None = None  # called if the client disconnects while it is parked
        self._early = b""  # bytes that came in the meantime; only the owner changes them
        connection.deadline = time.monotonic() + server.limits.header_timeout

    # The receiver.

    def received(self, data: bytes) -> None:
        """Handle bytes from the client."""
        parser = self._parser
        # If there are early bytes and no request is in progress, proceed() is about to be called.
        if self._busy or self._early or parser.requests:
            self._keep_for_later(data)
            return
        known = parser.recognize(data)
        # The shortcut may have the last free thread. The header of the last response is an unusual one.
        if known is not None and known.take is not None and not self.is_last and self._take(known, known.take, data):
            return
        if known is None or self.connection.poller.is_short() or self._is_out_of_place(known):
            self._early = data
            self._count_read()
            self._read_early()
        else:
            self._answer(parser.request_of(known, data))
            if not self._parked:  # as in _serve()
                self.connection.share = self._server.share_of_peer(self.connection.peer)
                self._busy = self._busy or self.connection.backlog > AHEAD_BYTES

    def _is_out_of_place(self, known: KnownHeader) -> bool:
        """Return whether a visitor's request came on a connection that goes before visitors, or a push on another."""
        return (self._server.share_of(known.environ) is None) != (self.connection.share is None)

    def _take(self, known: KnownHeader, take: Take, data: bytes) -> bool:
        """Offer the request to the app's shortcut; return whether it took it."""
        self._known = known
        if take(data[-known.length :] if known.length else b"", self):
            self.connection.share = None
            return True
        self._known = None
        return False

    def resume(self) -> None:
        """Continue with the requests that were left at the end of the turn."""
        if not self._busy:
            self._serve()
            self._read_early()

    def proceed(self) -> None:
        """Continue after the outbox has been sent, a request has been answered, or the deadline has passed."""
        if self._expired and not self._busy and self._gives_up():
            return
        if self._busy and not self._parked:
            if self._response is not None:
                self._pump(self._response)
            else:
                self._busy = False
        self.resume()

    def ended(self) -> None:
        """End the connection, unless the client still waits for a response."""
        self._ended = True
        if self._on_lost is not None:
            self.connection.abort(TRANSPORT_CLOSE)
        elif self._waits() or self._early:
            self.connection.set_reading(False)  # it may have closed only its half, and still read the response
        else:
            self.connection.finish()

    def expired(self) -> None:
        """End the connection: the client was too slow to send its request or to read the response."""
        if self._busy or self.connection.backlog:
            self.connection.abort(SLOW)
        else:
            self._expired = True
            self.connection.run_soon()

    def lost(self, reason: str) -> None:
        """Drop the request: its client is gone."""
        self._server.forget(self.connection)
        self._parser.close()
        self._error = None  # its traceback refers to this conversation
        on_lost, self._on_lost = self._on_lost, None
        response, self._response = self._response, None
        self._server.log_access(self._request, CLIENT_LEFT, 0 if response is None else response.sent)
        self._request = self._known = None
        if on_lost is not None:
            on_lost()
        elif response is not None:
            response.close()

    def stuck(self) -> None:
        """Record that the app blocks a thread with this request. The watchdog calls this."""
        if (request := self._request) is not None:
            self._server.paths.mark_slow(request.environ["PATH_INFO"])

    # For the app, while it handles the request.

    def park(self, on_lost: Callable[[], None] | None = None, is_poll: bool = False) -> None:
        """Let the app return without a response until another thread calls `answer`.

        `on_lost()` is called if the client disconnects first. Without it, a client that has closed its half of the
        connection still gets its response. With `is_poll` the request waits for news that may never come, so the server
        does not wait for it when it drains.
        """
        self._on_lost = on_lost
        self._is_poll = is_poll
        self._parked = self._busy = True
        self.connection.deadline = 0.0

    def take(self) -> Connection:
        """Return the connection, for an app that is about to upgrade it."""
        return self.connection

    def upgrade(self, receiver: Receiver, head: bytes) -> Connection:
        """Send `head`, and hand the connection over to the receiver of another protocol."""
        self._taken = True
        connection = self.connection
        connection.deadline = 0.0
        connection.receiver = receiver
        self._server.forget(connection)
        connection.write(head)
        return connection

    def returned(self, start_response: Callable[..., Any]) -> tuple[()]:
        """Return what the app must return for a request that it parked or upgraded."""
        return ()

    # Any thread.

    def answer(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer the parked request, once. Does nothing if the client is gone."""
        known = self._known
        if known is not None:
            self._known = None
            self.connection.write(whole_head(known, status, headers, len(body)) + body)
            if known.keep_alive and not self._server.ending:
                self.connection.deadline = time.monotonic() + self._limits.idle_timeout
            else:
                self._finish()
        elif not self._answer_parked(status, headers, body):
            return
        # Without a lock: `received` adds to `_early` before it checks `_busy`, so one of the two sees the other.
        self._busy = False
        if self._early or self._ended or self._parser.requests or self._error:
            self.connection.run_soon()

    def _answer_parked(self, status: str, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
        """Answer a request that the app has parked; return whether there was one."""
        request, response = self._request, self._response
        if request is None or response is None:
            return False
        self._on_lost = None
        request.keep_alive &= not self.is_last
        response.start(status, headers)
        response.send_whole(body)
        self._finish_request(request, response)
        return True

    def is_owed(self) -> bool:
        """Return whether the client has begun a request that is not answered yet; polls do not count."""
        if self._parked and self._busy:
            return not self._is_poll
        begun = self._parser.phase != "idle" or self._early or self._waits() or self._request is not None
        return bool(begun or self._known is not None or self._error or self.connection.backlog)

    def allow_one_request(self) -> None:
        """Serve one request, which must come at once: too many connections are open for this one to stay."""
        self.is_last = True
        self.connection.deadline = time.monotonic() + ONE_REQUEST_SECONDS

    def end_soon(self) -> None:
        """End the connection once no request is in progress; an incomplete request is rejected."""
        self._expired = True
        self.connection.run_soon()

    # The course of requests.

    def _keep_for_later(self, data: bytes) -> None:
        """Keep bytes that came while a request is in progress."""
        self._early += data
        if len(self._early) >= EARLY_BYTES:
            self.connection.set_reading(False)
        if not self._waits():  # the request was answered just now, maybe before these bytes could be seen
            self.connection.run_soon()

    def _count_read(self) -> None:
        """Put a connection into the share of its visitor once it has sent much data and no push."""
        if self._first_reads:
            self._first_reads -= 1
        elif self.connection.share is None:
            self.connection.share = self._server.share_of_peer(self.connection.peer)

    def _waits(self) -> bool:
        """Return whether a request is not answered yet, so that the bytes after it must wait."""
        return self._busy or bool(self._parser.requests)

    def _read_early(self) -> None:
        """Parse early bytes until the turn is over, in pieces so that few requests wait: each takes up a KiB."""
        was_full, ends_at = len(self._early) >= EARLY_BYTES, time.monotonic() + TURN_SECONDS
        while self._early and not self._waits() and not self.connection.closed:
            if self.connection.receiver is not self:
                rest, self._early = self._early, b""
                self._pass_on(rest)
                break
            piece, self._early = self._early[:PIECE_BYTES], self._early[PIECE_BYTES:]
            self._feed(piece)
            self._serve()
            if self._early and time.monotonic() > ends_at and self.connection.receiver is self:
                self.connection.yield_turn()
                break
        if was_full and len(self._early) < EARLY_BYTES and not self._ended:
            self.connection.set_reading(True)

    def _feed(self, data: bytes) -> None:
        """Parse a piece, and set the deadline for the next part of the request."""
        parser, before = self._parser, self._parser.phase
        try:
            parser.feed(data)
        except RequestError as error:
            self._error = error
        if parser.phase != before:
            self._set_deadline()

    def _set_deadline(self) -> None:
        """Set the deadline for the part of a request that the client is sending."""
        limits, phase = self._limits, self._parser.phase
        if self.is_last and phase != "idle":
            return  # ONE_REQUEST_SECONDS, or the end of the server, set the deadline
        seconds = limits.idle_timeout if phase == "idle" else getattr(limits, f"{phase}_timeout")
        self.connection.deadline = time.monotonic() + seconds

    def _serve(self) -> None:
        """Answer the complete requests, until one must wait or the turn is over."""
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
            self._server.paths.record(path, now - began)
            if self._taken:
                return
            if share is not None or not self._parked:  # this was not an accepted push
                connection.share = self._server.share_of_peer(connection.peer)
            if connection.backlog > AHEAD_BYTES and not self._parked:
                self._busy = True
            ends_at = ends_at or began + TURN_SECONDS
            if requests and now > ends_at:
                connection.yield_turn()
                return
        if self._busy or self.connection.closed:
            return
        if self._error is not None:
            self._reject(self._error)
        elif not self._early:
            if self._parser.wants_continue and self._parser.phase == "body":
                self.connection.write(CONTINUE)
            self._parser.wants_continue = False
            if self._ended:
                self.connection.finish()

    def _answer(self, request: Request) -> None:
        """Call the app, and send its response unless it parked the request or upgraded the connection."""
        environ = request.environ
        environ[KEY] = self
        request.keep_alive &= not self.is_last
        self.connection.deadline = 0.0  # the app may take its time
        self._request, self._parked = request, False
        if self._server.access_log is not None:
            self._server.access_log.begin(environ)
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
            self._server.log_access(request, 500, response.sent)
            self._request = self._response = None
            self._fail(response)

    def _pump(self, response: Response) -> None:
        """Continue with a response that was too large to send at once."""
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
        """Wait until the client has read some of a large response."""
        self._busy = True
        self.connection.deadline = time.monotonic() + self._limits.send_timeout

    def _finish_request(self, request: Request, response: Response) -> None:
        self._request = self._response = None
        self._server.log_access(request, int((response.status or "0")[:3]), response.sent)
        if request.spilled:
            request.environ["wsgi.input"].close()
        if request.keep_alive and not self._server.ending:
            self._set_deadline()  # it may have sent the beginning of its next request already
        else:
            self._finish()

    def _finish(self) -> None:
        """End the connection once the response is sent, or after send_timeout if the client does not read it."""
        self.connection.deadline = time.monotonic() + self._limits.send_timeout
        self.connection.finish()

    def _fail(self, response: Response) -> None:
        log.exception("the app failed")
        response.close()
        if not response.head_sent:
            self.connection.write(error_response("500 Internal Server Error", INTERNAL_ERROR))
        self._finish()

    def _hand_over(self) -> None:
        """Pass the bytes after the request to the receiver of the new protocol."""
        self._parser.close()
        self._server.log_access(self._request, 101, 0)
        self._request = self._response = None
        self._pass_on(self._parser.upgrade_rest)

    def _pass_on(self, rest: bytes | None) -> None:
        """Pass bytes to the receiver of the new protocol, and the end if it has already come."""
        receiver = self.connection.receiver
        if rest:
            receiver.received(rest)
        if self._ended and not self._early:
            receiver.ended()

    def _gives_up(self) -> bool:
        """End a connection whose deadline has passed. Return False if what the client sent still waits for its turn."""
        if (self._early or self._parser.requests) and not self._server.ending:
            self._expired = False
            self.connection.deadline = time.monotonic() + ONE_REQUEST_SECONDS
            return False
        if self._parser.phase == "idle":
            self.connection.finish()
        else:
            self._reject(late_error(self._parser.phase, self._limits, self._server.ending, self.is_last))
        return True

    def _reject(self, error: RequestError) -> None:
        """Send an error, read nothing more, and end the connection."""
        self._server.log_rejection(self.connection.peer, error)
        self._error = None
        self._parser.close()
        send_last(self.connection, error, partial(self._server.forget, self.connection))
