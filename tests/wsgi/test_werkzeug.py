"""The relay on Werkzeug's server, with the stock engine: no client costs others their connection or a thread."""

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
def test_a_client_that_is_refused_and_never_polls_has_its_answer_and_holds_no_thread(relay, body):
    sid = "&sid=" + json.loads(ask(relay, "GET")[1:])["sid"]
    ask(relay, "POST", sid, body)


@pytest.fixture
def stock():
    """A manager with two clients in namespace "/": the Engine.IO sessions by the sids of their clients."""
    sio = socketio.Server(client_manager=WerkzeugManager(), async_mode="threading", monitor_clients=False)
    sessions = {}
    for name in ("one", "two"):
        sio.eio.sockets[name] = session = engineio.socket.Socket(sio.eio, name)
        sio.environ[name] = {}
        sessions[sio.manager.connect(name, "/")] = session
    yield sio.manager, sessions


def ends(function, *args):
    """Return whether the call comes back, which it must do by itself: nobody polls."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


def test_closing_a_client_that_is_gone_closes_nobody_else(stock):
    manager, sessions = stock
    assert ends(manager.close_transport, "gone") and not any(session.closed for session in sessions.values())


def test_a_client_that_is_cut_is_closed_alone_and_is_not_waited_for(stock):
    manager, sessions = stock
    first, second = sessions
    assert ends(manager.close_transport, first) and sessions[first].closed and not sessions[second].closed
    assert not manager.is_connected(first, "/") and manager.is_connected(second, "/")


def test_engineio_closes_all_clients_at_once_though_none_of_them_polls(stock):
    manager, sessions = stock
    assert (
        ends(manager.server.eio.disconnect)
        and all(session.closed for session in sessions.values())
        and not manager.server.eio.sockets
    )
