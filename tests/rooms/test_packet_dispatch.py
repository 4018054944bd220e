"""Each packet of Socket.IO in each state of its client is answered or ends the connection."""

import contextlib
import json
import socket
import urllib.request

import pytest
from clients import UPGRADE, Wire, frame
from conftest import DEADLINE, wait_for


class Raw(Wire):
    """A WebSocket that has not sent a Socket.IO packet yet."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.socket.settimeout(DEADLINE)
        self._file = self.socket.makefile("rb")
        self.socket.sendall(UPGRADE)
        while self._file.readline() not in (b"\r\n", b""):
            pass
        self.hello = json.loads(self.packet()[1:])

    def rest(self):
        """Return all packets until the relay ends the connection. Raises TimeoutError if it does not."""
        packets = []
        with contextlib.suppress(ConnectionError):
            while True:
                packets.append(self.packet())
        return [packet for packet in packets if packet != "1"]


@pytest.fixture
def raw():
    with contextlib.ExitStack() as opened:
        yield lambda relay: opened.enter_context(contextlib.closing(Raw(relay.port)))


# A packet of each type: event, with and without an acknowledgement, ack, disconnect, errors, binary, invalid.
PACKETS = [
    *('2["x"]', '27["register",{"id":"a"}]', '2["connect"]', '2/admin,["x"]'),
    *("3", "37[]", "1", "4", '4{"message":"x"}', '51-["x",{"_placeholder":true,"num":0}]', "61-[]"),
    *("9", "", "{", "2", "2{"),
]
BAD_CONNECTS = ["0{", "0[", "0{}}", "0/,{", "0\x00"]


@pytest.mark.parametrize("packet", [*PACKETS, *BAD_CONNECTS])
def test_a_packet_before_connect_gets_a_reason_and_ends_the_connection(relay, raw, packet):
    wire = raw(relay)
    wire.send("4" + packet)
    (refusal,) = wire.rest()
    kind, reason = refusal[:2], json.loads(refusal[refusal.index("{") :])
    assert kind == "44" and reason["message"] and reason["data"]["error"] == "invalid_packet"


def test_a_binary_message_before_connect_gets_a_reason_and_ends_the_connection(relay, raw):
    wire = raw(relay)
    wire.socket.sendall(frame("abc", opcode=2))
    assert [packet[:2] for packet in wire.rest()] == ["44"]


@pytest.mark.parametrize("packet", ['27["register",{"id":"a"}]', '2["register",{"id":"a"}]', "37[]", "1", "2{"])
def test_a_packet_after_disconnect_gets_a_reason_and_ends_the_connection(relay, raw, packet):
    wire = raw(relay)
    wire.send("40")
    wire.packet()
    wire.send("41")
    wire.send("4" + packet)
    assert [each[:2] for each in wire.rest()] == ["44"]


def test_a_client_that_left_may_connect_again_on_the_same_connection(relay, raw):
    wire = raw(relay)
    for _ in range(2):
        wire.send("40")
        assert wire.packet().startswith("40{")
        assert wire.call("register", {"id": "again"})[1]["ok"]
        wire.send("41")


def test_a_second_connect_gets_a_reason_and_ends_the_connection(relay, raw):
    wire = raw(relay)
    wire.send("40")
    wire.packet()
    wire.send("40")
    assert [packet[:2] for packet in wire.rest()] == ["44"]


NAMES = ["connect", "disconnect", "*", "relay:invalid", "relay:unknown", "connect_error", "message", "json"]


@pytest.mark.parametrize("name", NAMES)
def test_an_event_of_any_name_is_answered(relay, name):
    with contextlib.closing(Wire(relay.port)) as wire:
        events, answer = wire.call(name, {"id": "a"})
        assert (answer["ok"], answer["error"], events) == (False, "unknown_event", []), answer
        assert name in answer["message"]
        wire.send(f'42["{name}"]')
        (refusal,) = wire.events(1)
        assert refusal["error"] == "unknown_event"
        assert wire.call("register", {"id": "a"})[1]["ok"]


@pytest.mark.parametrize("packet", ['51-9["push",{"_placeholder":true,"num":0}]', "29{", '29["x",', "29[]", "29[7]"])
def test_an_event_that_cannot_be_read_and_asks_for_an_answer_gets_it(relay, packet):
    with contextlib.closing(Wire(relay.port)) as wire:
        wire.send("4" + packet)
        assert wire.until_answer(9)[1]["error"] == "invalid_packet"
        assert wire.call("register", {"id": "a"})[1]["ok"]


def test_a_namespace_that_does_not_exist_is_refused(relay, raw):
    wire = raw(relay)
    wire.send("40/admin,")
    assert wire.packet().startswith("44/admin,")
    wire.send("40")
    assert wire.packet().startswith("40{")
    wire.send('42/admin,1["x"]')
    assert [packet[:9] for packet in wire.rest()] == ["44/admin,"]


def test_over_long_polling_a_packet_before_connect_gets_a_reason_and_ends_the_session(relay, server):
    def ask(sid="", body=None):
        url = f"{relay.url}/socket.io/?EIO=4&transport=polling{sid}"
        with urllib.request.urlopen(url, body, timeout=DEADLINE) as answer:
            return answer.read().decode()

    sid = "&sid=" + json.loads(ask()[1:])["sid"]
    with contextlib.suppress(OSError):  # the session may be over before the POST is answered
        ask(sid, b'42["register",{"id":"a"}]')
    packets = []
    with contextlib.suppress(OSError):
        wait_for(lambda: packets.append(ask(sid)) or "1" in packets[-1].split("\x1e"), "the end")
    if server == "own" or packets:  # the stock engine keeps no last packets for a client between two polls
        assert packets[0].startswith("44{"), packets
