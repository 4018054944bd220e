"""Every branch of the Lua scripts, on every server that the relay runs on."""

import time

import hiredis
import pytest
from conftest import wait_for
from redis_scripts import NOW, Scripts, item, text
from redis_server import ENGINES, RedisServer, asked

from pushrelay.store.redis.scripts import ALL, CLEAN, PEOPLE, PRESENCE

DAY = 86400.0
FAR = 10**15  # Lua writes numbers from 1e14 on with an exponent, unless it is told otherwise


@pytest.fixture(scope="module", params=list(ENGINES))
def server(request, tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), request.param) as started:
        yield started


@pytest.fixture
def store(server):
    """A node that has said hello to a store of its own."""
    scripts = Scripts(server.url)
    scripts.hello()
    yield scripts
    scripts.close()


@pytest.fixture
def other(server, store):
    """Another node on the same store."""
    scripts = Scripts(server.url, store.prefix, node="b")
    scripts.epoch, scripts.run_id = store.epoch, store.run_id
    yield scripts
    scripts.close()


def test_redis_names_each_script_as_the_relay_does(server):
    for script in ALL:
        assert asked(server.url, "SCRIPT", "LOAD", script.text).decode() == script.sha
    assert len({script.sha for script in ALL}) == len(ALL)


# hello: whose store is it?


def test_an_empty_store_gets_an_epoch(server):
    scripts = Scripts(server.url)
    assert scripts.hello(word="first") == ("first", 0, 1, 0)
    assert scripts.hello(word="second") == ("first", 0, 1, 0)
    scripts.close()


def test_another_run_of_redis_is_another_epoch_unless_it_is_durable(store):
    store.store(item("d"))
    assert store.hello(run="run2", word="second") == ("second", 1, 2, 0)
    assert store.hello(run="run3", word="third", durable=True) == ("second", 1, 2, 0)
    assert store.hello(run="run3", word="fourth") == ("second", 1, 2, 0)  # the run is known now


def test_a_node_that_saw_more_than_the_store_has_proves_a_loss(store):
    store.store(item("d"))
    assert store.hello(seq=1, word="equal")[0] == "word"
    assert store.hello(seq=2, word="lost", durable=True) == ("lost", 1, 2, 0)
    assert store.hello(epoch="word", seq=9, word="late")[0] == "lost"  # that was another epoch
    assert store.hello(run="run2", seq=2, durable=True, word="later")[0] == "later"


def test_hello_begins_the_lease_of_a_node(store):
    assert store.beat("b")[5] == 2


def test_hello_refuses_who_may_not_publish(server, store):
    asked(server.url, "ACL", "SETUSER", "silent", "on", "nopass", "~*", "resetchannels", "+@all")
    store.ask("AUTH", "silent", "x")
    with pytest.raises(hiredis.ReplyError, match="channel"):
        store.hello(word="other", run="other")
    assert asked(server.url, "HGET", store.meta, "e") == b"word"


def test_hello_tells_which_order_was_the_last(store):
    store.order()
    store.order()
    assert store.hello()[3] == 2


def test_the_orders_of_another_epoch_have_other_numbers(store):
    """A node carries out each number once, and one that was cut off must not take a new order for an old one."""
    store.order()
    assert store.hello(run="run2", word="second")[3] == 1001
    store.ask("FLUSHALL")
    assert store.hello(run="run2", word="third", order=1003)[3] == 2003
    assert store.order()[0] == 2004


# batch: to store and to publish.


def test_a_batch_is_stored_and_published_as_one_message(store):
    store.listen()
    bodies = [item("d", "x")[2], item("e", "y")[2]]
    assert store.batch(item("d", "x"), item("e", "y")) == (True, [(1, 0, "stored"), (1, 0, "stored")])
    [message] = store.messages()
    assert message[:5] == [b"word", 1, b"p", b"a", 1]
    assert message[5:] == [b"d", 1, bodies[0].encode(), b"e", 1, bodies[1].encode()]
    assert store.read("d")[2] == [f"1 1 {bodies[0]}".encode()]


@pytest.mark.parametrize("what", [{"epoch": "other"}, {"run_id": "other"}])
def test_a_node_with_another_epoch_or_run_stores_nothing(store, what):
    store.listen()
    known = {name: getattr(store, name) for name in what}
    vars(store).update(what)
    with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
        store.batch(item("d"))
    vars(store).update(known)
    assert store.messages() == [] and store.read("d")[0] == (0, 0, 0)
    assert store.ask("EXISTS", "{}d:d", "{}s:d", "{}due") == 0


def test_a_batch_that_is_sent_again_gets_its_answer_and_is_stored_once(store, other):
    store.hold(("d", 3, 1.5))
    other.hold(("d", 2, 1.5))
    store.listen()
    first = store.batch(item("d", "x"), item("e", "y"), item("d", "z", key="1:k"))
    again = store.batch(item("d", "x"), item("e", "y"), item("d", "z", key="1:k"), number=1)
    assert first == (True, [(1, 2, "stored"), (1, 0, "stored"), (2, 2, "stored")])
    assert again == (False, first[1])
    assert len(store.messages()) == 1 and store.kept("d") == ["x", "z"]


def test_the_numbers_of_two_nodes_are_independent(store, other):
    assert store.batch(item("d"), number=7)[0] and other.batch(item("d"), number=7)[0]
    assert store.read("d")[0][0] == 2


def test_a_batch_that_comes_after_a_later_one_is_not_stored(store):
    """An abandoned batch may wait in the buffer of a connection that has ended, while the next one overtakes it."""
    store.store(item("d", "later"), number=2)
    with pytest.raises(hiredis.ReplyError, match="^OLD"):
        store.batch(item("d", "earlier"), number=1)
    assert store.batch(item("d", "later"), number=2) == (False, [(1, 0, "stored")])
    assert store.kept("d") == ["later"]
    assert store.batch(item("d"), number=10)[0]  # numbers, not texts, are compared


NAMES = ["", "a\r\nb", "\0", "a\0b", "'\"\\", "ä€\U0001f600", "{0}", "%d%s%", ":1 2", "x" * 1000]


def test_names_data_and_keys_may_have_any_characters(store):
    store.listen()
    many = [item(name, name, key=f"1:{len(name)}:{name}{name}") for name in NAMES]
    assert store.batch(*many) == (True, [(1, 0, "stored")] * len(NAMES))
    [message] = store.messages()
    assert [each.decode() for each in message[5::3]] == NAMES
    assert [text(each) for each in message[7::3]] == NAMES
    for name in NAMES:
        assert store.kept(name) == [name]
        assert store.ack(name, 1) == (1, 0)
        store.hold((name, 2, 5.0), node="b")
    store.beat("b")
    assert store.run(PRESENCE, "a", *NAMES) == [2, b"5.0"] * len(NAMES)
    assert store.batch(*many) == (False, [(1, 0, "repeated")] * len(NAMES))
    assert [tip[:2] for tip in store.tips(*NAMES)] == [(1, 0)] * len(NAMES)


def test_a_thousand_items_are_one_batch(store):
    store.listen()
    many = [item(f"d{n % 10}", f"{n}") for n in range(1000)]
    assert store.store(*many, size=10) == [n // 10 + 1 for n in range(1000)]
    [message] = store.messages()
    assert len(message) == 5 + 3 * 1000 and message[1] == 1
    assert store.kept("d3") == [f"{n}" for n in range(903, 1000, 10)]
    assert store.batch(*many, number=1, size=10)[1][999] == (100, 0, "stored")


def test_offsets_beyond_1e14_stay_whole(store):
    store.ask("HSET", "{}d:d", "o", f"{FAR}")
    store.ask("ZADD", "{}due", NOW, "d")
    store.ask("HSET", store.meta, "f", f"{FAR}", "s", f"{FAR}", "o", f"{FAR}")
    store.listen()
    short = item("d", "b", f"o{NOW + 5!r}", NOW + 5)
    assert store.store(item("d", "a"), item("new", key="1:k"), short) == [FAR + 1, FAR + 1, FAR + 2]
    assert store.store(item("d", "c", "l"), item("new", key="1:k")) == [FAR + 3, FAR + 1]
    first, second = store.messages()
    assert [first[1], second[1]] == [FAR + 1, FAR + 2] and first[6::3] == [FAR + 1, FAR + 1, FAR + 2]
    assert store.read("d")[0] == (FAR + 3, FAR + 3, 0)
    assert store.read("new")[0] == (FAR + 1, FAR, FAR)
    assert [each.split()[0] for each in store.read("d", FAR)[2]] == [b"%d" % (FAR + n) for n in (1, 2)]
    assert store.tips("d", "new") == [(FAR + 3, FAR + 3, FAR + 2, 1), (FAR + 1, FAR, FAR + 1, 1)]
    assert store.ack("new", FAR + 1) == (FAR + 1, FAR) and store.read("new")[0][2] == FAR + 1
    assert store.order()[0] == FAR + 1
    store.sweep(NOW + 10**6)
    store.sweep(NOW + 10**7)
    assert store.read("never")[0] == (FAR + 3,) * 3


# batch: what the history keeps.


def test_the_history_keeps_the_last_ones_and_notes_what_it_lost(store):
    store.store(*(item("d", f"{n}") for n in range(5)), size=3)
    assert store.kept("d") == ["2", "3", "4"] and store.read("d")[0] == (5, 2, 0)
    store.store(item("d", "5"), size=1)  # the setting was reduced
    assert store.kept("d") == ["5"] and store.read("d")[0] == (6, 5, 0)


def test_a_history_of_no_size_keeps_nothing_and_notes_that(store):
    store.store(item("d"), item("d", mode=f"o{NOW + 5!r}", expires=NOW + 5), size=0)
    assert store.kept("d") == [] and store.read("d")[0] == (2, 2, 0)


def test_what_expired_by_its_publishers_wish_is_no_loss(store):
    short = [item("d", "short", f"o{NOW + 5!r}", NOW + 5)] * 2
    store.store(*short, item("d", "kept"), size=3)
    store.store(item("d", "new"), size=3, now=NOW + 6)
    assert store.read("d")[0] == (4, 0, 0)
    store.store(item("d", "newer"), size=2, now=NOW + 6)
    assert store.read("d")[0] == (5, 3, 0)


def test_what_does_not_expire_yet_is_a_loss(store):
    store.store(*[item("d", "short", f"o{NOW + 5!r}", NOW + 5)] * 3, size=1)
    assert store.read("d")[0] == (3, 2, 0)
    store.ask("DEL", "{}s:d")
    assert store.read("d", now=NOW + 5)[0] == (3, 2, 0)


def test_publications_that_are_not_kept_are_no_loss_and_lost_ones_are(store):
    store.store(item("n", mode="n"), item("n", mode="n"), item("l", mode="l"))
    assert store.read("n")[0] == (2, 0, 0) and store.read("l")[0] == (1, 1, 0)
    store.store(item("l", mode="n"))
    assert store.read("l")[0] == (2, 1, 0)


def test_without_a_list_everything_before_the_run_of_unkept_ones_is_lost(store):
    for dest in ("d", "e", "f"):
        store.store(item(dest), item(dest))
    store.store(item("d", mode="n"), item("d", mode=f"o{NOW + 50!r}", expires=NOW + 50), item("d", mode="n"))
    store.store(item("e", mode="n"), item("e"))
    store.store(item("f", mode="n"))
    for dest in ("d", "e", "f"):
        store.ask("DEL", "{}s:" + dest)  # as its expiry does
    assert store.read("d", now=NOW + 49)[0] == (5, 5, 0)  # one that should still be there is not
    assert store.read("d", now=NOW + 50)[0] == (5, 2, 0)
    assert store.read("e")[0] == (4, 4, 0)
    assert store.read("f")[0] == (3, 2, 0)
    assert [tip[:2] for tip in store.tips("d", "e", "f", now=NOW + 50)] == [(5, 2), (4, 4), (3, 2)]
    assert store.tips("d")[0][2:] == (0, 0)


def test_a_new_run_begins_after_a_kept_publication(store):
    store.store(item("d", mode="n"), item("d"), item("d", mode=f"o{NOW + 9!r}", expires=NOW + 9), item("d", mode="n"))
    store.ask("DEL", "{}s:d")
    assert store.read("d", now=NOW + 9)[0] == (4, 2, 0)


def test_a_list_expires_by_the_last_publication(store):
    store.store(item("d"), ttl=50)
    assert 45 < store.ask("TTL", "{}s:d") <= 50
    store.store(item("d"), ttl=5000)
    assert 4900 < store.ask("TTL", "{}s:d") <= 5000
    assert store.ask("TTL", "{}d:d") == -1


def test_a_destination_that_is_new_or_forgotten_begins_above_the_floor(store):
    store.ask("HSET", store.meta, "f", 41)
    assert store.read("d")[0] == (41, 41, 41) and store.tips("d") == [(41, 41, 0, 0)]
    assert store.store(item("d"), item("d")) == [42, 43]
    assert store.read("d", 41)[0] == (43, 41, 41) and store.tips("d") == [(43, 41, 43, 1)]


# hold: a destination whose first publication comes while it is held.


@pytest.mark.parametrize("floor", [0, 41, FAR])
def test_a_destination_that_is_held_goes_on_from_the_offset_that_its_holder_knows(store, floor):
    store.ask("HSET", store.meta, "f", floor)
    assert store.begin("d") == floor
    assert store.read("d")[0] == (floor, floor, floor) and store.tips("d") == [(floor, floor, 0, 0)]
    store.ask("HSET", store.meta, "f", floor + 7)  # others were forgotten
    assert store.begin("d") == floor
    assert store.store(item("d"), item("new"), item("d")) == [floor + 1, floor + 8, floor + 2]
    assert store.read("d")[0] == (floor + 2, floor, floor)
    assert store.begin("d") == floor + 2


def test_a_destination_that_is_held_no_longer_is_forgotten(store):
    store.begin("d")
    store.hold(("d", 1, 1.0))
    for day in range(1, 4):
        store.sweep(NOW + day * DAY)
    assert store.ask("EXISTS", "{}d:d") == 1
    store.hold(("d", 0, 0))
    store.sweep(NOW + 4 * DAY)
    assert store.ask("EXISTS", "{}d:d", "{}due") == 0


def test_a_destination_is_held_in_no_other_epoch(store):
    with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
        store.begin("d", epoch="other")
    assert store.ask("EXISTS", "{}d:d") == 0


def test_a_destination_can_be_held_while_redis_accepts_no_writes(store):
    store.ask("HSET", store.meta, "f", 41)
    store.store(item("there"))
    store.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert store.begin("new") == 41 and store.begin("there") == 42
        with pytest.raises(hiredis.ReplyError, match="OOM"):
            store.batch(item("there"))
    finally:
        store.ask("CONFIG", "SET", "maxmemory", "0")
    assert store.ask("EXISTS", "{}d:new") == 0
    assert store.store(item("new")) == [42]


# batch: keys.


def test_a_key_is_used_once_and_counts_connections_of_all_nodes(store, other):
    store.hold(("d", 3, 1.0))
    other.hold(("d", 4, 1.0))
    assert store.batch(item("d", key="1:k"))[1] == [(1, 4, "stored")]
    assert other.batch(item("d", key="1:k")) == (False, [(1, 7, "repeated")])
    assert store.kept("d") == ["x"]


def test_a_key_that_is_repeated_in_a_batch_is_one_publication(store):
    answers = store.batch(item("d", key="1:k"), item("d", key="1:k"), item("d", "y"))
    assert answers == (True, [(1, 0, "stored"), (1, 0, "repeated"), (2, 0, "stored")])


def test_a_key_with_other_data_is_refused(store):
    store.store(item("d", key="1:k", fingerprint="f1"))
    assert store.batch(item("d", "y", key="1:k", fingerprint="f2")) == (False, [(0, 0, "reused")])
    answers = store.batch(item("e", key="1:l", fingerprint="f1"), item("e", key="1:l", fingerprint="f2"))
    assert answers == (True, [(1, 0, "stored"), (0, 0, "reused")])
    assert store.read("d")[0][0] == 1


def test_one_key_that_is_used_refuses_its_whole_push_and_no_other(store):
    store.store(item("b", key="1:used", fingerprint="old"))
    push = [item(name, key=key) for name, key in (("a", "3:a"), ("b", "0:used"), ("c", "0:c"))]
    answers = store.batch(item("z"), *push, item("z", key="1:z"))
    assert answers == (True, [(1, 0, "stored"), *[(0, 0, "reused")] * 3, (2, 0, "stored")])
    assert store.read("a")[0][0] == store.read("c")[0][0] == 0 and store.ask("EXISTS", "{}k:a", "{}k:c") == 0


def test_a_push_of_which_a_part_was_stored_stores_the_rest(store):
    store.store(item("b", key="1:b"))
    push = [item(name, key=key) for name, key in (("a", "3:a"), ("b", "0:b"), ("c", "0:c"))]
    assert [state for _, _, state in store.batch(*push)[1]] == ["stored", "repeated", "stored"]


def test_a_key_is_known_by_the_nodes_clock_and_leaves_redis_by_its_own(store):
    store.store(item("d", key="1:k"))
    assert 290 < store.ask("TTL", "{}k:k") <= 300
    assert store.batch(item("d", key="1:k"), now=NOW + 299)[1][0][2] == "repeated"
    assert store.batch(item("d", "y", key="1:k", fingerprint="g"), now=NOW + 300)[1] == [(2, 0, "stored")]


# read and tips.


def test_a_history_is_read_in_pages(store):
    store.store(*(item("d", f"{n}") for n in range(200)), size=200)
    _, more, entries = store.read("d", 0, most=1)
    assert more and len(entries) == 1  # at least one, or it would not end
    after, found = 0, []
    while True:
        tip, more, entries = store.read("d", after, most=3000)
        assert tip == (200, 0, 0) and sum(map(len, entries)) <= 3000
        found += map(text, entries)
        if not more:
            break
        after = int(entries[-1].split()[0])
    assert found == [f"{n}" for n in range(200)]


@pytest.mark.parametrize("after", [0, 1, 2, 63, 64, 65, 127, 128, 129, 130, 131])
def test_a_history_is_read_after_any_offset(store, after):
    store.store(*(item("d", f"{n}", "n" if n == 1 else "k") for n in range(1, 131)), size=200)
    assert store.kept("d", after) == [f"{n}" for n in range(max(after + 1, 2), 131)]


def test_a_page_may_be_without_data(store):
    store.store(item("d", "x" * 100), item("d", "y"))
    [first, second] = store.read("d", 0, most=1, whole=False)[2]
    assert first == f"1 1 {NOW!r} {NOW + 3600!r} 0 ".encode() and second.startswith(b"2 1 ")


def test_a_history_of_another_epoch_is_not_read_unless_any_is_wanted(store):
    store.store(item("d"))
    with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
        store.read("d", epoch="other")
    assert store.kept("d", epoch="") == ["x"]


def test_tips_tell_the_generation_of_the_last_entry(store):
    store.store(item("d"))
    store.hello(run="run2", word="second")
    store.store(item("e"))
    store.store(item("e", mode="n"))
    assert store.tips("d", "e", "never") == [(1, 0, 1, 1), (2, 0, 1, 2), (0, 0, 0, 0)]


# ack and expect.


def test_an_acknowledgement_only_rises_and_never_beyond_the_end(store):
    store.store(*[item("d")] * 3)
    assert [store.ack("d", n) for n in (2, 1, 4, 3)] == [(3, 0), (3, 2), (3, 2), (3, 2)]
    assert store.read("d")[0] == (3, 0, 3)
    with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
        store.ack("d", 3, epoch="other")


def test_nodes_are_told_of_an_acknowledgement_only_while_somebody_waits(store):
    store.store(*[item("d")] * 3)
    store.listen()
    store.ack("d", 1)
    assert store.messages() == []
    assert store.expect("d", 60) == 1
    store.ack("d", 3, sid="s\r\n")
    store.ack("d", 3, sid="again")  # another client of the destination
    assert store.messages() == [[b"word", 0, b"a", b"d", 3, sid] for sid in (b"s\r\n", b"again")]


def test_who_waits_longest_determines_how_long_acknowledgements_are_told(store):
    store.store(item("d"))
    store.listen()
    store.expect("d", 60)
    store.expect("d", 0.001)
    time.sleep(0.01)
    store.ack("d", 1)
    assert len(store.messages()) == 1
    store.ask("HDEL", "{}d:d", "w")
    store.expect("d", 0.001)
    time.sleep(0.01)
    store.ack("d", 1)
    assert store.messages() == []


def test_to_wait_makes_no_destination(store):
    assert store.expect("never", 60) == 0
    assert store.ask("EXISTS", "{}d:never") == 0


# Nodes: holders, presence, beat, clean, order.


def test_a_node_holds_what_it_says_last(store):
    assert store.hold(("d", 1, 1.0), ("e", 2, 1.0)) == 2
    assert store.hold(("d", 3, 1.0), ("e", 0, 0), ("never", 0, 0)) == 1
    assert store.ask("HGETALL", "{}p:d") in ({b"a": b"3 1.0"}, [b"a", b"3 1.0"])
    assert store.ask("EXISTS", "{}p:e", "{}p:never") == 0


def test_presence_adds_up_other_nodes_that_live_and_takes_the_earliest(store):
    for node, connections, since in (
        ("a", 9, 1.0),
        ("b", 2, "1700000000.500"),
        ("c", 3, "900000000.000"),
        ("dead", 5, 0),
    ):
        store.hold(("d", connections, since), node=node)
        store.beat(node, lease=-1 if node == "dead" else 60)
    assert store.run(PRESENCE, "a", "d", "nobody") == [5, b"900000000.000", 0, b""]
    assert store.run(PRESENCE, "b", "d") == [12, b"1.0"]


def test_a_beat_tells_what_a_node_must_have_seen(store):
    store.store(item("d"))
    store.order()
    store.hold(("d", 1, 1.0))
    store.beat("dead", lease=-1)
    assert store.beat() == [b"word", b"run1", 1, 1, 1, 1, b"", 0, b"dead"]
    assert store.beat("b") == [b"word", b"run1", 1, 1, 0, 2, b"", 0, b"dead"]
    assert Scripts.beat(store, "dead") == [b"word", b"run1", 1, 1, 0, 3, b"", 0]  # it is back


def test_a_beat_in_an_empty_store_has_no_epoch(store):
    store.ask("DEL", store.meta)
    assert store.beat() == [b"", b"", 0, 0, 0, 1, b"", 0]


def test_a_lease_is_over_by_redis_clock(store):
    store.beat("b", lease=0.05)
    wait_for(lambda: b"b" in store.beat()[8:], "the end of the lease")


def test_what_a_dead_node_held_is_cleaned_in_steps(store):
    held = [(f"d{n}", 1, 1.0) for n in range(1001)]
    store.hold(*held, node="dead")
    store.hold(("d0", 1, 1.0), node="b")
    store.beat("dead", lease=60)
    assert store.run(CLEAN, "dead", 0) == 0  # it lives
    assert store.beat("b")[5] == 3 and store.ask("SCARD", "{}n:dead") == 1001
    store.beat("dead", lease=-1000)
    assert [store.run(CLEAN, "dead", 0) for _ in range(3)] == [1, 1, 0]
    assert store.ask("EXISTS", "{}n:dead", *(f"{{}}p:d{n}" for n in range(1, 1001))) == 0
    assert store.ask("HKEYS", "{}p:d0") == [b"b"]
    assert store.beat("b")[5:] == [2, b"", 0]


def test_a_node_that_leaves_is_cleaned_at_once(store):
    store.hold(("d", 1, 1.0))
    store.beat(lease=60)
    store.store(item("d"))
    assert store.run(CLEAN, "a", 1) == 0
    assert store.ask("EXISTS", "{}n:a", "{}p:d", "{}nodes") == 0
    assert store.ask("HEXISTS", store.meta, "n:a") == 0


def test_a_batch_of_a_node_that_was_cut_off_for_long_is_still_stored_once(store):
    """It may be sent again for as long as redis_patience, which may be longer than the lease."""
    store.hold(("d", 1, 1.0))
    store.beat(lease=-30)
    store.store(item("d"))
    assert store.run(CLEAN, "a", 0) == 0
    assert store.ask("EXISTS", "{}n:a", "{}p:d") == 0
    assert store.batch(item("d"), number=1) == (False, [(1, 0, "stored")])
    store.beat(lease=-100)
    store.run(CLEAN, "a", 0)
    assert store.ask("HEXISTS", store.meta, "n:a") == store.ask("HEXISTS", "{}nodes", "a") == 0


def test_the_changes_of_members_are_published_with_their_number(store):
    store.listen()
    assert store.have(("d", "ann", "1.5", "{}", "+"), ("d", "bob", "2.5", '{"a":1}', "+")) == [1, 2]
    assert store.have(("d", "ann", "3.5", "{}", "+"), ("d", "bob", "", "", "-"), node="b") == [2, 2]
    assert store.have(("d", "ann", "", "", "-"), ("e", "ann", "1.5", "{}", "+")) == [2, 1]
    assert store.have(("d", "ann", "", "", "-"), ("d", "nobody", "", "", "-"), node="b") == [1, 1]
    found = [[each.decode() if isinstance(each, bytes) else each for each in message] for message in store.messages()]
    assert found == [
        ["word", 0, "m", "d", "ann", "1.5", "{}", 1, "d", "bob", "2.5", '{"a":1}', 2],
        ["word", 0, "m", "e", "ann", "1.5", "{}", 1],
        ["word", 0, "m", "d", "ann", "1.5", "", 1],
    ]
    assert store.run(PEOPLE, 1000, "d", "e", "f") == [[b"bob", b"2.5", b'{"a":1}'], [b"ann", b"1.5", b"{}"], []]


def test_what_the_site_said_last_of_a_user_stays_when_another_node_repeats_what_it_knew(store):
    store.have(("d", "ann", "1.5", '{"n":1}', "+"))
    store.have(("d", "ann", "2.5", '{"n":2}', "+"), node="b")
    store.listen()
    store.have(("d", "ann", "1.5", '{"n":1}', "="))
    store.have(("d", "ann", "1.5", '{"n":3}', "+"))
    assert [each[3:] for each in store.messages()] == [[b"d", b"ann", b"1.5", b'{"n":3}', 1]]


def test_the_users_of_a_dead_node_are_cleaned_in_steps_unless_another_node_has_them(store):
    store.have(*(("d", str(n), "1.5", "{}", "+") for n in range(1001)), node="dead")
    store.have(("d", "7", "1.5", "{}", "+"), node="b")
    store.beat("dead", lease=-1)
    store.listen()
    assert [store.run(CLEAN, "dead", 0) for _ in range(3)] == [1, 1, 0]
    assert store.ask("HKEYS", "{}m:d") == [b"7"] and store.ask("EXISTS", "{}u:dead") == 0
    assert sum(len(each) - 3 for each in store.messages()) == 5 * 1000


def test_the_users_of_a_node_that_leaves_may_come_back_for_some_time(store):
    store.have(("d", "ann", "1.5", "{}", "+"))
    store.beat(lease=60)
    assert store.run(CLEAN, "a", 60) == 0
    assert store.beat("b")[8:] == [b"a"] and store.run(CLEAN, "a", 0) == 0
    assert store.ask("HKEYS", "{}m:d") == [b"ann"]
    store.ask("HSET", store.meta, "u:a", "1")
    assert store.run(CLEAN, "a", 0) == 0
    assert store.ask("EXISTS", "{}m:d", "{}u:a") == 0 and store.ask("HEXISTS", store.meta, "u:a") == 0
    assert store.beat("b")[8:] == []


def test_an_order_reaches_all_nodes_and_names_those_that_live(store):
    store.listen()
    store.beat("b")
    store.beat("dead", lease=-1)
    order = '{"close": ["a\\r\\n"]}'
    assert store.order(order) == [1, b"a", b"b"] and store.order("second") == [2, b"a", b"b"]
    assert store.messages() == [[b"word", 0, b"o", b"a", n, each] for n, each in ((1, order.encode()), (2, b"second"))]
    assert store.ask("LRANGE", "{}orders", 0, -1) == [f"1 {order}".encode(), b"2 second"]
    assert 3500 < store.ask("TTL", "{}orders") <= 3600


def test_a_thousand_orders_are_remembered(store):
    store.ask("RPUSH", "{}orders", *["0 x"] * 1000)
    store.order("new")
    assert store.ask("LLEN", "{}orders") == 1000 and store.ask("LINDEX", "{}orders", -1) == b"1 new"


# sweep.


def test_a_destination_is_forgotten_after_a_period_without_any_use(store):
    store.store(*[item("d", mode="n")] * 7, item("e", mode="n"))
    assert float(store.ask("ZSCORE", "{}due", "d")) == NOW + DAY
    assert store.sweep(NOW + DAY - 1) == 0 and store.read("d")[0][0] == 7
    store.sweep(NOW + DAY)  # looks, and notes the offset
    assert store.ask("EXISTS", "{}d:d") == 1
    store.store(item("e", mode="n"))
    store.sweep(NOW + 2 * DAY)
    assert store.ask("EXISTS", "{}d:d") == 0 and store.read("d")[0] == (7, 7, 7)
    assert store.read("e")[0][0] == 2  # it was used
    assert store.ask("ZRANGE", "{}due", 0, -1) == [b"e"]
    store.sweep(NOW + 3 * DAY)
    assert store.ask("EXISTS", "{}d:e") == store.ask("EXISTS", "{}due") == 0
    assert store.store(item("e"), item("new")) == [8, 8]  # the floor does not fall


def test_a_destination_with_history_or_holders_is_not_forgotten(store):
    store.store(item("kept", expires=NOW + 100 * DAY), item("held", mode="n"), item("old"))
    store.hold(("held", 1, 1.0))
    for day in range(1, 5):
        store.sweep(NOW + day * DAY)
    assert [store.ask("EXISTS", "{}d:" + each) for each in ("kept", "held", "old")] == [1, 1, 0]
    assert store.ask("EXISTS", "{}s:old") == 0
    store.hold(("held", 0, 0))
    store.sweep(NOW + 5 * DAY)
    assert store.ask("EXISTS", "{}d:held") == 0


def test_a_sweep_does_a_part_at_a_time(store):
    store.store(*(item(f"d{n}", mode="n") for n in range(5)))
    assert [store.sweep(NOW + DAY, most=2) for _ in range(3)] == [1, 1, 0]
    assert [store.sweep(NOW + 2 * DAY, most=2) for _ in range(3)] == [1, 1, 0]
    assert store.ask("EXISTS", "{}due") == 0


def test_a_destination_that_redis_evicted_is_forgotten_without_an_error(store):
    store.store(item("d"))
    store.ask("DEL", "{}d:d", "{}s:d")
    assert store.sweep(NOW + DAY) == 0 and store.ask("EXISTS", "{}due") == 0


# marked, mark: publications that come from elsewhere


def test_a_batch_with_a_mark_is_stored_if_the_mark_is_the_one_that_its_sender_knows(store, other):
    assert store.mark("table") == ""
    assert store.marked(item("d", "x"), item("d", "y"), mark=("table", "", "1,2"))
    with pytest.raises(hiredis.ReplyError, match="^OVERTAKEN"):
        other.marked(item("d", "z"), mark=("table", "", "1,2"))
    assert other.mark("table") == "1,2" and store.kept("d") == ["x", "y"]
    assert other.marked(item("d", "z"), mark=("table", "1,2", "3"))
    assert not store.marked(mark=("table", "3", ""))
    assert store.mark("table") == "" and store.kept("d") == ["x", "y", "z"]


def test_a_batch_with_a_mark_that_is_sent_again_is_answered_and_changes_nothing(store, other):
    assert store.marked(item("d", "x"), mark=("table", "", "1"), number=7)
    other.marked(item("d", "y"), mark=("table", "1", "2"))
    assert not store.marked(item("d", "x"), mark=("table", "", "1"), number=7)
    assert store.mark("table") == "2" and store.kept("d") == ["x", "y"]


def test_a_mark_is_not_read_or_moved_in_another_epoch_or_by_a_late_batch(store):
    store.marked(item("d", "x"), mark=("table", "", "1"), number=7)
    with pytest.raises(hiredis.ReplyError, match="^OLD"):
        store.marked(item("d", "y"), mark=("table", "1", "2"), number=6)
    with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
        store.mark("table", epoch="other")
    epoch, store.epoch = store.epoch, "other"
    for before in ("", "1"):
        with pytest.raises(hiredis.ReplyError, match="^EPOCH"):
            store.marked(item("d", "y"), mark=("table", before, "2"), number=8)
    store.epoch = epoch
    assert store.mark("table") == "1" and store.kept("d") == ["x"]
