"""Presence is reported once, and after a restart those who do not come back are reported offline."""

import pytest

from pushrelay.store.events import Note
from pushrelay.webhooks import tracker as module
from pushrelay.webhooks.tracker import Tracker


class Here:
    def __init__(self, monkeypatch):
        self.now = 100.0
        self.held = set()
        self.woken = 0
        self.notes = {"online": {}, "member": {}}
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.start()

    def start(self):
        """Begin as after a restart."""
        self.tracker = Tracker(self.held.__contains__, self.wake)
        self.tracker.load(self.notes["online"], self.notes["member"], 30.0)

    def wake(self):
        self.woken += 1

    def come(self, *names):
        for name in names:
            self.held.add(name)
            self.tracker.changed(name, False)

    def go(self, *names):
        for name in names:
            self.held.discard(name)
            self.tracker.changed(name, True)

    def leave(self, name):
        """Have the last client leave, and the thread notice it."""
        self.go(name)
        assert self.after(0) == []

    def after(self, seconds):
        """Return the events after some time, and keep the notes as a store does."""
        self.now += seconds
        events, notes = self.tracker.step()
        for note in notes:
            if note.value is None:
                del self.notes[note.kind][note.key]
            else:
                self.notes[note.kind][note.key] = note.value
        return [(each.kind, each.name) for each in events]


@pytest.fixture
def here(monkeypatch):
    return Here(monkeypatch)


def test_the_first_client_and_the_last_one_are_reported(here):
    here.come("42", "42", "7")
    assert here.after(0) == [("online", "42"), ("online", "7")]
    here.tracker.changed("42", False)  # another socket of it came
    here.leave("42")
    assert here.after(4.9) == []
    assert here.after(0.2) == [("offline", "42")]
    here.come("42")
    assert here.after(0) == [("online", "42")]


def test_a_page_change_causes_no_event(here):
    here.come("42")
    here.after(0)
    here.leave("42")
    here.after(3)
    here.come("42")
    assert here.after(30) == []
    here.leave("42")
    assert here.after(4.9) == [] and here.after(0.2) == [("offline", "42")]


def test_a_client_that_was_there_for_a_moment_only_is_reported_too(here):
    here.come("42")
    here.go("42")
    assert here.after(0) == [("online", "42")] and here.after(6) == [("offline", "42")]


def test_a_destination_that_is_reported_costs_its_next_clients_nothing(here):
    here.come("42")
    here.after(0)
    woken = here.woken
    here.come("42")
    assert here.woken == woken


def test_after_a_restart_nobody_is_online_twice_and_those_who_stay_away_are_offline(here):
    here.come("back", "away")
    here.after(0)
    here.held.clear()
    here.start()
    here.come("back", "new")
    assert here.after(1) == [("online", "new")]
    assert here.after(28) == [] and here.after(2) == [("offline", "away")]
    assert here.notes["online"].keys() == {"back", "new"}


def test_members_are_reported_once_with_their_info(here):
    here.tracker.member("join", "room", "1", '{"name":"Ann"}')
    here.tracker.member("join", "room", "1", '{"name":"Anna"}')
    here.tracker.member("leave", "room", "2", "{}")
    assert here.after(0) == [("join", "room")]
    assert here.notes["member"] == {'["room","1"]': '{"name":"Anna"}'}
    here.tracker.member("leave", "room", "1", '{"name":"Anna"}')
    [event], [note] = here.tracker.step()
    assert event.body == '{"destination":"room","member":{"id":"1","info":{"name":"Anna"}}}'
    assert event.kind == "leave" and note == Note("member", '["room","1"]', None)


def test_members_who_do_not_come_back_after_a_restart_leave(here):
    for each in "12":
        here.tracker.member("join", "room", each, "{}")
    here.after(0)
    here.start()
    here.tracker.member("join", "room", "1", "{}")
    assert here.after(29) == [] and here.after(2) == [("leave", "room")]
    assert here.notes["member"] == {'["room","1"]': "{}"}


def test_the_thread_looks_again_when_something_is_due(here):
    assert here.tracker.seconds_left() == 1.0
    here.tracker.grace = 0.5
    here.come("42")
    here.go("42")
    here.after(0)
    assert here.tracker.seconds_left() == 0.5
    here.now += 2
    assert here.tracker.seconds_left() == 0.0


def test_what_is_held_before_webhooks_are_switched_on_is_reported(here):
    here.held.add("42")
    here.tracker.found(["42"])
    assert here.after(0) == [("online", "42")]


def test_many_changes_are_taken_a_thousand_at_a_time(here):
    names = [str(each) for each in range(2500)]
    here.come(*names)
    counts = [len(here.after(0)) for _ in range(3)]
    assert counts == [1000, 1000, 500] and here.tracker.seconds_left() > 0
    here.held.clear()
    here.start()
    here.now += 30
    assert here.tracker.seconds_left() == 0
    assert [len(here.after(0)) for _ in range(4)] == [1000, 1000, 500, 0]
    assert here.notes["online"] == {}
