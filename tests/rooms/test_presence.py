"""Presence: GET /presence, and DELETE /connections, which ends it."""

import json
import time
import urllib.parse

import pytest
import socketio
from conftest import wait_for

from pushrelay.engine.engine import Engine
from pushrelay.rooms.manager import RoomManager
from pushrelay.rooms.presence import Presence


def presence(relay, *destinations):
    query = urllib.parse.urlencode([("destination", each) for each in destinations])
    status, headers, body = relay.request("GET", f"/presence?{query}")
    assert (status, headers["Content-Type"]) == (200, "application/json"), body
    return json.loads(body)


def close(relay, *destinations):
    query = urllib.parse.urlencode([("destination[]", each) for each in destinations])
    status, _, body = relay.request("DELETE", f"/connections?{query}")
    assert status == 200, body
    return json.loads(body)["closed"]


def test_presence_has_the_number_of_clients_and_since_when(relay, connect):
    before = time.time()
    first = connect(relay.url, "who-a", "who-ä/?&")
    since = presence(relay, "who-a")["who-a"]["since"]
    assert before - 0.01 <= since <= time.time()
    connect(relay.url, "who-a", transport="polling")
    assert presence(relay, "who-a", "who-ä/?&", "who-nobody") == {
        "who-a": {"connections": 2, "since": since},
        "who-ä/?&": {"connections": 1, "since": pytest.approx(since, abs=2)},
        "who-nobody": {"connections": 0},
    }
    first.call("unregister", {"id": "who-a"})
    assert presence(relay, "who-a")["who-a"] == {"connections": 1, "since": since}, "somebody was there all the time"


def test_since_of_presence_starts_over_after_everybody_has_left(relay, connect):
    for leave in (lambda client: client.call("unregister", {"id": "who-again"}), lambda client: client.drop()):
        client = connect(relay.url, "who-again")
        since = presence(relay, "who-again")["who-again"]["since"]
        leave(client)
        wait_for(lambda: presence(relay, "who-again") == {"who-again": {"connections": 0}}, "the leaving")
        connect(relay.url, "who-again").call("unregister", {"id": "nobody"})
        assert presence(relay, "who-again")["who-again"]["since"] > since
        close(relay, "who-again")


def test_since_is_the_earlier_time_of_an_id_held_as_me_and_by_name():
    presence = Presence()
    presence.entered("me:a")
    time.sleep(0.01)
    presence.entered("to:a")
    assert presence.of(["to:a", "me:a"], 2)["since"] == presence.of(["me:a"], 1)["since"]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_closing_a_destination_disconnects_each_of_its_sockets_once_and_nobody_else(relay, connect, transport):
    a, b, c = (f"shut-{each}-{transport}" for each in "abc")
    both = connect(relay.url, a, b, transport=transport)
    one, other = connect(relay.url, b, transport=transport), connect(relay.url, c, transport=transport)
    assert close(relay, a, b, "shut-nobody") == 2
    wait_for(lambda: not both.socket.connected and not one.socket.connected, "the end")
    assert other.socket.connected and relay.push(c, "x")["connections"] == 1
    assert presence(relay, a, b) == {a: {"connections": 0}, b: {"connections": 0}}
    assert close(relay, a, b) == 0
    assert other.data(1) == ["x"]


def test_a_client_that_was_disconnected_may_come_back(relay, connect):
    connect(relay.url, "back")
    assert close(relay, "back") == 1
    connect(relay.url, "back")
    assert relay.push("back", "x")["connections"] == 1


REFUSED = [
    ("", "missing_destination"),
    ("destination=", "missing_destination"),
    ("destination[]=&destination[]=a", "missing_destination"),
    ("destination=a%0Ab", "invalid_destination"),
    ("destination=" + "x" * 257, "invalid_destination"),
    ("destination=%ff", "invalid_form"),
    ("destination=a&evnet=b", "unknown_field"),
    ("&".join(f"destination={n}" for n in range(1001)), "too_many_destinations"),
]


@pytest.mark.parametrize(("method", "path"), [("GET", "/presence"), ("DELETE", "/connections"), ("GET", "/history")])
@pytest.mark.parametrize(("query", "error"), REFUSED, ids=[f"{query[:30]}" for query, _ in REFUSED])
def test_bad_input_is_refused_as_a_push_refuses_it(relay, method, path, query, error):
    status, _, body = relay.request(method, f"{path}?{query}")
    assert (status, json.loads(body)["error"]) == (400, error)


def test_presence_of_a_thousand_destinations_is_one_answer(relay):
    assert len(presence(relay, *range(1000))) == 1000


def test_a_destination_that_nobody_holds_any_longer_leaves_nothing_in_memory(monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    manager = socketio.Server(client_manager=RoomManager(), async_handlers=False).manager
    manager.server.environ["stays"] = manager.server.environ["eio"] = {}
    manager.enter_namespace("stays", "/")
    sid = manager.enter_namespace("eio", "/")
    for number in range(50):
        manager.basic_enter_room(sid, "/", f"to:{number}")
        manager.basic_leave_room(sid, "/", f"to:{number}")
    assert set(manager.rooms["/"]) == {None}
