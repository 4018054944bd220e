"""What the relay answers when it does not do what it was asked."""

from collections.abc import Callable, Sequence
from typing import NoReturn

# What HTTP's own errors mean here. An error that is not listed gets OTHER_ERROR, never a library's own sentence.
HELP = {
    400: "the relay cannot read this request: check its headers and its address",
    404: "there is nothing here: POST pushes to /push, and connect with Socket.IO at /socket.io/",
    405: "this address does not take that method: the Allow header says which it takes",
    408: "the request did not come in time: send it again",
    413: "the request is too large: send less",
    414: "the address is too long: send parameters in the body of a POST",
    415: "this address does not take that type of content: send a form or JSON",
    431: "the header is too large: send less, fewer cookies for example",
    500: "the relay failed at this, and its log says why: the request may be sent again",
    501: "the relay does not know this method: use GET, POST or DELETE",
}
OTHER_ERROR = "the relay cannot answer this request: check its method, its headers and its address"


class Refused(Exception):
    """A request that is not carried out; nothing of it was.

    `status` is the HTTP status, `error` a word for programs, `message` a sentence for people that says what to do.
    `headers` go with the answer over HTTP.
    """

    def __init__(self, status: int, error: str, message: str, headers: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers

    def body(self) -> dict[str, str]:
        return {"error": self.error, "message": self.message}


def bad(error: str, message: str) -> NoReturn:
    """Refuse bad input."""
    raise Refused(400, error, message)


class StoreError(Exception):
    """The store did not take what it was given, or cannot be read.

    The text is for the log, the start and callers on this machine: what happened and what to do, with the file's path.
    `public` is what everybody else may read: no path and no other program's words.
    """

    def __init__(self, message: str, public: str = "the relay's log has the reason"):
        super().__init__(message)
        self.public = public


class StoreInUse(StoreError):
    """Another relay uses the store. It may be the one before this, about to end."""


class NotYet(BaseException):
    """Raised by a handler of an event that needs something which is not known yet, such as PHP's answer.

    The packet then waits, and no thread does: a few threads that wait for PHP, which may itself wait for a push to the
    relay, would stop all service. When some thread calls the callback given to `call_when_ready(callback)`, the packet
    is handled again from its beginning, so a handler must be repeatable up to the line that raises this. `cancel()` is
    called instead if the client disconnects first. See rooms.deferred.

    It is not an Exception, so that no handler of errors takes it on its way up to RoomManager.
    """

    def __init__(
        self, call_when_ready: Callable[[Callable[[], None]], None], cancel: Callable[[], None] = lambda: None
    ):
        super().__init__()
        self.call_when_ready = call_when_ready
        self.cancel = cancel
