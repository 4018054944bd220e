"""Publications that nobody acknowledged are reported once when they expire: on every store, and over a restart."""

import json

import pytest
from conftest import wait_for
from redis_server import RedisServer

from pushrelay.store import Draft, open_broker
from pushrelay.webhooks.inboxes import Inboxes


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


class Shop:
    """A broker, its inboxes, and the notes as a store keeps them."""

    def __init__(self, url):
        self.url = url
        self.clock = Clock()
        self.notes = {"inbox": {}, "expired": {}}
        self.open()

    def open(self):
        self.broker = open_broker(self.url, lambda *_: 1, clock=self.clock, history_size=4, history_ttl=3600)
        self.broker.start()
        self.inboxes = Inboxes(self.broker, self.clock)
        self.inboxes.load(self.notes["inbox"], self.notes["expired"])

    def restart(self):
        self.broker.close()
        self.open()

    def push(self, *data, ttl=None, destination="42"):
        self.broker.delivered(destination)
        return [self.broker.publish([Draft(destination, each, ttl=ttl)])[0].position for each in data]

    def use(self, *destinations):
        for each in destinations:
            self.inboxes.used(each)
        self.keep(self.inboxes.take_used())
        self.look()

    def keep(self, notes):
        for kind, key, value in notes:
            if value is None:
                self.notes[kind].pop(key, None)
            else:
                self.notes[kind][key] = value

    def look(self, seconds=0):
        """Return the events of one look at the inboxes, each as (first, last, count)."""
        self.clock.now += seconds
        while self.broker.sweep():
            pass
        events, notes = self.inboxes.look()
        self.keep(notes)
        bodies = [json.loads(each.body) for each in events]
        assert all(each["from"].startswith(self.broker.epoch) for each in bodies)
        return [(*(int(each[name].rpartition(":")[2]) for name in ("from", "to")), each["count"]) for each in bodies]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def shop(request, tmp_path):
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        server.ask("FLUSHALL")
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/relay.db"}.get(request.param) or server.url
    opened = Shop(url)
    opened.kind = request.param
    yield opened
    opened.broker.close()


def test_what_is_dropped_because_there_is_too_much_is_reported(shop):
    positions = shop.push(1, 2)
    shop.broker.ack("42", positions[0])
    shop.use("42")
    shop.push(3)
    assert shop.look() == []
    shop.push(*range(100))
    [(first, last, count)] = shop.look()
    # SQLite drops a few more at a time, and later.
    assert first == 2 and last == first + count - 1 and 60 <= last <= 99
    assert shop.look() == []


def test_what_was_acknowledged_is_not_reported(shop):
    shop.use("42")
    shop.broker.ack("42", shop.push(*range(100))[-1])
    assert shop.look() == [] and shop.look() == []


def test_a_destination_that_no_page_acknowledges_is_not_reported(shop):
    shop.push(*range(100))
    assert shop.look() == []


def test_what_expires_by_its_own_ttl_is_reported_once(shop):
    shop.use("42")
    shop.push("a", ttl=10)
    shop.push("b", ttl=100)
    shop.push("c", ttl=10)
    shop.push("never kept", ttl=0)
    assert shop.look() == []
    assert shop.look(11) == [(1, 3, 2)]
    assert shop.look(11) == []
    assert shop.look(100) == [(2, 2, 1)]
    assert shop.look(100) == []


def test_what_is_older_than_history_ttl_is_reported_though_newer_pushes_are_kept(shop):
    shop.use("42")
    shop.push("a", "b")
    assert shop.look(3000) == []
    shop.push("c")
    assert shop.look() == []
    assert shop.look(700) == [(1, 2, 2)]
    assert shop.look(10) == [] and shop.look(4000) == [(3, 3, 1)] and shop.look(4000) == []


def test_an_acknowledgement_in_time_prevents_the_event(shop):
    shop.use("42")
    [_, position] = shop.push("a", "b", ttl=10)
    shop.look()
    shop.broker.ack("42", position)
    assert shop.look(11) == []


def test_nothing_is_missed_or_repeated_over_a_restart(shop):
    shop.use("42", "7")
    shop.push("a", ttl=10)
    shop.push("b", ttl=10, destination="7")
    assert shop.look() == []
    if shop.kind == "memory":
        return  # it ends with the process
    shop.clock.now += 11
    assert sorted(shop.look()) == [(1, 1, 1), (1, 1, 1)]
    shop.push("c", ttl=10)
    shop.look()
    shop.clock.now += 11
    shop.restart()
    assert shop.look() == [(2, 2, 1)]
    shop.restart()
    assert shop.look() == []


def test_an_inbox_that_nobody_uses_is_forgotten(shop):
    shop.use("42")
    shop.look(80 * 86_400)
    assert "42" in shop.notes["inbox"]
    shop.use("42")
    shop.look(80 * 86_400)
    assert "42" in shop.notes["inbox"]
    shop.look(20 * 86_400)
    assert shop.notes == {"inbox": {}, "expired": {}}


def test_an_inbox_is_noted_once_a_day(shop):
    shop.use("42")
    shop.inboxes.used("42")
    assert shop.inboxes.take_used() == []
    shop.clock.now += 86_400
    shop.inboxes.used("42")
    assert len(shop.inboxes.take_used()) == 1


def test_inboxes_take_turns(shop):
    shop.use(*(f"{number}" for number in range(10)))
    for number in range(10):
        shop.push("x", ttl=10, destination=f"{number}")
    shop.clock.now += 11
    found = []
    wait_for(lambda: found.extend(shop.inboxes.look(3)[0]) or len(found) == 10, "all inboxes", 5)


def test_the_inbox_that_was_used_longest_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr("pushrelay.webhooks.inboxes.MOST_INBOXES", 3)
    shop = Shop("memory:")
    for each in "abc":
        shop.use(each)
        shop.clock.now += 86400
    shop.use("a")
    shop.use("d")
    assert set(shop.notes["inbox"]) == {"a", "c", "d"}
    shop.restart()
    shop.use("e")
    assert set(shop.notes["inbox"]) == {"a", "d", "e"}
