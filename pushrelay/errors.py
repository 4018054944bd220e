"""The errors that the relay answers with, and the sentences that explain HTTP's own errors."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

# Sentences for HTTP's own errors. All others get OTHER_ERROR: a library's text never reaches a client.
HELP = {
    400: "the relay cannot read this request: check its headers and its address",
    404: "there is nothing here: POST pushes to /push, and connect with Socket.IO at /socket.io/",
    405: "this address does not take that method: use one of those in the Allow header",
    408: "the request did not come in time: send it again",
    413: "the request is too large: send less",
    414: "the address is too long: send parameters in the body of a POST",
    415: "this address does not take that type of content: send a form or JSON",
    431: "the header is too large: send less, for example fewer cookies",
    500: "the relay failed and its log has the reason: you may send the request again",
    501: "the relay does not know this method: use GET, POST or DELETE",
}
# The codes of the relay's own refusals, for the metrics. All others, such as an app's own, count as one.
CODES = (
    *("answer_too_large", "auth_not_available", "bad_request", "conflict", "demo_not_shown", "disconnected"),
    *("id_reused", "incomplete_body", "internal_server_error", "invalid_action", "invalid_cookie", "invalid_data"),
    *("invalid_destination", "invalid_event", "invalid_except", "invalid_form", "invalid_id", "invalid_json"),
    *("invalid_length", "invalid_limit", "invalid_message", "invalid_name", "invalid_position", "invalid_request"),
    *("invalid_since", "invalid_token", "invalid_wait", "length_required", "method_not_allowed", "missing_cookie"),
    *("missing_data", "missing_destination", "missing_id", "missing_key", "missing_token", "no_request_url"),
    *("not_allowed", "not_found", "not_registered", "origin_not_allowed", "other_sender", "queue_full"),
    *("request_failed", "request_not_available", "request_timeout", "several_keys", "store_not_available"),
    *("token_expired", "too_fast", "too_large", "too_many_destinations", "too_many_events", "too_many_ids"),
    *("too_many_members", "too_many_pushes", "too_many_requests", "too_many_waiting", "unknown_field"),
    *("unknown_request", "unknown_url", "unsupported_media_type", "wrong_key", "wrong_server"),
)
OTHER_ERROR = "the relay cannot answer this request: check its method, its headers and its address"


class Refused(Exception):
    """A request or an event that is refused. No part of it was carried out.

    `status` is the HTTP status. `error` is a code for programs, such as "invalid_id"; codes never change. `message` is
    a sentence for people, with what to do. `headers` belong to the answer over HTTP.
    """

    is_logged = True  # in the relay's log

    def __init__(self, status: int, error: str, message: str, headers: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Return the JSON object that clients get."""
        return {"error": self.error, "message": self.message}


def bad(error: str, message: str) -> NoReturn:
    """Raise Refused (400) for bad input."""
    raise Refused(400, error, message)


class StoreError(Exception):
    """The store failed to keep a push, or cannot be read.

    The text is for the log, the terminal and callers on this machine: what happened and what to do, with the file's
    path. `public` is the text for everybody else. It contains no path and no text from another program.
    """

    def __init__(self, message: str, public: str = "the relay's log has the reason"):
        super().__init__(message)
        self.public = public


class NotKnown(StoreError):
    """The store did not confirm a push in time: it may be stored, or not. The texts are whole sentences."""


class Overtaken(StoreError):
    """A mark is not what its owner believes, because another owner has moved it. Nothing was stored."""


class StoreInUse(StoreError):
    """Another relay uses the store. It may be the previous process, which is about to end."""


class NotYet(BaseException):
    """Raised by an event handler that needs something not known yet, such as PHP's answer.

    The packet then waits, and no thread does: a few threads that wait for PHP, which may itself wait for a push to the
    relay, would stop all service. When some thread calls the callback given to `call_when_ready(callback)`, the packet
    is handled again from its beginning, so a handler must be repeatable up to the line that raises this. `cancel()` is
    called instead if the client disconnects first. See rooms.deferred.

    It is not an Exception, so that no error handler catches it on its way up to RoomManager.
    """

    def __init__(
        self, call_when_ready: Callable[[Callable[[], None]], None], cancel: Callable[[], None] = lambda: None
    ):
        super().__init__()
        self.call_when_ready = call_when_ready
        self.cancel = cancel
