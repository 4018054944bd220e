"""WebSockets of clients: messages, invalid frames, the closing handshake."""

import gc

import pytest
from conftest import DEADLINE, wait_for
from echo import WEBSOCKET, Echo

from pushrelay.engine import link


@pytest.fixture
def echo(serve):
    return Echo(serve)


@pytest.mark.parametrize("message", ["4hello", "4ä€😀", b"\x01\x02\x03\x04", "4" + "x" * 70_000])
def test_a_websocket_carries_text_and_binary(echo, message):
    client = echo.open_websocket()
    client.send(message)
    assert client.receive() == message


@pytest.mark.parametrize("packet", ["abc", "", "2", "0"])
def test_an_invalid_packet_closes_the_websocket(echo, packet):
    client = echo.open_websocket()
    client.send(packet)
    assert client.receive() is None
    wait_for(lambda: not echo.eio.sockets)


def test_a_message_that_is_too_large_closes_the_websocket_with_its_code_and_the_limit(serve):
    client = Echo(serve, max_http_buffer_size=1000).open_websocket()
    client.send("4" + "x" * 1000)
    assert client.frame() == (8, (1009).to_bytes(2, "big") + b"a message has 1000 bytes at most")


def test_a_client_that_does_not_answer_a_close_frame_is_dropped(echo, monkeypatch):
    monkeypatch.setattr(link, "CLOSE_SECONDS", 0.2)
    client = echo.open_websocket()
    echo.eio.disconnect(next(iter(echo.eio.sockets)))
    client.sock.settimeout(DEADLINE)
    assert client.receive() is None, "the close frame"
    assert client.sock.recv(100) == b"", "and then the end"


def test_clients_that_leave_in_the_middle_of_a_message_or_an_upgrade_free_their_memory(echo):
    sid = echo.open()
    for n in range(40):
        client = echo.client.websocket(WEBSOCKET if n % 2 else f"{WEBSOCKET}&sid={sid}")
        assert " 101 " in client.status
        client.sock.sendall(b"\x81\xff")  # the beginning of a frame
        client.close()
        if n % 2 == 0:
            wait_for(lambda: echo.eio.sockets[sid]._probe is None, "its end")
    wait_for(lambda: len(echo.eio.sockets) == 1, "their end")

    def links():
        gc.collect()
        return sum(type(each) is link.Link for each in gc.get_objects())

    wait_for(lambda: links() == 0, "their memory")
