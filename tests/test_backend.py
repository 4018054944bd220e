"""Backend: its parts are started, reported on and stopped together, and none of them stops another."""

import logging

import pytest

from pushrelay import backend
from pushrelay.backend import Backend


class Part:
    """A part that does what the test says, and notes what is asked of it."""

    def __init__(self, name="outbox", trouble=None, fails=(), is_on=True):
        self.name, self.trouble, self._fails, self.is_on = name, trouble, fails, is_on
        self.calls = []

    def _called(self, name):
        self.calls.append(name)
        if name in self._fails:
            raise RuntimeError(name)

    def start(self):
        self._called("start")

    def each_second(self):
        self._called("each_second")

    def reload(self, settings):
        self._called(settings)

    def close(self):
        self._called("close")

    def facts(self):
        return {"rows": 3}


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_all_parts_are_started_and_stopped_even_if_one_fails(lines):
    first, second = Part(fails=["each_second", "close"]), Part("spool")
    parts = Backend([first, second])
    parts.each_second()
    assert not first.calls, "nothing is due before the start"
    for each in (parts.start, parts.each_second, lambda: parts.reload("new"), parts.close):
        each()
    assert first.calls == second.calls == ["start", "each_second", "new", "close"]
    assert lines() == ["outbox failed; it continues", "outbox could not be stopped in order"]


def test_a_part_that_its_use_has_switched_on_is_stopped_too():
    part, off = Part("presence", is_on=False), Part(is_on=False)
    parts = Backend([part, off])
    parts.start()
    part.is_on = True
    parts.close()
    assert part.calls == ["close"] and not off.calls


def test_trouble_is_logged_when_it_begins_changes_and_ends_and_once_a_minute(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(backend.time, "monotonic", lambda: now[0])
    part = Part()
    parts = Backend([part])
    parts.start()
    for trouble, seconds in ((None, 1), ("away", 1), ("away", 58), ("away", 2), ("full", 1), (None, 1), (None, 60)):
        part.trouble = trouble
        parts.each_second()
        now[0] += seconds
    assert lines() == ["outbox: away", "outbox: full", "outbox works again"]
    part.trouble = "away"
    for _ in range(121):
        parts.each_second()
        now[0] += 1
    assert lines()[3:] == ["outbox: away"] * 3


def test_only_this_machine_is_told_the_reasons():
    parts = Backend([Part(trouble="no route to 10.0.0.7"), Part("spool")])
    assert parts.trouble(is_local=True) == {"outbox": "no route to 10.0.0.7"}
    assert parts.trouble(is_local=False) == {"outbox": backend.PUBLIC}
    assert parts.facts(is_local=False) == {
        "outbox": {"rows": 3, "trouble": backend.PUBLIC},
        "spool": {"rows": 3, "trouble": None},
    }


def test_a_part_that_is_off_is_started_by_the_reload_that_switches_it_on():
    part = Part(is_on=False)
    parts = Backend([part])
    parts.start()
    parts.each_second()
    assert parts.parts == [] and parts.facts(is_local=True) == {} and part.calls == []
    part.is_on = True
    parts.reload("new")
    parts.reload("newer")
    assert parts.parts == [part] and part.calls == ["new", "start", "newer"]
    part.is_on = False
    parts.close()
    assert part.calls[-1] == "close"


class Waiting(Part):
    """A part that waits for work. `takes`: it takes the work that nodes share."""

    takes = False

    def ring(self):
        self._called("ring")
        return self.takes


def test_a_ring_reaches_the_parts_that_wait_for_work_and_are_on():
    parts = [Part("presence"), Waiting("outbox"), Waiting("spool", is_on=False)]
    Backend(parts).ring()
    assert [each.calls for each in parts] == [[], ["ring"], []]


def test_a_ring_is_passed_on_to_other_nodes_unless_this_one_takes_the_work():
    class Rings:
        passed_on = 0

        def pass_on(self):
            self.passed_on += 1

    rings, outbox, spool = Rings(), Waiting("outbox"), Waiting("spool")
    for takes, count in ((False, 1), (True, 1), (False, 2)):
        outbox.takes = takes
        Backend([outbox, spool], rings).ring()
        assert rings.passed_on == count
    Backend([], rings).ring()
    assert rings.passed_on == 3 and outbox.calls == spool.calls == ["ring"] * 3
