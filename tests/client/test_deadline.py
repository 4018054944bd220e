"""Requests with a deadline: what a server sends, what becomes of it, and how long that may take."""

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from conftest import DEADLINE
from one_answer import OK, answering

from pushrelay.client.deadline import (
    Exchange,
    IncompleteResponse,
    InvalidResponse,
    NotConnected,
    TimedSocket,
    get,
    netloc_of,
    post,
    seconds_left,
)


def fetched(*pieces, limit=100, seconds=5.0, **options):
    with answering(*pieces, **options) as (url, _):
        return get(url, {}, time.monotonic() + seconds, limit)


def test_a_response_is_read_whole():
    reply = fetched(OK + b"hel", b"lo")
    assert (reply.status, reply.reason, reply.headers["X-Word"], reply.body) == (200, "OK", "yes", b"hello")
    assert reply.server == "" and not reply.missing


def test_a_response_with_a_length_ends_there_though_the_server_keeps_the_connection_open():
    began = time.monotonic()
    assert fetched(OK + b"hello", seconds=3 * DEADLINE, hold=True).body == b"hello"
    assert time.monotonic() - began < DEADLINE


def test_a_request_names_its_host_and_has_the_headers_that_were_given():
    with answering(OK + b"hello") as (url, received):
        get(url, {"Cookie": "a=1"}, time.monotonic() + 5, 100)
    head = received[0].decode().split("\r\n")
    assert head[0] == "GET /ask?a=1 HTTP/1.1"
    assert {f"Host: {url.netloc}", "Cookie: a=1", "Connection: close"} <= set(head)


def test_no_more_than_the_limit_is_read():
    assert fetched(OK + b"hello", limit=3).body == b"hel"


def test_a_server_that_sends_a_byte_at_a_time_does_not_extend_the_deadline():
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        fetched(*(bytes([each]) for each in OK + b"hello"), pause=0.05, seconds=0.4)
    assert time.monotonic() - began < DEADLINE


def test_a_response_that_ends_before_its_length_is_incomplete():
    with pytest.raises(IncompleteResponse):
        fetched(OK + b"hel")
    with pytest.raises(IncompleteResponse):
        fetched(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    with pytest.raises(IncompleteResponse) as found:
        fetched(b"")
    assert not found.value.has_begun


def test_responses_before_the_final_one_are_skipped():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    reply = fetched(hints + b"HTTP/1.1 102 Processing\r\n\r\n", OK + b"hello")
    assert (reply.status, reply.headers["Link"], reply.headers["X-Word"], reply.body) == (200, None, "yes", b"hello")
    assert fetched(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK).status == 101
    with pytest.raises(InvalidResponse):
        fetched(hints)


@pytest.mark.parametrize("sent", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_server_of_another_protocol_is_recognized(sent):
    with pytest.raises(InvalidResponse):
        fetched(sent)


def test_a_port_where_nothing_listens_is_not_connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotConnected) as caught:
        get(urlsplit(f"http://127.0.0.1:{port}/"), {}, time.monotonic() + 5, 100)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_the_next_address_of_a_name_is_tried_if_one_refuses():
    with answering(OK + b"hello") as (url, _):  # listens on 127.0.0.1 only, and localhost may be ::1 first
        named = urlsplit(f"http://localhost:{url.port}/")
        assert post(named, {}, b"{}", time.monotonic() + 5, 100).body == b"hello"


def test_a_body_that_is_posted_arrives_whole():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = []

        def serve():
            sock, _ = listener.accept()
            with sock:
                while not received or not received[-1].endswith(b"."):
                    received.append(sock.recv(65536))
                sock.sendall(OK + b"hello")

        threading.Thread(target=serve, daemon=True).start()
        url = urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert post(url, {}, b"a" * 999_999 + b".", time.monotonic() + 20, 100).body == b"hello"
    head, _, body = b"".join(received).partition(b"\r\n\r\n")
    assert b"Content-Length: 1000000" in head and len(body) == 1_000_000


def test_an_exchange_can_be_looked_at_without_waiting():
    with answering(OK, b"hello", pause=0.2) as (url, _):
        sock = socket.create_connection((url.hostname, url.port))
        with contextlib.closing(
            Exchange(sock, "GET", "/", {"Host": url.netloc}, b"", time.monotonic() + 5)
        ) as exchange:
            while not exchange.is_answered(0.01):
                pass
            assert exchange.reply(time.monotonic() + 5, 100).body == b"hello"


def test_reading_without_waiting_returns_what_is_there():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        timed = TimedSocket(ours, time.monotonic() + 5, early=b"early")
        reader = timed.makefile("rb")
        assert reader.read(5) == b"early"
        reader.raw.waits = False
        assert reader.peek() == b""
        theirs.sendall(b"late")
        assert reader.peek() == b"late"


def test_a_deadline_that_has_passed_is_a_timeout():
    assert 0 < seconds_left(time.monotonic() + 5) <= 5
    with pytest.raises(TimeoutError):
        seconds_left(time.monotonic())


@pytest.mark.parametrize(
    ("given", "netloc"),
    [
        (("http", "example.com", 80), "example.com"),
        (("https", "example.com", 80), "example.com:80"),
        (("https", "::1", 443), "[::1]"),
        (("http", "::1", 8080), "[::1]:8080"),
    ],
)
def test_the_host_header_leaves_out_the_default_port(given, netloc):
    assert netloc_of(*given) == netloc
