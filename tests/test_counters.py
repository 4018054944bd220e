"""Counters and histograms of plain integers."""

import threading
from math import inf

from pushrelay.counters import OTHER, Counters, Family, Histogram, Measured


def test_a_value_counts_in_each_bucket_whose_bound_it_does_not_exceed():
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 9):
        histogram.observe(value)
    assert histogram.buckets() == [(1, 2), (2, 3), (4, 4), (inf, 5)]
    assert histogram.sum == 16


def test_a_value_can_be_added_several_times_at_once():
    histogram = Histogram((1, 2))
    histogram.observe(2, times=3)
    assert (histogram.buckets(), histogram.sum) == ([(1, 0), (2, 3), (inf, 3)], 6)


def test_histograms_of_several_writers_add_up():
    first, second = Histogram((1,)), Histogram((1,))
    first.observe(1)
    second.observe(3, times=2)
    both = sum([first, second], Histogram((1,)))
    assert (both.buckets(), both.sum) == ([(1, 1), (inf, 3)], 7)
    assert first.buckets() == [(1, 1), (inf, 1)], "the histograms that are added stay as they are"


def test_counters_begin_at_zero_and_words_outside_their_table_share_one():
    counters = Counters(["eof", "beat"])
    assert counters.values() == {("eof",): 0, ("beat",): 0}
    counters.add("beat", 2)
    for each in range(1000):
        counters.add(f"a stranger's word {each}")
    assert counters.values() == {("eof",): 0, ("beat",): 2, (OTHER,): 1000}


def test_counters_lose_nothing_if_many_threads_count():
    counters = Counters(["x"])
    threads = [threading.Thread(target=lambda: [counters.add("x") for _ in range(5000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.values() == {("x",): 40_000}


def test_a_part_is_measured_if_it_has_metrics():
    class Link:
        def metrics(self):
            return [Family("relay_redis_up", "gauge", "Whether the link to Redis works.", 1)]

    assert isinstance(Link(), Measured) and not isinstance(object(), Measured)
