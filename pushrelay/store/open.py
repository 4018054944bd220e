"""Creates a broker from the settings `broker` and `durability`.

To add a kind of store, add a row to STORES here and one to BROKERS in settings/values.py, which checks what the setting
may be.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pushrelay.settings import Settings
from pushrelay.settings.redis_url import SCHEMES
from pushrelay.settings.values import broker_url, durability_of, without_password

from .local_broker import LocalBroker
from .store import HistoryLimits, Store
from .stripe import Deliver

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


def _redis(rest: str, limits: HistoryLimits, clock: Clock, durability: str) -> Store:
    raise ValueError("broker: Redis is not supported yet")


STORES = {
    "memory": Kind(_memory, lambda rest: None),
    "sqlite": Kind(_sqlite, lambda rest: rest),
    **{scheme: Kind(_redis, lambda rest: None) for scheme in SCHEMES},
}


def open_broker(
    url: str, deliver: Deliver, *, durability: str = Settings.durability, clock: Clock = time.time, **options: Any
) -> LocalBroker:
    """Return the broker that a setting names, not started: no file is opened and no thread runs before start().

    `options` are fields of HistoryLimits; `deliver` and `clock` are LocalBroker's. `durability` is what an accepted
    push survives: "process" means the end of the process, however it ends; "power" means a power failure as well.
    Raises ValueError with what to write instead.
    """
    kind, rest = _parse(url)
    try:
        durability_of(durability)
    except ValueError as error:
        raise ValueError(f"durability must be {error}, not {durability!r}") from None
    limits = HistoryLimits(**options)
    return LocalBroker(kind.make(rest, limits, clock, durability), deliver, limits, clock)


def file_of(url: str) -> str | None:
    """Return the file in which a broker keeps publications; None if it uses none. Raises ValueError."""
    kind, rest = _parse(url)
    return kind.file_of(rest)


def _parse(url: str) -> tuple[Kind, str]:
    try:
        name, _, rest = broker_url(url).partition(":")
    except ValueError as error:
        raise ValueError(f"broker must be {error}, not {without_password(url)!r}") from None
    return STORES[name], rest
