"""A server that only resembles Socket.IO is reported as an error, never as a traceback."""

import contextlib

import pytest

from pushrelay.client.address import address_of
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError
from pushrelay.client.socketio_client import TRANSPORTS, SocketIOClient


@pytest.mark.parametrize(
    "hello",
    [
        '"sid":"a","pingInterval":1e300,"pingTimeout":1',
        '"sid":"a","pingInterval":-1,"pingTimeout":0',
        '"sid":"a","pingInterval":1,"pingTimeout":"2"',
        '"sid":"a b","pingInterval":1,"pingTimeout":1',
        '"sid":5,"pingInterval":1,"pingTimeout":1',
    ],
)
def test_a_handshake_that_no_engineio_server_sends_is_a_client_error(serve, hello):
    def stranger(environ, start_response):
        start_response("200 OK", [])
        return [f"0{{{hello}}}".encode()]

    dialer = Dialer(address_of(f"http://127.0.0.1:{serve(stranger).port}/"))
    with pytest.raises(ClientError, match="not Socket.IO"):
        SocketIOClient(dialer, "polling")


@pytest.mark.parametrize("odd", ['44["no"]', '44"no"', "42" + "[" * 100_000, "40\x1e431[null]"])
def test_packets_that_only_resemble_socketio_are_a_client_error(serve, odd):
    said = iter(['0{"sid":"a","pingInterval":25000,"pingTimeout":20000}', odd])

    def stranger(environ, start_response):
        start_response("200 OK", [])
        return [(next(said, "6") if environ["REQUEST_METHOD"] == "GET" else "ok").encode()]

    dialer = Dialer(address_of(f"http://127.0.0.1:{serve(stranger).port}/"))
    with pytest.raises(ClientError), contextlib.closing(SocketIOClient(dialer, "polling")) as client:
        client.call("register", {}, timeout=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_registers_and_receives_over_each_transport(relay, transport):
    with contextlib.closing(SocketIOClient(Dialer(address_of(relay.url)), transport)) as client:
        assert client.handshake["sid"] and client.patience > 1
        answer = client.call("register", {"id": f"client-{transport}"})
        assert answer["ok"] is True
        relay.push(f"client-{transport}", "x")
        name, body = client.next_event(10)
        assert (name, body["data"]) == ("push", "x")
        assert client.next_event(0) is None
