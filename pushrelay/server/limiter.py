"""How many TCP connections there may be: what the file descriptors allow, and of one address."""

import contextlib
import json
import resource
from typing import Any, NamedTuple

from pushrelay.addresses import counted, ip_of
from pushrelay.log.limiter import LogLimiter
from pushrelay.server.quota import Places, retry_after
from pushrelay.settings import Settings

from .connection import Connection
from .response import plain_answer

# An address has so many TCP connections for each client: one that polls needs two, for its GET and its POST.
CONNECTIONS_PER_CLIENT = 2
# Linux's own bound where the process has none (fs.nr_open).
UNLIMITED_FILES = 1 << 20
# A site that never set max_connections is well served with this many clients.
USUAL = 1000
# What is not for clients: see Files, and files_for.
REFUSED, SPARE, OTHERS = 32, 128, 96


class Files(NamedTuple):
    """What the file descriptors that the process may have are for."""

    connections: int  # served as ever
    spare: int  # on top: served for one request each, so that pushes go on while others hold all connections
    refused: int  # on top of both: connections that are told that there is no room, until they have read it


ANY_NUMBER = Files(UNLIMITED_FILES, 0, 32)


def files_for(limit: int, threads: int) -> Files:
    """Share out `limit` file descriptors; what is left over is for the store, its readers, logs and auth_url."""
    refused, spare = min(REFUSED, limit // 16), min(SPARE, limit // 8)
    return Files(limit - refused - spare - min(OTHERS + 4 * threads, limit // 3), spare, refused)


def files_needed(clients: int, threads: int) -> int:
    """How many file descriptors are enough for so many clients."""
    return clients + REFUSED + SPARE + OTHERS + 4 * threads


def file_limit() -> int:
    """How many file descriptors the process may have, once `raise_file_limit` was called."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard


def raise_file_limit() -> None:
    """Have as many file descriptors as the system lets this process have: each client takes one."""
    with contextlib.suppress(OSError, ValueError):  # the kernel's bound may be lower than ours where there is none
        resource.setrlimit(resource.RLIMIT_NOFILE, (file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def most_clients(settings: Settings) -> int:
    """`max_connections`, or what the file descriptors allow where that is less."""
    return min(settings.max_connections, files_for(file_limit(), settings.threads).connections)


def clients_expected(settings: Settings) -> int:
    """How many clients somebody counts on: max_connections if it was set. Its default is a bound, and no plan."""
    return settings.max_connections if "max_connections" in settings.given else min(settings.max_connections, USUAL)


class Doors:
    """How many TCP connections there may be, and what those beyond are told. Any thread may call it.

    `most_each` are for one peer. Not counted are peers of this machine, and of the networks `uncounted`.
    """

    def __init__(
        self,
        files: Files = ANY_NUMBER,
        most_each: int = UNLIMITED_FILES,
        uncounted: tuple[Any, ...] = (),
        log_limiter: LogLimiter | None = None,
    ):
        self._usual = files.connections
        self._most_elsewhere = files.connections + files.spare // 2
        self._places = Places(files.connections + files.spare, most_each)
        self._lingering = Places(files.refused, files.refused)
        self._uncounted = uncounted
        self._log_limiter = log_limiter or LogLimiter()

    @property
    def count(self) -> int:
        """The connections there are, those that were refused not counted."""
        return self._places.taken

    def let_in(self, peer: Any) -> bytes:
        """Take a place for this peer, as accept() gives it; or what it is to be answered where there is none."""
        counted = self.counted_as(peer)
        # The last places are for this machine and its proxies: what pushes is there.
        kept_back = counted is not None and self._places.taken >= self._most_elsewhere
        lacking = "all" if kept_back else self._places.take(counted)
        return self._refusal(lacking, peer) if lacking else b""

    def left(self, connection: Connection) -> None:
        """A connection that was let in is over."""
        self._places.give_back(self.counted_as(connection.peer))

    def is_spare(self) -> bool:
        """Whether there are so many connections that the next one is for one request only."""
        return self._places.taken > self._usual

    def may_linger(self) -> bool:
        """Whether one that was refused may stay until it has read why; then `lingered` is to be called."""
        return not self._lingering.take(None)

    def lingered(self, connection: Connection) -> None:
        self._lingering.give_back(None)

    def counted_as(self, peer: Any) -> str | None:
        """Return the address that a peer counts as; None for this machine's own and for proxies."""
        if type(peer) is not tuple or (self._uncounted and any(ip_of(peer[0]) in net for net in self._uncounted)):
            return None
        return counted(peer[0])

    def _refusal(self, lacking: str, peer: Any) -> bytes:
        places = self._places
        if lacking == "all":
            message = f"{places.taken} connections are open already (the limit on open files, ulimit -n)"
        else:
            message = f"{places.most_each} connections of this address are open already (twice max_per_address)"
        address = peer[0] if type(peer) is tuple else "this machine"
        subject = address if lacking == "address" else ""
        self._log_limiter.warn(f"connections {lacking}", subject, f"a connection from {address} is refused: {message}")
        body = json.dumps({"error": "too_many_connections", "message": f"{message}: connect again later"}).encode()
        return plain_answer("503 Service Unavailable", body, f"Retry-After: {retry_after()}\r\n")
