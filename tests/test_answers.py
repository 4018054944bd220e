"""Error answers: a status, the relay's own text, and nothing about its machine."""

import contextlib
import json
import socket
import sqlite3

import pytest
from clients import read_all
from conftest import DEADLINE, own_only, wait_for

ENGINE = "/socket.io/?EIO=4&transport=websocket"
UPGRADE = (
    "Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
THROUGH_A_PROXY = {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer a-key-of-20-characters"}
OTHER_HOST = {"Host": "shop.example", "Authorization": "Bearer a-key-of-20-characters"}


def raw(relay, data, shut=False):
    """Send raw bytes, close our side if `shut`, and read until the relay closes the connection."""
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(data if isinstance(data, bytes) else data.encode())
        if shut:
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def without_a_store(start_relay):
    """Start a relay whose store another program has locked, and wait until it notices."""
    relay = start_relay(push_keys="web:a-key-of-20-characters", origins="*", durability="power", socket_push="yes")
    locker = sqlite3.connect(f"{relay.log}.db", timeout=DEADLINE, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    wait_for(lambda: relay.request("POST", "/push", b"destination=a&data=b")[0] == 503, "the lock to be noticed")
    return relay, contextlib.closing(locker)


def test_strangers_never_see_a_path_of_the_relays_machine(start_relay):
    relay, locked = without_a_store(start_relay)
    folder = str(relay.log.parent)
    with locked:
        for headers in (THROUGH_A_PROXY, OTHER_HOST):
            for method, path, body in (
                ("POST", "/push", b"destination=a&data=b"),
                ("POST", "/push", b"destination=a&data=b&wait=1"),
                ("POST", "/push", b"destination[]=a&data=b"),
                ("POST", "/", b"destination=a&data=b"),
                ("GET", "/health/ready", None),
            ):
                status, _, answer = relay.request(method, path, body, headers)
                assert status == 503, (path, answer)
                assert folder not in answer.decode() and ".db" not in answer.decode(), answer
        push = relay.request("POST", "/push", b"destination=a&data=b", THROUGH_A_PROXY)[2]
        assert b"another program holds a lock" in push  # everybody may read what to do
    assert folder in relay.log.read_text()


def test_the_log_and_programs_on_the_relays_machine_see_the_path_of_the_store(start_relay):
    relay, locked = without_a_store(start_relay)
    with locked:
        for method, path, body in (("POST", "/push", b"destination=a&data=b"), ("GET", "/health/ready", None)):
            assert str(relay.log.parent) in relay.request(method, path, body)[2].decode()


def test_a_page_sees_no_path_when_the_store_fails(start_relay, connect):
    relay, locked = without_a_store(start_relay)
    client = connect(relay.url)
    with locked:
        answer = client.call("push", {"destination": "a", "data": "b"})
        assert answer["error"] == "store_not_available" and str(relay.log.parent) not in json.dumps(answer), answer


@pytest.mark.parametrize("path", ["/health/live", "/nothing", "/push", "/history", "/static/relay.js", "/static/no"])
def test_an_upgrade_that_is_not_offered_is_ignored(relay, path):
    """RFC 9110, 7.8: the answer equals the one without the upgrade."""
    plain = raw(relay, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    asked = raw(relay, f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")
    assert asked.split(b"\r\n")[0] == plain.split(b"\r\n")[0]
    assert asked.split(b"\r\n\r\n")[1:] == plain.split(b"\r\n\r\n")[1:]


@pytest.mark.parametrize(
    "request_",
    [
        "GET /static/relay.js HTTP/1.1\r\nHost: x\r\nRange: bytes=99999999-\r\n",
        "PATCH /push HTTP/1.1\r\nHost: x\r\n",
        "FOO /push HTTP/1.1\r\nHost: x\r\n",
        "GET //x HTTP/1.1\r\nHost: x\r\n",
        "GET /health/live/ HTTP/1.1\r\nHost: x\r\n",
        "GET /static/../relay.py HTTP/1.1\r\nHost: x\r\n",
        "GET /static/%00 HTTP/1.1\r\nHost: x\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n",
        "GARBAGE\r\n",
    ],
)
def test_every_error_has_the_relays_own_text(relay, request_):
    answer = raw(relay, f"{request_}Connection: close\r\n\r\n").decode()
    assert "Traceback" not in answer and "<html" not in answer.lower() and "browser (or proxy)" not in answer
    head, _, body = answer.partition("\r\n\r\n")
    if head.split()[1] >= "400":
        told = json.loads(body)
        assert told["error"] and "application/json" in head
        assert "URL" not in told["message"] and "server could not" not in told["message"], told


@pytest.mark.parametrize(
    ("version", "framing", "body"),
    [
        ("1.0", "", b""),
        ("1.1", "Content-Length: 8\r\n", b"\x81\x82\0\0\0\x0040"),
        ("1.1", "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n", b"8\r\n\x81\x82\0\0\0\x0040\r\n0\r\n\r\n"),
    ],
)
def test_no_websocket_is_opened_over_http_1_0_or_by_a_request_with_a_body(relay, version, framing, body):
    # The relay would wait for the rest of a next request if that could still come.
    answer = raw(relay, f"GET {ENGINE} HTTP/{version}\r\n{UPGRADE}{framing}\r\n".encode() + body + b"GET ", shut=True)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")) and b'"sid"' not in answer, answer


@own_only
def test_the_body_of_a_websocket_request_is_skipped_and_the_next_request_is_answered(relay):
    ask = f"GET {ENGINE} HTTP/1.1\r\n{UPGRADE}Content-Length: 8\r\n\r\n".encode() + b"\x81\x82\0\0\0\x0040"
    answer = raw(relay, ask + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"body" in answer and answer.endswith(b'{"live":true}')
