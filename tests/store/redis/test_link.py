"""The connection to Redis ends whenever it proves nothing any more, and comes back by itself."""

import threading

import pytest
from conftest import DEADLINE, wait_for
from redis_nodes import broker_nodes, eventually, kill_links, links
from redis_scripts import Scripts
from redis_server import RedisServer
from tcp_proxy import DOWN, TcpProxy

from pushrelay.errors import StoreError


@pytest.fixture
def scripts(redis, open_node):
    """A node "a" with a client of "d", and what another program does to its store."""
    node = open_node("a")
    node.come("d")
    scripts = Scripts(redis.url, node.keys, node="other")
    scripts.epoch, scripts.run_id = node.broker.epoch, node.link.state.run
    yield node, scripts
    scripts.close()


def asks_soon(node):
    """Have the next beat sent now, and not within a second."""
    node.link._beat()


def test_it_works_over_tls_with_large_publications(tmp_path):
    with RedisServer(tmp_path, tls=True) as server, broker_nodes(server.url) as open_node:
        first, second = open_node("a"), open_node("b")
        data = ["x" * 1_500_000, *(f"{n}" * 20_000 for n in range(9)), "last"]
        for node in (first, second):
            node.come("d")
        first.push("d", *data)
        for node in (first, second):
            eventually(lambda node=node: node.here.data("d") == data, "all publications")
        kill_links(server)
        for node in (first, second):
            node.wait_until_up(1)
        second.push("d", "again")
        eventually(lambda: first.here.data("d")[-1] == "again", "the last publication")


def test_it_works_over_a_unix_socket(tmp_path):
    with RedisServer(tmp_path, unix=True) as server, broker_nodes(server.url) as open_node:
        first, second = open_node("a"), open_node("b")
        second.come("d")
        first.push("d", "x")
        eventually(lambda: second.here.data("d") == ["x"], "the publication")


def test_a_start_without_redis_says_what_to_do(redis, tmp_path):
    with broker_nodes("redis://127.0.0.1:1/0") as open_node, pytest.raises(StoreError, match="start Redis there"):
        open_node("a")


def test_a_start_that_failed_may_be_repeated(tmp_path):
    server = RedisServer(tmp_path)
    server.kill()
    with broker_nodes(server.url) as open_node:
        try:
            with pytest.raises(StoreError):
                open_node("a")
            server.start()
            node = open_node("a")
            node.come("d")
            node.push("d", "x")
            assert node.here.data("d") == ["x"]
        finally:
            server.kill()


def test_one_connection_publishes_and_subscribes_and_is_replaced_when_it_ends(redis, open_node):
    node = open_node("a")
    [first] = links(redis)
    kill_links(redis)
    node.wait_until_up(1)
    [second] = links(redis)
    assert first != second and node.cuts() == {"eof": 1}


def test_a_connection_that_ended_before_redis_was_back_is_made_again_and_again(tmp_path):
    with RedisServer(tmp_path, appendonly="yes") as server, broker_nodes(server.url) as open_node:
        node = open_node("a")
        node.come("d")
        epoch = node.broker.epoch
        node.push("d", "x")
        server.kill()
        wait_for(lambda: not node.link.is_up, "the end of the connection")
        wait_for(lambda: "refuses connections" in node.link.trouble, "an attempt that failed")
        server.start()
        node.wait_until_up(1)
        assert node.broker.epoch != epoch  # another run
        assert node.push("d", "y")[0].position == f"{node.broker.epoch}:2"
        assert node.here.data("d") == ["x", "y"] and node.here.sent_back == []


def test_a_redis_that_hangs_is_noticed_by_the_beat(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        node = open_node("a", address=f"redis://127.0.0.1:{proxy.port}/0")
        other = open_node("b")
        node.come("d")
        proxy.half_open(DOWN)
        other.push("d", "x")
        eventually(lambda: node.cuts() == {"beat": 1}, "the end of the silent connection")
        node.wait_until_up(1)
        eventually(lambda: node.here.data("d") == ["x"], "what was missed")


def test_a_batch_that_was_not_seen_is_noticed_by_the_beat(scripts):
    node, other = scripts
    other.channel = "another channel"  # as if the message had been lost
    other.store(("d", "k", '1.0 9999999999.0 0 4 0 push"x"', "", ""))
    asks_soon(node)
    node.wait_until_up(1)
    assert node.cuts() == {"hole": 1}
    eventually(lambda: node.here.data("d") == ["x"], "what was missed")


def test_a_message_after_one_that_was_not_seen_is_noticed_at_once(scripts):
    node, other = scripts
    channel, other.channel = other.channel, "another channel"
    other.store(("d", "k", '1.0 9999999999.0 0 4 0 push"x"', "", ""))
    other.channel = channel
    other.store(("elsewhere", "k", '1.0 9999999999.0 0 4 0 push"y"', "", ""))
    node.wait_until_up(1)
    assert node.cuts() == {"hole": 1}
    eventually(lambda: node.here.data("d") == ["x"], "what was missed")


def test_another_epoch_is_noticed_by_the_beat(scripts):
    node, other = scripts
    other.hello(run="another run", word="second")
    asks_soon(node)
    node.wait_until_up(1)
    assert node.cuts() == {"epoch": 1}
    assert node.broker.epoch != scripts[1].epoch  # the run is another one for this node


def test_another_epoch_is_noticed_by_a_push_which_is_stored_in_it(scripts):
    node, other = scripts
    before = node.broker.epoch
    other.hello(run="another run", word="second")
    [receipt] = node.push("d", "x")
    assert receipt.position == f"{node.broker.epoch}:1" and node.broker.epoch != before
    assert node.cuts() == {"epoch": 1} and node.here.data("d") == ["x"] == node.kept("d")


def test_a_store_that_was_emptied_is_used_again(redis, scripts):
    node, other = scripts
    node.push("d", "x", "y")
    before = node.broker.epoch
    other.ask("DEL", "{}meta", "{}d:d", "{}s:d")
    assert node.push("d", "z")[0].position == f"{node.broker.epoch}:1"
    assert node.broker.epoch != before
    assert node.here.data("d") == ["x", "y", "z"] and node.kept("d") == ["z"]


def test_a_message_that_nobody_understands_changes_nothing(redis, scripts):
    node, other = scripts
    other.ask("PUBLISH", other.channel, b"*3\r\n$1\r\ne\r\n:0\r\n$4\r\nnews\r\n")
    node.push("d", "x")
    assert node.here.data("d") == ["x"] and node.link.session == 1


def test_a_push_may_come_from_the_thread_of_the_loop(open_node):
    node = open_node("a")
    node.come("d")
    receipts, done = [], threading.Event()

    def push():
        receipts.extend(node.push("d", "x"))
        done.set()

    node.link.loop.call_later(0, push)
    assert done.wait(DEADLINE) and receipts[0].position.endswith(":1")


def test_nothing_is_left_after_the_end(redis):
    before = {each.name for each in threading.enumerate()}
    with broker_nodes(redis.url) as open_node:
        node = open_node("a")
        node.come("d")
        node.push("d", "x")
        eventually(lambda: redis.ask("EXISTS", f"{node.keys}p:d"), "the announcement")
        kill_links(redis)
        node.wait_until_up(1)
    assert {each.name for each in threading.enumerate()} <= before
    wait_for(lambda: links(redis) == [], "Redis to notice it")
    assert redis.ask("EXISTS", f"{node.keys}p:d", f"{node.keys}nodes", f"{node.keys}n:{node.link.node}") == 0


def test_the_end_does_not_wait_for_a_redis_that_is_away(redis):
    with TcpProxy(redis.port) as proxy, broker_nodes(f"redis://127.0.0.1:{proxy.port}/0") as open_node:
        node = open_node("a")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not node.link.is_up, "the end of the connection")
        node.broker.close()
        assert not node.link.is_up
        with pytest.raises(StoreError, match="closed"):
            node.push("d", "x")
