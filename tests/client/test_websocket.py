"""The client's end of a WebSocket answers pings, joins frames, and reports the end of the connection."""

import contextlib
import socket

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from pushrelay.client.errors import ClientError
from pushrelay.client.websocket import WebSocket


@pytest.fixture
def pair():
    """A client's WebSocket, the server's end of its socket, and the server's frames."""
    near, far = socket.socketpair()
    with contextlib.closing(far), contextlib.closing(WebSocket(near, b"", 5)) as client:
        far.settimeout(5)
        yield client, far, Connection(ConnectionType.SERVER)


def test_packets_come_whole_and_in_order(pair):
    client, far, frames = pair
    far.sendall(frames.send(TextMessage("one")) + frames.send(TextMessage("tw", message_finished=False)))
    assert client.receive(5) == ["one"]
    far.sendall(frames.send(TextMessage("o")) + frames.send(TextMessage("three")))
    assert client.receive(5) == ["two", "three"]
    assert client.receive(0) == []


def test_bytes_that_came_with_the_101_are_read_first():
    near, far = socket.socketpair()
    early = Connection(ConnectionType.SERVER).send(TextMessage("early"))
    with contextlib.closing(far), contextlib.closing(WebSocket(near, early, 5)) as client:
        assert client.receive(5) == ["early"]


def test_a_ping_is_answered(pair):
    client, far, frames = pair
    far.sendall(frames.send(Ping(b"x")))
    assert client.receive(5) == []
    frames.receive_data(far.recv(4096))
    assert [type(event) for event in frames.events()] == [Pong]


def test_the_end_of_the_connection_is_an_error(pair):
    client, far, frames = pair
    far.sendall(frames.send(CloseConnection(code=1013)))
    with pytest.raises(ClientError, match="code 1013"):
        client.receive(5)
    far.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ClientError):
        client.receive(5)


def test_closing_sends_a_close_frame(pair):
    client, far, frames = pair
    client.close()
    frames.receive_data(far.recv(4096))
    assert [event.code for event in frames.events()] == [1000]
