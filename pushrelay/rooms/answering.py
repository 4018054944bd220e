"""Handlers of the relay's own Socket.IO events: their result, or the reason for a refusal, is the acknowledgement."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from pushrelay.answers import failure, store_refusal
from pushrelay.errors import Refused, StoreError
from pushrelay.log.refusals import RefusalLog

log = logging.getLogger(__name__)

Handler = Callable[[Any, str, dict[str, Any]], dict[str, Any]]  # message, sid, and the environ of the socket
Answered = Callable[[str, Any, bool], dict[str, Any] | None]  # as packet_dispatch calls it: sid, message, wants_answer


class Server(Protocol):
    """The part of a socketio.Server that this uses."""

    manager: Any

    def on(self, event: str, handler: Any) -> Any:
        """Make `handler` the handler of this event."""

    def get_environ(self, sid: str) -> dict[str, Any] | None:
        """Return the environ of a socket's handshake, or None if the socket has left."""


def answering(server: Server, refusal_log: RefusalLog) -> Callable[..., Callable[[Handler], Answered]]:
    """Return a decorator for handlers of the relay's own events, in namespace "/" of `server`.

    `@decorator(event, not_done)` registers a function `(message, sid, environ) -> answer` for `event`. `not_done` is
    the part of the error message that names what a failing store left undone. A refusal is also emitted as
    `relay_error` if the client asked for no acknowledgement.
    """

    def decorator(event: str, not_done: str = "nothing was done") -> Callable[[Handler], Answered]:
        def decorate(handler: Handler) -> Answered:
            def noted(environ: dict[str, Any], error: Refused, sid: str) -> dict[str, str]:
                """Count and log an error, and return what the client gets."""
                refusal_log.log_event(environ, event, error, sid)
                return error.body()

            @wraps(handler)
            def answered(sid: str, message: Any, wants_answer: bool) -> dict[str, Any] | None:
                environ = server.get_environ(sid)
                if environ is None:  # the client has just left
                    return None
                try:
                    return {"ok": True, **handler(message, sid, environ)}
                except Refused as error:
                    body = noted(environ, error, sid)
                except StoreError as error:
                    body = noted(environ, store_refusal(error, not_done), sid)
                except Exception:
                    log.exception("the handler of %s failed", handler.__name__)
                    body = noted(environ, failure(), sid)
                answer = {"ok": False, **body}
                if not wants_answer:
                    server.manager.emit("relay_error", answer, "/", room=sid)
                return answer

            server.on(event, answered)
            return answered

        return decorate

    return decorator
