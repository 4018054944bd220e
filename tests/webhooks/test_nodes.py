"""Relays on one Redis: each event comes once, from one of them, and another one goes on if it is killed."""

import contextlib
import json
import time

import pytest
from cluster import Cluster
from conftest import own_only, wait_for
from posting import wires
from receivers import SECRET, Receivers
from redis_server import RedisServer

from pushrelay.access.member import Member
from pushrelay.access.tokens import sign
from pushrelay.errors import StoreError
from pushrelay.settings import Settings
from pushrelay.settings.values import hooks
from pushrelay.store import Draft, open_broker
from pushrelay.store.events import HOOKS, QueueFull, new_event
from pushrelay.webhooks import reporter
from pushrelay.webhooks.webhooks import Webhooks
from tests.webhooks.test_delivery import receiver

__all__ = ["receiver"]  # a fixture
TOKEN_SECRET = "77aa66bb55cc44dd33ee22ff11009988"


@pytest.fixture
def connect():
    with wires() as open_wire:

        def connect(node, *ids):
            """Register destinations on a page of the user Ann."""
            wire = open_wire(node.port)
            token = sign({"ids": ["*"], "as": {"id": "ann"}, "exp": time.time() + 600}, TOKEN_SECRET)
            assert wire.call("register", {"id": list(ids), "token": token})[1]["ok"]
            return wire

        yield connect


def webhooks(node):
    return json.loads(node.request("GET", "/webhooks")[2])


def sender_of(nodes):
    """Return the node that sends, and the other one."""
    found = lambda: [node for node in nodes if webhooks(node)["urls"][0]["state"] != "elsewhere"]  # noqa: E731
    wait_for(found, "a sender")
    [sender] = found()
    return sender, next(node for node in nodes if node is not sender)


@own_only
def test_each_event_comes_once_from_all_relays_also_if_the_sender_is_killed(server, tmp_path, connect):
    with RedisServer(tmp_path / "redis") as redis, Receivers(tmp_path) as site:
        settings = {
            "webhook_url": site.url("a"),
            "webhook_secret": SECRET,
            "presence_grace": "2s",
            "secret": TOKEN_SECRET,
        }
        with Cluster(tmp_path, redis.url, 2, server=server, **settings) as nodes:
            nodes.wait_until_ready()
            sender, other = sender_of(nodes)
            pages = [connect(node, "both", node.name) for node in nodes]
            wait_for(lambda: len(site.events("a")) >= 6, "six events")
            wanted = {(kind, name) for kind in ("online", "join") for name in ("both", "a", "b")}
            assert set(site.seen("a")) == wanted and len(site.events("a")) == 6

            status, _, body = other.request("POST", "/webhooks?action=retry")
            assert status == 409 and f"the relay {webhooks(other)['sender']!r} sends" in json.loads(body)["message"]
            assert other.request("GET", "/health/ready")[0] == 200

            site.behave("a", "500")
            pages[nodes.nodes.index(other)].close()
            connect(other, "late")
            site.wait_for_status("a", 500)
            sender.kill()
            redis.ask("PEXPIRE", "relay:{0}:sender", 1)  # its lease would last for 10 s
            site.behave("a", "200")
            wait_for(lambda: ("online", "late") in site.seen("a"), "the other relay sends", 60)
            # The clients of a relay that was killed may come back elsewhere; those of the other one are gone.
            wait_for(lambda: ("offline", other.name) in site.seen("a"), "offline", 60)
            assert len(site.seen("a")) == len(set(site.seen("a"))), "an event came twice"
            assert not {("offline", "both"), ("offline", sender.name)} & set(site.seen("a"))
            assert not nodes.tracebacks()


class NoClients:
    """The clients of a relay that has none."""

    def is_draining(self):
        return False

    def report_use(self, on_inbox, on_lost):
        pass

    def report_changes(self, changed):
        pass

    stop_reporting = report_changes

    def destinations(self):
        return []


@pytest.fixture
def sender(receiver):
    """A relay on a Redis, in this process, that sends to the receiver: (redis, broker, part)."""
    with contextlib.ExitStack() as opened:

        def start(folder):
            redis = opened.enter_context(RedisServer(folder, mode=(), save="", appendonly="no"))
            broker = open_broker(redis.url, lambda *_: 0)
            broker.start()
            opened.callback(broker.close)
            part = Webhooks(Settings(webhook_url=hooks(receiver.url), webhook_secret=(SECRET,)), broker, NoClients())
            opened.callback(part.close)
            part.start()
            return redis, broker, part

        yield start


def put(broker, *names):
    events = [new_event("online", each, f'{{"n":"{each}"}}') for each in names]

    def is_put():
        try:
            broker.events.put(events)
        except StoreError:
            return False
        return True

    wait_for(is_put, f"events {names}")


def test_events_arrive_after_redis_has_lost_its_data(sender, receiver, tmp_path):
    redis, broker, _ = sender(tmp_path)
    put(broker, *map(str, range(20)))
    wait_for(lambda: len(receiver.accepted()) == 20, "twenty events")
    redis.ask("FLUSHALL")
    put(broker, "a", "b")
    wait_for(lambda: receiver.accepted()[20:] == ["a", "b"], "two events after FLUSHALL")
    redis.restart()
    put(broker, "c")
    wait_for(lambda: receiver.accepted()[22:] == ["c"], "an event after the restart")


def test_a_relay_whose_lease_was_over_for_a_while_sends_again(sender, receiver, tmp_path):
    redis, broker, part = sender(tmp_path)
    put(broker, "a")
    wait_for(lambda: receiver.accepted() == ["a"], "the first event")

    def answer(names):
        receiver.answer = lambda names: 200
        assert redis.ask("DEL", *redis.ask("KEYS", "*sender"))  # as if this process had been paused
        return 200

    receiver.answer = answer
    put(broker, "b")
    wait_for(lambda: "b" in receiver.accepted(), "the second event")
    put(broker, "c")
    wait_for(lambda: receiver.accepted()[-1] == "c", "the third event")
    wait_for(lambda: broker.events.depth(HOOKS).events == 0, "an empty queue")


def test_nothing_is_sent_after_a_pause_until_it_is_certain_that_no_other_relay_sends(sender, receiver, tmp_path):
    _, broker, part = sender(tmp_path)
    put(broker, "a")
    wait_for(lambda: receiver.accepted() == ["a"], "the first event")
    [delivery] = part._deliveries.values()
    part._reporter._round = lambda: None  # it does not get to renew its lease
    part._learnt -= 10  # seconds ago
    put(broker, "b")
    assert delivery._step() > 0 and receiver.accepted() == ["a"]


def test_what_happened_just_before_webhooks_are_switched_off_is_queued(monkeypatch):
    """Otherwise it would never be reported: the store has noted that it was."""
    monkeypatch.setattr(reporter, "GATHER_SECONDS", 0.1)
    broker = open_broker("memory:", lambda *_: 0)
    broker.start()
    urls = {"webhook_url": hooks("http://127.0.0.1:1/"), "webhook_secret": (SECRET,)}
    for number, off in enumerate(({}, {"request_url": "http://127.0.0.1:1/", "webhook_secret": (SECRET,)}), 1):
        part = Webhooks(Settings(**urls), broker, NoClients())
        part.start()
        wait_for(lambda part=part: part._reporter._is_loaded, "the reporter")
        part.member("join", f"room-{number}", Member("42"))
        part.reload(Settings(**off))
        part.close()
        assert broker.events.depth(HOOKS).events == number
    broker.close()


def test_events_that_wait_leave_half_of_the_space_to_publications(tmp_path):
    broker = open_broker(f"sqlite:{tmp_path}/relay.db", lambda *_: 0, history_bytes=2 << 20)
    broker.start()
    settings = Settings(
        request_url="http://127.0.0.1:1/", webhook_secret=(SECRET,), history_bytes=2 << 20, max_body=1000
    )
    part = Webhooks(settings, broker, NoClients())
    part.start()
    broker.publish([Draft("42", "kept")])
    for kind in ("online", "send"):
        with contextlib.suppress(QueueFull):
            for _ in range(30):
                broker.events.put([new_event(kind, "42", f'{{"n":"{"x" * 1000}"}}') for _ in range(50)])
    while broker.sweep():
        pass
    assert len(broker.kept("42", 0)) == 1
    part.close()
    broker.close()
