"""The promises of every event queue: one class of tests that each kind of broker inherits."""

import threading

import pytest
from conftest import DEADLINE

from pushrelay.errors import StoreError
from pushrelay.store import open_broker
from pushrelay.store.events import HOOKS, SENDS, Bounds, Cursor, Depth, Note, QueueFull, new_event
from pushrelay.store.sqlite_copy import copy_store


def names(events):
    return [each.name for each in events]


class EventsContract:
    """The promises. A subclass names the broker to try them on."""

    url = ""
    survives = True  # a restart

    @pytest.fixture(autouse=True)
    def set_up(self, tmp_path):
        self.path = tmp_path / "relay.db"
        self.brokers = []
        yield
        for broker in self.brokers:
            broker.close()

    def open(self):
        broker = open_broker(self.url.format(path=self.path), lambda publication, skip_sid: 0)
        self.brokers.append(broker)
        broker.start()
        assert broker.events.lease()
        return broker.events

    def reopen(self):
        self.brokers[-1].close()
        return self.open()

    def put(self, events, *wanted, kind="online", **fields):
        queued = [new_event(kind, each, '{"destination":"x"}', **fields) for each in wanted]
        events.put(queued)
        return queued

    def test_events_are_read_as_they_were_put_in_their_order(self):
        events = self.open()
        put = self.put(events, "a", "b ä\n", "") + self.put(events, "d", id="chosen by ä page")
        read = events.read(HOOKS, 0, 10)
        assert [each._replace(number=0) for each in read] == put
        assert [each.number for each in read] == [1, 2, 3, 4]
        assert names(events.read(HOOKS, 1, 2)) == ["b ä\n", ""]
        assert events.read(HOOKS, 4, 10) == events.read(SENDS, 0, 10) == []

    def test_an_event_that_is_not_unicode_is_refused_alone(self):
        events = self.open()
        with pytest.raises(ValueError, match="surrogate"):
            self.put(events, "a", "\ud800")
        self.put(events, "b")
        assert names(events.read(HOOKS, 0, 10)) == ["b"]

    def test_a_read_has_at_least_one_event_and_no_more_bytes_than_asked_for(self):
        events = self.open()
        self.put(events, *"abc")
        assert names(events.read(HOOKS, 0, 10, 1)) == ["a"]
        assert names(events.read(HOOKS, 0, 10, 2 * events.read(HOOKS, 0, 1)[0].size)) == ["a", "b"]

    def test_sends_have_a_queue_of_their_own(self):
        events = self.open()
        events.put(
            [new_event("online", "42", "{}"), new_event("send", "cart", '{"data":1}'), new_event("lost", "7", "{}")]
        )
        assert names(events.read(HOOKS, 0, 10)) == ["42", "7"]
        assert names(events.read(SENDS, 0, 10)) == ["cart"]

    def test_an_event_is_dropped_once_all_readers_have_it(self):
        events = self.open()
        assert events.set_readers(HOOKS, ["one", "two"]) == {"one": Cursor(0), "two": Cursor(0)}
        self.put(events, *"abc")
        events.done(HOOKS, "one", 2)
        assert events.depth(HOOKS)[:2] == (3, 3)
        events.done(HOOKS, "two", 3)
        assert events.depth(HOOKS)[:2] == (3, 1) and names(events.read(HOOKS, 0, 10)) == ["c"]
        events.done(HOOKS, "one", 3)
        events.done(HOOKS, "one", 1)  # a cursor never goes back
        assert events.depth(HOOKS) == Depth(3) and events.cursors(HOOKS) == {"one": Cursor(3), "two": Cursor(3)}
        self.put(events, "d")
        assert [each.number for each in events.read(HOOKS, 3, 10)] == [4]

    def test_a_new_reader_begins_with_the_oldest_event_and_one_that_is_removed_holds_nothing_back(self):
        events = self.open()
        events.set_readers(HOOKS, ["old"])
        self.put(events, *"abc")
        events.done(HOOKS, "old", 1)
        assert events.set_readers(HOOKS, ["new", "newer"]) == {"new": Cursor(1), "newer": Cursor(1)}
        events.done(HOOKS, "new", 3)
        assert events.set_readers(HOOKS, ["new"]) == {"new": Cursor(3)} and events.depth(HOOKS) == Depth(3)
        assert events.set_readers(HOOKS, ["new", "late"])["late"] == Cursor(3)

    def test_a_reader_that_is_gone_holds_nothing_back_and_can_come_back(self):
        events = self.open()
        events.set_readers(HOOKS, ["one", "two"])
        self.put(events, *"ab")
        events.set_gone(HOOKS, "one", 1_790_000_000.5)
        events.done(HOOKS, "two", 1)
        assert names(events.read(HOOKS, 0, 10)) == ["b"]
        assert events.cursors(HOOKS)["one"] == Cursor(0, 1_790_000_000.5)
        events.set_gone(HOOKS, "one", 0)
        events.done(HOOKS, "two", 2)
        assert events.depth(HOOKS).events == 1

    def test_a_full_queue_drops_its_oldest_events_and_counts_them(self):
        events = self.open()
        events.bounds = Bounds(3)
        self.put(events, *"ab")
        self.put(events, *"cde")
        assert names(events.read(HOOKS, 0, 10)) == ["c", "d", "e"] and events.dropped == 2

    def test_what_pages_send_is_refused_and_never_dropped_if_its_queue_is_full(self):
        events = self.open()
        events.bounds = Bounds(2)
        self.put(events, "a", kind="send")
        with pytest.raises(QueueFull, match="max_webhooks"):
            self.put(events, "b", "c", kind="send")
        self.put(events, "d", kind="send")
        assert names(events.read(SENDS, 0, 10)) == ["a", "d"] and events.dropped == 0

    def test_a_queue_is_full_of_bytes_too(self):
        events = self.open()
        events.bounds = Bounds(size=1000)
        self.put(events, *"abcd", "x" * 700)
        assert names(events.read(HOOKS, 0, 10)) == ["d", "x" * 700] and events.dropped == 3
        self.put(events, "y" * 2000)
        assert names(events.read(HOOKS, 0, 10)) == ["y" * 2000]
        with pytest.raises(QueueFull):
            self.put(events, "z" * 2000, kind="send")

    def test_the_depth_of_a_queue_has_the_age_of_its_oldest_event(self):
        events = self.open()
        events.set_readers(HOOKS, ["one"])
        assert events.depth(HOOKS) == Depth()
        self.put(events, "a", at=100.0)
        self.put(events, "b", at=200.5)
        assert events.depth(HOOKS) == (2, 2, sum(each.size for each in events.read(HOOKS, 0, 10)), 100.0)
        events.done(HOOKS, "one", 1)
        assert events.depth(HOOKS).oldest == 200.5

    def test_notes_change_together_with_events(self):
        events = self.open()
        events.put([], [Note("online", "42", "1"), Note("online", "é", ""), Note("inbox", "42", "x")])
        events.put([new_event("offline", "42", "{}")], [Note("online", "42", None), Note("online", "7", "2")])
        assert events.notes("online") == {"é": "", "7": "2"} and events.notes("inbox") == {"42": "x"}
        events.bounds = Bounds(0)
        with pytest.raises(QueueFull):
            events.put([new_event("send", "a", "{}")], [Note("online", "never", "1")])
        assert "never" not in events.notes("online")

    def test_whoever_sends_learns_of_new_events(self):
        events, woken = self.open(), threading.Event()
        events.call_on_put(woken.set)
        self.put(events, "a")
        assert woken.wait(DEADLINE)

    def test_events_cursors_and_notes_survive_a_restart(self):
        events = self.open()
        events.set_readers(HOOKS, ["one", "two"])
        put = self.put(events, *"abc")
        events.done(HOOKS, "one", 2)
        events.set_gone(HOOKS, "two", 5.0)
        events.put([], [Note("online", "42", "1")])
        again = self.reopen()
        if not self.survives:
            assert again.depth(HOOKS) == Depth() and again.notes("online") == {}
            return
        assert [each._replace(number=0) for each in again.read(HOOKS, 2, 10)] == put[2:]
        assert again.cursors(HOOKS) == {"one": Cursor(2), "two": Cursor(0, 5.0)}
        assert again.notes("online") == {"42": "1"}

    def test_a_queue_that_is_closed_raises_an_error(self):
        events = self.open()
        self.brokers[-1].close()
        with pytest.raises(StoreError):
            self.put(events, "a")


class TestMemory(EventsContract):
    url = "memory:"
    survives = False


class TestSQLite(EventsContract):
    url = "sqlite:{path}"


def test_an_event_is_one_json_object():
    event = new_event("join", "a", '{"destination":"a","member":{"id":"1"}}', "i", 1790000000.1234)
    assert event.as_json() == ('{"id":"i","event":"join","at":1790000000.123,"destination":"a","member":{"id":"1"}}')
    assert new_event("x", "a", "{}", "i", 1.0).as_json() == '{"id":"i","event":"x","at":1.000}'


def test_a_backup_has_the_events_and_the_notes(tmp_path):
    broker = open_broker(f"sqlite:{tmp_path}/relay.db", lambda *_: 0)
    broker.start()
    broker.events.set_readers(HOOKS, ["one"])
    broker.events.put([new_event("online", "42", "{}")], [Note("online", "42", "")])
    copy_store(f"{tmp_path}/relay.db", f"{tmp_path}/copy.db")
    broker.close()
    copy = open_broker(f"sqlite:{tmp_path}/copy.db", lambda *_: 0)
    copy.start()
    assert names(copy.events.read(HOOKS, 0, 10)) == ["42"] and copy.events.notes("online") == {"42": ""}
    assert copy.events.cursors(HOOKS) == {"one": Cursor(0)}
    copy.close()
