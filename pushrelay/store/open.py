"""Creates a broker from the settings `broker` and `durability`.

To add a kind of store, add a row to STORES here and one to BROKERS in settings/values.py, which checks what the setting
may be.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pushrelay.settings import Settings
from pushrelay.settings.redis_url import SCHEMES
from pushrelay.settings.values import broker_url, durability_of, without_password

from .local_broker import LocalBroker
from .store import HistoryLimits, Store
from .stripe import Deliver

if TYPE_CHECKING:  # without the packages for Redis, everything else runs
    from .redis.broker import RedisBroker
    from .redis.loop import Loop

Clock = Callable[[], float]


class Kind(NamedTuple):
    """One kind of store."""

    # make(rest, limits, clock, durability): `rest` is what follows the colon in the setting.
    make: Callable[[str, HistoryLimits, Clock, str], Store]
    file_of: Callable[[str], str | None]  # file_of(rest): its file; None if it has none


def _memory(rest: str, limits: HistoryLimits, clock: Clock, durability: str) -> Store:
    from .memory import MemoryStore

    return MemoryStore(limits)


def _sqlite(rest: str, limits: HistoryLimits, clock: Clock, durability: str) -> Store:
    from .sqlite import SQLiteStore  # here: a Python without sqlite3 can still run with memory:

    return SQLiteStore(rest, limits, clock, durability)


STORES = {
    "memory": Kind(_memory, lambda rest: None),
    "sqlite": Kind(_sqlite, lambda rest: rest),
}


class RedisOptions(NamedTuple):
    """The settings of these names, and the loop that watches the connection; without one it has a thread of its own."""

    redis_prefix: str = Settings.redis_prefix
    redis_wait: int = Settings.redis_wait
    redis_patience: float = Settings.redis_patience
    node: str = Settings.node
    loop: "Loop | None" = None
    warns: bool = False  # whether to log what is risky about this Redis: the start of a program of its own prints it


DEFAULT_REDIS = RedisOptions()


def open_broker(
    url: str,
    deliver: Deliver,
    *,
    durability: str = Settings.durability,
    clock: Clock = time.time,
    redis: RedisOptions = DEFAULT_REDIS,
    **options: Any,
) -> "LocalBroker | RedisBroker":
    """Return the broker that a setting names, not started: no file is opened and no thread runs before start().

    `options` are fields of HistoryLimits; `deliver` and `clock` are LocalBroker's. `durability` is what an accepted
    push survives: "process" means the end of the process, however it ends; "power" means a power failure as well.
    Raises ValueError with what to write instead, and StoreError if packages for Redis are missing.
    """
    name, rest = _parse(url)
    try:
        durability_of(durability)
    except ValueError as error:
        raise ValueError(f"durability must be {error}, not {durability!r}") from None
    limits = HistoryLimits(**options)
    if name in SCHEMES:
        return _redis_broker(url, deliver, limits, clock, durability, redis)
    return LocalBroker(STORES[name].make(rest, limits, clock, durability), deliver, limits, clock)


def _redis_broker(
    url: str, deliver: Deliver, limits: HistoryLimits, clock: Clock, durability: str, options: RedisOptions
) -> "RedisBroker":
    from .redis.packages import check_packages

    check_packages()
    from .redis.broker import RedisBroker
    from .redis.loop import ThreadLoop
    from .redis.place import Place
    from .redis.verdicts import Wanted

    wanted = Wanted(durability, options.redis_wait, "sentinel" in url.partition(":")[0])
    place = Place(url, wanted, prefix=options.redis_prefix, name="pushrelay")
    return RedisBroker(
        place,
        deliver,
        limits,
        clock,
        loop=options.loop or ThreadLoop(),
        node=options.node,
        prefix=options.redis_prefix,
        patience=options.redis_patience,
        replicas=options.redis_wait,
        durable=durability == "power",
        warns=options.warns,
    )


def file_of(url: str) -> str | None:
    """Return the file in which a broker keeps publications; None if it uses none. Raises ValueError."""
    name, rest = _parse(url)
    return None if name in SCHEMES else STORES[name].file_of(rest)


def _parse(url: str) -> tuple[str, str]:
    try:
        name, _, rest = broker_url(url).partition(":")
    except ValueError as error:
        raise ValueError(f"broker must be {error}, not {without_password(url)!r}") from None
    return name, rest
