"""A node holds, announces and answers the right things while its connection to Redis ends and comes back."""

import contextlib
import json
import re
import secrets
import time

import pytest
from clients import Wire
from conftest import wait_for
from redis_nodes import broker_nodes, eventually, kill_links
from redis_server import ENGINES, RedisServer

from pushrelay.errors import NotKnown, StoreError
from pushrelay.store import Draft


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), appendonly="yes") as server:
        yield server


def holders(redis, node, destination):
    return redis.ask("HGETALL", f"{node.keys}p:{destination}")


def cut(redis, node):
    session = node.link.session
    kill_links(redis)
    node.wait_until_up(session)


def drop_now(node):
    """Have the node drop what nobody holds, as after DROP_SECONDS."""
    fresh = node.broker._fresh
    for key in fresh:
        fresh[key] -= 60
    node.broker.sweep()


def test_what_nobody_holds_is_dropped_though_the_link_was_down_when_it_was_looked_at(redis, open_node):
    node = open_node("a")
    node.come("42")
    node.leave("42")
    node.link.is_up = False
    for key in node.broker._fresh:
        node.broker._fresh[key] -= 60
    node.broker._drop_unheld()
    node.link.is_up = True
    drop_now(node)
    assert not node.broker._held.reached


def test_a_destination_is_not_dropped_before_the_socket_that_asked_has_joined(redis, open_node):
    node = open_node("a")
    node.come("42")
    node.leave("42")
    node.broker._fresh[b"42"] -= 60
    replay = node.broker.replay("42", "acked", lambda publication: True, lambda: None)
    node.broker.sweep()
    assert replay.go_on()


def test_a_destination_whose_newcomer_left_during_its_replay_is_dropped(redis, open_node):
    node = open_node("a")
    node.push("42", 1)
    replay = node.broker.replay("42", f"{node.broker.epoch}:0", lambda publication: False, lambda: None)
    assert not replay.go_on()
    drop_now(node)
    assert node.broker._held.reached  # it has a live queue
    replay.close()
    drop_now(node)
    assert not node.broker._held.reached


def test_who_left_while_the_connection_was_away_is_not_present_afterwards(redis, open_node):
    a, b = open_node("a"), open_node("b")
    a.come("42")
    eventually(lambda: b.broker.elsewhere(["42"]), "a's client at b")
    redis.pause()
    eventually(lambda: not a.link.is_up, "the end of the connection")
    a.leave("42")
    redis.resume()
    eventually(lambda: a.link.is_up and b.link.is_up, "the connections")
    eventually(lambda: holders(redis, a, "42") == {}, "nobody is there")
    assert b.push("42", 1)[0].connections == 0


def test_a_node_is_known_from_its_first_moment(redis, open_node):
    a, b = open_node("a"), open_node("b")
    a.come("42")
    wait_for(lambda: holders(redis, a, "42") != {}, "a's client in Redis")
    assert b.broker.elsewhere(["42"])["42"][0] == 1


def test_a_key_of_a_push_that_too_few_replicas_took_is_forgotten(redis, open_node):
    node = open_node("a", replicas=1)
    with pytest.raises(StoreError, match="not known whether"):
        node.broker.publish([Draft("42", 1, key="k")])
    assert not node.broker._publishing._keyed


def test_two_nodes_that_wait_for_replicas_keep_their_connections(redis, tmp_path):
    with (
        RedisServer(tmp_path / "master") as master,
        RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}", repl_diskless_sync_delay=0) as replica,
    ):
        wait_for(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), "the replication")
        with broker_nodes(master.url) as open_node:
            a, b = open_node("a", replicas=1), open_node("b", replicas=1)
            a.come("42")
            b.come("42")
            replica.pause()  # both wait, and hear each other while they wait
            answers = [node.push_soon(Draft("42", node.broker.name)) for node in (a, b)]
            wait_for(lambda: all(len(node.here.got["42"]) == 2 for node in (a, b)), "both pushes at both nodes")
            replica.resume()
            wait_for(lambda: all(answers), "the answers")
            assert a.here.offsets("42") == b.here.offsets("42") == [1, 2]
            assert a.link.session == b.link.session == 1


def test_pushes_that_come_while_redis_is_away_wait_no_longer_than_the_first(redis, open_node):
    node = open_node("a", patience=1.0)
    redis.pause()
    try:
        answers = [node.push_soon(Draft("42", 1))]
        eventually(lambda: not node.link.is_up, "the end of the connection")
        first = node.push_soon(Draft("42", 2))
        eventually(lambda: first, "the answer to the first push after it")
        began = time.monotonic()
        for n in range(20):
            with pytest.raises(StoreError, match=r"waited 1 s \(setting redis_patience\)") as error:
                node.push("42", n)
            assert not isinstance(error.value, NotKnown)
        assert time.monotonic() - began < 10, "20 s if each waits"
        assert isinstance(answers[0][0], NotKnown)
    finally:
        redis.resume()
    node.wait_until_up()
    assert node.push("42", "back")[0].position


def test_at_the_end_nobody_is_told_that_a_push_under_way_was_not_taken(redis, open_node):
    node = open_node("a")
    redis.pause()
    try:
        under_way = node.push_soon(Draft("42", 1))
        wait_for(lambda: node.broker._publishing._batch, "the batch")
        waiting = node.push_soon(Draft("42", 2))
        wait_for(lambda: node.broker._publishing._waiting, "the next one")
        node.broker._started = False
        node.link.close()
    finally:
        redis.resume()
    wait_for(lambda: under_way and waiting, "the answers")
    assert isinstance(under_way[0], NotKnown) and not isinstance(waiting[0], NotKnown)


def test_an_error_in_the_middle_of_a_batch_leaves_it_open_whether_it_was_stored(redis, open_node):
    node = open_node("a")
    node.come("42")
    redis.ask("ACL", "SETUSER", "default", "-publish")
    try:
        with pytest.raises(NotKnown, match="it is not known whether this was stored: send it again with the same id"):
            node.push("42", 1)
    finally:
        redis.ask("ACL", "SETUSER", "default", "+publish")
    eventually(lambda: node.here.data("42") == [1], "what was stored")
    assert node.push("42", 2)[0].position.endswith(":2")


@pytest.fixture
def start_node(redis, start_relay):
    """Start a relay whose prefix no other test uses: Redis knows the clients of a killed one for some seconds."""
    return lambda **settings: start_relay(broker=redis.url, redis_prefix=secrets.token_hex(4), **settings)


def test_a_push_that_may_be_stored_is_not_answered_with_not_taken(redis, start_node):
    relay = start_node(redis_patience=0.5)
    redis.pause()
    try:
        answers = [json.loads(relay.request("POST", "/push", b"destination=42&data=1")[2]) for _ in range(2)]
    finally:
        redis.resume()
    assert [each["error"] for each in answers] == ["store_not_available"] * 2
    assert re.fullmatch(
        r"Redis did not answer within 0\.5 s \(setting redis_patience\): it is not known whether this was stored: "
        "send it again with the same id, and it is stored once",
        answers[0]["message"],
    )
    assert answers[1]["message"].startswith("the push was not taken; send it again later: Redis does not answer")


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_redis_that_takes_no_writes_still_delivers_and_is_not_left(engine, tmp_path):
    with RedisServer(tmp_path, engine) as full, broker_nodes(full.url) as open_node:
        node = open_node("a")
        node.come("42")
        full.ask("CONFIG", "SET", "maxmemory", "100kb")
        with pytest.raises(StoreError, match="is full: raise maxmemory") as refused:
            node.push("42", 1)
        assert not isinstance(refused.value, NotKnown)
        eventually(lambda: node.broker._announcer._beats > 3, "some beats")
        with pytest.raises(StoreError, match="is full: raise maxmemory"):
            node.broker.sweep()
        assert "is full" in node.broker.trouble and node.link.session == 1
        node.come("43")  # clients may still register
        full.ask("CONFIG", "SET", "maxmemory", "0")
        eventually(lambda: node.broker.trouble is None, "the end of the trouble")
        assert node.push("42", 2)[0].connections == 1


def test_connections_that_end_at_once_are_made_less_and_less_often_and_told_once_a_minute(redis, open_node, caplog):
    node = open_node("a")
    install = node.link._install

    def install_and_cut(talk, work):
        install(talk, work)
        node.link.cut("hole", "as it happens", work)

    node.link._install = install_and_cut
    kill_links(redis)
    began, session = time.monotonic(), node.link.session
    eventually(lambda: node.link.session >= session + 5, "five connections")
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4
    node.link._install = install
    eventually(lambda: node.link.is_up and " again after " in caplog.text, "a connection that lasts, and its line")
    assert caplog.text.count("connecting again") == 1 and caplog.text.count(" again after ") == 1
    assert node.push("42", 1)


def test_a_push_that_begins_to_wait_during_a_cut_learns_of_an_acknowledgement_at_another_node(redis, open_node):
    a, b = open_node("a"), open_node("b")
    b.come("42")
    position = a.push("42", 1)[0].position
    a.here.waits = ["42"]
    a.link.is_up = False  # as in a cut
    a.broker.expect("42", 1, 10)
    a.link.is_up = True
    cut(redis, a)
    b.wait_until_up()
    wait_for(lambda: redis.ask("HGET", f"{a.keys}d:42", "w"), "the question to Redis")
    b.broker.ack("42", position, "sid")
    wait_for(lambda: ("42", 1, "sid") in a.here.acks, "the acknowledgement")


def test_a_register_waits_for_a_redis_that_is_back_soon(redis, start_node):
    relay = start_node(redis_patience=20)
    redis.kill()
    try:
        wait_for(lambda: "connecting again" in relay.log.read_text(), "the end of the connection")
        with contextlib.closing(Wire(relay.port)) as client, contextlib.closing(Wire(relay.port)) as other:
            client.emit("register", {"id": "42"})
            other.emit("register", {"id": "43", "since": "acked"})
            time.sleep(0.3)  # nothing is answered in this time
            redis.start()
            assert client.until_answer()[1]["ok"] and other.until_answer()[1]["ok"]
            assert json.loads(relay.request("POST", "/push", b"destination=42&data=1")[2])["connections"] == 1
    finally:
        if redis.process.poll() is not None:
            redis.start()


def test_a_register_waits_no_longer_than_redis_patience(redis, start_node):
    relay = start_node(redis_patience=0.5)
    redis.kill()
    try:
        wait_for(lambda: "connecting again" in relay.log.read_text(), "the end of the connection")
        with contextlib.closing(Wire(relay.port)) as client:
            _, answer = client.call("register", {"id": "42"})
            assert answer["error"] == "store_not_available"
            assert "nothing was registered; register again later" in answer["message"]
    finally:
        redis.start()
