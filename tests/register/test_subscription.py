"""The setting id_cookie: a page registers `me`, the destination that its cookie names, without learning its name."""

import json

import pytest

from pushrelay.access.tokens import sign
from pushrelay.errors import Refused
from pushrelay.register.subscription import subscriptions_of
from pushrelay.settings import Settings

SECRET = "the-first-secret-of-this-relay-0123456789"
SESSION = "9s3cr3t0session0id0of0php7"
TRANSPORTS = ["websocket", "polling"]


@pytest.fixture(scope="module")
def relay(relay_with):
    return relay_with(id_cookie="PHPSESSID")


def browser_of(connect, relay, session, **options):
    return connect(relay.url, headers={"Cookie": f"lang=de; PHPSESSID={session}"}, **options)


@pytest.mark.parametrize("guard", [{"secret": (SECRET,)}, {"auth_url": "http://127.0.0.1/ids.php"}])
def test_if_other_ids_are_guarded_a_cookie_needs_20_characters_to_be_me(guard):
    def me(value, **settings):
        (subscription,) = subscriptions_of(
            "me", {"HTTP_COOKIE": f"PHPSESSID={value}"}, Settings(id_cookie="PHPSESSID", **settings)
        )
        return subscription.destination

    assert me("x" * 20, **guard) == "x" * 20
    assert me("%C3%BC" * 20, **guard) == "ü" * 20
    for short in ("x" * 19, "%78" * 19, "7"):
        with pytest.raises(Refused, match="20 characters"):
            me(short, **guard)
        assert me(short), "anybody may register any id"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_gets_what_is_pushed_to_its_session_and_never_learns_its_name(relay, connect, transport):
    session = f"{SESSION}{transport}"
    page, other = browser_of(connect, relay, session, transport=transport), browser_of(connect, relay, "somebody-else")
    first = page.call("register", {"id": "me"})
    assert first["ok"] and list(first["ids"]) == ["me"]
    other.call("register", {"id": "me"})
    pushed = relay.push(session, "hello")
    assert (pushed["destination"], pushed["connections"]) == (session, 1), "publishers see the real name"
    position = relay.push(session, "again")["id"]
    assert [(message["destination"], message["data"]) for _, message in page.wait(2)] == [
        ("me", "hello"),
        ("me", "again"),
    ]
    seen = page.got[1][1]["id"]
    assert seen != position and seen.rpartition(":")[2] == position.rpartition(":")[2]
    assert page.call("ack", {"id": "me", "position": seen}) == {"ok": True}
    again = page.call("register", {"id": "me", "since": first["ids"]["me"]["position"]})
    assert again["ids"]["me"] == {"position": seen, "recovered": True, "replayed": 0}, "it was handed all of that"
    next_page = browser_of(connect, relay, session, transport=transport)
    replay = next_page.call("register", {"id": "me", "since": first["ids"]["me"]["position"]})
    assert replay["ids"]["me"] == {"position": seen, "recovered": True, "replayed": 2}
    assert next_page.wait(2) == page.got, "a replay is what came live"
    assert other.got == []
    for message in (first, again, replay, page.got, relay.push("me", "x")):
        assert session not in json.dumps(message)
    assert relay.push("me", "x")["connections"] == 0, "me is nobody's name for publishers"


def test_positions_of_another_session_mean_nothing_in_this_one(relay, connect):
    before, after = f"{SESSION}before", f"{SESSION}after"
    for session in (before, after):
        for n in range(3):
            relay.push(session, n)
    seen = browser_of(connect, relay, before).call("register", {"id": "me"})["ids"]["me"]["position"]
    page = browser_of(connect, relay, after)
    answer = page.call("register", {"id": "me", "since": seen})["ids"]["me"]
    assert (answer["recovered"], answer["replayed"]) == (False, 0)
    assert answer["position"].partition(":")[0] != seen.partition(":")[0], "another epoch for relay.js"
    assert page.call("ack", {"id": "me", "position": seen})["error"] == "invalid_position"
    assert page.call("register", {"id": "me", "since": {"me": answer["position"]}})["ids"]["me"]["recovered"]


def test_a_position_that_php_wrote_into_the_page_is_accepted(relay, connect):
    session = f"{SESSION}written"
    position = relay.push(session, "known")["id"]
    relay.push(session, "missed")
    page = browser_of(connect, relay, session)
    assert page.call("register", {"id": "me", "since": position})["ids"]["me"]["replayed"] == 1
    assert page.data(1) == ["missed"]


def test_unacknowledged_pushes_are_kept_and_a_push_that_waits_is_answered(relay, connect):
    session = f"{SESSION}inbox"
    relay.push(session, "one")
    relay.push(session, "two")
    page = browser_of(connect, relay, session)
    assert page.call("register", {"id": "me", "since": "acked"})["ids"]["me"]["replayed"] == 2
    page.call("ack", {"id": "me", "position": page.wait(2)[0][1]["id"]})
    again = browser_of(connect, relay, session)
    assert again.call("register", {"id": "me", "since": "acked"})["ids"]["me"]["replayed"] == 1

    def acknowledge(message):
        if message["data"] == "three":
            again.socket.emit("ack", {"id": "me", "position": message["id"]})

    again.socket.on("push", acknowledge)
    assert relay.push(session, "three", wait=10)["acked"] == 1


def test_an_excepted_socket_is_skipped_and_unregister_leaves(relay, connect):
    session = f"{SESSION}except"
    one, two = browser_of(connect, relay, session), browser_of(connect, relay, session)
    for page in (one, two):
        page.call("register", {"id": "me"})
    assert relay.push(session, "x", **{"except": one.socket.get_sid()})["connections"] == 1
    assert two.call("unregister", {"id": "me"}) == {"ok": True}
    assert relay.push(session, "y")["connections"] == 1
    assert one.data(1) == ["y"] and two.data(1) == ["x"]


@pytest.mark.parametrize(
    ("headers", "ids", "error"),
    [
        ({}, "me", "missing_cookie"),
        ({"Cookie": "lang=de"}, "me", "missing_cookie"),
        ({"Cookie": "PHPSESSID="}, "me", "missing_cookie"),
        ({"Cookie": "PHPSESSID=%ff"}, "me", "invalid_cookie"),
        ({"Cookie": "PHPSESSID=a%0ab"}, "me", "invalid_destination"),
        ({"Cookie": "PHPSESSID=" + "a" * 257}, "me", "invalid_destination"),
        ({"Cookie": "PHPSESSID=abc"}, "42", "not_allowed"),
        ({"Cookie": "PHPSESSID=abc"}, "abc", "not_allowed"),
        ({"Cookie": "PHPSESSID=abc"}, ["me", "42"], "not_allowed"),
    ],
)
def test_other_ids_than_ones_own_are_refused(relay, connect, headers, ids, error):
    client = connect(relay.url, headers=headers)
    answer = client.call("register", {"id": ids})
    assert (answer["ok"], answer["error"]) == (False, error) and len(answer["message"]) > 15
    assert client.call("ack", {"id": "42", "position": "x"})["error"] == "not_registered"


def test_with_a_secret_me_needs_no_token_and_other_ids_do(relay_with, connect):
    relay = relay_with(id_cookie="PHPSESSID", secret=SECRET, max_ids=2)
    page = browser_of(connect, relay, SESSION)
    assert page.call("register", {"id": "me"})["ok"]
    assert page.call("register", {"id": ["me", "42"]})["error"] == "missing_token"
    token = sign({"ids": ["42", "43", SESSION]}, SECRET)
    assert page.call("register", {"id": ["me", "42"], "token": token})["ok"]
    assert page.call("register", {"id": "43", "token": token})["error"] == "too_many_ids"
    assert page.call("unregister", {"id": "42"})["ok"]
    assert page.call("register", {"id": SESSION, "token": token})["ok"], "PHP may give the name away"
    assert relay.push(SESSION, "x")["connections"] == 2
    assert sorted(message["destination"] for _, message in page.wait(2)) == sorted(["me", SESSION])
    # A program can send any cookie. It must not receive what a token guards.
    assert browser_of(connect, relay, "42").call("register", {"id": "me"})["error"] == "invalid_cookie"


def test_without_the_setting_me_is_a_name_like_any_other(start_relay, connect):
    relay = start_relay()
    assert connect(relay.url, "me").got == [] and relay.push("me", "x")["connections"] == 1
