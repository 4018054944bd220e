"""Packets that wait for something, such as PHP's answer: kept with all that follow, handled in order."""

import logging

import pytest
import socketio
from conftest import wait_for

from pushrelay.engine.engine import Engine
from pushrelay.errors import NotYet
from pushrelay.rooms import deferred
from pushrelay.rooms.deferred import MOST_MESSAGES, MOST_PACKETS, DeferredPackets
from pushrelay.rooms.manager import RoomManager

LIMIT = 100  # bytes of a message


class Waits:
    """A handler whose packets "wait…" are not ready until `ready`; what it was called with, and what it handled."""

    def __init__(self):
        self.ready, self.callbacks, self.canceled = False, [], []
        self.calls, self.handled = [], []
        self.deferred = DeferredPackets(self.handle, self.call_soon)

    def handle(self, client, packet):
        self.calls.append(packet)
        if packet.startswith("wait") and not self.ready:
            raise NotYet(self.callbacks.append, lambda: self.canceled.append(client))
        if packet == "fail":
            raise ValueError("as the app's handlers may")
        self.handled.append(packet)

    def call_soon(self, callback, client):
        callback(client)

    def receive(self, *packets, client="a"):
        return [self.deferred.receive(client, each, LIMIT) for each in packets]

    def go_on(self):
        self.callbacks.pop()()


@pytest.fixture
def waits():
    return Waits()


def test_a_packet_that_waits_is_handled_again_from_its_beginning_so_a_handler_is_repeatable(waits):
    waits.receive("wait 1")
    waits.go_on()  # and it must wait again
    waits.ready = True
    waits.go_on()
    assert waits.calls == ["wait 1"] * 3 and waits.handled == ["wait 1"]


def test_packets_that_follow_one_that_waits_are_handled_in_order(waits):
    waits.receive("one", "wait 2", "three", "four")
    assert waits.handled == ["one"]
    waits.receive("elsewhere", client="b")
    assert waits.handled == ["one", "elsewhere"], "others do not wait"
    waits.ready = True
    waits.go_on()
    assert waits.handled == ["one", "elsewhere", "wait 2", "three", "four"] and not len(waits.deferred)


def test_a_packet_that_fails_does_not_stop_later_ones(waits, caplog):
    waits.receive("wait 1", "fail", "three")
    waits.ready = True
    with caplog.at_level(logging.ERROR):
        waits.go_on()
    assert waits.handled == ["wait 1", "three"] and len(caplog.records) == 1


def test_a_client_that_leaves_is_forgotten_and_what_it_waits_for_is_canceled(waits):
    waits.receive("wait 1", "two")
    waits.deferred.forget("a")
    waits.deferred.forget("a")
    assert waits.canceled == ["a"] and not len(waits.deferred)
    waits.go_on()  # the answer comes too late
    assert waits.handled == []


def test_a_client_that_leaves_while_its_packet_is_handled_again_cancels_it_as_well(waits):
    waits.receive("wait 1")
    handle, leaving = waits.handle, []

    def leave(client, packet):
        leaving.append(packet)
        waits.deferred.forget(client)
        handle(client, packet)

    waits.deferred._handle = leave
    waits.go_on()
    assert leaving == ["wait 1"] and waits.canceled == ["a"] and not len(waits.deferred)


def test_packets_and_bytes_of_one_client_have_a_bound(waits):
    waits.receive("wait")
    assert all(waits.receive(*["x"] * (MOST_PACKETS - 1))) and waits.receive("x") == [False]
    other = Waits()
    other.receive("wait", client="b")
    assert other.receive("x" * (MOST_MESSAGES * LIMIT - 4), client="b") == [True]
    assert other.receive("x", client="b") == [False]


def test_a_long_queue_lets_other_clients_have_their_turn(waits, monkeypatch):
    monkeypatch.setattr(deferred, "TURN_SECONDS", -1.0)
    turns = []
    waits.deferred._call_soon = lambda callback, client: turns.append((callback, client))
    waits.receive("wait 1", "two", "three")
    waits.ready = True
    waits.go_on()
    for handled in (["wait 1"], ["wait 1", "two"], ["wait 1", "two", "three"]):
        callback, client = turns.pop()
        callback(client)
        assert waits.handled == handled


# On the manager.


@pytest.fixture
def sio(serve, monkeypatch):
    """A Socket.IO server whose event `ask` waits until `server.known`; `server.waits` has what to call then."""
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    server = socketio.Server(client_manager=RoomManager(), async_handlers=False)
    server.known, server.waits = False, []

    def ask(sid, *args):
        if not server.known:
            raise NotYet(server.waits.append)
        return args

    server.on("ask", ask)
    server.on("say", lambda sid, *args: args)
    server.client = serve(socketio.WSGIApp(server))
    return server


def socket_io(sio):
    client = sio.client.websocket("/socket.io/?EIO=4&transport=websocket")
    client.receive()
    client.send("40")
    assert client.receive().startswith("40")
    return client


def test_packets_after_one_that_waits_are_handled_in_order(sio):
    client, other = socket_io(sio), socket_io(sio)
    for packet in ('420["ask",1]', '421["say",2]', "41", "40", '422["ask",3]', '423["say",4]'):
        client.send(packet)
    other.send('429["say",5]')
    assert other.receive() == "439[5]"
    wait_for(lambda: sio.waits, "the question")
    sio.waits.pop()()  # it must wait again
    wait_for(lambda: sio.waits, "the second question")
    sio.known = True
    sio.waits.pop()()
    assert [client.receive() for _ in range(2)] == ["430[1]", "431[2]"]
    assert client.receive().startswith("40")
    assert [client.receive() for _ in range(2)] == ["432[3]", "433[4]"]
    client.send('424["say",6]')
    assert client.receive() == "434[6]" and not sio.manager._deferred


def test_packets_that_wait_are_dropped_with_their_client(sio):
    client = socket_io(sio)
    client.send('420["ask",1]')
    client.send('421["say",2]')
    wait_for(lambda: sio.waits and sio.manager._deferred, "the question")
    client.close()
    wait_for(lambda: not sio.manager._deferred, "the end")
    sio.known = True
    sio.waits.pop()()
    other = socket_io(sio)
    other.send('420["ask",3]')
    assert other.receive() == "430[3]"
