"""Packets of clients on our Engine: connecting to namespaces, and the answer to clients that send too much."""

import json

import pytest
import socketio
from conftest import wait_for

from pushrelay.engine.engine import Engine
from pushrelay.errors import NotYet
from pushrelay.rooms.deferred import MOST_PACKETS
from pushrelay.rooms.manager import RoomManager

PATH = "/socket.io/?EIO=4&transport=websocket"


@pytest.fixture
def sio(serve, monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    server = socketio.Server(client_manager=RoomManager(), async_handlers=False)
    server.client = serve(socketio.WSGIApp(server))
    return server


def socket_of(sio):
    client = sio.client.websocket(PATH)
    client.receive()
    return client


def test_a_client_connects_to_the_namespaces_that_the_app_has_handlers_for(sio):
    sio.on("say", lambda sid, text: text, namespace="/chat")
    client = socket_of(sio)
    client.send("40/chat,")
    assert client.receive().startswith('40/chat,{"sid":')
    client.send('42/chat,1["say","hi"]')
    assert client.receive() == '43/chat,1["hi"]'
    client.send("40/other,")
    assert client.receive().startswith("44/other,")


def test_a_handler_of_connect_may_reject_a_client(sio):
    sio.on("connect", lambda sid, environ, auth: (auth or {}).get("token") == "good")
    for auth, kind in (("", "44"), ('{"token":"bad"}', "44"), ('{"token":"good"}', "40")):
        client = socket_of(sio)
        client.send("40" + auth)
        assert client.receive().startswith(kind + "{"), auth
    assert len(sio.manager._sids["/"]) == 1


def test_a_client_that_sends_too_much_while_its_packet_waits_gets_the_reason_and_is_closed(sio):
    waiting = []

    def wait(sid):
        raise NotYet(waiting.append)

    sio.on("wait", wait)
    client = socket_of(sio)
    client.send("40")
    client.receive()
    client.send('42["wait"]')
    wait_for(lambda: waiting, "the packet to wait")
    for _ in range(MOST_PACKETS):
        client.send('42["more"]')
    name, message = json.loads(client.receive().removeprefix("42"))
    assert (name, message["error"]) == ("relay_error", "too_many_events")
    wait_for(lambda: not sio.eio.sockets and not sio.manager.rooms, "the end")
