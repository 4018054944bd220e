"""The course of requests on one connection: order, bounds, deadlines, and the upgrade to WebSocket."""

import contextlib
import socket

import pytest
from clients import read_all
from conftest import DEADLINE, wait_for
from raw_http import GET, POST, TEXT, body_of, echo, receivers, request, status_of

from pushrelay.server.connection import READ_BYTES
from pushrelay.server.conversation import EARLY_BYTES, Conversation
from pushrelay.server.host import KEY
from pushrelay.server.request import Limits
from pushrelay.server.server import Server


def test_requests_in_one_packet_are_answered_in_order_on_one_connection(serve):
    ask = request("GET /a HTTP/1.1", "Host: x") + request(
        "POST /b HTTP/1.1", "Host: x", "Content-Length: 3", body=b"two"
    )
    answer = serve(echo).raw(ask + request("GET /c HTTP/1.1", "Host: x", "Connection: close"))
    assert [part in answer for part in (b"GET /a? ", b"POST /b? two", b"GET /c? ")] == [True] * 3
    assert answer.index(b"/a?") < answer.index(b"/b?") < answer.index(b"/c?")
    assert answer.count(b"Connection: close") == 1


class Wire:
    """A connection whose owner reads on, and proceeds on request."""

    peer, backlog, closed, deadline, receiver, share = ("192.0.2.1", 50_000), 0, False, 0.0, None, None
    soon = finished = yielded = False

    def __init__(self, poller):
        self.poller = poller
        self.written = []

    def write(self, data):
        self.written.append(body_of(data))

    def run_soon(self):
        self.soon = True

    def set_reading(self, reading):
        pass

    def finish(self):
        self.finished = True

    def yield_turn(self):
        self.yielded = True


def conversation_with(server):
    """Return a conversation on a Wire."""
    wire = Wire(server.poller)
    wire.receiver = Conversation(wire, server)
    return wire.receiver


@contextlib.contextmanager
def unstarted(app, **options):
    """Yield a server with no threads."""
    server = Server(app, port=0, **options)
    server.poller.is_short = lambda: False
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def parking():
    """Yield a conversation on a Wire, and the paths and conversations of the requests that its app has parked."""

    def app(environ, start_response):
        environ[KEY].park()
        parked.append((environ["PATH_INFO"], environ[KEY]))
        return ()

    parked = []
    with unstarted(app) as server:
        yield conversation_with(server), parked


def test_requests_that_come_while_another_is_answered_keep_their_order():
    with parking() as (conversation, parked):
        wire = conversation.connection
        for n in range(3):
            if n == 2:
                parked[0][1].answer("200 OK", TEXT, b"/0")  # on another thread, just before the owner reads
            conversation.received(request(f"GET /{n} HTTP/1.1", "Host: x"))
        for n in (1, 2):
            assert wire.soon
            conversation.proceed()
            assert parked[-1][0] == f"/{n}"
            conversation.answer("200 OK", TEXT, b"/%d" % n)
        assert wire.written == [b"/0", b"/1", b"/2"]


def test_a_request_behind_another_is_answered_if_the_client_ends_its_side_just_before_its_turn():
    with parking() as (conversation, parked):
        wire = conversation.connection
        for n in range(2):
            conversation.received(request(f"GET /{n} HTTP/1.1", "Host: x"))
        wire.run_soon = conversation.ended  # the owner reads the end before the other thread has woken it
        conversation.answer("200 OK", TEXT, b"/0")
        del wire.run_soon
        assert not wire.finished
        conversation.proceed()
        conversation.answer("200 OK", TEXT, b"/1")
        conversation.proceed()
        assert wire.written == [b"/0", b"/1"] and wire.finished


def test_a_visitors_request_waits_its_turn_however_often_its_header_came_before():
    def share_of(environ):
        return None if environ["PATH_INFO"] == "/push" else environ["REMOTE_ADDR"]

    with unstarted(echo, share_of=share_of) as server:
        for path in ("/", "/push"):  # nobody accepts this push
            for _ in range(2):
                conversation = conversation_with(server)
                conversation.received(request(f"GET {path} HTTP/1.1", "Host: x"))
                assert conversation.connection.share == "192.0.2.1"
        server.poller.has_urgent_work = lambda: True
        conversation = conversation_with(server)
        conversation.received(request("GET / HTTP/1.1", "Host: x"))
        assert conversation.connection.yielded and not conversation.connection.written


def test_a_whole_request_that_waits_for_a_thread_outlives_the_deadline_for_sending_it(monkeypatch):
    with unstarted(echo) as server:
        conversation, must_wait = conversation_with(server), True
        monkeypatch.setattr(server, "has_to_wait", lambda path, share: must_wait)
        conversation.received(request(*GET))
        conversation.expired()
        conversation.proceed()
        wire = conversation.connection
        assert not wire.finished and not wire.written and wire.deadline
        must_wait = False
        conversation.proceed()
        assert wire.written == [b"GET /? "]
        conversation.expired()
        conversation.proceed()
        assert wire.finished


def test_100_continue_is_sent_to_clients_that_wait_for_it(serve):
    sock = serve(echo).connect()
    sock.send(request(*POST, "Content-Length: 2", "Expect: 100-continue", "Connection: close"))
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.send(b"ok")
    assert body_of(read_all(sock)) == b"POST /? ok"


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


def test_bytes_after_a_request_that_is_being_answered_are_bounded(serve):
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


def test_bytes_after_a_websocket_handshake_belong_to_the_websocket(serve):
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


@pytest.mark.parametrize(
    ("data", "limit"),
    [(b"GET / HT", "header_timeout"), (request(*POST, "Content-Length: 9", body=b"x"), "body_timeout")],
)
def test_a_request_that_is_not_complete_in_time_gets_a_408_that_names_the_setting(serve, data, limit):
    answer = serve(echo, limits=Limits(**{limit: 0.5})).raw(data)
    assert status_of(answer) == 408
    assert limit in answer.decode()


def test_an_idle_connection_is_closed_without_a_response(serve):
    client = serve(echo, limits=Limits(header_timeout=0.5, idle_timeout=0.5))
    assert client.raw(b"") == b""
    sock = client.connect()
    sock.send(request(*GET))
    assert read_all(sock).endswith(b"GET /? ")
