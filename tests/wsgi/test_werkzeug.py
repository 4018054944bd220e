"""The relay on Werkzeug's server, with engineio's own engine: a client that never polls blocks no thread."""

import contextlib
import http.client
import json
import threading

import engineio.socket
import pytest
import socketio
from conftest import DEADLINE

from pushrelay.wsgi.werkzeug import WerkzeugManager

POLLING = "/socket.io/?EIO=4&transport=polling"


@pytest.fixture(scope="session")
def server():
    return "werkzeug"


def ask(relay, method, sid="", body=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)) as connection:
        connection.request(method, POLLING + sid, body)
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("body", ['42["x"]', "47", "9", "x" * 2_000_000])
def test_a_refused_post_is_answered_although_its_client_never_polls(relay, body):
    sid = "&sid=" + json.loads(ask(relay, "GET")[1:])["sid"]
    ask(relay, "POST", sid, body)


@pytest.fixture
def stock():
    """Return a manager with two clients in namespace "/", and their Engine.IO sessions by sid."""
    sio = socketio.Server(client_manager=WerkzeugManager(), async_mode="threading", monitor_clients=False)
    sessions = {}
    for name in ("one", "two"):
        sio.eio.sockets[name] = session = engineio.socket.Socket(sio.eio, name)
        sio.environ[name] = {}
        sessions[sio.manager.connect(name, "/")] = session
    yield sio.manager, sessions


def ends(function, *args):
    """Return whether the call returns although no client polls."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


def test_closing_a_client_that_is_gone_closes_no_other(stock):
    manager, sessions = stock
    assert ends(manager.close_transport, "gone") and not any(session.closed for session in sessions.values())


def test_closing_one_client_closes_no_other_and_does_not_wait(stock):
    manager, sessions = stock
    first, second = sessions
    assert ends(manager.close_transport, first) and sessions[first].closed and not sessions[second].closed
    assert not manager.is_connected(first, "/") and manager.is_connected(second, "/")


def test_engineio_closes_all_clients_at_once_although_none_of_them_polls(stock):
    manager, sessions = stock
    assert (
        ends(manager.server.eio.disconnect)
        and all(session.closed for session in sessions.values())
        and not manager.server.eio.sockets
    )


def test_rooms_are_listed_while_other_clients_enter_and_leave_rooms(stock):
    manager, sessions = stock
    first, second = sessions
    stop = threading.Event()
    for number in range(2000):  # so that one look takes a while
        manager.basic_enter_room(second, "/", f"to:{number}")

    def come_and_go():
        while not stop.is_set():
            manager.basic_enter_room(first, "/", "to:new")
            manager.basic_leave_room(first, "/", "to:new")

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    try:
        assert all(len(manager.get_rooms(second, "/")) == 2001 for _ in range(1000))
    finally:
        stop.set()
        thread.join(DEADLINE)
