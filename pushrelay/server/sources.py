"""The work that a poller does: for sockets, and at given times."""

from collections.abc import Callable
from typing import Any, Protocol


class Runnable(Protocol):
    """Work for the poller; `share` is None if it goes before others."""

    share: str | None

    def run(self) -> None:
        """Do the work, or one turn of it."""


class Source(Runnable, Protocol):
    """A socket that the poller can watch."""

    hung_up: bool  # set by the poller, before it runs the source: the other side sends no more

    def fileno(self) -> int:
        """Return the file descriptor."""


class Timer:
    """A call that is due at a time on the monotonic clock, or when there is nothing else to do."""

    share: str | None = None

    __slots__ = ("_args", "_callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[..., Any], args: tuple[Any, ...]):
        self.deadline = deadline
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def cancel(self) -> None:
        """Prevent the call. Any thread may do this, even if it is too late."""
        self._callback, self._args = None, ()

    def run(self) -> None:
        """Make the call, once."""
        callback, args = self._callback, self._args
        self._callback, self._args = None, ()
        if callback is not None:
            callback(*args)
