"""Counters and histograms of plain integers, for what the relay reports at GET /metrics.

The code that does something counts it here, because an increment of prometheus_client costs a percent of a push.
`pushrelay.metrics` reads the numbers when they are asked for. Nothing is counted that can be read at that moment, such
as the number of clients.

There are three ways to count:

- A plain int (`self.batches += 1`) if one thread at a time executes the line: the caller holds a lock, or is alone.
- A Histogram, under the same condition.
- Counters, from any thread, for what is not done for each push.
"""

import logging
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple, Protocol, Self, runtime_checkable

log = logging.getLogger(__name__)

# Upper bounds of buckets. From a push that is answered at once to one for which PHP has long stopped waiting.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # of batches
OTHER = "other"  # the label of what is in no table


class Histogram:
    """How many values were at most each of some bounds, and their sum. One thread at a time may add to it.

    `bounds` ascend. Reading while another thread adds may miss the value that is being added.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # of each bucket alone; the last one has what exceeds all bounds
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add a value, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[float, int]]:
        """Return each bound and the number of values up to it. The last bound is infinity."""
        return list(zip((*self.bounds, inf), accumulate(self.counts[:]), strict=True))

    def __add__(self, other: Self) -> Self:
        """Return a histogram of both together. They have the same bounds."""
        both = type(self)(self.bounds)
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        return both


class Counters:
    """A counter for each word of a fixed table. Any thread may call it.

    Every other word counts as OTHER, so that nobody can create counters by choosing words.
    """

    __slots__ = ("_counts", "_lock")

    def __init__(self, words: Iterable[str]):
        self._counts = dict.fromkeys(words, 0)  # at 0 from the start: a rate needs a value before the first event
        self._lock = threading.Lock()

    def add(self, word: str, times: int = 1) -> None:
        """Count something `times` times."""
        with self._lock:
            if word not in self._counts:
                word = OTHER
                self._counts.setdefault(word, 0)
            self._counts[word] += times

    def counts(self) -> dict[str, int]:
        """Return the counters by their words."""
        return self._counts.copy()

    def total(self) -> int:
        """Return the sum of all counters."""
        return sum(self.counts().values())

    def values(self) -> "Values":
        """Return the counters in the form that Family takes, with the words as values of its label."""
        return {(word,): count for word, count in self.counts().items()}


Value = float | Histogram
Values = dict[tuple[str, ...], Value]


class Family(NamedTuple):
    """A metric with all its series, as Prometheus calls them.

    Names follow https://prometheus.io/docs/practices/naming/: they begin with `relay_`, counters end with `_total`, and
    times and sizes have the unit in the name, `_seconds` or `_bytes`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str  # one sentence for people, with a period
    values: Value | Mapping[tuple[str, ...], Value]  # by the values of the labels, unless there are no labels
    labels: tuple[str, ...] = ()  # their names


@runtime_checkable
class Measured(Protocol):
    """A part of the relay that has metrics of its own, such as a broker."""

    def metrics(self) -> Iterable[Family]:
        """Return the metrics as they are now. Any thread may call it; it must not wait for a lock or a disk."""


def collected(parts: Iterable[object]) -> dict[str, Family]:
    """Return the metrics of these parts by name. Parts without metrics are ignored; one that fails is logged."""
    return merged(_families(parts))


def _families(parts: Iterable[object]) -> Iterator[Family]:
    for part in parts:
        if isinstance(part, Measured):
            try:
                yield from part.metrics()
            except Exception:  # the other metrics are needed now more than ever
                log.exception("the metrics of %r failed", part)


def merged(families: Iterable[Family]) -> dict[str, Family]:
    """Return families by name. If several have one name, their values are added up."""
    found: dict[str, Family] = {}
    for family in families:
        if family.name not in found:
            found[family.name] = family
            continue
        values = dict(series(found[family.name]))
        for labels, value in series(family):
            values[labels] = values[labels] + value if labels in values else value  # type: ignore[operator]
        found[family.name] = family._replace(values=values)
    return found


def series(family: Family) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Yield the series of a family: the values of the labels, and the value."""
    if isinstance(family.values, float | int | Histogram):
        yield (), family.values
    else:
        yield from family.values.items()


def refusals(counters: Counters) -> Family:
    """Return refusals by their code. Several parts of the relay refuse; their metrics of this name are added up."""
    help_ = "Requests, events and connections that were refused, by the code of the error."
    return Family("relay_refusals_total", "counter", help_, counters.values(), ("code",))


def queue_length(queue: str, length: int) -> Family:
    """Return the length of a queue of this name. Several parts of the relay have queues."""
    help_ = "Work that waits: pushes for the store, connections and other work for a thread."
    return Family("relay_queue_length", "gauge", help_, {(queue,): length}, ("queue",))
