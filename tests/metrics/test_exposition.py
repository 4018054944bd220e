"""GET /metrics is rendered from the metrics of all parts, in the format that the scraper accepts."""

import gzip

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from pushrelay.counters import Family, Histogram, merged
from pushrelay.metrics.exposition import Exposition


class Part:
    def __init__(self, *families):
        self.families = families

    def metrics(self):
        return self.families


class Broken:
    def metrics(self):
        yield Family("relay_begun", "gauge", "Before it failed.", 1)
        raise ZeroDivisionError


def answer(*parts, **environ):
    return Exposition(lambda: parts).answer(environ)


def samples(*parts):
    families = parse(answer(*parts).body.decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_each_kind_of_metric_is_rendered():
    histogram = Histogram((0.1, 1))
    histogram.observe(0.5, times=3)
    found = samples(
        Part(
            Family("relay_ready", "gauge", "Ready.", 1),
            Family("relay_cuts_total", "counter", "Cuts.", {("eof",): 2, ("beat",): 0}, ("reason",)),
            Family("relay_echo_seconds", "histogram", "Echo.", histogram),
        )
    )
    assert found["relay_ready",] == 1
    assert (found["relay_cuts_total", "eof"], found["relay_cuts_total", "beat"]) == (2, 0)
    buckets = [found["relay_echo_seconds_bucket", bound] for bound in ("0.1", "1.0", "+Inf")]
    assert buckets == [0, 3, 3]
    assert (found["relay_echo_seconds_count",], found["relay_echo_seconds_sum",]) == (3, 1.5)


def test_metrics_of_one_name_are_added_up():
    first, second = Histogram((1,)), Histogram((1,))
    first.observe(1)
    second.observe(2)
    families = [
        Family("relay_refusals_total", "counter", "Refusals.", {("a",): 1, ("b",): 2}, ("code",)),
        Family("relay_refusals_total", "counter", "Refusals.", {("b",): 3, ("c",): 4}, ("code",)),
        Family("relay_x_seconds", "histogram", "X.", first),
        Family("relay_x_seconds", "histogram", "X.", second),
        Family("relay_y", "gauge", "Y.", 1),
    ]
    found = merged(families)
    assert found["relay_refusals_total"].values == {("a",): 1, ("b",): 5, ("c",): 4}
    assert found["relay_x_seconds"].values[()].counts == [1, 1]
    assert found["relay_y"].values == 1


def test_a_part_that_fails_or_has_no_metrics_does_not_hide_the_others(caplog):
    found = samples(Broken(), object(), None, Part(Family("relay_ready", "gauge", "Ready.", 1)))
    assert found["relay_begun",] == found["relay_ready",] == 1
    assert "the metrics of" in caplog.text


def test_the_process_is_described_too():
    found = samples()
    assert found["process_open_fds",] > 3 and found["process_start_time_seconds",] > 1e9
    assert any(name[0] == "python_info" for name in found)


def test_the_format_is_the_one_that_the_scraper_accepts():
    part = Part(Family("relay_cuts_total", "counter", "Cuts.", 2))
    plain, modern = answer(part), answer(part, HTTP_ACCEPT="application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert dict(plain.headers)["Content-Type"].startswith("text/plain; version=0.0.4")
    assert dict(modern.headers)["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.body.endswith(b"# EOF\n")
    names = {family.name for family in parse_openmetrics(modern.body.decode())}
    assert "relay_cuts" in names, "OpenMetrics has the name without _total in its header"


def test_the_answer_is_compressed_if_the_scraper_accepts_that():
    packed = answer(HTTP_ACCEPT_ENCODING="gzip")
    assert dict(packed.headers)["Content-Encoding"] == "gzip"
    assert b"process_cpu_seconds_total" in gzip.decompress(packed.body)
    assert dict(packed.headers)["Cache-Control"] == "no-store"
