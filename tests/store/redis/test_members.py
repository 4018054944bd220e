"""Nodes write whom they have, and Redis decides who has come and who has left, once for all nodes."""

import threading

import pytest
from redis_nodes import eventually, kill_links

from pushrelay.errors import StoreError
from pushrelay.store.members import Found
from pushrelay.store.redis.members import UNSURE
from pushrelay.store.redis.nodes import COMPARE_EVERY
from pushrelay.store.redis.work import Work


class ListUsers:
    """The users of one node, in a dict; what it hears of those of all nodes; and what it knows where it watches."""

    def __init__(self, node):
        self.node, self.members = node, node.broker.members
        self.here, self.heard, self.views, self.failures = {}, [], {}, []
        self.members.attach(self)

    def come(self, id_, info="{}", destination="d"):
        self.here[destination, id_] = Found(id_, info, 1_700_000_000.0)
        self.members.changed(destination, id_, True)

    def leave(self, id_, destination="d"):
        del self.here[destination, id_]
        self.members.changed(destination, id_, False)

    def watch(self, destination="d"):
        self.views[destination] = None
        self.members.load(destination)

    def ids(self, destination="d"):
        return set(self.views[destination] or ())

    def present(self, destination, id_):
        return self.here.get((destination, id_))

    def everybody(self):
        return list(self.here)

    def is_here(self, destination):
        return any(each == destination for each, _ in self.here)

    def return_seconds(self):
        return 60.0

    def watched(self):
        return list(self.views)

    def arrived(self, destination, id_, info, since):
        self.heard.append((destination, id_, info))
        if self.views.get(destination) is not None:
            if info is None:
                self.views[destination].pop(id_, None)
            else:
                self.views[destination][id_] = info

    def loaded(self, destination, members, is_final):
        before = {} if is_final or self.views[destination] is None else self.views[destination]
        self.views[destination] = {**before, **{each.id: each.info_json for each in members}}

    def answer(self, destination):
        pass

    def failed(self, destination, error):
        self.failures.append((destination, error))


@pytest.fixture
def open_users(open_node):
    return lambda name, **options: ListUsers(open_node(name, **options))


def in_redis(node, destination="d"):
    return {each.id for each in node.members.read([destination], 1 << 30)[destination]}


def test_each_user_comes_and_leaves_once_for_all_nodes(open_users):
    a, b = open_users("a"), open_users("b")
    a.come("ann", '{"n":1}')
    eventually(lambda: in_redis(b) == {"ann"}, "ann")
    b.come("ann", '{"n":1}')
    b.come("bob")
    eventually(lambda: in_redis(a) == {"ann", "bob"}, "bob")
    eventually(lambda: a.members.total("d") == b.members.total("d") == 2, "the number of members")
    a.leave("ann")
    b.leave("bob")
    eventually(lambda: in_redis(a) == {"ann"}, "the end of bob")
    b.leave("ann")
    eventually(lambda: in_redis(a) == set(), "the end of ann")
    changes = [("d", "ann", '{"n":1}'), ("d", "bob", "{}"), ("d", "bob", None), ("d", "ann", None)]
    eventually(lambda: a.heard == b.heard == changes, "all changes")
    assert a.members.is_member("d", "ann") is False


def test_newer_info_of_a_user_is_published_and_a_repetition_is_not(open_users):
    a, b = open_users("a"), open_users("b")
    a.come("ann", '{"n":1}')
    eventually(lambda: b.heard, "ann")
    b.come("ann", '{"n":2}')
    eventually(lambda: a.heard[1:] == [("d", "ann", '{"n":2}')], "the news")
    with a.node.link.lock:
        a.members.announce_all()  # with what was true before
    a.come("bob")
    eventually(lambda: ("d", "bob", "{}") in b.heard, "bob")
    assert len(b.heard) == 3 and b.members.is_member("d", "ann")


def test_a_watcher_gets_the_list_and_then_every_change(open_users):
    a, b = open_users("a"), open_users("b")
    for number in range(300):
        a.come(str(number))
    b.watch()
    for number in range(0, 300, 2):
        a.leave(str(number))
    eventually(lambda: b.ids() == set(map(str, range(1, 300, 2))), "the odd ones")
    eventually(lambda: b.members.total("d") == 150, "their number")
    b.members.forget("d")
    assert b.members.total("d") == 0


def test_after_a_cut_everything_is_written_and_read_again(redis, open_users):
    a, b = open_users("a"), open_users("b")
    for each in ("ann", "bob"):
        a.come(each)
    b.watch()
    eventually(lambda: b.ids() == {"ann", "bob"}, "both")
    with a.node.link.lock, b.node.link.lock:
        kill_links(redis)
        a.here.pop(("d", "ann"))  # nothing of this could be sent
        a.come("cat")
    eventually(lambda: b.ids() == {"bob", "cat"}, "the right list")
    eventually(lambda: in_redis(b) == {"bob", "cat"}, "the same in Redis")


def test_users_of_a_node_whose_lease_is_over_leave_and_are_back_with_it(redis, open_users):
    a, b = open_users("a"), open_users("b")
    for each in ("ann", "bob"):
        a.come(each)
    b.come("bob")
    eventually(lambda: in_redis(b) == {"ann", "bob"}, "both")
    with a.node.link.lock:  # it is paused
        redis.ask("HSET", f"{a.node.keys}nodes", a.node.link.node, "1 a")
        eventually(lambda: b.heard[-1:] == [("d", "ann", None)], "the end of ann")
        assert in_redis(b) == {"bob"}
        a.members._beats = COMPARE_EVERY - 1
    eventually(lambda: in_redis(b) == {"ann", "bob"}, "the return of the node")


def test_users_of_a_node_that_is_stopped_have_time_to_come_back(redis, open_users):
    a, b = open_users("a"), open_users("b")
    for each in ("ann", "bob"):
        a.come(each)
    eventually(lambda: in_redis(b) == {"ann", "bob"}, "both")
    a.node.broker.close()
    b.come("ann")
    b.come("cat")
    eventually(lambda: in_redis(b) == {"ann", "bob", "cat"}, "cat")
    redis.ask("HSET", f"{a.node.keys}meta", f"u:{a.node.link.node}", "1")  # the time is over
    eventually(lambda: in_redis(b) == {"ann", "cat"}, "the end of bob")
    eventually(lambda: redis.ask("HEXISTS", f"{a.node.keys}nodes", a.node.link.node) == 0, "the end of the node")
    assert ("d", "ann", None) not in b.heard


def test_without_a_connection_members_cannot_be_watched(open_users):
    a = open_users("a")
    a.node.link.close()
    a.watch()
    ((destination, error),) = a.failures
    assert destination == "d" and isinstance(error, StoreError)


def test_a_write_that_redis_refuses_is_repeated(redis, open_users):
    a, b = open_users("a"), open_users("b")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        a.come("ann")
        eventually(lambda: a.members._known, "the write")
        eventually(lambda: not a.members._flush_is_due or a.members._changes, "the refusal")
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    eventually(lambda: b.heard == [("d", "ann", "{}")], "ann")


def test_newer_info_that_redis_refused_or_whose_arrival_is_not_known_is_written_again_as_news(open_users, redis):
    a, b = open_users("a"), open_users("b")
    a.come("ann", '{"n":1}')
    eventually(lambda: b.heard, "ann")
    b.come("ann", '{"n":1}')  # so that her node is not the only one that has her
    eventually(lambda: b.members._known.get(("d", "ann")) and not b.members._changes, "her second node")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        a.come("ann", '{"n":2}')
        eventually(lambda: a.members._known["d", "ann"] == UNSURE, "the refusal")
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    eventually(lambda: ("d", "ann", '{"n":2}') in b.heard, "the news")
    assert a.members.read(["d"], 1 << 30)["d"][0].info_json == '{"n":2}'
    run_script, work = a.node.link.run_script, Work()
    with a.node.link.lock:
        a.node.link.run_script = lambda *args: None  # the write is lost with the connection
        a.come("ann", '{"n":3}')
        a.members._write(a.members._take_changes())
        a.node.link.run_script = run_script
        a.node.link.cut("eof", "the connection was lost", work)
    work.run()
    eventually(lambda: ("d", "ann", '{"n":3}') in b.heard, "the news after the cut")


def test_an_answer_has_as_many_lists_as_fit(open_users):
    a = open_users("a")
    for destination in ("d", "e", "f"):
        a.come("ann", '{"x":"' + "x" * 1000 + '"}', destination)
    eventually(lambda: in_redis(a, "f") == {"ann"}, "the last one")
    assert list(a.members.read(["d", "e", "f"], 2500)) == ["d", "e"]
    assert list(a.members.read(["d", "e", "f"], 10)) == ["d"]


def test_changes_that_a_node_has_missed_are_read_and_whoever_is_missing_for_long_has_left(open_users, monkeypatch):
    a, b = open_users("a"), open_users("b")
    for each in ("ann", "bob"):
        a.come(each)
    b.watch()
    eventually(lambda: b.ids() == {"ann", "bob"}, "both")
    may_return, connect_again = threading.Event(), b.node.link._connect_again
    monkeypatch.setattr(b.node.link, "_connect_again", lambda: may_return.wait(40) and connect_again())
    work = Work()
    with b.node.link.lock:
        b.node.link.cut("eof", "the connection was lost", work)
    work.run()
    a.leave("ann")
    a.come("cat")
    eventually(lambda: in_redis(a) == {"bob", "cat"}, "the changes")
    may_return.set()
    eventually(lambda: b.ids() == {"ann", "bob", "cat"}, "the news")
    eventually(lambda: b.ids() == {"bob", "cat"}, "the end of ann")
