"""Counts pushes for the metrics: how many there were from where, what became of them, and how long that took.

Each push is counted, and its time is measured if it is slow. Of the quick ones, only some are measured, and each stands
for all since the one before. So all of this takes less than a percent of a push.
"""

import threading
from collections.abc import Iterator, Sequence
from random import randrange
from time import monotonic

from pushrelay.counters import Counters, Family, Histogram, Values
from pushrelay.store.stripe import Pending
from pushrelay.top_names import TopNames

ACCEPTED, REFUSED, FAILED = "accepted", "refused", "failed"
HTTP, SOCKET, SPOOL, OUTBOX = "http", "socket", "spool", "outbox"
# Seconds between two measurements of batches that are quick: 200 in a second describe them well.
MEASURE_EVERY = 0.005
# Seconds for which more may be measured after a pause, so that a few pushes in a row are all measured.
BURST_SECONDS = 0.5
# Batches that were stored later than this many seconds after the arrival of their first push are always measured.
SLOW_SECONDS = 0.005
# Publications of a measured batch whose destinations are counted: more would make the largest batches slower.
SAMPLED = 8


class PushCounts:
    """The pushes of a relay. Any thread may call it."""

    def __init__(self) -> None:
        # Pushes that are not published in batches; a refused one never is.
        self._of_source = {source: Counters((ACCEPTED, REFUSED, FAILED)) for source in (HTTP, SOCKET, SPOOL, OUTBOX)}
        # The Batcher's, which changes the first one while it holds a lock.
        self.accepted = 0  # pushes by HTTP that were stored in batches
        self.measure_at = 0.0  # monotonic: when to measure the next quick batch
        self._lock = threading.Lock()  # guards all that follows
        self._measured = 0  # those of `accepted` for which the measurements stand
        self._last = (0.0, 0.0)  # the last measurement
        self._publish_seconds = Histogram()
        self._delivery_seconds = Histogram()
        self.busiest = TopNames()  # the destinations of publications
        self.unreached = TopNames()  # those of the publications that reached nobody

    def add(self, source: str, result: str, times: int = 1) -> None:
        """Count pushes of a source (HTTP, SOCKET, SPOOL or OUTBOX), by what became of them."""
        self._of_source[source].add(result, times)

    def measure(self, arrived: float, stored: float, items: Sequence[Pending]) -> None:
        """Measure a batch that has just been handed out. The times of its steps are by time.monotonic().

        `arrived` is the time of its first push, to which the others are close. `items` are its publications.
        """
        now = monotonic()
        with self._lock:
            self._sample(items, self.accepted - self._measured)
            self._last = now - arrived, now - stored
            self._observe_rest()
            self.measure_at = max(self.measure_at, now - BURST_SECONDS) + MEASURE_EVERY

    def leave_out(self, pushes: int) -> None:
        """Let no other measurement stand for this number of accepted pushes: measure_late() is called for each."""
        with self._lock:
            self._measured += pushes

    def measure_late(self, arrived: Sequence[float], stored: float, items: Sequence[Pending]) -> None:
        """Measure pushes that were handed out in turns, and arrived at these times. `items` are their publications."""
        if not arrived:
            return
        now = monotonic()
        with self._lock:
            self._sample(items, len(arrived))
            for each in arrived:
                self._publish_seconds.observe(now - each)
                self._delivery_seconds.observe(now - stored)

    def _observe_rest(self) -> None:
        """Let the last measurement stand for all pushes that have come since the one before."""
        times = self.accepted - self._measured
        self._measured += times
        for histogram, seconds in zip((self._publish_seconds, self._delivery_seconds), self._last, strict=True):
            histogram.observe(seconds, times)

    def _sample(self, items: Sequence[Pending], pushes: int) -> None:
        """Count the destinations of some publications for all that came with `pushes` pushes.

        Which publications these are is left to chance: the first ones of each push may go to the same destinations.
        """
        times = max(pushes, len(items))
        if len(items) > 1:
            step = -(-len(items) // SAMPLED)
            items = items[randrange(step) :: step]  # noqa: S311  # nosec B311: no secret
            times //= len(items)
        for item in items:
            self.busiest.add(item.destination, times)
            if not item.connections and item.first is None:
                self.unreached.add(item.destination, times)

    def published_here(self, source: str, began: float, items: Sequence[Pending]) -> None:
        """Count a push that one thread published from its beginning to its end."""
        self.add(source, ACCEPTED)
        with self._lock:
            self._sample(items, len(items))
            self._publish_seconds.observe(monotonic() - began)

    def taken(self, source: str, pushes: int, items: Sequence[Pending]) -> None:
        """Count pushes whose publisher waits for no answer."""
        self.add(source, ACCEPTED, pushes)
        with self._lock:
            self._sample(items, len(items))

    def renew(self) -> None:
        """Begin to count the destinations again: see TopNames."""
        with self._lock:
            self.busiest.renew()
            self.unreached.renew()

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the pushes."""
        with self._lock:
            self._observe_rest()
        pushes: Values = {
            (source, result): count + (self.accepted if (source, result) == (HTTP, ACCEPTED) else 0)
            for source, counters in self._of_source.items()
            for result, count in counters.counts().items()
        }
        help_ = "Pushes, by their source and their result."
        yield Family("relay_pushes_total", "counter", help_, pushes, ("source", "result"))
        help_ = "Seconds from the arrival of a push to its answer, when it is stored and handed out."
        yield Family("relay_publish_seconds", "histogram", help_, self._publish_seconds)
        help_ = "Seconds from the moment when pushes were stored until they were handed to all connected clients."
        yield Family("relay_delivery_seconds", "histogram", help_, self._delivery_seconds)
