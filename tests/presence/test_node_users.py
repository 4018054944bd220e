"""Members over several relays on one Redis: each user counts once, whichever relay has them."""

import json
import secrets

import pytest
from audience import SECRET, Page, wait_until_at
from conftest import own_only, wait_for
from redis_server import RedisServer

pytestmark = own_only


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def nodes(start_relay, redis):
    """Start relays on one Redis: nodes(2)."""
    prefix = secrets.token_hex(4)

    def start(count, **settings):
        common = {"broker": redis.url, "redis_prefix": prefix, "secret": SECRET, "presence_grace": 0.3, **settings}
        return [start_relay(node=f"node-{number}", **common) for number in range(count)]

    return start


@pytest.fixture
def page():
    pages = []

    def open_(relay, *ids, **options):
        pages.append(Page(relay.port, *ids, **options))
        return pages[-1]

    yield open_
    for each in pages:
        each.close()
    assert not [error for each in pages for error in each.errors]


def end_lease(redis, relay):
    """Have the other relays find that this one is gone, without waiting for the end of its lease."""
    prefix = f"{relay.settings['redis_prefix']}:{{0}}:nodes"
    (node,) = [each for each in redis.ask("HKEYS", prefix) if each.startswith(relay.settings["node"].encode())]
    redis.ask("HSET", prefix, node, "1 gone")


def ids_at(relay, name):
    found = json.loads(relay.request("GET", f"/presence?destination={name}")[2])
    return {each["id"] for each in found[name].get("members", ())}


def test_users_of_all_relays_are_one_list(nodes, page):
    a, b = nodes(2, max_members=4)
    ann = page(a, "room", user="ann", info={"n": 1})
    seen = page(b).watch("room")
    wait_until_at(seen, "ann")
    bob = page(b, "room", user="bob")
    watchers = [seen, page(a).watch("room")]
    for each in watchers:
        wait_until_at(each, "ann", "bob")
    assert ids_at(a, "room") == ids_at(b, "room") == {"ann", "bob"}
    # A second tab of a user at the other relay causes no join, and its info is newer.
    ann_too = page(b, "room", user="ann", info={"n": 2})
    for each in watchers:
        wait_for(lambda each=each: each.members["ann"]["info"] == {"n": 2})
    ann.close()
    bob.close()
    for each in watchers:
        wait_until_at(each, "ann")
        assert ("leave", "ann") not in each.history
    ann_too.close()
    for each in watchers:
        wait_until_at(each)
    # The limit counts all relays.
    for number in range(4):
        page(a, "room", user=number)
    for each in watchers:
        wait_until_at(each, 0, 1, 2, 3)
    assert page(b, user="late").register("room")["error"] == "too_many_members"
    assert page(b, user="0").register("room")["ok"], "a member already"


def test_a_page_that_moves_to_another_relay_has_not_left(nodes, page):
    a, b = nodes(2, presence_grace=60)
    seen = page(b).watch("room")
    for relay in (a, b, a, b):
        page(relay, "room", user="ann").close()
    page(a, "room", user="bob")
    wait_until_at(seen, "ann", "bob")
    assert seen.history == [("join", "ann"), ("join", "bob")]


def test_users_of_a_relay_that_is_killed_leave_unless_they_are_at_another(nodes, page, redis):
    a, b = nodes(2)
    for user in ("ann", "bob"):
        page(a, "room", user=user)
    seen = page(b).watch("room")
    wait_until_at(seen, "ann", "bob")
    a.kill()
    page(b, "room", user="ann")
    end_lease(redis, a)
    wait_until_at(seen, "ann")
    assert seen.history[-1] == ("leave", "bob") and ("leave", "ann") not in seen.history


def test_users_of_a_relay_that_is_stopped_may_come_back_to_another(nodes, page):
    a, b = nodes(2, drain_spread=0, presence_grace=60)
    for user in ("ann", "bob"):
        page(a, "room", user=user)
    seen = page(b).watch("room")
    wait_until_at(seen, "ann", "bob")
    assert a.stop() == 0
    page(b, "room", user="ann")
    page(b, "room", user="cat")
    wait_until_at(seen, "ann", "bob", "cat")
    assert ("leave", "ann") not in seen.history and ids_at(b, "room") == {"ann", "bob", "cat"}


def test_after_an_outage_of_redis_the_list_is_right_and_the_differences_are_events(nodes, page, tmp_path):
    with RedisServer(tmp_path / "own") as redis:
        a, b = nodes(2, broker=redis.url)
        ann, watcher = page(a, "room", user="ann"), page(b)
        seen = watcher.watch("room")
        wait_until_at(seen, "ann")
        redis.kill()
        page_ = page(a, user="bob")
        redis.start()
        wait_for(lambda: page_.register("room")["ok"])
        wait_until_at(seen, "ann", "bob")
        ann.close()
        wait_until_at(seen, "bob")
        assert seen.history[-2:] == [("join", "bob"), ("leave", "ann")] and len(seen.history) <= 3
        assert page(a).watch("room").ids == {"bob"}
