"""One URL gets its events in order, each at least once, whatever it answers; and it delays nobody but itself."""

import json
import re
import time
from types import SimpleNamespace

import pytest
from conftest import wait_for
from phplab import Stranger
from receivers import SECRET

from pushrelay.client.signature import signature
from pushrelay.errors import StoreError
from pushrelay.settings.values import hooks
from pushrelay.store import open_broker
from pushrelay.store.events import HOOKS, new_event
from pushrelay.webhooks import delivery as module
from pushrelay.webhooks.delivery import Delivery
from pushrelay.webhooks.target import Target


class Receiver:
    """A URL whose answers a test sets: `answer(names)` returns a status."""

    def __init__(self):
        self.got = []  # names of the events in each request, and the answer
        self.answer = lambda names: 200
        self.stranger = Stranger(self.behave)
        self.url = self.stranger.url + "/hook.php"

    def behave(self, stranger, connection, request):
        self.request = request
        body = request.partition(b"\r\n\r\n")[2]
        names = [each["n"] for each in json.loads(body)["events"]]
        status = self.answer(names)
        self.got.append((names, status))
        more = b"Location: /login.php?sid=1\r\n" if status == 302 else b""
        connection.sendall(b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, more))

    def accepted(self):
        return [name for names, status in self.got if status == 200 for name in names]


@pytest.fixture
def receiver():
    opened = Receiver()
    yield opened
    opened.stranger.end()


@pytest.fixture
def queue():
    broker = open_broker("memory:", lambda *_: 0)
    broker.start()
    yield broker.events
    broker.close()


@pytest.fixture
def deliver(queue, receiver):
    """Begin to deliver to the receiver."""
    started = []

    def begin(filters=""):
        delivery = Delivery(Target(*hooks(f"{receiver.url} {filters}"), "webhook_url", ""), queue, lambda: (SECRET,))
        started.append(delivery)
        queue.call_on_put(delivery.wake)
        delivery.start()
        reader = delivery.target.reader
        delivery.begin(queue.set_readers(HOOKS, [reader])[reader])
        return delivery

    yield begin
    for each in started:
        each.stop()
        each.join(10)


@pytest.fixture
def long_pauses(monkeypatch):
    """Make the pauses 30 times as long, so that none is over before the test ends it."""
    monkeypatch.setattr(module, "random", SimpleNamespace(uniform=lambda low, high: 30 * high))


def put(queue, *numbers, name="42", **fields):
    queue.put([new_event("online", name, f'{{"n":{number}}}', **fields) for number in numbers])


def is_empty(queue):
    return queue.depth(HOOKS).events == 0


def test_events_arrive_in_order_in_batches_of_a_hundred(queue, receiver, deliver):
    put(queue, *range(250))
    delivery = deliver()
    wait_for(lambda: is_empty(queue), "all are delivered")
    assert receiver.accepted() == list(range(250)) and [len(names) for names, _ in receiver.got] == [100, 100, 50]
    assert delivery.sent == 250 and delivery.dropped == 0


def test_a_request_is_signed_and_has_json(queue, receiver, deliver):
    deliver()
    put(queue, 1)
    wait_for(lambda: is_empty(queue), "it is delivered")
    head, _, body = receiver.request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook.php HTTP/1.1\r\n") and b"\r\nContent-Type: application/json\r\n" in head
    sent = re.search(rb"\r\nRelay-Signature: (t=(\d+),v1=\w{64})\r\n", head + b"\r\n")
    assert sent[1].decode() == signature((SECRET,), body, int(sent[2])) and abs(time.time() - int(sent[2])) < 60


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "status 500 check the error logs"),
        (403, "status 403 check that PHP has a secret"),
        (404, "check the path in webhook_url$"),
        (302, r"redirects to /login.php \(302\)"),
    ],
)
@pytest.mark.usefixtures("long_pauses")
def test_a_request_that_fails_is_repeated_later_with_the_same_events(queue, receiver, deliver, status, said):
    receiver.answer = lambda names: status if len(receiver.got) < 2 else 200
    delivery = deliver()
    put(queue, 1, 2)
    wait_for(lambda: len(receiver.got) == 1 and delivery.next_in, "the first attempt fails")
    assert re.search(said, f"{delivery.error} {delivery.advice}") and delivery.failing_since
    assert 0 < delivery.next_in <= 30
    put(queue, 3)  # a new event does not shorten the pause
    delivery.retry()
    wait_for(lambda: len(receiver.got) == 2 and delivery.next_in > 30, "the second attempt fails")
    delivery.retry()
    wait_for(lambda: is_empty(queue), "all are delivered")
    assert receiver.accepted() == [1, 2, 3] and delivery.failed == 2 and not delivery.error


def test_a_batch_that_is_refused_is_halved_and_one_bad_event_is_dropped(queue, receiver, deliver, monkeypatch):
    monkeypatch.setattr(module, "REFUSALS", 1)
    receiver.answer = lambda names: 413 if 13 in names else 200
    put(queue, *range(40))
    delivery = deliver()
    wait_for(lambda: is_empty(queue), "all are delivered")
    assert receiver.accepted() == [each for each in range(40) if each != 13] and delivery.dropped == 1
    put(queue, *range(300))
    receiver.answer = lambda names: 200
    wait_for(lambda: is_empty(queue), "all are delivered")
    assert max(len(names) for names, _ in receiver.got) == 100


@pytest.mark.usefixtures("long_pauses")
def test_one_event_that_is_refused_is_tried_again_first(queue, receiver, deliver):
    receiver.answer = lambda names: 400 if len(receiver.got) < 2 else 200
    delivery = deliver()
    put(queue, 1)
    wait_for(lambda: len(receiver.got) == 1 and delivery.next_in, "it is refused")
    delivery.retry()
    wait_for(lambda: len(receiver.got) == 2 and delivery.next_in, "it is refused again")
    delivery.retry()
    wait_for(lambda: is_empty(queue), "it is delivered")
    assert receiver.accepted() == [1] and delivery.dropped == 0


def test_410_unsubscribes_until_the_url_is_resumed(queue, receiver, deliver):
    receiver.answer = lambda names: 410
    delivery = deliver()
    put(queue, 1)
    wait_for(lambda: delivery.gone, "it has unsubscribed")
    reader = delivery.target.reader
    wait_for(lambda: queue.cursors(HOOKS)[reader].gone, "the store knows it")
    put(queue, 2)
    receiver.answer = lambda names: 200
    queue.set_gone(HOOKS, reader, 0.0)
    delivery.begin(queue.cursors(HOOKS)[reader])
    wait_for(lambda: receiver.accepted() == [1, 2], "both arrive")


def test_an_event_that_is_older_than_a_day_is_dropped(queue, receiver, deliver):
    put(queue, 1, 2, at=time.time() - 86_500)
    put(queue, 3, at=time.time() - 86_000)
    delivery = deliver()
    wait_for(lambda: is_empty(queue), "the others are delivered")
    assert receiver.accepted() == [3] and delivery.dropped == 2


def test_events_that_a_filter_leaves_out_are_not_sent(queue, receiver, deliver):
    put(queue, *range(250))
    put(queue, 1000, name="room-1")
    deliver("ids=room-*")
    wait_for(lambda: is_empty(queue), "the queue is read")
    assert receiver.got == [([1000], 200)]


def test_nothing_is_sent_while_another_relay_sends(queue, receiver, deliver):
    delivery = deliver()
    delivery.end()
    put(queue, 1)
    delivery.retry()
    assert delivery.upto is None and not receiver.got
    delivery.begin(queue.cursors(HOOKS)[delivery.target.reader])
    wait_for(lambda: receiver.accepted() == [1], "it is delivered")


def test_what_waits_can_be_skipped(queue, receiver, deliver):
    receiver.answer = lambda names: 500 if 1 in names else 200
    delivery = deliver()
    put(queue, 1)
    wait_for(lambda: delivery.error, "it fails")
    queue.done(HOOKS, delivery.target.reader, 1)
    delivery.skip_to(1)
    wait_for(lambda: not delivery.error, "nothing waits that could not be delivered")
    put(queue, 2)
    wait_for(lambda: receiver.accepted() == [2], "the next one is delivered")


def test_what_was_accepted_is_not_sent_again_if_the_store_cannot_note_it_at_once(queue, receiver, deliver, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    done, failures = queue.done, [StoreError("the disk is full")] * 3

    def fail_first(*args):
        if failures:
            raise failures.pop()
        done(*args)

    monkeypatch.setattr(queue, "done", fail_first)
    delivery = deliver()
    put(queue, 1, 2)
    wait_for(lambda: is_empty(queue), "the cursor is stored")
    put(queue, 3)
    wait_for(lambda: delivery.sent == 3, "the next event")
    assert receiver.accepted() == [1, 2, 3]


def test_events_that_a_full_queue_dropped_are_counted_once(queue, receiver, deliver):
    queue.bounds = queue.bounds._replace(events=2)
    receiver.answer = lambda names: 500
    delivery = deliver()
    put(queue, *range(10))
    for attempts in (1, 2, 3):
        wait_for(lambda most=attempts: len(receiver.got) >= most, "an attempt")
        delivery.retry()
    assert delivery.dropped == 8
