"""Histories in Redis, as the archive and the dispatcher ask for them."""

import threading

import pytest
from conftest import DEADLINE, wait_for
from redis_nodes import broker_nodes, kill_links
from tcp_proxy import TcpProxy

from pushrelay.errors import StoreError
from pushrelay.store import Draft
from pushrelay.store.publication import Tip
from pushrelay.store.redis.history import Seen
from pushrelay.store.redis.scripts import PRESENCE


@pytest.fixture
def node(redis):
    with broker_nodes(redis.url) as open_node:
        yield open_node("a")


@pytest.fixture
def history(node):
    return node.broker._history


def test_a_tip_is_the_end_what_was_lost_and_what_is_acknowledged(node, history):
    assert history.tip("42") == Tip(0, 0, 0)
    node.push("42", "x", "y")
    node.broker.ack("42", f"{node.broker.epoch}:1")
    assert history.tip("42") == Tip(2, 0, 1)


def test_a_page_has_what_is_kept_after_an_offset(node, history):
    node.push("42", "a" * 100, "b" * 100, "c" * 100)
    page = history.read("42", 1)
    assert [each.text[1] for each in page.kept] == ["b", "c"] and not page.more and page.tip.offset == 3
    page = history.read("42", 0, 150)
    assert [each.text[1] for each in page.kept] == ["a"] and page.more
    assert len(history.read("42", 0, 1).kept) == 1
    numbers = history.read("42", 0, with_data=False)
    assert [(each.offset, each.text) for each in numbers.kept] == [(1, ""), (2, ""), (3, "")]


def test_a_script_that_redis_does_not_know_any_more_is_sent_whole(redis, history):
    redis.ask("SCRIPT", "FLUSH")
    assert history.run(PRESENCE, "a", "42") == [0, b""]
    assert history.run(PRESENCE, "a", "42") == [0, b""]


def test_another_epoch_is_an_error_that_says_what_to_do(redis, node, history):
    redis.ask("HSET", node.link.meta, "e", "another")
    with pytest.raises(StoreError, match="ask again"):
        history.tip("42")


def test_an_error_of_redis_is_explained(redis, node, history):
    redis.ask("SET", f"{node.keys}d:42", "not a hash")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        history.tip("42")


def test_the_dispatcher_sees_only_what_this_node_holds_and_has_queued(node):
    seen = Seen(node.link)
    seen.held = node.broker._held
    with pytest.raises(StoreError, match="ask again"):
        seen.tip("42")
    node.come("42")
    node.push("42", "x")
    assert seen.tip("42") == Tip(1, 0, 0) and seen.epoch == node.broker.epoch
    node.broker._held.ask(b"7")
    with pytest.raises(StoreError):
        seen.tip("7")


def test_newcomers_of_a_destination_ask_redis_once(redis, node):
    def asked():
        stats = redis.ask("INFO", "commandstats").decode()
        return next((int(line.split("calls=")[1].split(",")[0]) for line in stats.split() if "evalsha" in line), 0)

    node.broker.delivered("42")
    before = asked()
    for _ in range(50):
        node.broker.join("42", lambda: None)
    assert asked() - before < 25  # beats, while a busy machine makes this long


def test_a_newcomer_misses_nothing_while_others_push_and_connections_end(redis):
    with broker_nodes(redis.url, history_size=1000) as open_node:
        node, other = open_node("a"), open_node("b")
        done, results = threading.Event(), []

        def publish():
            for n in range(150):
                other.broker.publish([Draft(f"d{n % 5}", n)])
                if n % 30 == 29:
                    kill_links(redis)
            done.set()

        def come(number):
            while not done.is_set():
                name, got = f"d{number}", []
                try:
                    recovery = node.broker.recover(name, f"{node.broker.epoch}:0", got.append, lambda: None)
                except StoreError:
                    continue  # a client asks again
                results.append((recovery, got))
                with node.link.lock:
                    node.broker._held.drop(name.encode())  # so that the next one asks again

        threads = [threading.Thread(target=publish), *(threading.Thread(target=come, args=(n,)) for n in range(5))]
        for each in threads:
            each.start()
        for each in threads:
            each.join(3 * DEADLINE)
        assert done.is_set() and len(results) > 20
        for recovery, got in results:
            assert recovery.recovered
            assert [int(each.position.rpartition(":")[2]) for each in got] == list(range(1, len(got) + 1))
            assert recovery.position.endswith(f":{len(got)}")


def test_a_newcomer_is_refused_while_redis_is_away_and_no_longer_than_that(redis):
    with TcpProxy(redis.port) as proxy, broker_nodes(f"redis://127.0.0.1:{proxy.port}/0") as open_node:
        node = open_node("a")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not node.link.is_up, "the end of the connection")
        with pytest.raises(StoreError):
            node.broker.delivered("42")
        proxy.allow()
        node.wait_until_up(1)
        assert node.broker.delivered("42").offset == 0
