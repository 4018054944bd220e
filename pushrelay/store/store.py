"""The interface of a store, which keeps a broker's publications, and the limits of its history."""

import abc
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from pushrelay.counters import Family
from pushrelay.settings import Settings

from .events import Table
from .group_commit import Job
from .publication import Kept, KeyRecord, Survey, Tip
from .stripe import KeyUse, Pending

CLOSED = "the store is closed until the relay is started again"

# `place(item, offset, created, expires)`: the store gave an item this offset.
Place = Callable[[Pending, int, float, float], None]
# `is_repeat(item, use, now)`: whether an item's key was used before, so that the item must not be stored.
IsRepeat = Callable[[Pending, KeyUse, float], bool]


@dataclasses.dataclass
class HistoryLimits:
    """How much a store keeps, and for how long. The first three are settings."""

    history_size: int = Settings.history_size  # publications of each destination
    history_ttl: float = Settings.history_ttl  # seconds for which a publication is kept at most
    history_bytes: int = Settings.history_bytes  # of all publications together
    forget_after: float = 86_400.0  # seconds without any history after which a destination's offset is forgotten
    key_ttl: float = 300.0  # seconds for which an idempotency key is known
    max_keys: int = 1_000_000  # keys that are known at once: a clock that is set back must not make them pile up
    # Seconds that one call of Store.retain() takes at most, if the disk and the other threads allow it.
    retain_seconds: float = 0.0015
    # Steps of retain() when the store is over its limits, even if they take longer: it must outpace publishing.
    retain_least: int = 16

    def lifetime(self, ttl: float | None) -> tuple[float, bool]:
        """Return the seconds for which a publication of this ttl is kept, and its `own` (see Kept)."""
        if ttl is None or ttl > self.history_ttl:
            return (self.history_ttl if self.history_size else 0.0), False
        return (ttl if self.history_size else 0.0), ttl == 0 or self.history_size > 0


class Page(NamedTuple):
    """Some of what is kept for a destination."""

    kept: list[Kept]  # in order
    tip: Tip  # it knows of everything that was trimmed before `kept` was read
    more: bool  # whether the store has more


class TipReader(Protocol):
    """The part of a store that a dispatcher asks: see Store."""

    @property
    def epoch(self) -> str:
        """A new word whenever offsets that clients know may be used again."""

    def tip(self, destination: str) -> Tip:
        """Return the state of a destination. Raises StoreError."""


class StoreReader(TipReader, Protocol):
    """The part of a store that an archive asks."""

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations. Raises StoreError."""

    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset. Raises StoreError."""


class Store(abc.ABC):
    """Keeps publications, in the order of their offsets.

    `open`, `close`, `tip` and `read` may be called by any thread at any time. The others are called by one thread at a
    time, between the beginning and the end of transact(), and any of them may raise StoreError.
    """

    epoch: str = ""  # from open() on; a new word whenever offsets that clients know may be used again
    events: Table | None = None  # the event queue, if the store has one

    @abc.abstractmethod
    def open(self) -> None:
        """Open the store and set `epoch`. Raises StoreError with what is wrong and what to do."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store. No transaction is in progress."""

    @abc.abstractmethod
    def tip(self, destination: str) -> Tip:
        """Return the state of a destination, by what is committed. Raises StoreError."""

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations. Raises StoreError."""
        return [self.tip(each) for each in destinations]

    @abc.abstractmethod
    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset. Raises StoreError.

        The page has at most `max_bytes` bytes of data, but at least one publication if there is one. Without data, all
        texts may be empty.
        """

    @abc.abstractmethod
    def transact(self, jobs: list[Job[Any]]) -> None:
        """Set each job's `result` to what its `work()` returns, all in one transaction. Raises StoreError.

        If anything raises, nothing of the transaction remains.
        """

    @abc.abstractmethod
    def append(self, items: list[Pending], now: float, place: Place, is_repeat: IsRepeat) -> None:
        """Store items in this order, created `now`.

        For each item that has a key (`item.use`), call `is_repeat(item, item.use, now)` first, and skip the item if it
        returns True. For each other item call `place(…)`, always before tip() or read() can return its offset.
        """

    @abc.abstractmethod
    def find_key(self, key: str, now: float) -> KeyRecord | None:
        """Return what is stored for an idempotency key, unless it is older than `HistoryLimits.key_ttl`."""

    @abc.abstractmethod
    def mark(self, name: str) -> str:
        """Return the text of a mark; "" if it was never set. Only within a transaction."""

    @abc.abstractmethod
    def set_mark(self, name: str, text: str) -> None:
        """Set a mark, which survives everything that the publications of this transaction survive.

        Called before append(). It must survive the end of the process at once, however the process ends.
        """

    @abc.abstractmethod
    def set_connections(self, items: list[Pending]) -> None:
        """Store the `connections` of items with a key, for publishers that repeat the key after a restart."""

    @abc.abstractmethod
    def ack(self, destination: str, offset: int) -> None:
        """Move the acknowledged offset of a destination forward to this one, never back."""

    @abc.abstractmethod
    def retain(self, now: float) -> bool:
        """Drop a little of what the limits no longer allow; return whether there is more to drop."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Have this transaction move everything that was accepted to its permanent place in the store."""

    @abc.abstractmethod
    def probe(self) -> None:
        """Write as much as a push does, to find out whether the store can be written again.

        A store that can be written whenever it can begin a transaction needs to do nothing.
        """

    def metrics(self) -> Iterable[Family]:
        """Return the metrics of the store. Any thread may call it; it must not wait for a lock or a disk."""
        return ()

    def survey(self, now: float, seconds: float) -> Survey | None:
        """Count what is kept; return None if that takes longer than `seconds`. Any thread may call it.

        Raises StoreError.
        """
        return None


def store_size(used: int, limit: int) -> list[Family]:
    """Return the metrics of the size of a store, in bytes."""
    help_ = "Bytes that the store may use (setting history_bytes). Beyond it, the oldest publications are dropped."
    return [
        Family("relay_store_bytes", "gauge", "Bytes that publications, destinations and keys take.", used),
        Family("relay_store_limit_bytes", "gauge", help_, limit),
    ]


def new_epoch() -> str:
    """Return a random word; 40 bits, so that a new store is never mistaken for the previous one."""
    return secrets.token_hex(5)


class Deadline:
    """The end of one call of Store.retain()."""

    def __init__(self, limits: HistoryLimits):
        self._end = time.monotonic() + limits.retain_seconds
        self._least = limits.retain_least
        self._steps = 0

    def is_over(self, is_crowded: Callable[[], bool]) -> bool:
        """Count a step, and return whether it was the last for now. `is_crowded()`: the store is over its limits."""
        self._steps += 1
        return time.monotonic() > self._end and (self._steps >= self._least or not is_crowded())
