"""What the relay answers when it does not do what it was asked."""

from collections.abc import Callable, Sequence
from typing import NoReturn

# What HTTP's own errors mean here.
HELP = {
    404: "there is nothing here: POST pushes to /push, and connect with Socket.IO at /socket.io/",
    405: "this address does not take that method: the Allow header says which it takes",
    500: "the relay failed at this, and its log says why: the request may be sent again",
}


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


class Awaited(BaseException):
    """What is needed for an answer is not there yet. `then(callback)` has it called when it is, by some thread.

    It is no error, so nothing that handles errors may take it on its way up to who can wait: RoomManager.receive.
    """

    def __init__(self, then: Callable[[Callable[[], None]], None]):
        super().__init__()
        self.then = then
