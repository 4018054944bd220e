"""The limits on clients: how many there may be, in all and of one address, and how much each may send."""

from collections.abc import Callable
from typing import Any

from pushrelay.counters import Family, Values
from pushrelay.server.quota import NO_ROOM, Quota

from .carrier import Carrier

ANY_NUMBER = 1 << 30
# The burst that a client may send at once, in seconds of its rate: beyond this its events are refused.
BURST_SECONDS = 10.0
# Refused events and empty frames cost this part of an event. A client that keeps sending at ten times the allowed rate
# therefore runs up a debt; past FLOOD_SECONDS of its rate it is closed.
MINOR_COST = 0.1
FLOOD_SECONDS = 10.0
# Work beyond an event's own (see Session.charge) counts up to this debt, in seconds. So no client waits longer than
# this, even if its one replay was enormous.
MOST_OVERDRAFT = 30.0


class LimitReached(Exception):
    """No further client is accepted.

    `status` is the HTTP status, `error` the code for programs, and the message names the setting.
    """

    def __init__(self, status: str, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


class ClientLimiter:
    """Counts the clients, in all and by address. Any thread may call it."""

    def __init__(
        self,
        most: int = ANY_NUMBER,
        most_each: int = ANY_NUMBER,
        setting: int | None = None,
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
    ):
        """Allow `most` clients, and `most_each` of one address.

        `setting` is max_connections, which may be more than the system allows. `address_of(environ)` returns the
        address that the client of a handshake counts for; None if it counts for none.
        """
        self.draining = False  # no further client is accepted
        self._setting = most if setting is None else setting
        self._quota = Quota(most, most_each)
        self.address_of = address_of

    @property
    def most(self) -> int:
        """The number of clients that may be connected at a time."""
        return self._quota.limit

    def reload(self, most: int, most_each: int, setting: int) -> None:
        """Use these limits from now on. Clients beyond them stay."""
        self._setting = setting
        self._quota.limit, self._quota.limit_each = most, most_each

    def check(self, carrier: Carrier) -> None:
        """Raise LimitReached if the relay is going down, or if the client's connection ends with this answer."""
        if self.draining:
            raise LimitReached("503 Service Unavailable", "draining", "the relay is going down: connect again later")
        if carrier.is_last:
            raise LimitReached("503 Service Unavailable", "too_many_connections", NO_ROOM)

    def acquire(self, environ: dict[str, Any]) -> str | None:
        """Count a client at its handshake, and return what `release` needs. Raises LimitReached."""
        address = self.address_of(environ)
        lacking = self._quota.acquire(address)
        if lacking:
            raise self._limit_reached(lacking)
        return address

    def release(self, address: str | None) -> None:
        """Stop counting a client: `acquire` returned this address for it."""
        self._quota.release(address)

    def _limit_reached(self, lacking: str) -> LimitReached:
        quota = self._quota
        if lacking == "address":
            message = f"{quota.limit_each} clients of this address are connected already (setting max_per_address)"
            return LimitReached("429 Too Many Requests", "too_many_of_address", message)
        why = "setting max_connections" if quota.limit >= self._setting else "the limit on open files, ulimit -n"
        message = f"{quota.limit} clients are connected already ({why}): connect again later"
        return LimitReached("503 Service Unavailable", "too_many_connections", message)


def client_count(websockets: int, polling: int) -> Family:
    """Return the metric of the clients on each transport."""
    clients: Values = {("websocket",): websockets, ("polling",): polling}
    return Family("relay_clients", "gauge", "Connected clients.", clients, ("transport",))
