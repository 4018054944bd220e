"""How many clients may be here: in all, and of one address."""

import secrets
import threading
from collections.abc import Callable
from typing import Any

# Whoever is refused comes back after a time of its own, so that not all of them come at once.
RETRY_SECONDS = range(2, 11)
ANY_NUMBER = 1 << 30
NO_ROOM = "all connections that the limit on open files (ulimit -n) allows are in use: try again later"


class Full(Exception):
    """Nobody more gets in. `status` is the HTTP status, `error` a word for programs, the message names the setting."""

    def __init__(self, status: str, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


def retry_after() -> str:
    """A value for the header Retry-After."""
    return str(secrets.choice(RETRY_SECONDS))


class Places:
    """So many places in all, and so many of them for one address. Any thread may call its methods."""

    def __init__(self, most: int, most_each: int):
        self.most = most
        self.most_each = most_each
        self.taken = 0
        self._by_address: dict[str, int] = {}
        self._lock = threading.Lock()  # over both

    def take(self, address: str | None) -> str:
        """Take a place, for an address where it is to be counted. Empty if there was one, else "all" or "address"."""
        with self._lock:
            if self.taken >= self.most:
                return "all"
            if address is not None:
                held = self._by_address.get(address, 0)
                if held >= self.most_each:
                    return "address"
                self._by_address[address] = held + 1
            self.taken += 1
        return ""

    def give_back(self, address: str | None) -> None:
        """Give a place back that was taken for the same address."""
        with self._lock:
            self.taken -= 1
            if address is not None:
                held = self._by_address.pop(address) - 1
                if held:
                    self._by_address[address] = held


class Admission:
    """The places for clients. Any thread may call it.

    `address_of(environ)` gives what the address of a handshake's client is counted as; None where it is not counted.
    """

    def __init__(
        self,
        most: int = ANY_NUMBER,
        most_each: int = ANY_NUMBER,
        setting: int | None = None,
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
    ):
        self.draining = False  # nobody gets in any more
        self._setting = most if setting is None else setting  # max_connections, which may be more than there can be
        self._places = Places(most, most_each)
        self.address_of = address_of

    def check(self, conversation: Any) -> None:
        """Raise Full where the relay is going down, or a client's connection (if it is ours) ends with this answer."""
        if self.draining:
            raise Full("503 Service Unavailable", "draining", "the relay is going down: connect again later")
        if conversation is not None and conversation.is_last:
            raise Full("503 Service Unavailable", "too_many_connections", NO_ROOM)

    def enter(self, environ: dict[str, Any]) -> str | None:
        """Take a place for the client that shakes hands; returns what `leave` is to be told. Raises Full."""
        counted = self.address_of(environ)
        lacking = self._places.take(counted)
        if lacking:
            raise self._full(lacking)
        return counted

    def leave(self, counted: str | None) -> None:
        """The client of `enter` is gone."""
        self._places.give_back(counted)

    def _full(self, lacking: str) -> Full:
        places = self._places
        if lacking == "address":
            message = f"{places.most_each} clients of this address are connected already (setting max_per_address)"
            return Full("429 Too Many Requests", "too_many_of_address", message)
        why = "setting max_connections" if places.most >= self._setting else "the limit on open files, ulimit -n"
        message = f"{places.most} clients are connected already ({why}): connect again later"
        return Full("503 Service Unavailable", "too_many_connections", message)
