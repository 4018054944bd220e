"""The carrier for servers of which nothing is known but WSGI."""

import http.client
import json
import socketserver
import threading
import wsgiref.simple_server

import engineio
import pytest
from conftest import DEADLINE, wait_for
from echo import POLLING, WEBSOCKET, in_background

from pushrelay.engine.engine import Engine


class ThreadedServer(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """The standard library's server, with a thread for each connection."""

    daemon_threads = True


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """Its handler, without a log."""

    def log_message(self, *_):
        pass


@pytest.fixture
def engine():
    """An Engine in that server; `engine.get(path)` returns status and body."""
    engine = Engine(ping_interval=2 * DEADLINE)
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, engineio.WSGIApp(engine), ThreadedServer, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def get(path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=DEADLINE)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    engine.get = get
    yield engine
    engine.disconnect()
    server.shutdown()
    server.server_close()
    engine.shutdown()


def test_a_poll_waits_in_its_servers_thread_until_there_is_something_to_send(engine):
    opened = json.loads(engine.get(POLLING)[1][1:])
    assert opened["upgrades"] == []
    poll = in_background(engine.get, f"{POLLING}&sid={opened['sid']}")
    wait_for(lambda: engine.sockets[opened["sid"]]._poll is not None)
    engine.send(opened["sid"], "hello")
    assert poll() == (200, "4hello")


def test_a_websocket_is_refused_with_the_advice_to_poll(engine):
    wish = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    status, body = engine.get(WEBSOCKET, **wish, **{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert status == 400 and "long polling" in json.loads(body)["message"]
