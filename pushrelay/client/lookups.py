"""Lookups of host names that end by a deadline, even if no name server answers.

The system's own lookup takes no time limit: with two name servers that do not answer it takes 20 seconds. So a thread
of its own does it. Whoever asks for a name that is being looked up waits for that lookup, so there is at most one such
thread for each name.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from pushrelay.addresses import ip_of

Resolve = Callable[[str, int], list[str]]  # raises OSError and UnicodeError


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, in the system's order of preference. Raises OSError and UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Lookups:
    """Looks up host names with `resolve`. Any thread may call it."""

    def __init__(self, resolve: Resolve = resolve):
        self._resolve = resolve
        self._lock = threading.Lock()  # over what follows
        self._running: dict[tuple[str, int], Future[list[str]]] = {}

    def addresses(self, host: str, port: int, deadline: float) -> list[str]:
        """Return the IP addresses of a host; at least one. An IP address is its own.

        Raises TimeoutError at `deadline` (monotonic), OSError, and UnicodeError for what cannot be a name.
        """
        if ip_of(host) is not None:
            return [host]
        key = host, port
        with self._lock:
            lookup = self._running.get(key)
            if lookup is None:
                lookup = self._running[key] = self._start(key)
        return lookup.result(max(0.0, deadline - time.monotonic()))

    def _start(self, key: tuple[str, int]) -> "Future[list[str]]":
        lookup: Future[list[str]] = Future()
        try:
            threading.Thread(target=self._run, args=(key, lookup), name="lookup", daemon=True).start()
        except RuntimeError as error:
            raise OSError("the system has no more threads") from error
        return lookup

    def _run(self, key: tuple[str, int], lookup: "Future[list[str]]") -> None:
        try:
            found: list[str] | Exception = self._resolve(*key)
        except Exception as error:
            found = error
        with self._lock:
            del self._running[key]
        if isinstance(found, Exception):
            lookup.set_exception(found)
        else:
            lookup.set_result(found)


LOOKUPS = Lookups()  # of this process
