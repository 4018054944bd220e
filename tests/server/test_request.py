"""Requests of HTTP/1.1 and their environs, byte by byte, over real sockets."""

import io
import json
import os
import wsgiref.validate

import pytest
from clients import ServedClient, read_all
from conftest import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measures import error_of
from raw_http import GET, POST, TEXT, body_of, echo, request, shows, status_of

from pushrelay.server import outboxes
from pushrelay.server.known_headers import KnownHeaders
from pushrelay.server.request import Limits, Parser
from pushrelay.server.server import Server
from pushrelay.settings import Settings


def test_a_request_that_arrives_byte_by_byte_is_one_request(serve):
    sock = serve(echo).connect()
    for byte in request("POST /slow HTTP/1.1", "Host: x", "Content-Length: 2", "Connection: close", body=b"ok"):
        sock.send(bytes([byte]))
    assert body_of(read_all(sock)) == b"POST /slow? ok"


def test_a_known_header_is_read_the_same_with_another_body(serve):
    client = serve(echo)
    sock = client.connect()
    for body in (b"aaa", b"bbb", b"ccc"):
        sock.send(request("POST /p?q HTTP/1.1", "Host: x", "Content-Length: 3", body=body))
        assert sock.recv(1000).endswith(b"POST /p?q " + body)
    sock.send(
        request("POST /p?q HTTP/1.1", "Host: x", "Content-Length: 3", body=b"dddGET /e HTTP/1.1\r\nHost: x\r\n\r\n")
    )
    wait_for(lambda: b"GET /e" in sock.recv(1000))


def test_chunks_become_one_body(serve):
    body = b"4\r\nWiki\r\n6;ext=1\r\npedia \r\n0\r\nTrailer: x\r\n\r\n"
    ask = request(*POST, "Transfer-Encoding: chunked", "Connection: close", body=body)
    assert body_of(serve(echo).raw(ask)) == b"POST /? Wikipedia "


def test_a_large_body_is_kept_in_a_file_and_arrives_whole(serve):
    seen = []

    def app(environ, start_response):
        seen.append(environ["wsgi.input"])
        return echo(environ, start_response)

    body = os.urandom(300_000)
    assert serve(app, limits=Limits(spill_bytes=100_000)).request("POST", "/", body)[2] == b"POST /? " + body
    assert not isinstance(seen[0], io.BytesIO)
    wait_for(lambda: seen[0].closed)


@pytest.mark.parametrize("target", ["http://other/p?q=1", "HTTP://other:80/p?q=1"])
def test_a_target_with_a_host_replaces_the_host_header(serve, target):
    app = shows(host="HTTP_HOST", path="PATH_INFO", query="QUERY_STRING")
    answer = json.loads(body_of(serve(app).raw(request(f"GET {target} HTTP/1.1", "Host: x", "Connection: close"))))
    assert answer == {"host": target.split("/")[2], "path": "/p", "query": "q=1"}


def test_the_environ_has_what_pep_3333_requires(serve):
    keys = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "SERVER_PROTOCOL", "SCRIPT_NAME", "HTTP_X_A", "CONTENT_TYPE")
    client = serve(shows(**{key: key for key in keys}, path="PATH_INFO", dropped="HTTP_X_B"))
    headers = ("X-A: 1", "X-a: 2", "X_B: evil", "Content-Type: a/b", "Connection: close")
    answer = json.loads(body_of(client.raw(request("GET /%C3%A4 HTTP/1.1", "Host: x", *headers))))
    assert answer == {
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(client.port),
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "HTTP_X_A": "1,2",
        "CONTENT_TYPE": "a/b",
        "path": "/ä".encode().decode("latin-1"),
        "dropped": None,
    }


def test_wsgirefs_validator_finds_no_error(serve):
    @wsgiref.validate.validator
    def app(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        write = start_response("200 OK", TEXT)
        write(b"written, ")
        return iter([b"then ", b"returned ", body])

    client = serve(app)
    for _ in range(2):
        assert client.request("POST", "/x?y", b"body")[2] == b"written, then returned body"
    assert client.request("GET", "/")[0] == 200


def test_a_header_with_a_cookie_is_never_remembered():
    for line, is_kept in (("Cookie: a=secret", False), ("cookie: a=secret", False), ("Accept: */*", True)):
        remembered = KnownHeaders()
        parser = Parser({}, {}, Limits(), remembered)
        parser.feed(request(*GET, line))
        assert len(parser.requests) == 1 and bool(remembered.by_bytes) is is_kept


def test_an_upgrade_to_anything_but_websocket_is_ignored(serve):
    ask = request(*POST, "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2", body=b"ok")
    answer = serve(echo).raw(ask + request(*GET, "Connection: close"))
    assert b"POST /? ok" in answer and b"GET /? " in answer


@pytest.mark.parametrize(
    "data",
    [
        request(*POST, "Content-Length: 1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request(*POST, "Transfer-Encoding: chunked", "Content-Length: 1", body=b"0\r\n\r\n"),
        request(*POST, "Content-Length: 1", "Content-Length: 2", body=b"xx"),
        request(*POST, "Content-Length: 1", "Content-Length: 1", body=b"x"),
        request(*POST, "Content-Length: 1, 1", body=b"x"),
        request(*POST, "Content-Length: +1", body=b"x"),
        request(*POST, "Content-Length: 0x1", body=b"x"),
        request(*POST, "Content-Length: -1"),
        request(*POST, "Content-Length: 99999999999999999999"),
        request(*POST, "Content-Length : 1", body=b"x"),
        request(*POST, "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        request(*POST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("POST / HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request(*POST, "Transfer-Encoding: chunked", body=b"zz\r\n"),
        request(*POST, "Transfer-Encoding: chunked", body=b"1\r\nxx\r\n0\r\n\r\n"),
        request(*POST, "Transfer-Encoding: chunked", body=b"1\nx\n0\n\n"),
        request(*POST, "Transfer-Encoding: chunked", body=b"-1\r\n"),
        request(*GET, "X: a\rb"),
        request(*GET, "X: a\0b"),
        request(*GET, "X: a", " folded"),
        request(*GET, " X: a"),
        request(*GET, "X"),
        request("GET / HTTP/1.1", "Host: x", "Host: y"),
        request("GET / HTTP/1.1"),
        b"GET / HTTP/1.1\nHost: x\n\n",
        request("GET ftp://x/ HTTP/1.1", "Host: x"),
        request("G\x01T / HTTP/1.1", "Host: x"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_ambiguous_requests_are_rejected_and_the_connection_is_closed(serve, data):
    calls = []

    def app(environ, start_response):
        calls.append(environ["PATH_INFO"])
        return echo(environ, start_response)

    answer = serve(app).raw(data + request("GET /smuggled HTTP/1.1", "Host: x"), shut=True)
    assert status_of(answer) == 400
    assert answer.count(b"Date: ") == 1
    assert error_of(body_of(answer)) == "bad_request"
    assert not calls


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(*POST, "Transfer-Encoding: gzip, chunked"), 501),
        (request(*POST, "Content-Length: 1", "Expect: magic"), 417),
        (request(*GET, "X: " + "x" * 40_000), 431),
        (request("GET /" + "x" * 40_000 + " HTTP/1.1", "Host: x"), 431),
        (request(*GET, *(f"X-{i}: y" for i in range(5_000))), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 150_000, 431),
    ],
)
def test_unsupported_requests_are_rejected_with_their_own_status(serve, data, status):
    answer = serve(echo).raw(data)
    assert status_of(answer) == status
    assert set(json.loads(body_of(answer))) == {"error", "message"}


def test_a_body_over_the_limit_is_rejected_before_the_client_sends_it(serve):
    sock = serve(echo, limits=Limits(max_body=1000)).connect()
    sock.send(request(*POST, "Content-Length: 1001", "Expect: 100-continue"))
    answer = sock.recv(1000)
    assert status_of(answer) == 413
    assert error_of(body_of(answer)) == "too_large"


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=300), st.integers(0, 60), st.binary(max_size=3))
def test_mutated_requests_never_break_the_server(fuzzed, junk, position, insert):
    whole = request(*POST, "Content-Length: 3", "Cookie: a=b", body=b"abc")
    for data in (junk, whole[:position] + insert + whole[position:]):
        fuzzed.raw(data, shut=True)
    assert fuzzed.request("GET", "/alive")[2] == b"GET /alive? "


@pytest.fixture(scope="module")
def fuzzed():

    server = Server(echo, "127.0.0.1", 0)
    server.start()
    yield ServedClient(server)
    wait_for(lambda: not server._connections)
    server.close()


def test_a_server_by_itself_has_the_limits_of_the_settings():
    limits, defaults = Limits(), Settings()
    for name in ("max_header", "header_timeout", "body_timeout", "idle_timeout", "send_timeout"):
        assert getattr(limits, name) == getattr(defaults, name), name
    assert limits.max_body > defaults.max_body
    assert defaults.max_outboxes == outboxes.MOST_BYTES
