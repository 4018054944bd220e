"""Responses of WSGI apps, byte by byte, over real sockets (RFC 9112, PEP 3333)."""

import os
import socket
import sys

import pytest
from conftest import wait_for
from measures import error_of
from raw_http import GET, TEXT, answering, body_of, request, status_of

from pushrelay.server.request import Limits


def test_a_body_of_unknown_length_is_chunked_for_1_1_and_ends_the_connection_for_1_0(serve):
    client = serve(answering(lambda: iter([b"ab", b"", b"c"])))
    answer = client.raw(request(*GET, "Connection: close"))
    assert b"Transfer-Encoding: chunked" in answer
    assert body_of(answer) == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    answer = client.raw(request("GET / HTTP/1.0", "Connection: keep-alive"))
    assert b"chunked" not in answer and b"Connection: close" in answer and body_of(answer) == b"abc"


def test_http_1_0_keeps_a_connection_only_on_request(serve):
    client = serve(answering([b"ok"]))
    assert b"Connection: close" in client.raw(request("GET / HTTP/1.0"))
    sock = client.connect()
    for _ in range(2):
        sock.send(request("GET / HTTP/1.0", "Connection: keep-alive"))
        assert b"Connection: keep-alive" in sock.recv(1000)


def test_a_response_to_head_has_the_header_and_no_body(serve):
    answer = serve(answering([b"12345"])).raw(request("HEAD / HTTP/1.1", "Host: x", "Connection: close"))
    assert b"Content-Length: 5\r\n" in answer and body_of(answer) == b""


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_has_neither_length_nor_chunks(serve, status):
    answer = serve(answering([], status, [])).raw(request(*GET, "Connection: close"))
    assert b"Content-Length" not in answer and b"chunked" not in answer and body_of(answer) == b""


def test_a_body_is_cut_to_its_length_and_a_short_one_ends_the_connection(serve):
    long = serve(answering([b"12345"], headers=[("Content-Length", "3")]))
    assert body_of(long.raw(request(*GET) + request(*GET, "Connection: close"))).count(b"123") == 2
    short = serve(answering(lambda: iter([b"12"]), headers=[("Content-Length", "3")]))
    assert body_of(short.raw(request(*GET))) == b"12"


@pytest.mark.parametrize("header", [("X", "a\r\nSet-Cookie: b"), ("X\r\nY", "a"), ("X: Y", "a"), ("X", "a\nb")])
def test_a_line_break_in_a_response_header_is_rejected(serve, header):
    answer = serve(answering([b"ok"], headers=[header])).raw(request(*GET))
    assert status_of(answer) == 500
    assert b"Set-Cookie" not in answer and error_of(body_of(answer)) == "internal_server_error"


def test_an_app_that_fails_gets_a_500_or_ends_the_connection_after_its_first_byte(serve):
    def late():
        yield b"first"
        raise RuntimeError("too late")

    def early(environ, start_response):
        raise RuntimeError("at once")

    answer = serve(early).raw(request(*GET))
    assert (status_of(answer), error_of(body_of(answer))) == (500, "internal_server_error")
    assert body_of(serve(answering(late)).raw(request(*GET))) == b"5\r\nfirst\r\n"


def test_start_response_may_be_called_again_only_with_an_error(serve):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        try:
            raise ValueError
        except ValueError:
            start_response("503 Service Unavailable", TEXT, sys.exc_info())
        return [b"sorry"]

    def twice(environ, start_response):
        start_response("200 OK", TEXT)
        start_response("200 OK", TEXT)
        return []

    assert serve(app).request("GET", "/")[::2] == (503, b"sorry")
    assert serve(twice).request("GET", "/")[0] == 500


def test_a_result_is_closed_however_it_ends(serve):
    closed = []

    class Result:
        def __iter__(self):
            return iter([b"x" * 1_000_000] * 50)

        def close(self):
            closed.append(True)

    client = serve(answering(Result))
    assert len(client.request("GET", "/")[2]) == 50_000_000
    wait_for(lambda: len(closed) == 1)
    sock = client.connect()
    sock.send(request(*GET))
    sock.recv(1000)
    sock.close()
    wait_for(lambda: len(closed) == 2)


@pytest.mark.timed  # a busy machine needs another thread
def test_a_slow_client_costs_bounded_memory_and_no_thread(serve):
    taken = []

    def pieces():
        for number in range(2000):
            taken.append(number)
            yield b"x" * 50_000

    client = serve(answering(pieces), limits=Limits(send_timeout=0.4))
    sock = client.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.send(request(*GET))
    connection = wait_for(lambda: next((c for c in list(client.server._connections) if c.backlog > 256 * 1024), None))
    assert connection.backlog < 400_000
    assert len(taken) < 500
    assert client.server.poller.thread_count() < 4
    wait_for(lambda: connection.closed)


def test_the_servers_file_wrapper_sends_a_file(serve, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(200_000))
    files = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "200000")])
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[0])

    assert serve(app).request("GET", "/")[2] == path.read_bytes()
    wait_for(lambda: files[0].closed)
