"""Nodes know of each other's clients, close them, and pass acknowledgements on."""

import math
import threading
import time

import pytest
from conftest import wait_for
from redis_nodes import eventually, kill_links
from tcp_proxy import TcpProxy

from pushrelay.store.redis.nodes import COMPARE_EVERY, FLUSH_SECONDS, MOST_AT_ONCE


def elsewhere(node, destination="d"):
    return node.broker.elsewhere([destination]).get(destination, (0, 0.0))[0]


def announced(redis, node, destination="d"):
    found = redis.ask("HGET", f"{node.keys}p:{destination}", node.link.node)
    return None if found is None else int(found.split()[0])


def test_clients_of_other_nodes_are_counted_with_the_earliest_time(open_node):
    a, b, c = open_node("a"), open_node("b"), open_node("c")
    for node, sockets in ((a, 1), (b, 2), (c, 3)):
        node.come("d", sockets)
    eventually(lambda: [elsewhere(each) for each in (a, b, c)] == [5, 4, 3], "all announcements")
    assert a.broker.elsewhere(["d", "nobody"]) == {"d": (5, 1_700_000_000.5)}


def test_a_change_is_written_soon_and_a_page_change_is_not(redis, open_node):
    node = open_node("a")
    node.come("d")
    eventually(lambda: announced(redis, node) == 1, "the announcement")
    writes = redis.ask("INFO", "commandstats")
    node.leave("d")
    node.here.sockets["d"] = 1  # the next page
    node.broker.changed("d", False)
    node.come("other")
    eventually(lambda: announced(redis, node, "other") == 1, "the next announcement")
    assert announced(redis, node) == 1 and node.broker._announcer.announced("d") == 1
    assert writes.count(b"cmdstat_hdel") == redis.ask("INFO", "commandstats").count(b"cmdstat_hdel")


def test_a_newcomer_is_announced_soon_though_somebody_has_just_left(redis, open_node):
    node = open_node("a")
    node.come("gone")
    eventually(lambda: announced(redis, node, "gone") == 1, "the announcement")
    node.leave("gone")
    announcer = node.broker._announcer
    wait_for(lambda: announcer._due - time.monotonic() > 3 * FLUSH_SECONDS, "the timer for those who left")
    with node.link.lock:  # it is not announced before this has looked
        node.come("new")
        assert announcer._due - time.monotonic() <= FLUSH_SECONDS
    eventually(lambda: announced(redis, node, "new") == 1, "the announcement")
    eventually(lambda: announced(redis, node, "gone") is None, "the end of presence")
    eventually(lambda: announcer._due == math.inf and not announcer._changes, "the end of all work")


def test_a_destination_that_everybody_left_is_written_as_such(redis, open_node):
    node = open_node("a")
    node.come("d")
    eventually(lambda: announced(redis, node) == 1, "the announcement")
    node.leave("d")
    eventually(lambda: announced(redis, node) is None, "the end of presence")


def test_many_destinations_are_announced_in_few_writes(redis, open_node):
    node = open_node("a")
    with node.link.lock:  # nothing is written before all have come
        for n in range(2 * MOST_AT_ONCE + 1):
            node.here.sockets[f"d{n}"] = 1
            node.broker.changed(f"d{n}", False)
        redis.ask("CONFIG", "RESETSTAT")
    eventually(lambda: redis.ask("SCARD", f"{node.keys}n:{node.link.node}") == 2 * MOST_AT_ONCE + 1, "all")
    stats = redis.ask("INFO", "commandstats").decode()
    assert int(stats.partition("cmdstat_evalsha:calls=")[2].partition(",")[0]) <= 3 + 10  # and beats


def test_everything_is_announced_again_after_a_cut(redis, open_node):
    node = open_node("a")
    node.come("d", 2)
    eventually(lambda: announced(redis, node) == 2, "the announcement")
    node.broker._announcer.compare = lambda holding: None  # a beat would notice it, too
    redis.ask("DEL", f"{node.keys}p:d", f"{node.keys}n:{node.link.node}")
    kill_links(redis)
    eventually(lambda: announced(redis, node) == 2, "the next announcement")


def test_a_difference_is_noticed_by_a_beat(redis, open_node):
    node = open_node("a")
    node.come("d", 2)
    eventually(lambda: announced(redis, node) == 2, "the announcement")
    redis.ask("DEL", f"{node.keys}p:d", f"{node.keys}n:{node.link.node}")
    node.broker._announcer._beats = COMPARE_EVERY - 2
    eventually(lambda: announced(redis, node) == 2, "the next announcement")


# Orders.


def test_an_order_closes_sockets_at_all_nodes_and_counts_them(open_node):
    a, b, c = nodes = [open_node(name) for name in "abc"]
    for node, sockets in ((a, 1), (b, 2), (c, 3)):
        node.here.sockets["d"] = sockets
    assert b.broker.close_connections(["d", "é"]) == {"closed": 6}
    assert [each.here.closed for each in nodes] == [[["d", "é"]]] * 3
    assert c.broker.close_connections(["d"]) == {"closed": 0}


def test_orders_of_several_threads_are_answered_each(open_node):
    a, b = open_node("a"), open_node("b")
    answers, expected = {}, {}
    for n in range(12):
        (a, b)[n % 2].here.sockets[f"d{n}"] = expected[n] = n + 1

    def close(n):
        answers[n] = (a, b)[n % 3 == 0].broker.close_connections([f"d{n}"])["closed"]

    threads = [threading.Thread(target=close, args=(n,)) for n in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert answers == expected
    assert a.broker._orders._answers == b.broker._orders._answers == {}


def test_a_node_that_is_cut_off_is_named_and_carries_the_order_out_when_it_returns(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        a = open_node("a")
        b = open_node("b", address=f"redis://127.0.0.1:{proxy.port}/0")
        for node in (a, b):
            node.here.sockets["d"] = 2
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not b.link.is_up, "the end of the connection")
        assert a.broker.close_connections(["d"]) == {"closed": 2, "unreached": ["b"]}
        assert b.here.closed == []
        proxy.allow()
        b.wait_until_up(1)
        assert b.here.closed == [["d"]]  # before anybody can register again
        kill_links(redis)
        b.wait_until_up(2)
        assert b.here.closed == [["d"]] == a.here.closed


def test_a_node_that_comes_later_carries_out_no_order_of_before(open_node, redis):
    a = open_node("a")
    a.broker.close_connections(["d"])
    b = open_node("b")
    kill_links(redis)
    for node in (a, b):
        node.wait_until_up(1)
    assert b.here.closed == []
    a.broker.close_connections(["e"])
    assert b.here.closed == [["e"]]


def test_an_order_that_fails_is_answered_and_logged(open_node, caplog):
    a, b = open_node("a"), open_node("b")
    b.here.close = lambda destinations: 1 / 0
    assert a.broker.close_connections(["d"]) == {"closed": 0}
    assert "ZeroDivisionError" in caplog.text


# Acknowledgements.


def test_acknowledgements_reach_the_nodes_while_a_push_waits(redis, open_node):
    a, b = open_node("a"), open_node("b")
    epoch = a.broker.epoch
    a.push("d", "x", "y")
    b.broker.ack("d", f"{epoch}:1", "sid1")
    a.broker.expect("d", 2, 30)
    wait_for(lambda: redis.ask("HGET", f"{a.keys}d:d", "w"), "Redis to know that a push waits")
    b.broker.ack("d", f"{epoch}:2", "sid2")
    eventually(lambda: ("d", 2, "sid2") in a.here.acks, "the acknowledgement")
    assert ("d", 1, "sid1") not in a.here.acks
    a.broker.expect("d", 1, 30)  # it is acknowledged already
    eventually(lambda: ("d", 2, "somebody") in a.here.acks, "the earlier acknowledgement")


def test_what_was_acknowledged_during_a_cut_is_asked_for(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        a = open_node("a", address=f"redis://127.0.0.1:{proxy.port}/0")
        b = open_node("b")
        a.push("d", "x")
        a.here.waits = ["d"]
        a.broker.expect("d", 1, 30)
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not a.link.is_up, "the end of the connection")
        b.broker.ack("d", f"{b.broker.epoch}:1", "sid")
        proxy.allow()
        eventually(lambda: ("d", 1, "somebody") in a.here.acks, "the acknowledgement")


def test_a_position_of_nowhere_is_not_acknowledged(open_node):
    a = open_node("a")
    a.push("d", "x")
    for position in ("", "other:1", f"{a.broker.epoch}:2"):
        with pytest.raises(ValueError, match="acknowledge the id that came with the push"):
            a.broker.ack("d", position)
    assert a.broker.acked("d") == f"{a.broker.epoch}:0"


def test_a_client_that_is_ahead_of_its_new_node_gets_nothing_twice(open_node):
    a, b = open_node("a"), open_node("b")
    b.come("d")
    a.push("d", "x")
    wait_for(lambda: b.here.data("d") == ["x"], "the first push")
    b.link.run = lambda: None  # nothing arrives at this node for a moment
    [receipt] = a.push("d", "y")
    got = []
    replay = b.broker.replay("d", receipt.position, got.append, lambda: b.here.joined.append(got))
    try:
        assert not replay.go_on() and replay.is_ahead and b.here.joined == []
        del b.link.run
        b.link.run()
        wait_for(replay.go_on, "the newcomer to join")
    finally:
        replay.close()
    assert b.here.joined == [got] and got == [] and not replay.is_ahead
    assert replay.recovery() == (receipt.position, True, 0)
    assert b.here.data("d") == ["x", "y"]
