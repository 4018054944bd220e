"""The last hour is filled step by step, with gaps for what nobody knows, and continues after a restart."""

import pytest

from pushrelay.counters import Family, Histogram
from pushrelay.status.figures import Figures
from pushrelay.status.recorder import HOUR, SETTLED, Clock, Recorder
from pushrelay.status.rings import STEP, shown


class Relay:
    """A relay whose figures and clock are the test's."""

    def __init__(self, path=None, wall=1_000_000.0):
        self.now, self.wall_now = 50.0, wall
        self.pushes, self.clients, self.recovered, self.lost, self.reason = 0, 0, 0, 0, None
        self.seconds = Histogram()
        clock = Clock(lambda: self.now, lambda: self.wall_now)
        self.recorder = Recorder(
            lambda: Figures([self]), lambda: self.clients, lambda: self.reason, self.is_draining, path, clock
        )

    def is_draining(self):
        return self.reason == "draining"

    def metrics(self):
        yield Family("relay_pushes_total", "counter", ".", {("http", "accepted"): self.pushes}, ("source", "result"))
        yield Family("relay_clients", "gauge", ".", {("websocket",): self.clients, ("polling",): 0}, ("transport",))
        results = {("recovered",): self.recovered, ("lost",): self.lost}
        yield Family("relay_recoveries_total", "counter", ".", results, ("result",))
        yield Family("relay_publish_seconds", "histogram", ".", self.seconds)

    def run(self, seconds):
        for _ in range(seconds):
            self.now += 1
            self.wall_now += 1
            self.recorder.each_second()

    def last(self, name, steps):
        return shown(self.recorder.snapshot().rings.series(name))[-steps:]

    def kinds(self):
        return [mark.kind for mark in self.recorder.snapshot().marks]


@pytest.fixture
def relay():
    relay = Relay()
    relay.recorder.each_second()
    return relay


def test_each_step_has_what_happened_in_it(relay):
    relay.pushes, relay.clients = 7, 3
    relay.seconds.observe(0.0004, 7)
    relay.run(STEP)
    relay.pushes, relay.clients = 9, 2
    relay.run(2 * STEP)
    assert relay.last("pushes", 4) == [None, 7, 2, 0]
    assert relay.last("clients", 3) == [3, 2, 2]
    assert relay.last("p50_us", 3)[1:] == [None, None] and 250 < relay.last("p50_us", 3)[0] < 500
    assert relay.last("nobody", 3) == [None] * 3, "no part counts it here"


def test_the_rate_is_that_of_the_last_step_and_the_present_one(relay):
    relay.pushes = 40
    relay.run(STEP)
    relay.pushes = 100
    relay.run(5)
    hour, figures = relay.recorder.snapshot(), Figures([relay])
    assert hour.rate("pushes", figures) == 100 / 15
    assert (hour.total("pushes", figures), hour.covers()) == (100, 15)


def test_a_machine_that_was_suspended_leaves_a_gap(relay):
    relay.pushes = 5
    relay.run(STEP)
    relay.now += 5 * STEP
    relay.wall_now += 5 * STEP
    relay.pushes = 6
    relay.run(1)
    assert relay.last("pushes", 6) == [5, None, None, None, None, 1]
    assert relay.kinds() == ["start", "gap"]


def test_a_clock_that_is_set_changes_nothing_but_the_times(relay):
    relay.pushes = 5
    relay.run(STEP)
    relay.wall_now -= 86_400
    relay.pushes = 8
    relay.run(STEP)
    assert relay.last("pushes", 2) == [5, 3] and relay.recorder.snapshot().end == relay.wall_now
    assert relay.recorder.up() == relay.now - 50


def test_trouble_is_marked_when_it_begins_and_ends(relay):
    began = relay.recorder.note_state(None)
    relay.run(3)
    relay.reason = "the disk is full"
    relay.run(4)
    assert relay.recorder.note_state(relay.reason) == began + 4
    relay.reason = None
    relay.run(1)
    assert relay.kinds() == ["start", "trouble", "ready"]
    assert relay.recorder.note_state(None) == began + 8


def restarted(tmp_path, away, *, kill=False, clients=3):
    path = str(tmp_path / "hour")
    first = Relay(path)
    first.pushes, first.clients = 5, clients
    first.run(STEP + 2)
    if not kill:
        first.reason, first.clients = "draining", 0
        first.run(1)
        first.recorder.close()
    second = Relay(path, first.wall_now + away)
    second.recorder.each_second()
    return second


def test_the_hour_continues_after_a_restart(tmp_path):
    relay = restarted(tmp_path, 30)
    relay.pushes = 2
    relay.run(STEP)
    assert relay.last("pushes", 5) == [5, None, None, None, 2]
    assert relay.kinds() == ["restart"]
    restart = relay.recorder.restart(Figures([relay]))
    assert (restart.away, restart.was_stopped, restart.clients_before) == (30.0, True, 3)
    assert relay.recorder.marks[0].text == "The relay was stopped, and was back after 30.0 s."


def test_after_a_kill_the_time_is_known_to_a_second(tmp_path):
    relay = restarted(tmp_path, 2.4, kill=True)
    assert relay.recorder.restart(Figures([relay])).was_stopped is False
    assert relay.recorder.marks[0].text == "The relay was killed, and was back after 2 s."


def test_the_clients_that_come_back_are_counted_until_it_has_settled(tmp_path):
    relay = restarted(tmp_path, 1)
    relay.clients, relay.recovered, relay.lost = 2, 2, 1
    found = relay.recorder.restart(Figures([relay]))
    assert (found.came_back, found.recovered, found.lost) == (2, 2, 1)
    relay.clients = 9
    relay.run(int(SETTLED) + STEP)
    relay.recovered = 700  # of an ordinary day
    found = relay.recorder.restart(Figures([relay]))
    assert (found.came_back, found.recovered, found.lost) == (3, 2, 1), "there were no more than three to come back"
    relay.wall_now += HOUR
    assert relay.recorder.restart(Figures([relay])) is None


def test_a_process_that_ended_long_ago_is_forgotten(tmp_path):
    relay = restarted(tmp_path, HOUR + 1)
    assert relay.recorder.restart(Figures([relay])) is None and relay.kinds() == ["start"]
    assert relay.last("pushes", 360) == [None] * 360


def test_a_clock_that_was_set_back_during_a_restart_makes_no_negative_time(tmp_path):
    assert restarted(tmp_path, -5000).recorder.restart(Figures([])).away == 0.0
