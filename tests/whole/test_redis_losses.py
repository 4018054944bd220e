"""Relays on a Redis that loses something: `recovered` is never wrong, and connected clients get all that is left."""

import json
import threading
import time

import pytest
from clients import Follower, Wire
from cluster import Cluster
from conftest import DEADLINE, wait_for
from posting import epoch_of, post, pushed
from redis_server import Failover, RedisServer
from tcp_proxy import TcpProxy

from pushrelay.store.publication import offset_of

LONG = 3 * DEADLINE


@pytest.fixture
def follow():
    """Return a function that starts followers, which end with the test: follow(node, "42")."""
    followers = []

    def follow(node, id_):
        followers.append(Follower(node.port, id_))
        return followers[-1]

    yield follow
    for each in followers:
        each.close()


def returned(node, id_, since):
    """Return the answer to a client that comes back with a position, and the data that was replayed to it."""
    client = Wire(node.port)
    try:
        end = time.monotonic() + DEADLINE
        while True:
            events, answer = client.call("register", {"id": id_, "since": since})
            if answer["ok"] or time.monotonic() > end:
                break
            time.sleep(0.1)  # this relay has not found the new Redis yet
        return answer["ids"][id_], [each["data"] for each in events]
    finally:
        client.close()


@pytest.mark.parametrize("relays", ["live on", "are restarted"])
def test_a_client_with_a_position_that_a_failover_lost_is_told_so(tmp_path, follow, relays):
    with (
        Failover(tmp_path / "redis", appendonly="yes") as redis,
        Cluster(tmp_path, redis.url, 2, drain_spread=0.2) as (a, b),
    ):
        stays, leaves = follow(a, "42"), follow(b, "42")
        before = pushed(a, "42", 10)
        assert redis.master.ask("WAIT", 1, int(1000 * DEADLINE)) == 1
        # The replica gets nothing more, not even what waits in its socket.
        redis.replica.pause()
        redis.master.ask("CLIENT", "KILL", "TYPE", "replica")
        tail = pushed(b, "42", 5)
        wait_for(lambda: leaves.ids() == stays.ids() == before + tail, "all publications")
        leaves.close()
        if relays == "are restarted":  # no relay knows any more how far the store was
            a.kill()
            b.kill()
        redis.master.kill()
        redis.replica.resume()
        redis.wait_for_promotion()
        if relays == "are restarted":
            a.restart()
            b.restart()
        for node in (a, b):
            node.wait_until_ready(LONG)
        later = [push_when_ready(b, "42", str(number))["id"] for number in range(10)]
        assert epoch_of(later[0]) != epoch_of(tail[0])
        assert offset_of(later[-1]) > offset_of(tail[-1])
        for node in (a, b):
            assert returned(node, "42", tail[-1])[0]["recovered"] is False
            answer, replayed = returned(node, "42", later[0])
            assert answer["recovered"] and replayed == [str(number) for number in range(1, 10)]
        if relays == "live on":
            wait_for(lambda: stays.ids()[15:] == later, "what was published after the failover")
            assert len(stays.answers) == 1


def test_a_relay_that_meets_an_old_and_a_new_master_in_turn_hands_out_nothing_twice(tmp_path, follow):
    with (
        RedisServer(tmp_path / "old") as old,
        RedisServer(tmp_path / "new") as new,
        TcpProxy(old.port) as proxy,
        Cluster(tmp_path, f"redis://127.0.0.1:{proxy.port}", 1) as (node,),
    ):
        follower = follow(node, "42")
        ids = pushed(node, "42", 3)
        new.ask("REPLICAOF", "127.0.0.1", old.port)
        wait_for(lambda: b"master_link_status:up" in new.ask("INFO", "replication"), "the replication")
        new.ask("REPLICAOF", "NO", "ONE")
        for server in (new, old, new, old):
            proxy.target = server.port
            proxy.cut()
            ids += [push_when_ready(node, "42")["id"] for _ in range(2)]
        wait_for(lambda: follower.ids()[-1] == ids[-1], "the last publication")
        assert follower.ids() == ids and len(set(ids)) == len(ids)
        assert len({epoch_of(each) for each in ids}) == 2 and len(follower.answers) == 1


def push_when_ready(node, id_, data="x"):
    """Return the answer to a push, which is refused while the relay has no connection to Redis."""
    answers, key = [], str(time.monotonic())

    def push():
        status, answer = post(node, {"destination": id_, "data": data, "id": key})
        answers.append(answer)
        return status == 200

    wait_for(push, "a push that is accepted")
    return answers[-1]


@pytest.mark.parametrize("how", ["flushed", "restarted empty"])
def test_clients_of_an_emptied_redis_go_on(tmp_path, follow, how):
    with (
        RedisServer(tmp_path / "redis", appendonly="no") as redis,
        Cluster(tmp_path, redis.url, 2) as nodes,
    ):
        a, b = nodes
        followers = [follow(node, "42") for node in nodes]
        before = pushed(a, "42", 3)
        wait_for(lambda: all(each.ids() == before for each in followers), "the publications")
        wait_for(lambda: connections(a, "42") == connections(b, "42") == 2, "presence")
        if how == "flushed":
            redis.ask("FLUSHALL")
        else:
            redis.restart()
        wait_for(lambda: connections(a, "42") == connections(b, "42") == 2, "presence is announced again", 3 * DEADLINE)
        after = [push_when_ready(b, "42")["id"] for _ in range(3)]
        wait_for(lambda: all(each.ids() == before + after for each in followers), "what follows")
        assert epoch_of(after[0]) != epoch_of(before[0])
        assert all(len(each.answers) == 1 for each in followers)
        for position in before:
            assert returned(a, "42", position)[0]["recovered"] is False
        assert returned(a, "42", after[1])[0]["recovered"] is True


def test_an_emptied_redis_that_has_reached_the_same_offset_again_is_noticed(tmp_path, follow):
    with (
        RedisServer(tmp_path / "redis") as redis,
        TcpProxy(redis.port) as proxy,
        Cluster(tmp_path, [f"redis://127.0.0.1:{proxy.port}", redis.url]) as (a, b),
    ):
        follower = follow(a, "42")
        ids = pushed(b, "42", 3)
        wait_for(lambda: follower.ids() == ids, "the publications")
        proxy.refuse()
        proxy.cut()
        redis.ask("FLUSHALL")
        ids += [push_when_ready(b, "42")["id"] for _ in range(3)]
        assert offset_of(ids[2]) == offset_of(ids[5])
        proxy.allow()
        wait_for(lambda: follower.ids() == ids, "what was published in the meantime")


def connections(node, id_):
    """Return how many sockets hold a destination, on all nodes; None while presence is not known."""
    status, _, body = node.request("GET", f"/presence?destination={id_}")
    return json.loads(body)[id_]["connections"] if status == 200 else None


def test_a_hole_that_cannot_be_filled_concerns_its_destination_only(tmp_path, follow):
    with (
        RedisServer(tmp_path / "redis") as redis,
        TcpProxy(redis.port) as proxy,
        Cluster(
            tmp_path,
            [f"redis://127.0.0.1:{proxy.port}", redis.url],
            history_size=5,
            drain_spread=0.5,
        ) as (a, b),
    ):
        holes = [follow(a, "hole") for _ in range(3)]
        fine, quiet = follow(a, "fine"), follow(a, "quiet")
        first = {each: pushed(b, each, 1) for each in ("hole", "fine", "quiet")}
        wait_for(lambda: all(each.ids() == first[each.id] for each in (*holes, fine, quiet)), "the first publications")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not a.is_ready(), "the relay notices")
        missed = pushed(b, "fine", 3)
        pushed(b, "hole", 20)
        proxy.allow()
        a.wait_until_ready()
        wait_for(lambda: all(len(each.answers) == 2 for each in holes), "the return of those who missed something")
        assert all(each.answers[1]["recovered"] is False for each in holes)
        last = {each: b.push(each, "last")["id"] for each in ("hole", "fine", "quiet")}
        wait_for(lambda: all(each.ids()[-1] == last[each.id] for each in (*holes, fine, quiet)), "what follows")
        assert fine.ids() == [*first["fine"], *missed, last["fine"]]
        assert len(fine.answers) == len(quiet.answers) == 1
        assert all(each.ids() == [*first["hole"], last["hole"]] for each in holes)


def test_a_relay_that_reads_too_slowly_for_redis_catches_up(tmp_path, follow):
    limit = {"client_output_buffer_limit": "pubsub 1mb 1mb 1"}
    with (
        RedisServer(tmp_path / "redis", **limit) as redis,
        Cluster(tmp_path, redis.url, 2, history_size=10_000, max_outbox=100 << 20, ping_timeout=30) as (a, b),
    ):
        followers = [follow(a, "42"), follow(b, "42")]
        a.freeze()
        ids, text, end = [], "x" * 10_000, time.monotonic() + 5.0
        while time.monotonic() < end or not overrun(redis):
            status, answers = post(b, [{"destination": "42", "data": text}] * 50)
            assert status == 200, answers
            ids += [each["id"] for each in answers]
            assert time.monotonic() < end + LONG, "Redis never ended the connection"
            time.sleep(0.1)
        a.thaw()
        wait_for(lambda: all(each.ids() == ids for each in followers), "all publications", LONG)
        assert len(followers[0].answers) == len(followers[1].answers) == 1


def overrun(redis):
    """Return whether Redis has ended a connection because too much waited for it."""
    info = redis.ask("INFO", "stats").decode()
    return "client_output_buffer_limit_disconnections:0" not in info


def test_an_idle_relay_keeps_its_connections_to_a_redis_with_a_timeout(tmp_path, follow):
    with RedisServer(tmp_path / "redis", timeout=2) as redis, Cluster(tmp_path, redis.url, 2) as (a, b):
        follower = follow(a, "42")
        b.push("42", "before")
        wait_for(lambda: follower.data() == ["before"], "the publication")
        before = links(redis)
        time.sleep(5)
        assert len(before) == 2 and links(redis) == before
        b.push("42", "after")
        wait_for(lambda: follower.data() == ["before", "after"], "the publication")
        assert not [line for node in (a, b) for line in node.lines("pushrelay.store.redis")]


def links(redis):
    """Return the ids of the connections over which relays publish and listen."""
    listed = redis.ask("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
    return sorted(line.split()[0] for line in listed)


def test_a_page_that_comes_while_redis_is_away_is_registered_later(tmp_path):
    with RedisServer(tmp_path / "redis", appendonly="yes") as redis, Cluster(tmp_path, redis.url, 1) as (a,):
        position = a.push("42", "before")["id"]
        redis.kill()
        wait_for(lambda: not a.is_ready(), "the relay notices")
        answers = []

        def come():
            client = Wire(a.port)
            while not (answers and answers[-1][1]["ok"]):
                answers.append(client.call("register", {"id": "42", "since": position}))
                time.sleep(0.1)
            client.close()

        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        time.sleep(0.5)
        redis.start()
        thread.join(LONG)
        assert answers[-1][1]["ok"]
        assert {each[1]["error"] for each in answers[:-1]} <= {"store_not_available"}
