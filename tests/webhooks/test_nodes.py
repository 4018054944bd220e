"""Relays on one Redis: each event comes once, from one of them, and another one goes on if it is killed."""

import json
import time

import pytest
from cluster import Cluster
from conftest import own_only, wait_for
from posting import wires
from receivers import SECRET, Receivers
from redis_server import RedisServer

from pushrelay.access.tokens import sign

pytestmark = own_only
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
