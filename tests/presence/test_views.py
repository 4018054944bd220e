"""Watchers get a list, then numbered events without a gap, encoded once for all of them."""

import json
import threading

from audience import Replica

from pushrelay.errors import Refused
from pushrelay.presence.view import PACKET_BYTES, Ask
from pushrelay.presence.views import Views
from pushrelay.store.members import Found


class Stage:
    """Views, with rooms whose watchers are replicas: each checks what it is sent."""

    watches = watch_rooms = 0

    def __init__(self, members=(), is_slow=False):
        self.replicas, self.inside, self.packets, self.refused, self.wakes = {}, {}, 0, [], 0
        self.found = [Found(*each) for each in members]
        self.is_slow = is_slow
        self.full = set()  # sids of clients that have not read what they were sent
        self.timers = []
        self.unloaded = []
        self.views = Views(self, threading.RLock(), self.load, self.unloaded.append, self.wake)

    def wake(self):
        self.wakes += 1

    def load(self, destination):
        if not self.is_slow:
            self.views.loaded(destination, self.found)
            self.views.answer(destination)

    def watch(self, sid, destination="room", enter=None):
        def inside():
            self.inside.setdefault(f"presence:{destination}", []).append(sid)

        stage = self

        class Reply:
            def send(self, text):
                stage.replicas[sid] = Replica(destination, json.loads(text))

            def refuse(self, error):
                stage.refused.append((sid, error.error))

        self.views.ask(destination, Ask(sid, enter or inside, Reply(), lambda size: None))
        return self.replicas.get(sid)

    def has_room(self, sid, size):
        return sid not in self.full

    def call_later(self, seconds, callback):
        self.timers.append(callback)

    def deliver_text(self, write, room, skip_sid):
        for sid in self.inside.get(room, ()):
            if sid not in skip_sid:
                self.send_text(write(), sid)
        self.packets += 1

    def send_text(self, text, sid):
        name, message = json.loads(text)
        assert name == "relay_presence"
        self.replicas[sid].take(message)


def test_a_watcher_gets_the_list_and_then_each_change():
    stage = Stage([("ann", "{}", 1.0)])
    seen = stage.watch("w")
    assert seen.ids == {"ann"}
    stage.views.apply("room", "bob", "{}", 2.0)
    stage.views.apply("room", "ann", None)
    assert seen.ids == {"ann"} and stage.wakes == 2, "events are sent in batches"
    stage.views.flush()
    assert seen.ids == {"bob"} and seen.version == 2 and stage.packets == 1


def test_repetitions_cause_no_event():
    stage = Stage([("ann", "{}", 1.0)])
    seen = stage.watch("w")
    stage.views.apply("room", "ann", "{}", 1.0)
    stage.views.apply("room", "bob", None)
    stage.views.apply("hall", "bob", "{}", 1.0)
    stage.views.flush()
    assert not seen.history and not stage.wakes


def test_newcomers_get_exactly_the_events_after_their_list():
    stage = Stage()
    stage.watch("first")
    for number in range(10):
        stage.views.apply("room", str(number), "{}", 1.0)
        assert stage.watch(f"w-{number}").ids == {str(each) for each in range(number + 1)}
        if number % 4 == 3:
            stage.views.flush()
    stage.views.apply("room", "0", None)
    stage.watch("w-2")  # again
    stage.views.flush()
    assert {frozenset(each.ids) for each in stage.replicas.values()} == {frozenset(map(str, range(1, 10)))}
    assert {each.version for each in stage.replicas.values()} == {11}


def test_a_burst_is_sent_in_packets_of_a_bounded_size():
    stage = Stage()
    seen = stage.watch("w")
    info = json.dumps({"text": "x" * 1000})
    for number in range(300):
        stage.views.apply("room", str(number), info, 1.0)
    stage.views.flush()
    assert len(seen.members) == 300 and stage.packets == 5 and 300 * len(info) / 5 < PACKET_BYTES + 2000


def test_questions_wait_until_the_members_are_known():
    stage = Stage([("ann", "{}", 1.0)], is_slow=True)
    assert stage.watch("v") is None and stage.watch("w") is None
    stage.views.apply("room", "bob", "{}", 1.0)  # it is not known what it follows
    stage.views.loaded("room", [*stage.found, Found("bob", "{}", 1.0)])
    stage.views.apply("room", "cat", "{}", 1.0)
    stage.views.answer("room")
    stage.views.flush()
    assert {frozenset(each.ids) for each in stage.replicas.values()} == {frozenset({"ann", "bob", "cat"})}
    assert len(stage.replicas) == 2


def test_a_question_that_waits_is_refused_when_its_page_ends_the_watch():
    stage = Stage(is_slow=True)
    for sid in ("v", "w"):
        stage.watch(sid)
    stage.views.cancel("room", "v")
    stage.views.cancel("hall", "v")
    assert stage.refused == [("v", "bad_request")]
    stage.views.loaded("room", [])
    stage.views.answer("room")
    assert list(stage.replicas) == ["w"] and stage.watches == 1
    stage.views.cancel("room", "w")
    assert len(stage.refused) == 1, "it has been answered"


def test_questions_are_refused_if_the_members_cannot_be_read():
    stage = Stage(is_slow=True)
    stage.watch("v")
    stage.views.failed("room", Refused(503, "store_not_available", "later"))
    assert stage.refused == [("v", "store_not_available")] and not stage.views.destinations()
    stage.is_slow = False
    assert stage.watch("v").ids == set()


def test_a_destination_that_nobody_watches_any_more_is_forgotten():
    stage = Stage()
    for sid in ("v", "w"):
        stage.watch(sid)
    assert (stage.watches, stage.watch_rooms) == (2, 1)
    stage.views.apply("room", "ann", "{}", 1.0)
    stage.views.left("room", "v")
    stage.views.left("room", "v")
    assert "room" in stage.views
    stage.views.left("room", "w")
    assert "room" not in stage.views and stage.unloaded == ["room"] and (stage.watches, stage.watch_rooms) == (0, 0)
    stage.views.flush()


def test_a_watcher_that_may_not_enter_is_not_counted():
    stage = Stage()

    def refuse():
        raise Refused(403, "token_expired", "too late")

    stage.watch("w", enter=refuse)
    assert stage.refused == [("w", "token_expired")] and not stage.views.destinations() and stage.watches == 0
    stage.watch("v")
    stage.watch("w", enter=refuse)
    assert stage.watches == 1


def test_a_client_that_has_not_read_another_list_yet_gets_this_one_later_and_without_a_gap():
    stage = Stage([("ann", "{}", 1.0)])
    stage.watch("quick")
    stage.full.add("slow")
    assert stage.watch("slow") is None and stage.watch("slow") is None
    stage.views.apply("room", "bob", "{}", 2.0)
    stage.timers.pop()()
    assert "slow" not in stage.replicas and len(stage.timers) == 1, "one timer for all who wait"
    stage.full.clear()
    stage.timers.pop()()
    assert stage.replicas["slow"].ids == {"ann", "bob"} and not stage.timers
    stage.views.apply("room", "cid", "{}", 3.0)
    stage.views.flush()
    assert stage.replicas["slow"].ids == stage.replicas["quick"].ids == {"ann", "bob", "cid"}


def test_a_client_that_ends_its_watch_before_it_has_room_for_the_list_does_not_get_it():
    stage = Stage()
    stage.full.add("slow")
    stage.watch("slow")
    stage.views.cancel("room", "slow")
    stage.full.clear()
    stage.timers.pop()()
    assert stage.refused == [("slow", "bad_request")] and not stage.inside and stage.unloaded == ["room"]
