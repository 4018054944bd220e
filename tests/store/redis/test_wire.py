"""A blocking connection: replies in order, and a deadline for all of them together."""

import socket
import threading
import time

import hiredis
import pytest

from pushrelay.store.redis.wire import Wire


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Wire(ours), theirs


def soon():
    return time.monotonic() + 20


def test_replies_come_in_the_order_of_the_commands_with_errors_in_their_places(pair):
    wire, theirs = pair
    theirs.sendall(b"+OK\r\n-ERR no\r\n#f\r\n_\r\n*2\r\n:1\r\n$1\r\nx\r\n")
    first, error, *rest = wire.ask_all(soon(), [("SET", "ü", b"\x00"), ("X",), ("Y",), ("Z",), ("GET", 1)])
    assert (first, rest) == (b"OK", [False, None, [1, b"x"]])
    assert isinstance(error, hiredis.ReplyError) and str(error) == "ERR no"
    assert theirs.recv(100).startswith(b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$1\r\n\x00\r\n*1\r\n$1\r\nX")


def test_messages_that_were_pushed_are_no_replies(pair):
    wire, theirs = pair
    theirs.sendall(b">2\r\n+message\r\n+x\r\n:7\r\n")
    assert wire.ask(soon(), "PING") == 7


def test_a_server_that_sends_a_byte_now_and_then_does_not_move_the_deadline(pair):
    wire, theirs = pair
    stopped = threading.Event()

    def drip():
        while not stopped.wait(0.02):
            theirs.sendall(b"+")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            wire.ask(time.monotonic() + 0.2, "PING")
    finally:
        stopped.set()
        thread.join()


def test_a_deadline_that_is_over_sends_nothing(pair):
    wire, theirs = pair
    with pytest.raises(TimeoutError):
        wire.ask(time.monotonic() - 1, "PING")
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_the_end_of_the_connection_and_another_protocol_are_errors(pair):
    wire, theirs = pair
    theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(hiredis.ProtocolError):
        wire.ask(soon(), "PING")
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(ConnectionError):
        Wire(ours).ask(soon(), "PING")


def test_a_connection_is_quiet_until_something_comes(pair):
    wire, theirs = pair
    assert wire.is_quiet()
    theirs.sendall(b"+OK\r\n")
    assert not wire.is_quiet() and not wire.is_quiet()


def test_a_connection_that_the_server_closed_is_not_quiet(pair):
    wire, theirs = pair
    theirs.close()
    assert not wire.is_quiet()
