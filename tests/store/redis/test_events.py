"""The promises of every event queue, on a Redis; and what several nodes promise together."""

import time

import pytest
from conftest import wait_for
from redis_nodes import broker_nodes
from redis_server import ENGINES, RedisServer

from pushrelay.store.events import HOOKS, Cursor, LeaseLost, new_event
from tests.store.test_events import EventsContract, names


@pytest.fixture(scope="module", params=list(ENGINES))
def every_redis(request, tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), request.param) as server:
        yield server


@pytest.fixture
def open_node(redis, monkeypatch):
    monkeypatch.setattr("pushrelay.store.redis.nodes.LINGER_SECONDS", 0.1)  # before a node writes that nobody is left
    redis.ask("FLUSHALL")
    with broker_nodes(redis.url) as opened:
        yield opened


class TestRedis(EventsContract):
    @pytest.fixture(autouse=True)
    def server(self, every_redis):
        self.url = every_redis.url
        every_redis.ask("FLUSHALL")

    def reopen(self):
        self.brokers[-1].events.release()
        return super().reopen()


def reported(events):
    """Return the events of who is online, in order."""
    return [(each.kind, each.name) for each in events.read(HOOKS, 0, 100)]


def until_left(events, wanted):
    """Have `offline` reported until there are these events."""

    def is_there():
        events.report_left()
        return reported(events) == wanted

    wait_for(is_there, wanted)


def come(node, destination, connections=1):
    node.here.sockets[destination] = connections
    node.broker.changed(destination, not connections)


def test_one_node_sends_and_another_one_goes_on_where_it_was(open_node):
    a, b = (open_node(name).broker.events for name in "ab")
    assert a.lease() and not b.lease() and a.lease()
    a.set_readers(HOOKS, ["one"])
    b.put([new_event("online", each, "{}") for each in "xyz"])
    a.done(HOOKS, "one", 2)
    with pytest.raises(LeaseLost):
        b.done(HOOKS, "one", 3)
    with pytest.raises(LeaseLost):
        b.set_readers(HOOKS, [])
    a.release()
    assert b.lease() and b.set_readers(HOOKS, ["one"]) == {"one": Cursor(2)}
    with pytest.raises(LeaseLost):
        a.done(HOOKS, "one", 3)
    assert names(b.read(HOOKS, 2, 10)) == ["z"]


def test_a_node_that_does_not_renew_its_lease_sends_no_longer(open_node, redis):
    a, b = (open_node(name).broker.events for name in "ab")
    assert a.lease() and not b.lease()
    [key] = redis.ask("KEYS", "*sender")
    assert 5000 < redis.ask("PTTL", key) <= 10_000
    redis.ask("PEXPIRE", key, 1)
    wait_for(b.lease, "the other node has the lease")
    assert not a.lease()


def test_a_destination_is_online_once_however_many_nodes_hold_it(open_node):
    a, b = (open_node(name) for name in "ab")
    for node in (a, b):
        node.broker.events.keep_reporting(2.0, 30.0)
        come(node, "42")
    wait_for(lambda: reported(a.broker.events) == [("online", "42")], "one event")
    come(a, "42", 0)
    come(b, "42", 0)
    until_left(a.broker.events, [("online", "42"), ("offline", "42")])
    come(b, "42")
    until_left(b.broker.events, [("online", "42"), ("offline", "42"), ("online", "42")])
    [event, *_] = a.broker.events.read(HOOKS, 0, 10)
    assert event.body == '{"destination":"42"}' and abs(event.at - time.time()) < 60
    assert len({each.id for each in a.broker.events.read(HOOKS, 0, 10)}) == 3


def test_a_destination_whose_page_changes_stays_online(open_node, redis):
    node = open_node("a")
    node.broker.events.keep_reporting(60.0, 60.0)
    come(node, "42")
    wait_for(lambda: reported(node.broker.events), "online")
    come(node, "42", 0)
    [key] = wait_for(lambda: redis.ask("KEYS", "*leaving"), "it is leaving")
    come(node, "42")
    wait_for(lambda: not redis.ask("EXISTS", key), "it is back")
    node.broker.events.report_left()
    assert reported(node.broker.events) == [("online", "42")]


def test_what_was_held_before_webhooks_were_wanted_is_reported(open_node, redis):
    node = open_node("a")
    come(node, "42")
    wait_for(lambda: redis.ask("KEYS", "*p:42"), "it is written")
    node.broker.events.keep_reporting(2.0, 30.0)
    wait_for(lambda: reported(node.broker.events) == [("online", "42")], "online")


def test_the_destinations_of_a_node_that_is_gone_are_offline_once(open_node):
    a, b = (open_node(name) for name in "ab")
    for node in (a, b):
        node.broker.events.keep_reporting(2.0, 0.0)
    come(a, "42")
    come(b, "7")
    wait_for(lambda: len(reported(b.broker.events)) == 2, "both are online")
    a.broker.close()
    until_left(b.broker.events, [*reported(b.broker.events), ("offline", "42")])


def test_destinations_that_were_left_unnoticed_are_offline_later(open_node, redis):
    """As by nodes of an older version, or while no node wanted webhooks."""
    node = open_node("a")
    node.broker.events.keep_reporting(2.0, 0.0)
    for each in ("41", "42"):
        come(node, each)
    wait_for(lambda: len(reported(node.broker.events)) == 2, "both are online")
    [key] = redis.ask("KEYS", "*p:42")
    redis.ask("DEL", key)
    until_left(node.broker.events, [*reported(node.broker.events), ("offline", "42")])


def test_nothing_is_reported_unless_webhooks_are_wanted(open_node, redis):
    node = open_node("a")
    come(node, "42")
    wait_for(lambda: redis.ask("KEYS", "*p:42"), "it is written")
    node.broker.events.report_left()
    assert reported(node.broker.events) == [] and not redis.ask("KEYS", "*online")
