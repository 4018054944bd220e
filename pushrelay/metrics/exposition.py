"""The answer to GET /metrics, which prometheus_client renders from the metrics of the relay's parts.

Each part has a method `metrics()`, which reads its numbers; see pushrelay.counters. Nothing is kept here.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pushrelay.answers import PRIVATE, Answer
from pushrelay.counters import Family, Histogram, collected, series

# The parts of a request that are passed on. prometheus_client could filter by the query, but nobody needs that.
_READ = ("HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING")
_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


class Exposition:
    """Renders the metrics of all parts. Any thread may call it.

    `parts()` returns the parts; those without metrics are ignored.
    """

    def __init__(self, parts: Callable[[], Iterable[object]]):
        registry = CollectorRegistry()
        # The process: CPU, memory, open files, start time; Python's version and its garbage collector.
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_Relay(parts))
        self._render = make_wsgi_app(registry)

    def answer(self, environ: dict[str, Any]) -> Answer:
        """Return the metrics in the format and the compression that this request accepts."""
        request = {name: environ[name] for name in _READ if name in environ}
        head: list[Any] = []
        body = self._render(
            {**request, "REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}, lambda *start: head.extend(start)
        )
        return Answer(head[0], (*head[1], *PRIVATE, ("Vary", "Accept, Accept-Encoding")), b"".join(body))


class _Relay(Collector):
    """The relay's metrics, as prometheus_client collects them."""

    def __init__(self, parts: Callable[[], Iterable[object]]):
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Return nothing, so that the registry does not collect while it is created."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        for family in collected(self._parts()).values():
            yield _converted(family)


def _converted(family: Family) -> Metric:
    """Return a family in the form of prometheus_client."""
    metric: Any = _FAMILIES[family.kind](family.name, family.help, labels=family.labels)
    for labels, value in series(family):
        if isinstance(value, Histogram):
            metric.add_metric(labels, [(_bound(bound), count) for bound, count in value.buckets()], value.sum)
        else:
            metric.add_metric(labels, value)
    return metric  # type: ignore[no-any-return]  # it is Any because the three classes differ in add_metric()


def _bound(bound: float) -> str:
    """Return the value of the label `le`."""
    return "+Inf" if bound == inf else repr(float(bound))
