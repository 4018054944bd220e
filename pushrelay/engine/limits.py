"""How many clients may be here: in all, and of one address."""

from collections.abc import Callable
from typing import Any

from pushrelay.server.quota import NO_ROOM, Quota

from .carrier import Carrier

ANY_NUMBER = 1 << 30


class LimitReached(Exception):
    """Nobody more gets in. `status` is the HTTP status, `error` a word for programs, the message names the setting."""

    def __init__(self, status: str, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


class ClientLimiter:
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
        self._quota = Quota(most, most_each)
        self.address_of = address_of

    def check(self, carrier: Carrier) -> None:
        """Raise LimitReached if the relay is going down, or if the client's connection ends with this answer."""
        if self.draining:
            raise LimitReached("503 Service Unavailable", "draining", "the relay is going down: connect again later")
        if carrier.is_last:
            raise LimitReached("503 Service Unavailable", "too_many_connections", NO_ROOM)

    def acquire(self, environ: dict[str, Any]) -> str | None:
        """Take a place for the client that shakes hands; returns what `leave` is to be told. Raises LimitReached."""
        counted = self.address_of(environ)
        lacking = self._quota.acquire(counted)
        if lacking:
            raise self._full(lacking)
        return counted

    def release(self, counted: str | None) -> None:
        """The client of `enter` is gone."""
        self._quota.release(counted)

    def _full(self, lacking: str) -> LimitReached:
        places = self._quota
        if lacking == "address":
            message = f"{places.limit_each} clients of this address are connected already (setting max_per_address)"
            return LimitReached("429 Too Many Requests", "too_many_of_address", message)
        why = "setting max_connections" if places.limit >= self._setting else "the limit on open files, ulimit -n"
        message = f"{places.limit} clients are connected already ({why}): connect again later"
        return LimitReached("503 Service Unavailable", "too_many_connections", message)
