"""GET /presence?all=1: all destinations that somebody holds, page by page, so that a program can compare."""

import json
import secrets
import urllib.parse

import pytest
from audience import SECRET, Page
from conftest import own_only, wait_for
from redis_server import RedisServer

from pushrelay.errors import Refused
from pushrelay.presence.directory import MOST_BYTES, PAGE_BYTES, Directory
from pushrelay.store.members import Found

NAMES = sorted([f"room-{number}" for number in range(25)] + ["ü", "A", "z/?&=", "👍", " "])


def asked(relay, **fields):
    status, _, body = relay.request("GET", f"/presence?{urllib.parse.urlencode({'all': 1, **fields})}")
    return status, json.loads(body)


def pages(relay, limit):
    """Return all destinations, read page by page."""
    found, after = {}, ""
    while after is not None:
        status, answer = asked(relay, after=after, limit=limit)
        assert status == 200 and len(answer["destinations"]) <= limit, answer
        assert not found.keys() & answer["destinations"].keys()
        found |= answer["destinations"]
        after = answer["next"]
    return found


def test_all_destinations_are_listed_in_pages(relay_with):
    relay = relay_with(secret=SECRET, id_cookie="mine")
    page = Page(relay.port, *NAMES, user="ann")
    Page(relay.port, "A")
    found = pages(relay, limit=7)
    assert list(found) == NAMES and found == asked(relay)[1]["destinations"]
    assert found["A"]["connections"] == 2 and [each["id"] for each in found["ü"]["members"]] == ["ann"]
    assert asked(relay, after="room-9")[1]["destinations"].keys() == set(NAMES[NAMES.index("room-9") + 1 :])
    page.watch("watched only")
    assert "watched only" not in asked(relay)[1]["destinations"]


@own_only
def test_the_destinations_of_all_relays_are_listed(start_relay, tmp_path):
    with RedisServer(tmp_path) as redis:
        common = {"broker": redis.url, "redis_prefix": secrets.token_hex(4), "secret": SECRET, "presence_grace": 0}
        a, b = start_relay(**common), start_relay(**common)
        first = Page(a.port, *NAMES[:20], user="ann")
        Page(b.port, *NAMES[10:], user="bob")
        wait_for(lambda: list(pages(a, limit=7)) == NAMES, "all names")
        found = wait_for(lambda: len(asked(b)[1]["destinations"][NAMES[15]].get("members", ())) == 2 and asked(b)[1])
        assert found["destinations"][NAMES[15]]["connections"] == 2 and found["next"] is None
        first.close()
        wait_for(lambda: list(pages(a, limit=7)) == NAMES[10:], "the names of the other")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"all": 2}, "invalid_data"),
        ({"limit": 0}, "invalid_limit"),
        ({"limit": 1001}, "invalid_limit"),
        ({"limit": "x"}, "invalid_limit"),
        ({"destination": "a"}, "unknown_field"),
    ],
)
def test_a_wrong_query_is_refused(relay, fields, error):
    status, answer = asked(relay, **fields)
    assert (status, answer["error"]) == (400, error)


class People:
    """Members whose info takes as much as `size` of each destination."""

    shared = None

    def __init__(self, size):
        self.size = size

    def members(self, destinations, most):
        found = {}
        for each in destinations:
            most -= self.size
            if most < 0 and found:
                break
            found[each] = [Found("42", json.dumps("x" * self.size), 1.0)]
        return found


class Nowhere:
    def destinations(self):
        return ["c", "a", "b"]

    def holders(self, destination):
        return 1, 5.0

    def elsewhere(self, destinations):
        return {"b": (2, 3.0)}


def test_an_answer_has_a_bounded_size():
    directory = Directory(Nowhere(), Nowhere(), People(MOST_BYTES // 3))
    assert directory.of(["a", "b"])["b"].items() >= {"connections": 3, "since": 3.0}.items()
    with pytest.raises(Refused, match="fewer destinations"):
        directory.of(["a", "b", "c"])
    with pytest.raises(Refused, match="fewer destinations"):
        Directory(Nowhere(), Nowhere(), People(MOST_BYTES + 1)).of(["a"])


def test_a_page_ends_where_it_would_be_too_large_and_has_at_least_one_destination():
    directory = Directory(Nowhere(), Nowhere(), People(PAGE_BYTES // 2))
    answer = directory.page("", 1000)
    assert (list(answer["destinations"]), answer["next"]) == (["a", "b"], "b")
    assert list(directory.page("b", 1000)["destinations"]) == ["c"] and directory.page("b", 1000)["next"] is None
    large = Directory(Nowhere(), Nowhere(), People(3 * PAGE_BYTES))
    assert (list(large.page("a", 1000)["destinations"]), large.page("a", 1000)["next"]) == (["b"], "b")
    assert directory.page("c", 1000) == {"destinations": {}, "next": None}
