"""Makes connections to a Redis with redis-py: address, TLS, passwords, Sentinels. Only this module imports redis-py.

redis-py serves only until Redis has accepted the user. Then the socket is taken from it, so that it neither reconnects
nor repeats a command by itself.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import hiredis
from redis import connection as redis_connection
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from pushrelay.errors import StoreError
from pushrelay.settings import Settings
from pushrelay.settings.redis_url import RedisURL, host_and_port, redis_url

from .explanations import not_a_redis, os_error, reply_error, sentinel_error, word_of
from .facts import Facts, read_facts
from .verdicts import DEFAULT, Wanted, refusals
from .wire import Wire

# Milliseconds for which sent data may stay unacknowledged before the kernel gives the connection up.
USER_TIMEOUT_MS = 5000
# A connection on which nothing is sent is probed after 15 s, and given up 15 s later.
KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

_connections: Any = redis_connection  # Any: redis-py's annotations do not fit its classes


class Connected(NamedTuple):
    """A connection to Redis after HELLO 3, AUTH and SELECT."""

    sock: socket.socket  # an ssl.SSLSocket with rediss://
    facts: Facts


class Place:
    """The Redis that the settings name, or the Sentinels that know it.

    `url` is the setting `broker`. `prefix` is the setting `redis_prefix`, and `name` the name under which Redis lists
    the connections (CLIENT LIST). Any thread may call any method. Raises ValueError for a wrong `url`.
    """

    def __init__(self, url: str, wanted: Wanted = DEFAULT, *, prefix: str = "relay", name: str = ""):
        self.url: RedisURL = redis_url(url)
        self.wanted = wanted._replace(has_sentinels=self.url.is_sentinel)
        self._prefix = prefix
        self._name = name

    def __str__(self) -> str:
        """Return the address without passwords."""
        return str(self.url)

    def connect(self, deadline: float, blocking: bool = False) -> Connected:
        """Make one connection to a Redis that the relay can use: the first one that is not refused.

        Sentinels are asked each time. `deadline` is a time of time.monotonic(); only the look-up of a host name, and a
        name with several addresses that do not answer, may take longer. The socket does not block, unless `blocking` is
        true. Raises StoreError, with what to do.
        """
        connected = self.look(deadline)
        if found := refusals(connected.facts, self.wanted):
            connected.sock.close()
            raise StoreError(f"{self}: {found[0]}")
        connected.sock.setblocking(blocking)
        return connected

    def look(self, deadline: float) -> Connected:
        """Make one connection to whatever Redis is there, also to one that `connect` refuses. Raises StoreError."""
        if not self.url.is_sentinel:
            return self._open(self.url.addresses[0] if self.url.addresses else None, deadline)
        failed: StoreError | None = None
        for address in self._masters(deadline):
            try:
                connected = self._open(address, deadline)
            except StoreError as error:
                failed = failed or error
                continue
            if connected.facts.role == "master":
                return connected
            connected.sock.close()
            failed = failed or StoreError(
                f"{host_and_port(*address)}, which the Sentinels name as {self.url.name}, is a replica: a failover is "
                "under way, and the relay tries again"
            )
        assert failed is not None  # noqa: S101 - _masters yields an address or raises
        raise failed

    def explained(self, error: hiredis.ReplyError) -> StoreError:
        """Return the StoreError for an error reply of this Redis, with what to do."""
        return reply_error(str(error), str(self), self._prefix)

    def may_be_replaced(self, refusal: str) -> bool:
        """Return whether an error reply means that another Redis may be the master now, so that it must be looked up.

        A master that has lost its replicas may have been replaced without noticing it. The Sentinels know.
        """
        word = word_of(refusal)
        return word in ("READONLY", "MASTERDOWN") or (word == "NOREPLICAS" and self.url.is_sentinel)

    def lost(self, error: OSError) -> StoreError:
        """Return the StoreError for a connection that ended with this error, with what to do."""
        return os_error(error, str(self), self.url.is_tls)

    def _open(self, address: tuple[str, int] | None, deadline: float) -> Connected:
        where = str(self) if address is None or not self.url.is_sentinel else f"Redis {host_and_port(*address)}"
        url = self.url
        self._check_files()
        with self._explaining(where, url.password):
            sock = take_socket(self._connection(address, url.user, url.password, url.db, deadline))
            try:
                facts = self._learn(sock, deadline)
            except BaseException:
                sock.close()
                raise
        return Connected(sock, facts)

    def _check_files(self) -> None:
        """Raise StoreError if a file that `url` names cannot be read."""
        for option, file in (("ca", self.url.ca), ("cert", self.url.cert), ("key", self.url.key)):
            try:
                open(file or os.devnull, "rb").close()
            except OSError as error:
                raise StoreError(
                    f"{self}: {file} cannot be read ({error.strerror}): correct {option}= in broker, or let the "
                    "relay's user read the file"
                ) from None

    def _learn(self, sock: socket.socket, deadline: float) -> Facts:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (*KEEPALIVE, ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS)):
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        wire = Wire(sock)
        if self._name:  # some users may not set a name; the relay works without one
            wire.ask(deadline, "CLIENT", "SETNAME", self._name)
        return read_facts(wire, deadline)

    def _connection(self, address: tuple[str, int] | None, user: str, password: str, db: int, deadline: float) -> Any:
        """Return a connection of redis-py that is open: HELLO 3, AUTH and SELECT are done."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        common = {
            "username": user or None,
            "password": password or None,
            "db": db,
            "protocol": 3,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
        }
        if address is None:
            made = _connections.UnixDomainSocketConnection(path=self.url.path, **common)
        elif self.url.is_tls:
            made = _connections.SSLConnection(
                host=address[0],
                port=address[1],
                ssl_ca_certs=self.url.ca or None,
                ssl_certfile=self.url.cert or None,
                ssl_keyfile=self.url.key or None,
                ssl_check_hostname=True,
                **common,
            )
        else:
            made = _connections.Connection(host=address[0], port=address[1], **common)
        made.connect()
        return made

    def _masters(self, deadline: float) -> Iterator[tuple[str, int]]:
        """Yield the addresses that the Sentinels name, each once. Raises StoreError if none of them names one."""
        seen: set[tuple[str, int]] = set()
        problems = []
        sentinels = self.url.addresses
        for number, sentinel in enumerate(sentinels):
            # One that does not answer must leave time for the others, and for the Redis.
            now = time.monotonic()
            share = now + (deadline - now) / (len(sentinels) - number + 1)
            try:
                found = self._ask_sentinel(sentinel, share)
            except StoreError as error:
                problems.append(str(error))
                continue
            if found is None:
                problems.append(f"Sentinel {host_and_port(*sentinel)} knows no {self.url.name}")
            elif found not in seen:
                seen.add(found)
                yield found
        if not seen:
            unknown = all("knows no" in each for each in problems)
            advice = "correct the name in broker" if unknown else "start the Sentinels, or correct them in broker"
            raise StoreError(f"{self}: no Sentinel names the Redis ({'; '.join(problems)}): {advice}")

    def _ask_sentinel(self, sentinel: tuple[str, int], deadline: float) -> tuple[str, int] | None:
        where = f"Sentinel {host_and_port(*sentinel)}"
        url = self.url
        with self._explaining(where, url.sentinel_password, is_sentinel=True):
            made = self._connection(sentinel, url.sentinel_user, url.sentinel_password, 0, deadline)
            with contextlib.closing(take_socket(made)) as sock:
                reply = Wire(sock).ask(deadline, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.name)
            if isinstance(reply, hiredis.ReplyError):
                raise reply
            return None if reply is None else (reply[0].decode(), int(reply[1]))

    @contextlib.contextmanager
    def _explaining(self, where: str, password: str, is_sentinel: bool = False) -> Iterator[None]:
        """Raise StoreError, with what to do, for what redis-py and the socket raise in the block."""
        try:
            yield
        except (InvalidResponse, hiredis.ProtocolError):
            raise not_a_redis(where) from None
        except hiredis.ReplyError as error:
            text = str(error)
        except RedisError as error:
            text = _reply_of(error, bool(password))
            if not text:
                raise os_error(_os_error_of(error), where, self.url.is_tls) from None
        except OSError as error:
            raise os_error(error, where, self.url.is_tls) from None
        else:
            return
        if password:  # some servers repeat the command that they refuse
            text = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "…", text)
        raise sentinel_error(text, where) if is_sentinel else reply_error(text, where, self._prefix)


def place_of(settings: Settings, name: str = "") -> Place:
    """Return the Redis of these settings. `name` is that of its connections in Redis, without spaces."""
    wanted = Wanted(settings.durability, settings.redis_wait)
    return Place(settings.broker, wanted, prefix=settings.redis_prefix, name=name)


def take_socket(connection: Any) -> socket.socket:
    """Take the socket of an open connection from redis-py, which forgets it.

    `_sock` is a private name, and the only one that the relay uses of redis-py. tests/store/redis/test_place.py
    tests it with the oldest and the newest redis-py that requirements-redis.txt allows.
    """
    sock: socket.socket = connection._sock
    connection._sock = None
    connection.disconnect()  # finds no socket to close
    return sock


def _reply_of(error: RedisError, has_password: bool) -> str:
    """Return the error reply for which redis-py raised `error`, with the word that redis-py removes; "" if none."""
    words = {
        AuthenticationError: "WRONGPASS" if has_password else "NOAUTH",
        BusyLoadingError: "LOADING",
        NoPermissionError: "NOPERM",
        ReadOnlyError: "READONLY",
    }
    word = next((word for kind, word in words.items() if isinstance(error, kind)), "")
    is_reply = word or isinstance(error, ResponseError) or "max number of clients" in str(error)
    return f"{word} {error}".strip() if is_reply else ""


def _os_error_of(error: RedisError) -> OSError:
    """Return the error of the system for which redis-py raised `error`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return TimeoutError() if isinstance(error, RedisTimeoutError) else ConnectionAbortedError()
