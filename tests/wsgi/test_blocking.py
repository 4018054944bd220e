"""The Engine in a server whose sockets cannot be taken: a broken connection does not affect other clients."""

import contextlib
import json
import threading

import pytest
import socketio
from clients import WebSocketClient
from conftest import DEADLINE, wait_for
from werkzeug.serving import make_server
from wsproto.events import CloseConnection

from pushrelay.engine.engine import install
from pushrelay.rooms.manager import RoomManager
from pushrelay.wsgi.blocking import BlockingCarrier


@pytest.fixture
def sio(monkeypatch):
    """Return a Socket.IO server in Werkzeug's, in which each client holds a thread, as with TLS."""
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", None)  # so that it is restored at the end
    install(carrier_of=BlockingCarrier)
    server = socketio.Server(client_manager=RoomManager(), async_handlers=False, ping_interval=2 * DEADLINE)
    http = make_server("127.0.0.1", 0, socketio.WSGIApp(server), threaded=True)
    server.port = http.port
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield server
    server.eio.disconnect()
    http.shutdown()
    http.server_close()
    server.shutdown()


@pytest.fixture
def room(sio):
    """Return a function that opens WebSockets in the room "news", and returns the session and the client of each."""
    with contextlib.ExitStack() as opened:

        def enter(count):
            clients = []
            for _ in range(count):
                client = opened.enter_context(contextlib.closing(WebSocketClient(sio.port)))
                eio_sid = json.loads(client.receive()[1:])["sid"]
                client.send("40")
                sio.enter_room(json.loads(client.receive()[2:])["sid"], "news")
                clients.append((sio.eio.sockets[eio_sid], client))
            return clients

        yield enter


def break_link(session):
    """Leave a WebSocket in the middle of closing: simple-websocket can then neither send nor close."""
    session.connection._websocket.ws.send(CloseConnection(1000))


def test_a_publication_reaches_a_room_in_which_one_connection_is_broken(sio, room):
    clients = room(3)
    break_link(clients[0][0])
    assert sio.manager.deliver("push", 1, "news") == 3
    for _, client in clients[1:]:
        assert client.receive() == '42["push",1]'


def test_closing_a_broken_connection_calls_back_what_waited_for_it(sio, room):
    ((session, _), (other, client)) = room(2)
    cleared = threading.Event()
    break_link(session)
    session._on_clear = cleared.set
    assert sio.manager.drain(0.0, 0.1) == 2
    assert cleared.wait(DEADLINE) and session.closed and other.closed
    assert "relay_drain" in client.receive()


def test_a_client_that_is_gone_without_a_word_frees_its_thread(sio, room):
    ((session, client),) = room(1)
    session.close(abort=True, reason="ping timeout")
    client.sock.settimeout(DEADLINE)
    assert client.receive() is None, "the close frame"
    assert client.sock.recv(100) == b"", "and then the end, though the client has not answered"


def test_a_message_that_is_too_large_closes_its_client_alone(sio, room):
    ((session, client), (other, _)) = room(2)
    client.send("42" + "x" * sio.eio.max_http_buffer_size)
    assert client.frame() == (8, (1009).to_bytes(2, "big"))
    wait_for(lambda: session.closed, "the end of the client")
    assert not other.closed


def test_a_client_whose_packet_cannot_be_handled_is_closed(sio, room, monkeypatch):
    ((session, client),) = room(1)

    def fail(*_):
        raise RuntimeError("a fault of the relay")

    monkeypatch.setattr(sio.eio, "dispatch", fail)
    client.send('42["x"]')
    wait_for(lambda: session.closed, "the end of the client")


class Broken:
    """A connection that fails in an unexpected way."""

    blocks, backlog, receiver = False, 0, None

    def write(self, frame, limit=0):
        raise RuntimeError("broken")

    def abort(self, reason):
        raise RuntimeError("broken")


def test_a_client_is_closed_if_sending_to_it_fails_and_the_others_get_the_publication(sio, room):
    ((session, _), (_, client)) = room(2)
    session.connection = Broken()
    assert sio.manager.deliver("push", 1, "news") == 2
    assert client.receive() == '42["push",1]'
    wait_for(lambda: session.closed, "the end of the client that missed it")


def test_all_other_clients_get_relay_drain_if_closing_one_fails(sio, room):
    ((session, _), (_, client)) = room(2)
    session.connection = Broken()
    sio.manager.drain(0.0, 0.1)
    assert "relay_drain" in client.receive()
