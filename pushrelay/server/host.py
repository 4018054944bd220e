"""The interface between the server, the conversations on its connections, and the app."""

from collections.abc import Callable
from typing import Any, Protocol

from pushrelay.log.access_log import AccessLog

from .connection import Connection
from .path_times import PathTimes
from .request import Limits, Parser, Request
from .request_error import RequestError
from .response import WSGIApp

KEY = "pushrelay.http"  # the environ's key for the conversation of a request


class Host(Protocol):
    """A server, as its conversations see it. Any thread may call it."""

    app: WSGIApp
    limits: Limits
    paths: PathTimes
    ending: bool  # each connection ends as soon as it has no request in progress
    access_log: AccessLog | None
    share_of: Callable[[dict[str, Any]], str | None]  # the share in which a request waits for its turn

    def parser(self, connection: Connection) -> Parser:
        """Return a parser for this connection's requests."""

    def share_of_peer(self, peer: Any) -> str | None:
        """Return the share of a connection that has sent no push; None if pushes or other visitors may come on it."""

    def has_to_wait(self, path: str, share: str | None) -> bool:
        """Return whether a request must wait for a thread, because it must not take the last free one."""

    def forget(self, connection: Connection) -> None:
        """Forget a connection that no longer speaks HTTP."""

    def log_access(self, request: Request | None, status: int, sent: int) -> None:
        """Log a request that was answered, if there is an access log. Does nothing without a request."""

    def log_rejection(self, peer: Any, error: RequestError) -> None:
        """Log the address of a connection whose request cannot be read, and why."""
