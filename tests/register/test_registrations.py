"""The events register, unregister and push, as browsers send them."""

import asyncio
import json
import socket
import urllib.parse

import pytest
from conftest import DEADLINE, own_only, wait_for
from crowd import PollingMember, ReconnectingPollingMember, crowd, run, until

TRANSPORTS = ["websocket", "polling"]


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


def test_a_push_reaches_python_socketios_client(relay, connect, transport):
    client = connect(relay.url, f"python-{transport}", transport=transport)
    relay.push(f"python-{transport}", "hello 👍")
    assert client.data(1) == ["hello 👍"]


def test_several_sockets_hold_one_id_and_one_socket_several(relay, connect):
    both, one = connect(relay.url, "shared", "own"), connect(relay.url, "shared")
    assert relay.push("shared", 1)["connections"] == 2
    assert relay.push("own", 2)["connections"] == 1
    assert both.data(2) == ["1", "2"]
    assert one.data(1) == ["1"]


def test_an_id_given_as_a_number_is_the_same_as_its_text(relay, connect):
    client = connect(relay.url)
    assert set(client.call("register", {"id": 12345})["ids"]) == {"12345"}
    assert set(client.call("register", {"id": 678.0})["ids"]) == {"678"}
    relay.push("12345", "text")
    assert relay.push_json(destination=678, data="number")[1]["connections"] == 1
    assert client.data(2) == ["text", "number"]


def test_register_answers_with_the_position_of_each_id(relay, connect):
    position = relay.push("positioned", "x")["id"]
    epoch = position.split(":")[0]
    answer = connect(relay.url).call("register", {"id": ["positioned", "positioned-new"]})
    assert answer == {
        "ok": True,
        "ids": {
            "positioned": {"position": position, "recovered": False, "replayed": 0},
            "positioned-new": {"position": f"{epoch}:0", "recovered": False, "replayed": 0},
        },
    }


def test_registering_twice_delivers_once(relay, connect):
    client = connect(relay.url, "twice", "twice")
    client.call("register", {"id": "twice"})
    assert relay.push("twice", "first")["connections"] == 1
    relay.push("twice", "second")
    assert client.data(2) == ["first", "second"]


def test_an_unregistered_id_gets_nothing_more(relay, connect):
    client = connect(relay.url, "leave", "stay")
    assert client.call("unregister", {"id": "leave"}) == {"ok": True}
    assert relay.push("leave", "gone")["connections"] == 0
    relay.push("stay", "here")
    assert client.data(1) == ["here"]


def test_a_client_that_left_is_not_counted(relay, connect):
    client = connect(relay.url, "left")
    client.drop()
    wait_for(lambda: relay.push("left", "x")["connections"] == 0, "the count without it")


@pytest.mark.parametrize("wrap", ["{}", "to:{}", "/{}", "{},"])
def test_a_sid_is_not_a_destination(relay, connect, wrap):
    client = connect(relay.url, "victim")
    stranger = connect(relay.url)
    destination = wrap.format(client.socket.get_sid())
    assert stranger.call("register", {"id": destination})["ok"]
    assert relay.push(destination, "to the sid")["connections"] == 1
    relay.push("victim", "to the id")
    assert client.data(1) == ["to the id"]


@pytest.mark.parametrize("name", ["__proto__", "constructor", "/", "*", "None", "to:x", " ", "ü👍", "a,b", "push"])
def test_any_text_is_a_destination(relay, connect, name):
    client = connect(relay.url, name)
    assert relay.push(name, "x") == {"destination": name, "id": client.wait(1)[0][1]["id"], "connections": 1}


REFUSED = [
    ("register", None, "invalid_message"),
    ("register", "42", "invalid_message"),
    ("register", [], "invalid_message"),
    ("register", {}, "missing_id"),
    ("register", {"id": None}, "invalid_destination"),
    ("register", {"id": ""}, "missing_destination"),
    ("register", {"id": []}, "missing_destination"),
    ("register", {"id": True}, "invalid_destination"),
    ("register", {"id": {"a": 1}}, "invalid_destination"),
    ("register", {"id": "a\nb"}, "invalid_destination"),
    ("register", {"id": "a" * 257}, "invalid_destination"),
    ("register", {"id": list(range(101))}, "too_many_destinations"),
    ("unregister", {}, "missing_id"),
    ("unregister", 5, "invalid_message"),
    ("push", {"destination": "a", "data": 1}, "not_allowed"),
    ("chat", {"text": "hi"}, "unknown_event"),
]


@pytest.mark.parametrize(("event", "message", "error"), REFUSED)
def test_a_refusal_is_acknowledged_with_its_reason(relay, connect, event, message, error):
    client = connect(relay.url)
    answer = client.call(event, message)
    assert (answer["ok"], answer["error"]) == (False, error)
    assert len(answer["message"]) > 15
    assert client.call("register", {"id": "afterwards"})["ok"]
    assert client.got == [], "who asked for an acknowledgement gets no relay_error too"


@pytest.mark.parametrize(("event", "message", "error"), REFUSED)
def test_a_refusal_comes_as_relay_error_if_no_answer_was_asked_for(relay, connect, event, message, error):
    client = connect(relay.url)
    client.socket.emit(event, message)
    name, refusal = client.wait(1)[0]
    assert (name, refusal["ok"], refusal["error"]) == ("relay_error", False, error)


def test_a_socket_registers_a_bounded_number_of_ids(start_relay, connect):
    client = connect(start_relay(max_ids=3).url, 1, 2)
    assert client.call("register", {"id": [2, 3, 4]})["error"] == "too_many_ids"
    assert client.call("register", {"id": [2, 3]})["ok"]
    client.call("unregister", {"id": 1})
    assert client.call("register", {"id": 4})["ok"]


def test_10_000_ids_are_not_registered_on_one_socket(relay, connect):
    client = connect(relay.url)
    assert client.call("register", {"id": list(range(10_000))})["error"] == "too_many_destinations"
    for first in range(0, 10_000, 100):
        answer = client.call("register", {"id": list(range(first, first + 100))})
        assert answer["ok"] if first == 0 else answer["error"] == "too_many_ids"
    assert [relay.push(number, "x")["connections"] for number in (0, 99, 100, 9_999)] == [1, 1, 0, 0]


def test_a_page_may_push_if_the_setting_allows_it(start_relay, connect):
    relay = start_relay(socket_push="yes")
    sender, receiver = connect(relay.url), connect(relay.url, "friend")
    answer = sender.call("push", {"destination": "friend", "data": {"hi": 1}, "event": "chat"})
    assert (answer["ok"], answer["connections"]) == (True, 1)
    assert receiver.wait(1) == [("chat", {"data": {"hi": 1}, "id": answer["id"], "destination": "friend"})]
    assert [a["destination"] for a in sender.call("push", {"destination": ["x", "y"], "data": 1})["answers"]] == [
        "x",
        "y",
    ]
    assert sender.call("push", {"destination": "friend"})["error"] == "missing_data"
    assert sender.call("push", {"destination": "friend", "data": 1, "event": "connect"})["error"] == "invalid_event"
    assert sender.call("push", {"destination": "friend", "data": 1, "evnet": "x"})["error"] == "unknown_field"


UNREADABLE = [
    "",
    "2",
    "2{",
    "2{}",
    "2[]",
    "2[5]",
    "2[null,1]",
    "4{}",
    "51-[]",
    "5999999999999999999-" + '["register",{"_placeholder":true,"num":0}]',
    '62147483647-["x"]',
    "6",
    "9",
    "x",
    "2" + "[" * 50_000,
    b"bytes",
]


@pytest.mark.parametrize("packet", UNREADABLE, ids=lambda packet: repr(packet[:12]))
def test_an_unreadable_packet_is_answered_and_the_relay_continues(relay, connect, transport, packet):
    client = connect(relay.url, "unreadable", transport=transport)
    client.socket.eio.send(packet)
    name, refusal = client.wait(1)[0]
    assert (name, refusal["ok"], refusal["error"]) == ("relay_error", False, "invalid_packet")
    relay.push("unreadable", "still here")
    assert client.wait(2)[1][1]["data"] == "still here"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1", True),
        ("https://127.0.0.1:8443", True),
        ("http://localhost", True),
        ("http://localhost.", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://evil.example", False),
        ("http://evil.example#127.0.0.1", False),
        ("http://127.0.0.1@evil.example", False),
        ("http://evil@127.0.0.1", False),
        ("file://127.0.0.1", False),
        ("127.0.0.1", False),
        ("http://", False),
        ("http://127.0.0.1:port", False),
        ("null", False),
    ],
)
def test_only_pages_of_the_relays_own_host_connect(relay, transport, origin, allowed):
    headers = {} if origin is None else {"Origin": origin}
    assert (handshake(relay, transport, headers) in (101, 200)) == allowed


def handshake(relay, transport, headers):
    """Request a Socket.IO connection with these headers. Return the HTTP status; 403 for a refused WebSocket."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    sent = "".join(f"{name}: {value}\r\n" for name, value in {"Host": f"127.0.0.1:{relay.port}", **headers}.items())
    sent += upgrade if transport == "websocket" else "Connection: close\r\n"
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock, sock.makefile("rb") as answer:
        sock.sendall(f"GET /socket.io/?EIO=4&transport={transport} HTTP/1.1\r\n{sent}\r\n".encode())
        status = int(answer.readline().split()[1])
        if status != 101:
            return status
        while answer.readline() != b"\r\n":
            pass
        answer.read(2 + answer.peek(2)[1])  # the open packet
        sock.sendall(b"\x81\x82\0\0\0\x0040")
        return 101 if b"40{" in answer.peek(8)[:8] else 403


def test_the_host_name_of_the_request_is_the_relays_own(relay, transport):
    host = {"Host": "www.shop.example:8080"}
    assert handshake(relay, transport, {**host, "Origin": "https://WWW.shop.example"}) in (101, 200)
    assert handshake(relay, transport, {**host, "Origin": "https://shop.example"}) in (400, 403)


@own_only
def test_200_clients_get_exactly_their_own_2000_pushes_in_order(relay):
    run(push_to_200(relay))


async def push_to_200(relay, rounds=10):
    def publish(members):
        """Push from one thread to its own destinations, so that the order of arrival is known."""
        for round_ in range(rounds):
            for member in members:
                assert relay.push(member.name, f"{member.name}/{round_}")["connections"] == 1

    polling = ReconnectingPollingMember if relay.settings["server"] == "werkzeug" else PollingMember
    async with crowd(relay.port, 100, 100, polling) as members:
        await asyncio.gather(*(asyncio.to_thread(publish, members[n::8]) for n in range(8)))
        await until(lambda: all(len(member.got) >= rounds for member in members), "all pushes")
        for member in members:
            assert member.got == [f"{member.name}/{round_}" for round_ in range(rounds)]


def test_a_form_encoded_destination_is_decoded(relay, connect):
    client = connect(relay.url, "a+b &=é")
    body = f"destination={urllib.parse.quote('a+b &=é')}&data=x".encode()
    assert json.loads(relay.request("POST", "/push", body)[2])["connections"] == 1
    client.wait(1)
