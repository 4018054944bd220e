"""The metrics of the relay as a whole."""

from pushrelay import __version__
from pushrelay.metrics.process import Process


def test_a_relay_that_has_trouble_is_not_ready():
    troubles = [None, "the disk is full"]
    process = Process("sqlite", lambda: troubles.pop(0))
    ready = [{family.name: family.values for family in process.metrics()}["relay_ready"] for _ in range(2)]
    assert ready == [1, 0]


def test_the_build_is_named():
    build = next(iter(Process("memory", lambda: None).metrics()))
    assert (build.name, build.labels) == ("relay_build_info", ("version", "python", "broker"))
    [(labels, value)] = build.values.items()
    assert (labels[0], labels[2], value) == (__version__, "memory", 1)
