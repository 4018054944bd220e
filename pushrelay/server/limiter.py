"""The limit on TCP connections: as many as the file descriptors allow, with a limit for each address."""

import json
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from pushrelay.addresses import counted, ip_of
from pushrelay.log.limiter import LogLimiter

from .connection import Connection
from .quota import Quota, retry_after
from .response import error_response

# A client that polls needs two connections, one for its GET and one for its POST.
CONNECTIONS_PER_CLIENT = 2
NO_LIMIT = 1 << 30


class ConnectionLimiter:
    """Accepts or rejects TCP connections. Any thread may call it.

    At most `connections` are served without restriction, and `spare` more for one request each. At most `lingering` of
    those that are rejected stay until they have read the reason. One peer may have `per_address` connections. Peers on
    this machine and in the networks `uncounted`, which are trusted proxies, have no limit of their own.
    """

    def __init__(
        self,
        connections: int = NO_LIMIT,
        spare: int = 0,
        lingering: int = 32,
        per_address: int = NO_LIMIT,
        uncounted: Sequence[IPv4Network | IPv6Network] = (),
        log_limiter: LogLimiter | None = None,
    ):
        self._unrestricted = connections
        # The last slots are for this machine and its proxies, because pushes come from there.
        self._limit_elsewhere = connections + spare // 2
        self._quota = Quota(connections + spare, per_address)
        self._lingering = Quota(lingering, lingering)
        self._uncounted = uncounted
        self._log_limiter = log_limiter or LogLimiter()

    @property
    def count(self) -> int:
        """The number of connections, without those that were rejected."""
        return self._quota.used

    @property
    def unrestricted(self) -> int:
        """The number of connections that are served without restriction."""
        return self._unrestricted

    def reload(self, per_address: int, uncounted: Sequence[IPv4Network | IPv6Network]) -> None:
        """Use these limits for the connections that come from now on."""
        self._quota.limit_each, self._uncounted = per_address, uncounted

    def acquire(self, peer: Any, address: str | None) -> bytes:
        """Take a slot for a peer, given as accept() does. Return the response that rejects it, or nothing.

        `address` is counted_address(peer), which release() needs as `connection.counted_as`.
        """
        is_reserved = address is not None and self._quota.used >= self._limit_elsewhere
        lacking = "all" if is_reserved else self._quota.acquire(address)
        return self._rejection(lacking, peer) if lacking else b""

    def release(self, connection: Connection) -> None:
        """Give back the slot of a connection that has ended."""
        self._quota.release(connection.counted_as)

    def has_spare_only(self) -> bool:
        """Return whether the newest connection has a spare slot, for one request only."""
        return self._quota.used > self._unrestricted

    def acquire_lingering(self) -> bool:
        """Return whether a rejected connection may stay until it has read the reason; `release_lingering` ends that."""
        return not self._lingering.acquire(None)

    def release_lingering(self, connection: Connection) -> None:
        """Give back the slot of a rejected connection that has ended."""
        self._lingering.release(None)

    def counted_address(self, peer: Any) -> str | None:
        """Return the address that a peer is counted by; None for this machine's own and for proxies."""
        uncounted = self._uncounted
        if type(peer) is not tuple or (uncounted and any(ip_of(peer[0]) in net for net in uncounted)):
            return None
        return counted(peer[0])

    def _rejection(self, lacking: str, peer: Any) -> bytes:
        """Return the response to a rejected connection, and log the reason."""
        if lacking == "all":
            message = f"{self._quota.used} connections are open already (the limit on open files, ulimit -n)"
        else:
            message = f"{self._quota.limit_each} connections of this address are open already (twice max_per_address)"
        address = peer[0] if type(peer) is tuple else "this machine"
        subject = address if lacking == "address" else ""
        sentence = f"a connection from {address} is refused: {message}"
        fields = {"address": address, "reason": "too_many_connections"}
        self._log_limiter.warn(f"connections {lacking}", subject, sentence, fields)
        body = json.dumps({"error": "too_many_connections", "message": f"{message}: connect again later"}).encode()
        return error_response("503 Service Unavailable", body, f"Retry-After: {retry_after()}\r\n")
