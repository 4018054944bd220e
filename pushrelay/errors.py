"""What the relay answers when it does not do what it was asked."""

from collections.abc import Callable
from typing import NoReturn


class Refused(Exception):
    """A request that is not carried out; nothing of it was.

    `status` is the HTTP status, `error` a word for programs, `message` a sentence for people that says what to do.
    """

    def __init__(self, status: int, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message

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
