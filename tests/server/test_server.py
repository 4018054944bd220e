"""HTTP/1.1 and PEP 3333, byte by byte, over real sockets."""

import contextlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import wsgiref.validate

import pytest
from clients import ServedClient, read_all
from conftest import DEADLINE, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measures import error_of, open_fds

from pushrelay.server import lingering as lingering_module
from pushrelay.server.connection import READ_BYTES
from pushrelay.server.conversation import EARLY_BYTES, Conversation
from pushrelay.server.host import KEY
from pushrelay.server.lingering import LingeringClose
from pushrelay.server.path_times import KNOWN_PATHS
from pushrelay.server.request import Limits, Parser
from pushrelay.server.server import Server

TEXT = [("Content-Type", "text/plain")]


def echo(environ, start_response):
    """Answers with the method, the path and the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", TEXT)
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']} ".encode() + body]


def shows(**wanted):
    """An app that answers with these of its environ."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [json.dumps({name: environ.get(key) for name, key in wanted.items()}).encode()]

    return app


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def body_of(answer):
    return answer.split(b"\r\n\r\n", 1)[1]


def request(*lines, body=b""):
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


GET = ("GET / HTTP/1.1", "Host: x")
POST = ("POST / HTTP/1.1", "Host: x")


# Requests.


def test_requests_in_one_packet_are_answered_in_order_on_one_connection(serve):
    ask = request("GET /a HTTP/1.1", "Host: x") + request(
        "POST /b HTTP/1.1", "Host: x", "Content-Length: 3", body=b"two"
    )
    answer = serve(echo).raw(ask + request("GET /c HTTP/1.1", "Host: x", "Connection: close"))
    assert [part in answer for part in (b"GET /a? ", b"POST /b? two", b"GET /c? ")] == [True] * 3
    assert answer.index(b"/a?") < answer.index(b"/b?") < answer.index(b"/c?")
    assert answer.count(b"Connection: close") == 1


def test_requests_that_come_while_another_is_answered_keep_their_order():
    def app(environ, start_response):
        conversation = environ[KEY]
        conversation.park()
        parked.append((environ["PATH_INFO"], conversation))
        return ()

    class Wire:
        """A connection whose owner reads on, and proceeds when it is told to."""

        peer, backlog, closed, deadline, receiver = None, 0, False, 0.0, None
        soon = False

        def write(self, data):
            written.append(body_of(data))

        def run_soon(self):
            self.soon = True

    parked, written, wire = [], [], Wire()
    server = Server(app, port=0)
    wire.poller = server.poller
    server.poller.is_short = lambda: False
    wire.receiver = conversation = Conversation(wire, server)
    try:
        for n in range(3):
            if n == 2:
                parked[0][1].answer("200 OK", TEXT, b"/0")  # by another thread, as the owner is about to read
            conversation.received(request(f"GET /{n} HTTP/1.1", "Host: x"))
        for n in (1, 2):
            assert wire.soon
            conversation.proceed()
            assert parked[-1][0] == f"/{n}"
            conversation.answer("200 OK", TEXT, b"/%d" % n)
        assert written == [b"/0", b"/1", b"/2"]
    finally:
        server.close()


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


def test_100_continue_is_sent_to_clients_that_wait_for_it(serve):
    sock = serve(echo).connect()
    sock.send(request(*POST, "Content-Length: 2", "Expect: 100-continue", "Connection: close"))
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.send(b"ok")
    assert body_of(read_all(sock)) == b"POST /? ok"


def receivers(client, kind):
    return [each.receiver for each in list(client.server._connections) if isinstance(each.receiver, kind)]


def test_100_continue_is_sent_once(serve):
    client = serve(echo)
    sock = client.connect()
    sock.sendall(request(*POST, "Content-Length: 2", "Expect: 100-continue"))
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"ok")
    assert b" 200 OK" in sock.recv(1000)
    sock.sendall(request(*POST, "Content-Length: 4", "Connection: close") + b"ab")
    [conversation] = receivers(client, Conversation)
    wait_for(lambda: conversation._parser._body_size == 2, "the beginning of the request to be read")
    sock.sendall(b"cd")
    answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK") and b"100 Continue" not in answer


def test_bytes_behind_a_request_that_is_being_answered_are_bounded(serve):
    parked = []

    def app(environ, start_response):
        environ[KEY].park()
        parked.append(environ[KEY])
        return ()

    sock = serve(app).connect()
    sock.sendall(request(*GET))
    wait_for(lambda: parked, "the request")
    sock.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        for _ in range(400):
            sent += sock.send(b"x" * 65536)
    assert len(parked[0]._early) <= EARLY_BYTES + READ_BYTES
    assert sent < 400 * 65536, "and the client is not read any further"


@pytest.mark.parametrize(("extra", "is_closed"), [(0, False), (1, True)], ids=["the limit", "one more"])
def test_after_an_error_the_server_reads_at_most_the_limit(serve, monkeypatch, extra, is_closed):
    monkeypatch.setattr(lingering_module, "LINGER_BYTES", 100_000)
    monkeypatch.setattr(lingering_module, "LINGER_SECONDS", 60.0)
    client = serve(echo)
    sock = client.connect()
    sock.sendall(request("NOT HTTP"))
    wait_for(lambda: receivers(client, LingeringClose), "the refusal")
    [lingering] = receivers(client, LingeringClose)
    sock.sendall(b"x" * (lingering._left + extra))
    if is_closed:
        wait_for(lambda: not receivers(client, LingeringClose), "the end of the connection")
    else:
        wait_for(lambda: lingering._left == 0, "all to be read")
        assert receivers(client, LingeringClose), "it may still read the answer"


def test_a_header_with_a_cookie_is_never_remembered():
    for line, is_kept in (("Cookie: a=secret", False), ("cookie: a=secret", False), ("Accept: */*", True)):
        remembered = {}
        parser = Parser({}, {}, Limits(), remembered)
        parser.feed(request(*GET, line))
        assert len(parser.requests) == 1 and bool(remembered) is is_kept


def test_bytes_behind_a_websocket_handshake_belong_to_the_websocket(serve):
    rest = []

    class Receiver:
        def received(self, data):
            rest.append(data)

        def lost(self, reason):
            pass

        ended = proceed = lambda self: None

    def app(environ, start_response):
        environ["pushrelay.http"].upgrade(Receiver(), b"switched")
        return ()

    headers = ("Connection: Upgrade", "Upgrade: websocket")
    sock = serve(app).connect()
    sock.send(request(*GET, *headers, body=b"a frame"))
    assert sock.recv(100) == b"switched"
    wait_for(lambda: rest == [b"a frame"])


@pytest.mark.parametrize("behind", [b"", b"a frame", b"f" * 100_000], ids=len)
def test_a_client_that_closed_its_side_before_the_upgrade_has_closed_the_websocket(serve, behind):
    told, parked = [], []

    class Receiver:
        def received(self, data):
            told.append(data)

        def ended(self):
            told.append("ended")
            parked[0].connection.finish()

        lost = proceed = lambda *_: None

    def app(environ, start_response):
        conversation = environ["pushrelay.http"]
        if environ["REQUEST_METHOD"] == "POST":
            conversation.park()
            parked.append(conversation)
        else:
            conversation.upgrade(Receiver(), b"switched")
        return ()

    sock = serve(app).connect()
    sock.settimeout(DEADLINE)
    sock.sendall(request(*POST, "Content-Length: 0"))
    wait_for(lambda: parked)
    sock.sendall(request(*GET, "Connection: Upgrade", "Upgrade: websocket", body=behind))
    sock.shutdown(socket.SHUT_WR)
    wait_for(lambda: parked[0]._ended or not parked[0].connection._reading)
    parked[0].answer("200 OK", [], b"")
    assert read_all(sock).endswith(b"switched")
    assert told[-1] == "ended" and b"".join(told[:-1]) == behind


def test_an_upgrade_to_anything_but_websocket_is_ignored(serve):
    ask = request(*POST, "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2", body=b"ok")
    answer = serve(echo).raw(ask + request(*GET, "Connection: close"))
    assert b"POST /? ok" in answer and b"GET /? " in answer


# Refusals.


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


@pytest.mark.parametrize("framing", ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_a_body_over_the_limit_still_receives_the_response(serve, framing):
    sock = serve(echo, limits=Limits(max_body=1000)).connect()
    chunk = b"2DC6C0\r\n" if "chunked" in framing else b""
    sock.sendall(request(*POST, framing, body=chunk + b"x" * 3_000_000))
    assert status_of(read_all(sock)) == 413


@pytest.mark.parametrize(
    ("data", "limit"),
    [(b"GET / HT", "header_timeout"), (request(*POST, "Content-Length: 9", body=b"x"), "body_timeout")],
)
def test_a_request_that_is_not_complete_in_time_gets_a_408_that_names_the_setting(serve, data, limit):
    answer = serve(echo, limits=Limits(**{limit: 0.1})).raw(data)
    assert status_of(answer) == 408
    assert limit in answer.decode()


def test_an_idle_connection_is_closed_without_a_response(serve):
    client = serve(echo, limits=Limits(header_timeout=0.1, idle_timeout=0.1))
    assert client.raw(b"") == b""
    sock = client.connect()
    sock.send(request(*GET))
    assert read_all(sock).endswith(b"GET /? ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# Responses.


def answering(result, status="200 OK", headers=TEXT):
    def app(environ, start_response):
        start_response(status, headers)
        return result() if callable(result) else result

    return app


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


@pytest.mark.alone  # on a busy machine another thread is asked for
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
    assert client.server.poller.thread_count() < 3
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


# The server.


@pytest.mark.alone  # it measures time
def test_other_requests_are_answered_while_30_handlers_sleep(serve):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/sleep":
            time.sleep(0.5)
        return echo(environ, start_response)

    client = serve(app, threads=16)
    sleepers = [client.connect() for _ in range(30)]
    for sock in sleepers:
        sock.send(request("GET /sleep HTTP/1.1", "Host: x", "Connection: close"))
    times = []
    for _ in range(200):
        start = time.monotonic()
        client.request("GET", "/quick")
        times.append(time.monotonic() - start)
    assert sorted(times)[100] < 0.01
    assert client.server.poller.thread_count() <= 16
    assert all(read_all(sock).endswith(b"/sleep? ") for sock in sleepers)


def test_the_last_free_thread_answers_pushes_whatever_paths_visitors_request(serve):
    gate = threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/block":
            gate.wait(2 * DEADLINE)
        return echo(environ, start_response)

    client = serve(app, threads=3, share_of=lambda environ: None if environ["REQUEST_METHOD"] == "POST" else "visitor")
    assert client.request("POST", "/push", b"data")[0] == 200
    for n in range(KNOWN_PATHS):
        client.request("GET", f"/{n}")
    blocked = [client.connect() for _ in range(3)]
    try:
        for sock in blocked:
            sock.send(request("GET /block HTTP/1.1", "Host: x"))
        wait_for(client.server.poller.is_short)
        pushing = client.connect()
        pushing.send(request("POST /push HTTP/1.1", "Host: y", "Content-Length: 4", body=b"data"))
        assert status_of(pushing.recv(1000)) == 200
    finally:
        gate.set()


def test_the_access_log_has_a_line_for_each_request(serve, caplog):
    with caplog.at_level(logging.INFO, "pushrelay.access_log"):
        serve(echo, access_log=True).request("GET", "/p?q")
        serve(echo).request("GET", "/silent")
    # Only this logger's: clients of other tests may still be saying goodbye in theirs.
    lines = [record.getMessage() for record in caplog.records if record.name == "pushrelay.access_log"]
    assert lines == ['127.0.0.1 - "GET /p?q HTTP/1.1" 200 9']


def test_it_serves_on_ipv6(serve):
    server = Server(echo, "::1", 0)
    server.start()
    with socket.create_connection(("::1", server.port), DEADLINE) as sock:
        sock.send(request(*GET, "Connection: close"))
        assert status_of(read_all(sock)) == 200
    server.close()


def test_it_serves_on_a_unix_socket_and_replaces_a_dead_one(tmp_path):
    path = str(tmp_path / "relay.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = Server(shows(peer="REMOTE_ADDR"), f"unix:{path}")
    server.start()
    with pytest.raises(OSError):
        Server(echo, f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.send(request(*GET, "Connection: close"))
        assert json.loads(body_of(read_all(sock))) == {"peer": ""}
    server.close()
    assert not os.path.exists(path)


def test_it_serves_on_the_socket_that_systemd_passes():
    program = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.dup2(int(sys.argv[1]), 3)\n"
        "from pushrelay.server.server import Server\n"
        "def app(e, s): s('200 OK', []); return [b'from systemd']\n"
        "Server(app).serve_forever()"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=os.environ | {"LISTEN_FDS": "1", "PYTHONPATH": os.getcwd()},
        )
        try:
            with socket.create_connection(listener.getsockname(), DEADLINE) as sock:
                sock.send(request(*GET, "Connection: close"))
                assert body_of(read_all(sock)) == b"from systemd"
        finally:
            child.kill()
            child.wait()


def test_an_address_in_use_raises_oserror(serve):
    with pytest.raises(OSError):
        Server(echo, "127.0.0.1", serve(echo).port)


def test_closing_ends_serve_forever_and_frees_everything():
    threads, descriptors = threading.active_count(), open_fds()
    server = Server(echo, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.send(request(*GET))
        assert status_of(sock.recv(1000)) == 200
        server.close()
        assert sock.recv(1000) == b""
    thread.join(DEADLINE)
    wait_for(lambda: threading.active_count() <= threads)
    assert open_fds() <= descriptors  # not ==: the test before may still be giving some back


def test_connections_that_come_and_go_leave_nothing_behind(serve):
    client = serve(echo)
    client.request("GET", "/")
    descriptors = wait_for(lambda: not client.server._connections and open_fds())
    for _ in range(300):
        client.connect().close()
    client.close()
    wait_for(lambda: not client.server._connections and open_fds() <= descriptors)
