"""A request to a server that misbehaves ends in time, with an error that reports what the server did."""

import contextlib
import socket
import threading
import time

import pytest
from conftest import DEADLINE

from pushrelay.client.address import address_of
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError


def test_a_server_that_never_answers_cannot_exceed_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dialer = Dialer(address_of(f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        with pytest.raises(ClientError, match="no answer within 0.2 s"):
            dialer.ask("GET", "health/live", timeout=0.2)
        with pytest.raises(ClientError, match="no answer within 0.2 s"):
            dialer.open_websocket("", timeout=0.2)


@pytest.mark.parametrize(
    "begins", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_a_server_that_sends_single_bytes_cannot_exceed_the_timeout(begins):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            sock, _ = server.accept()
            with sock, contextlib.suppress(OSError):
                sock.recv(65536)
                sock.sendall(begins)
                while True:
                    sock.sendall(b"1")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(ClientError, match="no answer within 1 s"):
            Dialer(address_of(f"http://127.0.0.1:{server.getsockname()[1]}/")).ask("GET", "health/live", timeout=1)
        thread.join(DEADLINE)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Accept"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK in place of 101"),
    ],
)
def test_the_response_in_place_of_a_websocket_is_reported(answer, words):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once():
            sock, _ = server.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        with pytest.raises(ClientError, match=words):
            Dialer(address_of(f"http://127.0.0.1:{server.getsockname()[1]}/")).open_websocket("")
        thread.join(DEADLINE)
