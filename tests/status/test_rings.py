"""The last hour in steps of ten seconds, in a fixed amount of memory."""

from pushrelay.status.rings import COUNTS, GAP, LENGTH, MOST, SERIES, Rings, shown


def test_the_newest_step_is_last_and_the_oldest_is_dropped():
    rings = Rings()
    for each in range(LENGTH + 5):
        rings.add({"clients": each})
    clients = list(rings.series("clients"))
    assert (len(clients), clients[0], clients[-1]) == (LENGTH, 5, LENGTH + 4)


def test_what_is_not_known_is_a_gap_and_counts_as_nothing():
    rings = Rings()
    rings.add({"pushes": 3, "p50_us": 400})
    rings.skip(2)
    rings.add({"pushes": 4})
    assert shown(rings.series("pushes"))[-4:] == [3, None, None, 4]
    assert shown(rings.series("p50_us"))[-4:] == [400, None, None, None]
    assert (rings.total("pushes"), rings.total("lost"), rings.known("pushes", 2)) == (7, 0, [4])


def test_the_hour_begins_with_the_first_step_that_has_figures():
    rings = Rings()
    assert rings.steps_known() == 0
    rings.add({"clients": 0})
    rings.skip(5)
    assert rings.steps_known() == 6
    rings.skip(10 * LENGTH)
    assert rings.steps_known() == 0


def test_a_figure_that_does_not_fit_is_cut_and_the_memory_stays_the_same():
    rings = Rings()
    rings.add({"pushes": 1 << 40, "lost": -7})
    assert (rings.series("pushes")[-1], rings.series("lost")[-1]) == (MOST, GAP)
    assert len(rings.cells) * rings.cells.itemsize == 4 * LENGTH * len(SERIES) < 25_000
    assert set(COUNTS) < set(SERIES)
