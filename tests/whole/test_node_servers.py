"""Relays in different servers, on one Redis, behave as one: the relay's own, gunicorn, and Werkzeug.

In the own server the connection to Redis is a source of its poller; in the others it has a thread of its own.
"""

import json

import pytest
from conftest import Client, Relay, wait_for
from posting import epoch_of, get, in_thread, later, post
from redis_server import RedisServer

from tests.wsgi.test_hosts import Contained

SERVERS = ("own", "gunicorn", "werkzeug")
pairs = pytest.mark.parametrize(("there", "here"), list(zip(SERVERS, (*SERVERS[1:], SERVERS[0]), strict=True)))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A relay in each server, by its name."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as redis:
        folders = {each: tmp_path_factory.mktemp(each) for each in SERVERS}
        nodes = {"gunicorn": Contained(folders["gunicorn"], "gunicorn", broker=redis.url, node="gunicorn")}
        try:
            for server in ("own", "werkzeug"):
                nodes[server] = Relay(folders[server] / "log", server=server, broker=redis.url, node=server)
            nodes["gunicorn"].wait()
            yield nodes
        finally:
            for node in nodes.values():
                node.kill()
        for node in nodes.values():
            assert "Traceback" not in node.log.read_text(), node.log.read_text()


@pytest.fixture
def client(nodes):
    """Connect clients that are known to all nodes: client("own", "42", transport="polling")."""
    clients, count = [], {}

    def connect(server, *ids, transport="websocket"):
        clients.append(Client(nodes[server].url, *ids, transport=transport))
        for each in ids:
            count[each] = count.get(each, 0) + 1
            wait_for(lambda each=each: present(nodes, each) == {count[each]}, f"a client of {each} at all nodes")
        return clients[-1]

    yield connect
    for each in clients:
        each.drop()


def present(nodes, id_):
    return {get(node, f"/presence?destination={id_}")[1][id_]["connections"] for node in nodes.values()}


def test_pushes_at_any_server_reach_websockets_and_polling_clients_of_all_in_one_order(nodes, client):
    clients = [client(server, "all", transport=kind) for server in SERVERS for kind in ("websocket", "polling")]
    answers = [nodes[server].push("all", f"{server} {n}") for n in range(5) for server in SERVERS]
    assert [each["connections"] for each in answers] == [6] * 15
    epoch = epoch_of(answers[0]["id"])
    assert [each["id"] for each in answers] == [f"{epoch}:{n}" for n in range(1, 16)]
    for each in clients:
        each.wait(15)
        assert sorted(message["id"] for _, message in each.got) == sorted(answer["id"] for answer in answers)


@pairs
def test_a_socket_does_not_get_the_push_that_it_caused_at_another_node(nodes, client, there, here):
    id_ = f"except-{there}-{here}"
    causer, other = client(here, id_), client(there, id_)
    status, answer = post(nodes[there], {"destination": id_, "data": "x", "except": causer.socket.get_sid()})
    assert status == 200
    nodes[there].push(id_, "for both")
    assert other.data(2) == ["x", "for both"] and causer.data(1) == ["for both"]
    again = client(here)
    recovered = again.call("register", {"id": id_, "since": later(answer["id"], -1)})
    assert recovered["ids"][id_]["replayed"] == 2  # a new connection of the same page
    assert again.data(2) == ["x", "for both"]


@pairs
def test_a_push_that_is_not_kept_reaches_those_who_are_connected(nodes, client, there, here):
    id_ = f"unkept-{there}-{here}"
    listener = client(here, id_, transport="polling")
    answer = nodes[there].push(id_, "now or never", ttl=0)
    assert listener.data(1) == ["now or never"] and answer["connections"] == 1
    kept = nodes[there].push(id_, "kept")
    history = get(nodes[here], f"/history?destination={id_}&since={later(answer['id'], -1)}")[1]
    assert [each["id"] for each in history["publications"]] == [kept["id"]] and history["recovered"]


@pairs
def test_a_batch_is_handed_out_at_other_nodes(nodes, client, there, here):
    id_ = f"batch-{there}-{here}"
    listener = client(here, id_, f"{id_}-2")
    pushes = [{"destination": id_ if n % 3 else f"{id_}-2", "data": n, "id": f"{n // 2}"} for n in range(20)]
    status, answer = post(nodes[there], pushes)
    assert status == 200, answer
    stored = [each for each in answer if "id" in each]  # the others used a key again, with other data
    assert 10 < len(stored) < 20
    listener.wait(len(stored))
    got = {id_: [], f"{id_}-2": []}
    for _, message in listener.got:
        got[message["destination"]].append(message["data"])
    for name, data in got.items():
        kept = get(nodes[here], f"/history?destination={name}")[1]["publications"]
        assert sorted(data) == [each["data"] for each in kept]


@pairs
def test_a_push_waits_for_a_client_of_another_node(nodes, client, there, here):
    id_ = f"waits-{there}-{here}"
    listener = client(here, id_, transport="polling")
    answer = in_thread(lambda: nodes[there].push(id_, "please", wait=30))
    [(_, message)] = listener.wait(1)
    assert listener.call("ack", {"id": id_, "position": message["id"]}) == {"ok": True}
    assert answer()["acked"] == 1
    nodes[there].push(id_, "next")
    missed = client(there).call("register", {"id": id_, "since": "acked"})["ids"][id_]
    assert missed["recovered"] and missed["replayed"] == 1
    assert get(nodes[there], f"/history?destination={id_}&since=acked")[1]["publications"][0]["data"] == "next"


@pairs
def test_a_key_is_used_once_at_all_nodes(nodes, client, there, here):
    id_ = f"keyed-{there}-{here}"
    listener = client(here, id_)
    first = nodes[there].push(id_, "x", id="key")
    again = nodes[here].push(id_, "x", id="key")
    assert again["id"] == first["id"] and again["connections"] == first["connections"] == 1
    nodes[here].push(id_, "y")
    assert listener.data(2) == ["x", "y"]


@pairs
def test_clients_are_disconnected_from_another_node(nodes, client, there, here):
    id_ = f"closed-{there}-{here}"
    clients = [client(here, id_, transport=kind) for kind in ("websocket", "polling")]
    status, _, body = nodes[there].request("DELETE", f"/connections?destination={id_}")
    assert (status, json.loads(body)) == (200, {"closed": 2})
    for each in clients:
        wait_for(lambda each=each: not each.socket.connected, "the end of the client")
    wait_for(lambda: present(nodes, id_) == {0}, "the end of presence")


def test_presence_of_all_nodes_begins_with_the_first_client(nodes, client):
    client("werkzeug", "since")
    first = get(nodes["own"], "/presence?destination=since")[1]["since"]["since"]
    client("own", "since")
    for node in nodes.values():
        found = get(node, "/presence?destination=since")[1]["since"]
        assert found["connections"] == 2 and found["since"] == pytest.approx(first, abs=0.01)
