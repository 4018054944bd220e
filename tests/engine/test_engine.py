"""Socket.IO 5 on the Engine, checked against the protocol's text over real sockets."""

import json

import pytest
import socketio
from conftest import DEADLINE, wait_for

from pushrelay.engine import engine
from pushrelay.engine.engine import Engine
from pushrelay.rooms.manager import RoomManager


@pytest.fixture
def sio(serve, monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    server = socketio.Server(
        client_manager=RoomManager(), async_handlers=False, ping_interval=2 * DEADLINE, ping_timeout=20
    )

    def back(sid, *args):
        server.emit("message-back", args, to=sid)

    def custom_back(sid, *args):
        server.emit("message-back", args, to=sid, namespace="/custom")

    server.on("connect", lambda sid, environ, auth: server.emit("auth", auth or {}, to=sid))
    server.on("connect", lambda sid, environ, auth: server.emit("auth", auth or {}, to=sid, namespace="/custom"),
              namespace="/custom")  # fmt: skip
    server.on("message", back)
    server.on("message", custom_back, namespace="/custom")
    server.on("message-with-ack", lambda sid, *args: args)
    server.client = serve(socketio.WSGIApp(server))
    return server


def socket_io(sio, connect="40"):
    client = sio.client.websocket("/socket.io/?EIO=4&transport=websocket")
    client.receive()
    client.send(connect)
    return client


@pytest.mark.parametrize(
    ("connect", "prefix", "auth"),
    [
        ("40", "40", '42["auth",{}]'),
        ('40{"token":"123"}', "40", '42["auth",{"token":"123"}]'),
        ("40/custom,", "40/custom,", '42/custom,["auth",{}]'),
        ('40/custom,{"token":"abc"}', "40/custom,", '42/custom,["auth",{"token":"abc"}]'),
    ],
)
def test_a_client_connects_to_a_namespace_with_or_without_auth(sio, connect, prefix, auth):
    client = socket_io(sio, connect)
    first, second = client.receive(), client.receive()
    opened, greeting = (first, second) if first.startswith(prefix) else (second, first)
    assert list(json.loads(opened.removeprefix(prefix))) == ["sid"]
    assert greeting == auth


def test_an_unknown_namespace_is_refused_by_its_name(sio):
    assert socket_io(sio, "40/random").receive() == '44/random,{"message":"Invalid namespace"}'


@pytest.mark.parametrize(
    "packets",
    [
        *(["4abc"], ["4"], ["49"], ['44{"message":"x"}'], [b"\x01"], [b"2[1]"]),
        *(["40[1]"], ['40"x"'], ["41{}"], ["42"], ["42{}"], ["42null"], ["42[]"], ["42[5]"], ['42"message"']),
        *(["42["], ['42abc["message"]'], ['42["disconnect"]'], ['42["connect",{}]'], ["43{}"], ["431"]),
        *(["42" + "[" * 100_000], ['450-["message"]', b"\x01"], ['451-["message"]', '42["message"]']),
        *(
            ['451-["message",{"_placeholder":true,"num":9}]', b"\x01"],
            ['451-["message",{"_placeholder":true,"num":"x"}]', b"\x01"],
        ),
        *(["451-{}", b"\x01"], ["461-{}", b"\x01"]),
    ],
    ids=lambda packets: repr(packets)[:40],
)
def test_an_invalid_socket_io_packet_closes_the_client_at_once(sio, packets, caplog):
    client = socket_io(sio)
    client.receive(), client.receive()
    for packet in packets:
        client.send(packet)
    assert client.receive() is None  # at once: receive() gives up before the first ping
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("packet", ["4abc", "4", "42{}", "40[1]"])
def test_a_connection_that_does_not_begin_with_socket_io_is_closed_at_once(sio, packet):
    assert socket_io(sio, packet).receive() is None


def test_messages_acknowledgements_and_attachments_go_both_ways(sio):
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send('42["message",1,"2",{"3":[true]}]')
    assert client.receive() == '42["message-back",1,"2",{"3":[true]}]'
    client.send('42456["message-with-ack",1,"2",{"3":[false]}]')
    assert client.receive() == '43456[1,"2",{"3":[false]}]'
    client.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    client.send(b"\x01\x02\x03")
    client.send(b"\x04\x05\x06")
    back = '452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'
    assert [client.receive() for _ in range(3)] == [back, b"\x01\x02\x03", b"\x04\x05\x06"]


@pytest.mark.parametrize(("connect", "stays"), [("40", True), ("40/custom,", True), ("40/plain,", True), ("4", False)])
def test_a_client_of_the_apps_own_handlers_may_stay_without_registering(sio, connect, stays):
    sio.on("x", lambda sid: None, namespace="/plain")
    client = socket_io(sio, connect)
    sessions = list(sio.eio.sockets.values())  # none if the one that may not stay is closed by now
    if stays:
        wait_for(lambda: sessions[0].may_stay, "its right to stay")
    else:
        assert client.receive() is None and not any(session.may_stay for session in sessions)


def test_a_client_of_none_of_the_apps_handlers_may_not_stay_for_that(sio):
    del sio.handlers["/"]["connect"]
    client = socket_io(sio)
    assert client.receive().startswith("40{")
    (session,) = sio.eio.sockets.values()
    assert not session.may_stay


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError])
def test_a_handler_that_raises_closes_no_client_and_is_named_in_the_log(sio, error, caplog):
    def fail(sid):
        raise error("by hand")

    sio.on("fail", fail)
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send('42["fail"]')
    client.send('42["message","still here"]')
    assert client.receive() == '42["message-back","still here"]'
    assert "by hand" in caplog.text and "in fail" in caplog.text


def test_leaving_one_namespace_leaves_the_others_open(sio):
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send("40/custom,")
    client.receive(), client.receive()
    client.send("41/custom,")
    client.send('42["message","still here"]')
    assert client.receive() == '42["message-back","still here"]'


def test_a_publication_is_one_frame_for_all_and_a_client_that_left_is_in_no_room(sio):
    clients = [socket_io(sio) for _ in range(3)]
    for client in clients:
        client.receive(), client.receive()
    manager = sio.manager
    for sid, _ in manager.get_participants("/", None):
        sio.enter_room(sid, "news")
    assert manager.deliver("push", {"data": "ä"}, "news") == 3
    assert {client.receive() for client in clients} == {'42["push",{"data":"\\u00e4"}]'}
    clients.pop().close()
    wait_for(lambda: manager.count("news") == 2)
    sid = next(iter(manager.get_participants("/", "news")))[0]
    assert manager.deliver("push", 1, ["news", sid], skip_sid=sid) == 1
    for client in clients:
        client.close()
    wait_for(lambda: not manager.rooms and not manager._sids and not manager._rooms_of and not sio.environ)


def test_socketio_uses_the_engine_after_install(monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", None)
    engine.install()
    assert isinstance(socketio.Server().eio, Engine)
