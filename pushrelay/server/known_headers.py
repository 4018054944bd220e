"""Headers that were parsed before, by their bytes: a program that pushes sends the same header again and again.

A header is recognized only between two requests, and only if its whole body came with it. Headers with a query, a
cookie, an upgrade or an Expect are never kept.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Take = Callable[[bytes, Any], bool]  # called with a body and the Conversation; answers, or returns False
Shortcut = Callable[[dict[str, Any]], Take | None]  # called with the environ of a header: see server.Server

# These are the bounds for one server; a kept header of this size costs some 2 KiB.
REMEMBERED_BYTES = 1024
REMEMBERED_HEADERS = 256


class KnownHeads:
    """Heads of the responses to requests with one header, by the length of the body.

    They are valid for one status, one tuple of headers (the same object), and the second in which they were made,
    because they have a Date. For any other response a thread makes new KnownHeads, so no head can be used wrongly.
    """

    __slots__ = ("_ends_at", "_headers", "_status", "by_length")

    def __init__(self, status: str, headers: Sequence[tuple[str, str]]):
        self._status = status
        self._headers = headers
        self._ends_at = time.monotonic() + 1 - time.time() % 1  # monotonic, in case the clock is set
        self.by_length: dict[int, bytes] = {}

    def are_for(self, status: str, headers: Sequence[tuple[str, str]]) -> bool:
        """Return whether a response with this status and these headers has one of these heads now."""
        return status is self._status and headers is self._headers and time.monotonic() < self._ends_at


class KnownHeader:
    """A header that was parsed before."""

    __slots__ = ("environ", "heads", "keep_alive", "length", "take", "version")

    def __init__(self, environ: dict[str, Any], version: str, keep_alive: bool, length: int):
        self.environ = environ  # without the body; the entries of the peer are replaced for each request
        self.version = version
        self.keep_alive = keep_alive
        self.length = length  # of the body
        self.take: Take | None = None  # the app's shortcut for such requests, if it has one
        self.heads = KnownHeads("", ())


class KnownHeaders:
    """The known headers of a server. `shortcut(environ)` is called for each header that is added."""

    def __init__(self, shortcut: Shortcut | None = None):
        self.by_bytes: dict[bytes, KnownHeader] = {}
        self._shortcut = shortcut
        self._lock = threading.Lock()  # held while they are changed

    def add(self, data: bytes, known: KnownHeader) -> None:
        """Remember a header."""
        with self._lock:
            if len(self.by_bytes) >= REMEMBERED_HEADERS:
                self.by_bytes.clear()
            if self._shortcut is not None:
                known.take = self._shortcut(known.environ)
            self.by_bytes[data] = known

    def forget(self) -> None:
        """Forget all headers. Once this returns, all shortcuts are new: their function was called after this call."""
        with self._lock:
            self.by_bytes.clear()
