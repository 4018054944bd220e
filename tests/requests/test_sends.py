"""A message of a page is stored before it is acknowledged, and a repeat is stored once."""

import json
import threading

import pytest
from conftest import wait_for

from pushrelay.access.member import Member
from pushrelay.errors import Refused, StoreError
from pushrelay.requests import sends as module
from pushrelay.requests.sends import Sends
from pushrelay.store.events import Bounds, queue_full


class Queue:
    """A queue of events that stores when the test lets it, and fails with the error that the test sets."""

    def __init__(self):
        self.batches, self.error, self.open = [], None, threading.Event()
        self.open.set()

    def put(self, events):
        self.open.wait(20)
        if self.error:
            raise self.error
        self.batches.append(events)

    @property
    def events(self):
        return [event for batch in self.batches for event in batch]


class Rooms:
    """The rooms of clients that may always send."""

    def overdraft(self, sid):
        return 0.0

    def charge(self, sid, events):
        pass

    def let_stay(self, sid):
        pass


class Pages:
    """The pages of one user for each socket."""

    def member(self, sid, environ):
        return Member(sid)

    def ids(self, sid):
        return []

    def check_origin(self, environ):
        pass


class Reply:
    """An acknowledgement: a list, empty until there is one."""

    def __init__(self):
        self.got = []

    def send(self, text):
        self.got.append(json.loads(text))

    def refuse(self, error):
        self.got.append(error)


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def send(queue):
    sends = Sends(Rooms(), Pages(), lambda: None, lambda: queue)

    def send(name="seen", id=None, sid="sid1"):
        reply = Reply()
        sends.send({"name": name, "id": id}, sid, {}, reply)
        return reply

    send.sends = sends
    return send


def answer_of(reply):
    return wait_for(lambda: reply.got, "the acknowledgement")[0]


def test_an_event_is_stored_before_it_is_acknowledged(send, queue):
    queue.open.clear()
    reply = send()
    assert not reply.got
    queue.open.set()
    assert answer_of(reply) == {"ok": True, "id": queue.events[0].id} and queue.events[0].kind == "send"


def test_events_that_wait_are_stored_together_and_in_order(send, queue):
    queue.open.clear()
    replies = [send(str(number)) for number in range(50)]
    queue.open.set()
    assert all(answer_of(reply)["ok"] for reply in replies)
    assert [event.name for event in queue.events] == [str(number) for number in range(50)]
    assert len(queue.batches) <= 2


def test_a_repeat_is_acknowledged_and_stored_once(send, queue):
    queue.open.clear()
    first, second = send(id="a"), send(id="a")
    queue.open.set()
    assert answer_of(first) == answer_of(second) == answer_of(send(id="a")) == {"ok": True, "id": "a"}
    assert [event.id for event in queue.events] == ["a"]


def test_the_same_id_of_another_user_is_another_event(send, queue):
    answer_of(send(id="a")), answer_of(send(id="a", sid="sid2"))
    assert len(queue.events) == 2


def test_an_id_is_remembered_for_five_minutes(send, queue, monkeypatch):
    answer_of(send(id="a"))
    now = module.time.monotonic() + 301
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    answer_of(send(id="a"))
    assert len(queue.events) == 2


def test_what_was_not_stored_is_refused_and_may_be_sent_again(send, queue):
    queue.error = StoreError("the disk of /srv/relay.db is full", "the disk is full")
    refusal = answer_of(send(id="a"))
    assert refusal.error == "store_not_available" and "/srv" not in refusal.message
    queue.error = queue_full(Bounds())
    assert answer_of(send(id="a")).error == "queue_full"
    queue.error = None
    assert answer_of(send(id="a"))["ok"] and len(queue.events) == 1


def test_what_waits_to_be_stored_has_a_bound(send, queue, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    queue.open.clear()
    send()
    wait_for(lambda: not len(send.sends._queue), "a busy worker")
    replies = [send(), send(), send()]
    with pytest.raises(Refused) as caught:
        send()
    assert caught.value.error == "store_not_available"
    queue.open.set()
    assert all(answer_of(reply)["ok"] for reply in replies)


def test_a_broker_without_a_queue_refuses():
    sends = Sends(Rooms(), Pages(), lambda: None, lambda: None)
    with pytest.raises(Refused) as caught:
        sends.send({"name": "seen"}, "sid1", {}, Reply())
    assert caught.value.error == "no_request_url"
