"""The Engine on a server whose sockets cannot be taken: one client that breaks takes nothing from the others."""

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
    """A Socket.IO server in Werkzeug's, each of whose clients holds a thread of it, as with TLS."""
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", None)  # so that it is put back in the end
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
    """Opens WebSockets whose clients are in the room "news"; returns the session and the client of each, in order."""
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
    """Leave its WebSocket in the middle of closing, in which simple-websocket can neither send nor close."""
    session.connection._websocket.ws.send(CloseConnection(1000))


def test_a_publication_reaches_everybody_in_a_room_in_which_one_connection_is_broken(sio, room):
    clients = room(3)
    break_link(clients[0][0])
    assert sio.manager.deliver("push", 1, "news") == 3
    for _, client in clients[1:]:
        assert client.receive() == '42["push",1]'


def test_closing_a_broken_connection_is_complete_and_keeps_nobody_waiting(sio, room):
    ((session, _), (other, client)) = room(2)
    cleared = threading.Event()
    break_link(session)
    session._on_clear = cleared.set
    assert sio.manager.drain(0.0, 0.1) == 2
    assert cleared.wait(DEADLINE) and session.closed and other.closed
    assert "relay_drain" in client.receive()


class Broken:
    """A connection that fails in a way that nobody has thought of."""

    blocks, backlog, receiver = False, 0, None

    def write(self, frame, limit=0):
        raise RuntimeError("broken")

    def abort(self, reason):
        raise RuntimeError("broken")


def test_a_client_to_which_sending_fails_is_closed_and_the_others_get_the_publication(sio, room):
    ((session, _), (_, client)) = room(2)
    session.connection = Broken()
    assert sio.manager.deliver("push", 1, "news") == 2
    assert client.receive() == '42["push",1]'
    wait_for(lambda: session.closed, "the end of the client that missed it")


def test_a_client_whose_closing_fails_does_not_keep_others_from_hearing_that_the_relay_goes_down(sio, room):
    ((session, _), (_, client)) = room(2)
    session.connection = Broken()
    sio.manager.drain(0.0, 0.1)
    assert "relay_drain" in client.receive()
