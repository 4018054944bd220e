"""Handlers of the relay's own Socket.IO events: their result, or the reason for a refusal, is the acknowledgement."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from pushrelay.answers import failure, store_refusal
from pushrelay.errors import Refused, StoreError
from pushrelay.json_text import encode
from pushrelay.log.refusals import RefusalLog

log = logging.getLogger(__name__)

Handler = Callable[[Any, str, dict[str, Any]], dict[str, Any]]  # message, sid, and the environ of the socket
LateHandler = Callable[[Any, str, dict[str, Any], "Reply"], None]
# As packet_dispatch calls it: sid, message, and the number of the acknowledgement that the client asked for.
Answered = Callable[[str, Any, int | None], Any]


class Server(Protocol):
    """The part of a socketio.Server that this uses."""

    manager: Any
    not_handled: Any  # what a handler returns so that no acknowledgement is sent

    def on(self, event: str, handler: Any) -> Any:
        """Make `handler` the handler of this event."""

    def get_environ(self, sid: str) -> dict[str, Any] | None:
        """Return the environ of a socket's handshake, or None if the socket has left."""


class Reply:
    """The acknowledgement of one event, which some thread sends later. Call send() or refuse() once.

    Nothing is sent if the client has disconnected; send() sends nothing if it asked for no acknowledgement.
    """

    __slots__ = ("_ack", "_event", "_refusals", "_sid")

    def __init__(self, refusals: "Refusals", event: str, sid: str, ack: int | None):
        self._refusals = refusals
        self._event = event
        self._sid = sid
        self._ack = ack

    def send(self, text: str) -> None:
        """Send the answer, the JSON text of an object."""
        if self._ack is not None:
            self._refusals.server.manager.send_answer(text, self._sid, self._ack)

    def refuse(self, error: Refused) -> None:
        """Count and log a refusal, and send it as the answer, or as `relay_error` if none was asked for."""
        environ = self._refusals.server.get_environ(self._sid)
        if environ is not None:
            self.send(encode(self._refusals.noted(environ, self._event, error, self._sid, self._ack)))


class Refusals:
    """Refusals of events: they are counted, logged, and sent to clients that asked for no acknowledgement."""

    def __init__(self, server: Server, refusal_log: RefusalLog):
        self.server = server
        self._log = refusal_log

    def noted(self, environ: dict[str, Any], event: str, error: Refused, sid: str, ack: int | None) -> dict[str, Any]:
        """Count and log an error, and return what the client gets as its acknowledgement."""
        self._log.log_event(environ, event, error, sid)
        answer = {"ok": False, **error.body()}
        if ack is None:
            self.server.manager.emit("relay_error", answer, "/", room=sid)
        return answer


class Events:
    """Registers the handlers of the relay's own events, in namespace "/" of `server`.

    A refusal is also emitted as `relay_error` if the client asked for no acknowledgement.
    """

    def __init__(self, server: Server, refusal_log: RefusalLog):
        self._server = server
        self._refusals = Refusals(server, refusal_log)

    def __call__(self, event: str, not_done: str = "nothing was done") -> Callable[[Handler], Answered]:
        """Return a decorator that registers a function `(message, sid, environ) -> answer` for `event`.

        `not_done` is the part of the error message that names what a failing store left undone.
        """

        def decorate(handler: Handler) -> Answered:
            return self._register(
                event,
                not_done,
                wraps(handler)(lambda message, sid, environ, ack: {"ok": True, **handler(message, sid, environ)}),
            )

        return decorate

    def late(self, event: str, not_done: str = "nothing was done") -> Callable[[LateHandler], Answered]:
        """Return a decorator for a function `(message, sid, environ, reply)` that answers with `reply`, maybe later.

        Until then it need not hold a thread, and the client's next packets are handled. It may raise a refusal too.
        """

        def decorate(handler: LateHandler) -> Answered:
            @wraps(handler)
            def handle(message: Any, sid: str, environ: dict[str, Any], ack: int | None) -> Any:
                handler(message, sid, environ, Reply(self._refusals, event, sid, ack))
                return self._server.not_handled

            return self._register(event, not_done, handle)

        return decorate

    def _register(self, event: str, not_done: str, handle: Callable[..., Any]) -> Answered:
        server, noted = self._server, self._refusals.noted

        @wraps(handle)
        def answered(sid: str, message: Any, ack: int | None) -> Any:
            environ = server.get_environ(sid)
            if environ is None:  # the client has just left
                return None
            try:
                return handle(message, sid, environ, ack)
            except Refused as error:
                return noted(environ, event, error, sid, ack)
            except StoreError as error:
                return noted(environ, event, store_refusal(error, not_done), sid, ack)
            except Exception:
                log.exception("the handler of %s failed", handle.__name__)
                return noted(environ, event, failure(), sid, ack)

        server.on(event, answered)
        return answered


def answering(server: Server, refusal_log: RefusalLog) -> Events:
    """Return the decorators for handlers of the relay's own events."""
    return Events(server, refusal_log)
