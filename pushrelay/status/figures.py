"""The numbers of all parts at one moment, read from their metrics."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from pushrelay.counters import Family, Histogram, collected, series


class Figures:
    """The metrics of the relay's parts, as they were when this was made. A metric that no part has is None or empty."""

    def __init__(self, parts: Iterable[object]):
        self._families: dict[str, Family] = collected(parts)

    def number(self, name: str, **labels: str) -> float | None:
        """Return the sum of the series of a metric that have these labels; None without any."""
        found = [value for its, value in self._series(name) if labels.items() <= its.items()]
        numbers = [value for value in found if not isinstance(value, Histogram)]
        return sum(numbers) if numbers else None

    def whole(self, name: str, **labels: str) -> int:
        """Return the same as a whole number; 0 without any."""
        return int(self.number(name, **labels) or 0)

    def by(self, label: str, name: str) -> dict[str, int]:
        """Return a metric by the values of one of its labels, without those that are 0."""
        found: dict[str, int] = {}
        for its, value in self._series(name):
            if not isinstance(value, Histogram) and value:
                found[its[label]] = found.get(its[label], 0) + int(value)
        return found

    def histogram(self, name: str) -> Histogram:
        """Return a copy of a histogram, or an empty one."""
        for _, value in self._series(name):
            if isinstance(value, Histogram):
                return value + type(value)(value.bounds)
        return Histogram()

    def _series(self, name: str) -> Iterable[tuple[dict[str, str], float | Histogram]]:
        family = self._families.get(name)
        if family is not None:
            for values, value in series(family):
                yield dict(zip(family.labels, values, strict=True)), value


def since(now: Histogram, before: Histogram | None) -> Histogram:
    """Return what was added to a histogram since it was as `before`."""
    if before is None:
        return now
    added = type(now)(now.bounds)
    added.counts = [new - old for new, old in zip(now.counts, before.counts, strict=True)]
    added.sum = now.sum - before.sum
    return added


def quantile(histogram: Histogram, part: float) -> float | None:
    """Return the value that this part of all values does not exceed, such as 0.99; None without any value.

    Values are taken to be spread evenly within their bucket, as Prometheus does. Beyond the last bound it is the bound.
    """
    rank = part * sum(histogram.counts)
    if not rank:
        return None
    bounds: Sequence[float] = (0.0, *histogram.bounds)
    for at, (count, reached) in enumerate(zip(histogram.counts, accumulate(histogram.counts), strict=True)):
        if reached >= rank and at < len(histogram.bounds):
            inside = (rank - (reached - count)) / count
            return bounds[at] + (bounds[at + 1] - bounds[at]) * inside
    return bounds[-1]
