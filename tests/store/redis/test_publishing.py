"""Pushes while the connection to Redis ends at any byte, while Redis hangs, and while it refuses.

Each is answered once. An answered push is stored once and handed out once. One that is not answered is stored once or
not at all.
"""

import contextlib
import random
import threading

import pytest
from conftest import DEADLINE, wait_for
from redis_nodes import broker_nodes, eventually, kill_links
from redis_scripts import Scripts
from redis_server import ENGINES, RedisServer
from tcp_proxy import DOWN, UP, TcpProxy

from pushrelay.errors import Overtaken, StoreError
from pushrelay.store import Draft
from pushrelay.store.publication import Mark, Receipt
from pushrelay.store.redis.publishing import MOST_ITEMS, NotKnown
from pushrelay.store.stripe import Pending


@pytest.fixture(scope="module", params=list(ENGINES))
def every_redis(request, tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), request.param) as server:
        yield server


@pytest.fixture
def two(every_redis):
    """Two nodes with clients of "d"; the first one's connections go through `proxy`."""
    with TcpProxy(every_redis.port) as proxy, broker_nodes(every_redis.url, history_size=10_000) as open_node:
        first = open_node("a", address=f"redis://127.0.0.1:{proxy.port}/0")
        first.proxy = proxy
        second = open_node("b")
        for node in (first, second):
            node.come("d")
            wait_for(lambda node=node: announced(every_redis, node), "the announcement")
        yield first, second


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Let a node connect again at once, though its last connection ended soon after its beginning."""
    monkeypatch.setattr("pushrelay.store.redis.link.LONGEST_PAUSE", 0.001)


def announced(redis, node):
    return redis.ask("SISMEMBER", f"{node.keys}n:{node.link.node}", "d")


def test_a_push_is_handed_out_at_all_nodes_and_counts_their_connections(two):
    first, second = two
    assert first.push("d", "x") == [Receipt(f"{first.broker.epoch}:1", 2)]
    assert second.push("d", "y", skip_sid="sid") == [Receipt(f"{first.broker.epoch}:2", 2)]
    for node in two:
        eventually(lambda node=node: node.here.data("d") == ["x", "y"], "both publications")
        assert node.here.skipped == [None, "sid"]


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_push_is_stored_once_at_whatever_byte_its_connection_ends(two, every_redis, direction):
    first, second = two
    pushed = []
    for count in range(list(ENGINES.values()).index(every_redis.program), 500, len(ENGINES)):
        first.wait_until_up()
        first.proxy.cut_after(direction, count)
        answer = first.push_soon(Draft("d", f"{direction} {count}", key=f"{direction} {count}"))
        eventually(lambda answer=answer: answer, f"the answer, cut after {count} bytes")
        pushed.append(f"{direction} {count}")
        assert answer == [Receipt(f"{first.broker.epoch}:{len(pushed)}", 2)], count
    assert first.link.session > 10 and first.broker.epoch == second.broker.epoch
    assert first.kept("d") == pushed
    for node in two:
        eventually(lambda node=node: len(node.here.got["d"]) >= len(pushed), "all at both nodes")
        assert node.here.data("d") == pushed and node.here.sent_back == []


def test_pushes_of_many_threads_are_stored_once_while_connections_end_and_scripts_vanish(two, every_redis):
    receipts, errors, done = [], [], threading.Event()

    def publish(node, number):
        try:
            for n in range(40):
                drafts = [Draft("d", f"{number}:{n}"), Draft(f"own{number}", n)]
                receipts.extend(node.broker.publish(drafts))
        except Exception as error:
            errors.append(error)

    def disturb():
        choose = random.Random(7)
        while not done.wait(0.02):
            choose.choice([lambda: kill_links(every_redis), lambda: every_redis.ask("SCRIPT", "FLUSH")])()

    threads = [threading.Thread(target=publish, args=(two[n % 2], n), daemon=True) for n in range(6)]
    disturber = threading.Thread(target=disturb, daemon=True)
    for each in (disturber, *threads):
        each.start()
    for each in threads:
        each.join(3 * DEADLINE)
    done.set()
    disturber.join(DEADLINE)
    assert errors == [] and not any(each.is_alive() for each in threads)
    assert len({receipt.position for receipt in receipts}) >= 240  # own0 to own5 begin at 1 each
    assert sorted(two[0].kept("d")) == sorted(f"{number}:{n}" for number in range(6) for n in range(40))
    for number in range(6):
        assert two[0].kept(f"own{number}") == list(range(40))
        mine = [each for each in two[0].kept("d") if each.startswith(f"{number}:")]
        assert mine == [f"{number}:{n}" for n in range(40)]
    for node in two:
        eventually(lambda node=node: len(node.here.got["d"]) >= 240, "all at both nodes")
        assert node.here.offsets("d") == list(range(1, 241))
        assert node.here.sent_back == []
        assert set(node.cuts()) <= {"eof", "scripts", "beat"}


def test_what_waits_for_redis_goes_out_in_few_batches(two):
    first, second = two
    before, errors = first.link.seq, []
    with first.link.lock:  # no reply can be read
        for n in range(2 * MOST_ITEMS + 1):
            first.broker.store_soon([Pending("d", n)], errors.append)
    count = 2 * MOST_ITEMS + 1
    eventually(lambda: len(second.here.got["d"]) == len(errors) == count, "all publications and answers")
    assert second.here.data("d") == list(range(count)) and set(errors) == {None}
    assert first.link.seq == before + 3  # the first one alone, then as many as a batch may have


def test_a_push_that_is_larger_than_the_sockets_buffers_arrives(two):
    first, second = two
    data = ["ä" * 1_000_000, "x" * 3_000_000]
    first.push("d", *data)
    for node in two:
        eventually(lambda node=node: node.here.data("d") == data, "large publications")


# Marks.


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_batch_with_a_mark_is_stored_once_at_whatever_byte_its_connection_ends(two, every_redis, direction):
    first, second = two
    mark = ""
    for count in range(list(ENGINES.values()).index(every_redis.program), 500, 3 * len(ENGINES)):
        first.wait_until_up()
        first.proxy.cut_after(direction, count)
        try:
            first.broker.publish_marked([Draft("d", str(count))], Mark("table", mark, str(count)))
        except StoreError as error:
            raise AssertionError(f"refused after {count} bytes") from error
        mark = str(count)
        assert second.broker.mark("table") == mark
    assert first.link.session > 5
    for node in two:
        eventually(lambda node=node: len(node.here.got["d"]) >= len(first.kept("d")), "all at both nodes")
        assert node.here.data("d") == first.kept("d") == [str(each) for each in sorted(map(int, first.kept("d")))]


def test_batches_with_marks_go_alone_and_keep_their_place_among_pushes(two):
    first, second = two
    errors = []
    before = first.link.seq
    with first.link.lock:  # no reply can be read
        for n in range(3):
            first.broker.store_soon([Pending("d", f"push {n}")], errors.append)
            wrong = "" if n < 2 else "wrong"
            first.broker._publishing.add([Pending("d", f"row {n}")], errors.append, Mark(f"table {n}", wrong, "1"))
            first.broker.store_soon([Pending("d", f"more {n}"), Pending("d", f"even more {n}")], errors.append)
    eventually(lambda: len(errors) == 9, "all answers")
    [refused] = [error for error in errors if error]
    assert isinstance(refused, Overtaken) and first.broker.trouble is None
    kept = [f"{what} {n}" for n in range(3) for what in ("push", "row", "more", "even more")]
    kept.remove("row 2")
    eventually(lambda: second.here.data("d") == kept, "the publications in their order")
    assert first.link.seq == before + 6  # rows 0 and 1, and what is before, between and after the three


def test_the_mark_tells_whether_an_abandoned_batch_was_stored(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        node = open_node("a", patience=1.0, address=f"redis://127.0.0.1:{proxy.port}/0")
        other = open_node("b")
        for direction, mark in ((UP, ""), (DOWN, "2")):
            node.wait_until_up()
            proxy.half_open(direction)
            with pytest.raises(NotKnown):
                node.broker.publish_marked([Draft("d", direction)], Mark("table", "", "2"))
            assert other.broker.mark("table") == mark
            session = node.link.session
            proxy.cut()
            node.wait_until_up(session)
        assert other.kept("d") == [DOWN]
        with pytest.raises(Overtaken):
            node.broker.publish_marked([Draft("d", "x")], Mark("table", "", "2"))
        node.broker.publish_marked([Draft("d", "x")], Mark("table", "2", "3"))
        assert node.broker.mark("table") == "3" and other.kept("d") == [DOWN, "x"]


# A Redis that hangs.


def test_an_abandoned_push_that_redis_stores_later_comes_to_all_clients_once(every_redis):
    with broker_nodes(every_redis.url) as open_node:
        node, other = open_node("a", patience=1.0), open_node("b")
        for each in (node, other):
            each.come("d")
        every_redis.pause()
        try:
            first, second = node.push_soon(Draft("d", "x", key="k")), []
            wait_for(lambda: node.broker._publishing._batch, "the batch to be under way")
            second = node.push_soon(Draft("d", "waits"))
            wait_for(lambda: first and second, "both errors")
        finally:
            every_redis.resume()
        assert isinstance(first[0], NotKnown) and "it is not known whether" in str(first[0])
        assert type(second[0]) is StoreError and "waited 1 s (setting redis_patience)" in str(second[0])
        eventually(lambda: node.here.got["d"] and other.here.got["d"], "what was stored later")
        receipt = Receipt(f"{node.broker.epoch}:1", node.push("d", "x", key="k")[0].connections, True)
        assert node.push("d", "x", key="k") == [receipt]
        node.push("d", "next")
        for each in (node, other):
            eventually(lambda each=each: each.here.data("d") == ["x", "next"], "each once")
        assert node.kept("d") == ["x", "next"] and node.link.session == 1


def test_the_publisher_of_an_abandoned_push_gets_one_answer_even_if_redis_refuses_it_later(redis, open_node):
    node = open_node("a", patience=1.0)
    answers = []
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        redis.pause()
        try:
            node.broker.store_soon([Pending("d", "x")], answers.append)
            wait_for(lambda: answers, "the error")
        finally:
            redis.resume()
        wait_for(lambda: node.broker.trouble, "Redis's refusal")
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert node.push("d", "y")[0].position.endswith(":1")
    assert len(answers) == 1 and isinstance(answers[0], NotKnown)


def test_an_abandoned_push_whose_connection_has_ended_is_not_sent_again(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        node = open_node("a", patience=1.0, address=f"redis://127.0.0.1:{proxy.port}/0")
        node.come("d")
        proxy.half_open(UP)  # it never reaches Redis
        answer = node.push_soon(Draft("d", "x"))
        wait_for(lambda: answer, "the error")
        assert isinstance(answer[0], NotKnown)
        proxy.cut()
        node.wait_until_up(1)
        assert node.push("d", "next")[0].position.endswith(":1")
        assert node.kept("d") == ["next"] == node.here.data("d")


def test_an_abandoned_push_that_was_stored_is_handed_out_when_the_connection_is_back(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        node = open_node("a", patience=1.0, address=f"redis://127.0.0.1:{proxy.port}/0")
        node.come("d")
        proxy.half_open(DOWN)  # Redis stores it, and its answer is lost
        answer = node.push_soon(Draft("d", "x"))
        wait_for(lambda: answer, "the error")
        assert isinstance(answer[0], NotKnown) and node.here.got["d"] == []
        proxy.cut()
        node.wait_until_up(1)
        eventually(lambda: node.here.data("d") == ["x"], "what was missed")
        assert node.missed() == 1
        node.push("d", "next")
        assert node.here.data("d") == ["x", "next"]


def test_pushes_wait_for_a_redis_that_comes_back_in_time(redis, open_node):
    with TcpProxy(redis.port) as proxy:
        node = open_node("a", address=f"redis://127.0.0.1:{proxy.port}/0")
        node.come("d")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not node.link.is_up, "the end")
        answers = [node.push_soon(Draft("d", n)) for n in range(3)]
        wait_for(lambda: len(node.broker._publishing._waiting) == 3, "all to wait")
        proxy.allow()
        eventually(lambda: all(answers), "all answers")
        assert sorted(node.kept("d")) == [0, 1, 2] and node.here.data("d") == node.kept("d")


def test_a_push_that_waits_when_the_relay_stops_is_refused(redis, open_node):
    node = open_node("a")
    redis.pause()
    try:
        answers = [node.push_soon(Draft("d", n)) for n in range(2)]
        wait_for(lambda: node.broker._publishing._waiting, "one to wait")
        threading.Thread(target=node.broker.close, daemon=True).start()
        wait_for(lambda: all(answers), "the errors")
    finally:
        redis.resume()
    assert all("closed" in str(each[0]) for each in answers)


# A Redis that refuses.


def test_a_full_redis_refuses_pushes_and_takes_them_again(redis, open_node):
    node = open_node("a")
    node.come("d")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match="full"):
                node.push("d", "x")
        assert "full" in node.broker.trouble
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert node.push("d", "y")[0].position.endswith(":1")
    assert node.broker.trouble is None and node.here.data("d") == ["y"] and node.link.session == 1


def test_a_hole_in_a_destination_is_filled_before_the_push_is_answered(two, every_redis):
    """It cannot come about on a connection that lives. If it does, the batch that shows it is not lost."""
    first, second = two
    first.push("d", "x")
    scripts = Scripts(every_redis.url, first.keys, node="c")
    scripts.ask("HINCRBY", "{}d:d", "o", 1)
    assert first.push("d", "y", "z") == [Receipt(f"{first.broker.epoch}:{n}", 2) for n in (3, 4)]
    for node in two:
        eventually(lambda node=node: node.here.data("d") == ["x", "y", "z"], "everything")
        assert node.cuts() == {"hole": 1}
    scripts.close()


# Replicas (WAIT).


def test_a_push_is_accepted_when_as_many_replicas_have_it(tmp_path):
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(RedisServer(tmp_path / "a", repl_diskless_sync_delay=0))
        replica = stack.enter_context(RedisServer(tmp_path / "b", replicaof=f"127.0.0.1 {master.port}"))
        wait_for(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), "the replication")
        node = stack.enter_context(broker_nodes(master.url))("a", replicas=1)
        node.come("d")

        def pushed(data):
            try:
                return node.push("d", data, key=data)
            except NotKnown:  # this machine was busy: what a publisher does then
                return None

        eventually(lambda: pushed("x"), "a push that was accepted")
        assert replica.ask("LLEN", f"{node.keys}s:d") == 1
        replica.pause()
        try:
            with pytest.raises(NotKnown, match=r"only 0 of 1 replicas \(setting redis_wait\) took it in time"):
                node.push("d", "y")
        finally:
            replica.resume()
        eventually(lambda: node.here.data("d") == ["x", "y"], "what no replica had in time")
        eventually(lambda: pushed("z"), "a push that was accepted again")
        assert node.here.data("d") == ["x", "y", "z"] == node.kept("d") and node.link.session == 1


# Keys.


def test_a_repeated_key_gets_the_first_receipt_at_every_node(two):
    first, second = two
    [receipt] = first.push("d", "x", key="k")
    assert receipt.connections == 2
    assert second.push("d", "x", key="k") == [receipt._replace(repeated=True)]
    assert second.push("d", "other", key="k")[0].reused
    assert first.kept("d") == ["x"]


def test_the_receipt_of_a_key_counts_clients_that_were_not_announced_yet(two, every_redis):
    first, second = two
    first.here.sockets["d"] = 5
    assert first.push("d", "x", key="k")[0].connections == 6
    assert first.push("d", "x", key="k")[0].connections == 6
    eventually(lambda: second.push("d", "x", key="k")[0].connections == 6, "the number to be stored")
    assert first.broker._publishing._keyed == {}
    assert 0 < every_redis.ask("TTL", f"{first.keys}k:1:dk") <= 300
