"""The numbers of all parts, read from their metrics."""

import pytest

from pushrelay.counters import Family, Histogram
from pushrelay.status.figures import Figures, quantile, since


class Part:
    def __init__(self, *families):
        self.families = families

    def metrics(self):
        return self.families


def test_numbers_are_found_by_their_labels_and_added_up():
    pushes = {("http", "accepted"): 3, ("socket", "accepted"): 4, ("http", "refused"): 0}
    family = Family("relay_pushes_total", "counter", "Pushes.", pushes, ("source", "result"))
    figures = Figures([Part(family), object(), Part(Family("relay_ready", "gauge", "Ready.", 1))])
    assert figures.number("relay_pushes_total", result="accepted") == 7
    assert figures.number("relay_pushes_total", source="http") == 3
    assert (figures.number("relay_ready"), figures.number("relay_nodes"), figures.whole("relay_nodes")) == (1, None, 0)
    assert figures.by("source", "relay_pushes_total") == {"http": 3, "socket": 4}


def test_a_histogram_is_a_copy_that_later_values_do_not_change():
    histogram = Histogram((1, 2))
    figures = Figures([Part(Family("relay_x_seconds", "histogram", "X.", histogram))])
    before = figures.histogram("relay_x_seconds")
    histogram.observe(1.5)
    assert sum(before.counts) == 0 and sum(since(histogram, before).counts) == 1
    assert since(histogram, None) is histogram
    assert sum(figures.histogram("relay_y_seconds").counts) == 0


@pytest.mark.parametrize(("part", "value"), [(0.5, 1.0), (0.75, 1.5), (1.0, 2.0), (0.01, 0.02)])
def test_a_quantile_is_somewhere_in_its_bucket(part, value):
    histogram = Histogram((1, 2, 4))
    histogram.observe(0.5, times=2)
    histogram.observe(1.5, times=2)
    assert quantile(histogram, part) == pytest.approx(value)


def test_a_quantile_of_nothing_is_not_known_and_one_beyond_all_bounds_is_the_last_bound():
    histogram = Histogram((1, 2))
    assert quantile(histogram, 0.5) is None
    histogram.observe(9)
    assert quantile(histogram, 0.5) == 2
