"""Connections that are taken from another server, which keeps a dead end."""

import contextlib
import json
import socket

import pytest
from conftest import DEADLINE

from pushrelay.engine.errors import Rejected
from pushrelay.server.poller import Poller
from pushrelay.wsgi import hijack

GET = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}


@pytest.fixture
def poller():
    poller = Poller(2)
    poller.start()
    yield poller
    poller.close()


@pytest.fixture
def pair():
    """The client's end of a connection, and the server's."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(each) for each in socket.socketpair()]
        ends[0].settimeout(DEADLINE)
        yield ends


class Input:
    """The server's buffer of data beyond the request: it is empty."""

    def read(self):
        return b""


def carrier_of(sock, poller):
    return hijack.carrier_of({**GET, "werkzeug.socket": sock, "wsgi.input": Input()}, poller)


def test_a_parked_request_is_answered_on_the_clients_connection_and_the_server_has_a_dead_end(pair, poller):
    client, server = pair
    carrier = carrier_of(server, poller)
    carrier.park()
    assert server.recv(100) == b"", "the end"
    server.close()
    with pytest.raises(ConnectionError):
        carrier.returned(lambda *_: None)
    carrier.answer("200 OK", [("Content-Type", "application/json")], json.dumps("hello").encode())
    answer = b""
    while piece := client.recv(1000):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b'\r\n\r\n"hello"')


@pytest.mark.parametrize(
    "more",
    [{"REQUEST_METHOD": "POST"}, {"CONTENT_LENGTH": "5"}, {"SERVER_PROTOCOL": "HTTP/2"}, {"werkzeug.socket": None}],
)
def test_other_requests_stay_with_their_server(pair, poller, more):
    environ = {**GET, "werkzeug.socket": pair[1], "wsgi.input": Input(), **more}
    assert hijack.carrier_of(environ, poller) is None


def test_without_a_file_descriptor_the_request_is_refused_and_the_server_keeps_its_socket(pair, poller, monkeypatch):
    client, server = pair
    carrier = carrier_of(server, poller)

    def fail(fd):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(hijack.os, "dup", fail)
    with pytest.raises(Rejected, match="ulimit -n"):
        carrier.park()
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"
