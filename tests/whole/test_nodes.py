"""Relays on one Redis behave as one: presence, disconnecting, acknowledgements and recovery."""

import json
import time

import pytest
from clients import Follower
from cluster import Cluster
from conftest import DEADLINE, wait_for
from posting import in_thread, post, pushed, wires
from redis_server import RedisServer
from tcp_proxy import TcpProxy

LONG = 3 * DEADLINE
GONE = 30.0  # seconds within which a node that died must be gone


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, redis):
    """Three relays for tests that leave them as they are."""
    with Cluster(tmp_path_factory.mktemp("nodes"), redis.url) as nodes:
        yield nodes
        assert not nodes.tracebacks()


@pytest.fixture
def connect():
    with wires() as open_wire:

        def connect(node, *ids):
            wire = open_wire(node.port)
            _, answer = wire.call("register", {"id": list(ids)})
            assert answer["ok"], answer
            return wire

        yield connect


def presence(node, *ids):
    """Return how many sockets hold each of these destinations."""
    query = "&".join(f"destination={each}" for each in ids)
    status, _, body = node.request("GET", f"/presence?{query}")
    assert status == 200, body
    return [json.loads(body)[each]["connections"] for each in ids]


def wait_for_presence(nodes, id_, count, deadline=DEADLINE):
    wait_for(lambda: all(presence(node, id_) == [count] for node in nodes), f"{count} sockets of {id_}", deadline)


def test_a_push_reaches_the_clients_of_all_nodes(nodes, connect):
    clients = [connect(node, "all") for node in nodes for _ in range(2)]
    wait_for_presence(nodes, "all", 6)
    answers = [node.push("all", number) for number, node in enumerate(nodes)]
    assert [each["connections"] for each in answers] == [6, 6, 6]
    for client in clients:
        assert [each["id"] for each in client.events(3)] == [each["id"] for each in answers]


def test_each_node_recovers_what_was_pushed_through_another(nodes):
    a, b, c = nodes
    ids = pushed(a, "moves", 3) + pushed(b, "moves", 3)
    with wires() as open_wire:
        events, answer = open_wire(c.port).call("register", {"id": "moves", "since": ids[0]})
    assert [each["id"] for each in events] == ids[1:] and answer["ids"]["moves"]["recovered"]


def test_a_push_that_reaches_another_node_has_reached_somebody(nodes, connect):
    a, b, _ = nodes

    def status():
        return json.loads(a.request("GET", "/status.json")[2])

    connect(b, "elsewhere")
    wait_for_presence(nodes, "elsewhere", 1)
    before = wait_for(status, "the status")["pushes"]["publications"]
    a.push("elsewhere", "reaches one")
    a.push("nowhere-at-all", "reaches nobody")
    wait_for(lambda: status()["pushes"]["publications"] >= before + 2, "both pushes in the status")
    found = status()
    assert {"name": "nowhere-at-all", "count": 1} in found["pushes"]["nobody_to"]
    assert "elsewhere" not in str(found["pushes"]["nobody_to"])
    assert (found["store"]["kind"], found["store"]["redis"]["up"], found["store"]["redis"]["nodes"]) == (
        "redis",
        True,
        3,
    )
    assert "at this node, one of 3" in found["verdict"]["sentence"]


def test_an_idempotency_key_counts_on_all_nodes(nodes):
    answers = [node.push("keyed", "x", id="the-key") for node in nodes]
    assert len({each["id"] for each in answers}) == 1
    assert post(nodes[2], {"destination": "keyed", "data": "y", "id": "the-key"})[0] == 422


def test_presence_counts_two_tabs_of_two_nodes(nodes, connect):
    a, b, _ = nodes
    one, two = connect(a, "tabs"), connect(b, "tabs")
    wait_for_presence(nodes, "tabs", 2)
    one.close()
    wait_for_presence(nodes, "tabs", 1)
    two.call("unregister", {"id": "tabs"})
    wait_for_presence(nodes, "tabs", 0)


def test_a_page_change_keeps_the_time_of_presence(nodes, connect):
    a, _, c = nodes
    page = connect(a, "page")
    wait_for_presence(nodes, "page", 1)
    since = json.loads(c.request("GET", "/presence?destination=page")[2])["page"]["since"]
    assert abs(time.time() - since) < LONG
    page.close()
    connect(a, "page")
    wait_for_presence(nodes, "page", 1)
    assert json.loads(c.request("GET", "/presence?destination=page")[2])["page"]["since"] == pytest.approx(
        since, abs=0.1
    )


def test_clients_of_all_nodes_are_disconnected(nodes, connect):
    clients = [connect(node, "kicked") for node in nodes]
    stays = connect(nodes[0], "stays")
    wait_for_presence(nodes, "kicked", 3)
    status, _, body = nodes[1].request("DELETE", "/connections?destination=kicked")
    assert (status, json.loads(body)) == (200, {"closed": 3})
    for client in clients:
        assert client.packet() == "41"  # Socket.IO's DISCONNECT
    assert stays.call("register", {"id": "stays"})[1]["ok"]
    wait_for_presence(nodes, "kicked", 0)


def test_a_push_waits_for_clients_of_all_nodes(nodes, connect):
    a, b, _ = nodes
    client = connect(a, "acks")
    wait_for_presence(nodes, "acks", 1)
    answer = in_thread(lambda: b.push("acks", "please", wait=30))
    (message,) = client.events(1)
    assert client.call("ack", {"id": "acks", "position": message["id"]})[1] == {"ok": True}
    assert answer()["acked"] == 1


def test_an_acknowledged_position_counts_on_all_nodes(nodes, connect):
    a, b, c = nodes
    client = connect(a, "inbox")
    ids = pushed(b, "inbox", 3)
    client.events(3)
    assert client.call("ack", {"id": "inbox", "position": ids[1]})[1] == {"ok": True}
    with wires() as open_wire:
        events, _ = open_wire(c.port).call("register", {"id": "inbox", "since": "acked"})
    assert [each["id"] for each in events] == ids[2:]


def test_a_node_that_was_killed_is_gone_within_half_a_minute(tmp_path, redis, connect):
    with Cluster(tmp_path, redis.url, 2, redis_prefix="killed") as (a, b):
        connect(a, "both", "only-a")
        connect(b, "both")
        wait_for_presence([b], "both", 2)
        a.kill()
        begin = time.monotonic()
        wait_for(lambda: presence(b, "both", "only-a") == [1, 0], "the dead node is gone", GONE)
        print(f"\n    a node that was killed is gone after {time.monotonic() - begin:.1f} s")
        wait_for(lambda: b.push("only-a", "x")["connections"] == 0, "a push counts its sockets no longer")
        a.start()
        connect(a, "only-a")
        wait_for_presence([a, b], "only-a", 1)


def test_a_node_that_stops_is_gone_at_once(tmp_path, redis, connect):
    with Cluster(tmp_path, redis.url, 2, redis_prefix="stopped", drain_spread=0.2) as (a, b):
        connect(a, "x")
        wait_for_presence([b], "x", 1)
        assert a.stop() == 0
        wait_for_presence([b], "x", 0, 5.0)


def test_a_node_that_was_cut_off_disconnects_clients_when_it_returns(tmp_path, redis, connect):
    with (
        TcpProxy(redis.port) as proxy,
        Cluster(
            tmp_path, [f"redis://127.0.0.1:{proxy.port}", redis.url], redis_prefix="cut", node="", drain_spread=0.2
        ) as (a, b),
    ):
        client, other = connect(a, "kicked"), connect(a, "stays")
        wait_for_presence([b], "kicked", 1)
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not a.is_ready(), "the relay notices")
        status, _, body = b.request("DELETE", "/connections?destination=kicked")
        answer = json.loads(body)
        assert status == 200 and answer["closed"] == 0 and len(answer["unreached"]) == 1, answer
        proxy.allow()
        assert client.packet() == "41"  # Socket.IO's DISCONNECT
        a.wait_until_ready()
        assert other.call("register", {"id": "stays"})[1]["ok"]


def test_a_rolling_restart_loses_nothing(tmp_path, redis):
    with Cluster(tmp_path, redis.url, redis_prefix="rolling", drain_spread=0.3) as nodes:
        followers = [Follower(node.port, "42") for node in nodes]
        ids = []
        for node in nodes:
            ids += [each.push("42", "x")["id"] for each in nodes]
            assert node.stop() == 0
            ids += [each.push("42", "x")["id"] for each in nodes if each is not node]
            node.restart()
            node.wait_until_ready()
        wait_for(lambda: all(each.ids() == ids for each in followers), "all publications")
        for each in followers:
            assert all(answer["recovered"] for answer in each.answers[1:])
            each.close()
