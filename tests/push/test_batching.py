"""Pushes that come together are stored together, and a stuck store holds one thread."""

import http.client
import json
import queue
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import DEADLINE, own_only, wait_for

from pushrelay.errors import Refused, StoreError
from pushrelay.push import batching
from pushrelay.push.batching import Batcher
from pushrelay.store.local_broker import LocalBroker
from pushrelay.store.memory import MemoryStore
from pushrelay.store.store import HistoryLimits
from pushrelay.store.stripe import Pending


class Poller:
    """A poller that calls back when the test calls finish_batch(), on the test's thread."""

    polled = 0.0

    def __init__(self):
        self.calls = []

    def call_afterwards(self, callback, *args):
        self.calls.append((callback, args))

    def call_later(self, seconds, callback, *args):
        self.calls.append((callback, args))

    def finish_batch(self):
        while self.calls:
            callback, args = self.calls.pop(0)
            callback(*args)


class Store(MemoryStore):
    """A store with a broker. It records its transactions, and can be stuck or broken."""

    def __init__(self, deliver=lambda publication, skip_sid: 1):
        super().__init__(HistoryLimits())
        self.transactions = []
        self.free = threading.Event()
        self.free.set()
        self.trouble = None
        self.broker = LocalBroker(self, deliver, HistoryLimits())
        self.broker.start()

    def append(self, items, *options):
        self.transactions.append([item.data for item in items])
        assert self.free.wait(DEADLINE)
        if self.trouble:
            raise self.trouble
        super().append(items, *options)


@pytest.fixture
def parts():
    store, poller = Store(), Poller()
    return store, poller, Batcher(store.broker)


def add(batcher, poller, told, *values):
    items = [Pending("42", value) for value in values]
    batcher.add(items, lambda error: told.append((values, error, [item.position[-1:] for item in items])), poller)


def test_pushes_that_come_together_are_one_transaction_and_are_answered_in_order(parts):
    store, poller, batcher = parts
    told = []
    add(batcher, poller, told, "a")
    add(batcher, poller, told, "b", "c")
    add(batcher, poller, told, "d")
    assert len(poller.calls) == 1 and not told
    poller.finish_batch()
    assert store.transactions == [["a", "b", "c", "d"]]
    assert told == [(("a",), None, ["1"]), (("b", "c"), None, ["2", "3"]), (("d",), None, ["4"])]


def test_pushes_that_come_while_the_store_is_stuck_are_the_next_transaction(parts):
    store, poller, batcher = parts
    told = []
    store.free.clear()
    add(batcher, poller, told, "a")
    stuck = threading.Thread(target=poller.finish_batch)
    stuck.start()
    wait_for(lambda: store.transactions, "the first transaction")
    for value in "bcd":
        add(batcher, poller, told, value)
        poller.finish_batch()  # returns at once
    assert store.transactions == [["a"]] and not told
    store.free.set()
    stuck.join(DEADLINE)
    poller.finish_batch()
    assert store.transactions == [["a"], ["b", "c", "d"]]
    assert [values for values, _, _ in told] == [("a",), ("b",), ("c",), ("d",)]


def test_all_publishers_whose_pushes_were_not_stored_get_the_error(parts):
    store, poller, batcher = parts
    told = []
    for trouble in (StoreError("the disk is full"), RuntimeError("a bug")):
        store.trouble = trouble
        add(batcher, poller, told, "a")
        add(batcher, poller, told, "b")
        poller.finish_batch()
    store.trouble = None
    add(batcher, poller, told, "c")
    poller.finish_batch()
    errors = [error for _, error, _ in told]
    assert [isinstance(error, StoreError) for error in errors] == [True] * 4 + [False]
    assert told[-1][2] == ["1"]  # no offset was used up


def test_an_answer_that_fails_leaves_the_others_alone(parts, caplog):
    store, poller, batcher = parts
    told = []
    batcher.add([Pending("42", "a")], lambda error: 1 / 0, poller)
    add(batcher, poller, told, "b")
    poller.finish_batch()
    assert [values for values, _, _ in told] == [("b",)]
    assert "could not be answered" in caplog.text


class FanOut:
    """A delivery to many clients."""

    def __init__(self, clients):
        self.connections = self.left = clients

    def go_on(self, most):
        self.left -= min(self.left, most)


def test_no_other_publisher_waits_for_a_publication_that_many_clients_get():
    store = Store(lambda publication, skip_sid: FanOut(700) if publication.data == "large" else 1)
    poller, batcher, told = Poller(), Batcher(store.broker), []
    for value in ("large", "a"):
        items = [Pending(value, value)]
        batcher.add(items, lambda error, items=items: told.append((items[0].data, items[0].connections)), poller)
    callback, args = poller.calls.pop()
    callback(*args)
    assert told == [("a", 1)] and len(poller.calls) == 1
    poller.finish_batch()
    assert told == [("a", 1), ("large", 700)]


def test_a_publication_that_is_handed_out_in_turns_is_measured_when_its_last_client_has_it():
    store = Store(lambda publication, skip_sid: FanOut(700))
    poller, batcher = Poller(), Batcher(store.broker)
    for _ in range(3):
        add(batcher, poller, [], "a")
    callback, args = poller.calls.pop()
    callback(*args)
    families = {each.name: each for each in batcher.metrics()}
    assert families["relay_delivery_seconds"].values.sum == 0
    poller.finish_batch()
    families = {each.name: each for each in batcher.metrics()}
    for name in ("relay_publish_seconds", "relay_delivery_seconds"):
        assert families[name].values.buckets()[-1][1] == 3 and families[name].values.sum > 0
    assert (batcher.counts.busiest.largest(9), batcher.counts.unreached.largest(9)) == ([("42", 3)], [])


def test_pushes_that_another_thread_has_published_are_not_measured_again(parts):
    store, poller, batcher = parts
    add(batcher, poller, [], "a")
    poller.calls *= 2  # two threads have called for the next batch
    poller.finish_batch()
    assert store.transactions == [["a"]]
    [seconds] = [each.values for each in batcher.metrics() if each.name == "relay_publish_seconds"]
    assert seconds.buckets()[-1][1] == 1


def test_pushes_are_refused_when_too_many_are_still_being_handed_out(monkeypatch):
    monkeypatch.setattr(batching, "MOST_WAITING", 3)
    store = Store(lambda publication, skip_sid: FanOut(200))
    poller, batcher = Poller(), Batcher(store.broker)
    for _ in range(3):
        batcher.check_room()
        add(batcher, poller, [], "a")
        callback, args = poller.calls.pop()
        callback(*args)
    with pytest.raises(Refused, match="later"):
        batcher.check_room()
    poller.finish_batch()
    monkeypatch.setattr(batching, "MOST_BYTES", 10_000)
    add(batcher, poller, [], "x" * 10_000)
    callback, args = poller.calls.pop()
    callback(*args)
    with pytest.raises(Refused, match="later"):
        batcher.check_room()
    poller.finish_batch()
    batcher.check_room()


def test_a_transaction_has_at_most_256_publications(parts):
    store, poller, batcher = parts
    told = []
    for value in range(batching.MOST_AT_ONCE + 10):
        add(batcher, poller, told, value)
    poller.finish_batch()
    assert [len(each) for each in store.transactions] == [batching.MOST_AT_ONCE, 10]


def test_no_push_is_forgotten_when_many_threads_add_at_once():
    store, calls = Store(), queue.SimpleQueue()
    batcher, told, count = Batcher(store.broker), [], 8 * 500

    class Threads:
        """A poller that calls back on other threads, at once."""

        polled = 0.0

        def call_afterwards(self, callback, *args):
            calls.put((callback, args))

        def call_later(self, seconds, callback, *args):  # an item that another thread hands out is not finished
            calls.put((callback, args))

    def work():
        while (call := calls.get()) is not None:
            call[0](*call[1])

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [batcher.add([Pending("x", n)], told.append, Threads()) for n in range(500)])
    wait_for(lambda: len(told) == count, "all answers")
    for _ in workers:
        calls.put(None)
    for worker in workers:
        worker.join(DEADLINE)
    assert told == [None] * count and sum(map(len, store.transactions)) == count


def test_pushes_are_refused_with_advice_when_too_many_wait(parts, monkeypatch):
    store, poller, batcher = parts
    monkeypatch.setattr(batching, "MOST_WAITING", 2)
    add(batcher, poller, [], "a")
    batcher.check_room()
    add(batcher, poller, [], "b")
    with pytest.raises(Refused, match="later") as refused:
        batcher.check_room()
    assert refused.value.status == 503


def test_pushes_are_refused_when_too_much_data_waits(parts, monkeypatch):
    store, poller, batcher = parts
    monkeypatch.setattr(batching, "MOST_BYTES", 10_000)
    add(batcher, poller, [], *["x" * 900] * 10)
    batcher.check_room()
    add(batcher, poller, [], "x" * 2000)
    with pytest.raises(Refused):
        batcher.check_room()
    poller.finish_batch()
    batcher.check_room()


def test_stored_data_no_longer_counts_even_if_other_pushes_always_wait(parts, monkeypatch):
    store, poller, batcher = parts
    monkeypatch.setattr(batching, "MOST_BYTES", 10_000)
    monkeypatch.setattr(batching, "MOST_AT_ONCE", 1)
    add(batcher, poller, [], "x" * 2000)
    for _ in range(20):
        add(batcher, poller, [], "x" * 2000)
        batcher.check_room()
        callback, args = poller.calls.pop(0)
        callback(*args)
    assert len(store.transactions) == 20


# Over the wire.

FORM = b"destination=42&data=hello"
REQUEST = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(FORM), FORM)


def test_a_publisher_that_closed_its_side_of_the_connection_is_answered(relay):
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(REQUEST)
        sock.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.") and b" 200 OK" in answer and b'"destination":"42"' in answer


def test_pipelined_pushes_are_all_answered_before_the_connection_ends(relay):
    """The first one expects 100 Continue, which is not needed when its body has already arrived."""
    first = REQUEST.replace(b"Host: localhost\r\n", b"Host: localhost\r\nExpect: 100-continue\r\n")
    assert first != REQUEST
    own = relay.settings["server"] == "own"
    for _ in range(3):  # from the second time on, the relay knows the header
        with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
            sock.sendall(first + (REQUEST * 2 if own else b""))
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
        assert answer.count(b" 200 OK") == (3 if own else 1)
        assert not own or b"100 Continue" not in answer


@own_only  # Werkzeug's server keeps no connection open
def test_pipelined_pushes_are_answered_in_order(relay):
    count = 20
    bodies = [b"destination=line&data=%d" % n for n in range(count)]
    requests = [b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies]
    offsets = []
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(b"".join(requests))
        while len(offsets) < count:
            answer = http.client.HTTPResponse(Unclosed(sock))
            answer.begin()
            offsets.append(int(json.loads(answer.read())["id"].rpartition(":")[2]))
    assert offsets == list(range(offsets[0], offsets[0] + count))


def test_a_push_that_is_too_large_is_refused_even_if_its_header_is_known(start_relay):
    relay = start_relay(max_body=1024)
    body = b"destination=42&data=" + b"x" * 1024
    request = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
            sock.sendall(request)
            assert b" 413 " in sock.recv(4096)


class Unclosed:
    """A socket whose file reads one byte at a time, so that nothing of the next answer is read."""

    def __init__(self, sock):
        self._sock = sock

    def makefile(self, mode):
        return self._sock.makefile(mode, buffering=0)


def test_a_locked_store_holds_up_nothing_but_pushes(start_relay, tmp_path):
    relay = start_relay(broker=f"sqlite:{tmp_path}/locked.db", threads=4)
    relay.push("42", "before")
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(12) as pool:
        pushes = [pool.submit(relay.request, "POST", "/push", FORM) for _ in range(12)]
        for _ in range(50):
            assert relay.request("GET", "/health/live")[0] == 200
        for push in pushes:
            status, _, body = push.result(DEADLINE)
            assert status == 503 and b"was not taken" in body
    other.execute("ROLLBACK")
    other.close()
    assert relay.push("42", "after")["id"].endswith(":2")
