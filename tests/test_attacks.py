"""What somebody who means harm may send, and what it must not do."""

import socket
import threading

import pytest
from conftest import DEADLINE

LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="session")
def server():
    """The relay's own server alone: what is attacked here is its engine."""
    return "own"


def connect_to(relay, buffer=0):
    """A plain connection; with a small `buffer` little is taken of what is not read."""
    sock = socket.socket()
    sock.settimeout(DEADLINE)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.connect(("127.0.0.1", relay.port))
    return sock


def read_all(sock):
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def ask(relay, data, shut=False):
    """Send these bytes, and read until the relay closes."""
    with connect_to(relay) as sock:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def test_a_part_of_a_multipart_form_without_a_name_is_refused(relay):
    body = b'--b\r\nContent-Disposition: form-data; nam="data"\r\n\r\nx\r\n--b--\r\n'
    status, _, answer = relay.request("POST", "/push", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert (status, b"has no name" in answer) == (400, True)


def test_a_packet_full_of_upgrade_requests_is_answered_to_the_last(relay):
    upgrade = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = ask(relay, upgrade * 800 + LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 801


def test_requests_that_follow_one_another_without_a_pause_are_all_answered(relay):
    push = b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 125\r\n\r\ndestination=nobody&data=" + b"x" * 101
    with connect_to(relay) as sock:
        threading.Thread(target=sock.sendall, args=(push * 2000 + LAST,)).start()
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 2001


def test_a_header_without_end_is_refused_also_behind_other_requests(relay):
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = ask(relay, live + live + b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000)
    assert [answer.count(status) for status in (b" 200 OK", b" 431 ")] == [2, 1]
