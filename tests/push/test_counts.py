"""Pushes are counted, and measured, a batch at a time."""

import time

import pytest

from pushrelay.push.counts import BURST_SECONDS, FAILED, HTTP, MEASURE_EVERY, SOCKET, SPOOL, PushCounts
from pushrelay.store.stripe import Pending


@pytest.fixture
def now(monkeypatch):
    """Return the monotonic time, which stands still for the counts."""
    now = time.monotonic()
    monkeypatch.setattr("pushrelay.push.counts.monotonic", lambda: now)
    return now


def metrics(counts):
    return {family.name: family.values for family in counts.metrics()}


def item(destination, connections):
    found = Pending(destination, "data")
    found.connections = connections
    return found


def test_pushes_are_counted_by_source_and_result():
    counts = PushCounts()
    counts.accepted += 3
    counts.published_here(HTTP, time.monotonic(), [item("42", 1), item("7", 0)])
    counts.published_here(SOCKET, time.monotonic(), [item("42", 1)])
    counts.add(HTTP, FAILED, 7)
    counts.taken(SPOOL, 5, [item("42", 1)])
    pushes = metrics(counts)["relay_pushes_total"]
    assert {of: count for of, count in pushes.items() if count} == {
        ("http", "accepted"): 4,
        ("http", "failed"): 7,
        ("socket", "accepted"): 1,
        ("spool", "accepted"): 5,
    }
    assert len(pushes) == 12, "all are there from the start"
    assert (counts.busiest.largest(9), counts.unreached.largest(9)) == ([("42", 3), ("7", 1)], [("7", 1)])


def test_the_destinations_of_some_publications_are_counted_for_those_of_all():
    counts, now = PushCounts(), time.monotonic()
    counts.accepted += 256
    counts.measure(now, now, [item(f"{each % 2}", each % 2) for each in range(256)])
    assert sum(count for _, count in counts.busiest.largest(9)) == 256
    counts.accepted += 1000
    counts.measure(now, now, [item("7", 0)])
    assert counts.busiest.largest(1) == [("7", 1000)] == counts.unreached.largest(1)
    counts.renew()
    counts.renew()
    assert counts.busiest.largest(9) == []


def test_a_measurement_stands_for_all_pushes_since_the_one_before(now):
    counts = PushCounts()
    counts.accepted += 1
    counts.measure(now - 0.2, now - 0.03, [])
    counts.accepted += 10
    counts.measure(now - 30, now - 30, [])
    counts.accepted += 100  # quick ones, which are not measured
    counts.measure(now, now, [])
    found = metrics(counts)
    assert dict(found["relay_publish_seconds"].buckets())[0.25] == 1 + 100
    assert dict(found["relay_delivery_seconds"].buckets())[0.05] == 1 + 100
    assert found["relay_publish_seconds"].buckets()[-1][1] == found["relay_delivery_seconds"].buckets()[-1][1] == 111
    assert 300 < found["relay_publish_seconds"].sum < 310


def test_the_histograms_have_each_push_at_the_moment_of_the_scrape(now):
    counts = PushCounts()
    for _ in range(round(BURST_SECONDS / MEASURE_EVERY)):
        assert counts.measure_at < now, "after a pause, all are measured"
        counts.measure(now, now, [])
    for _ in range(2):
        counts.measure(now, now, [])
    assert counts.measure_at > now
    counts.accepted += 6
    for _ in range(2):
        assert metrics(counts)["relay_publish_seconds"].buckets()[-1][1] == 6
