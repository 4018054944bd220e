"""Random bytes, for the parsers and for a running relay.

The suite tries a few inputs, the same ones every time, so that a run that passed does not fail for somebody else.
`FUZZ=20000 tests/run tests/server/test_fuzz.py` tries 20,000 new ones in each test; a failure prints the seed, which
FUZZ_SEED takes to repeat the run. Add an input that fails to its test as an @example.
"""

import contextlib
import json
import os
import random
import re
import socket
import threading

import parser_checks as checks
import pytest
from clients import UPGRADE, event, frame, open_websocket
from conftest import fds, own_only, wait_for
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

FORM_TYPE = b"Content-Type: application/x-www-form-urlencoded\r\n"
POST = b"POST /push HTTP/1.1\r\nHost: localhost\r\n" + FORM_TYPE + b"Content-Length: 20\r\n\r\n"
FORM = b"destination=a&data=b"
REQUESTS = [
    POST + FORM,
    b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;a\r\nWiki\r\n6\r\npedia!\r\n0\r\nT:x\r\n\r\n",
    b"GET http://other:80/%41?q HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nCookie: c\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    UPGRADE,
]
FRAMES = [
    frame("40"),
    frame(event("register", {"id": "a"}, 1)),
    frame("2probe"),
    frame("part", final=False) + frame(b"", opcode=9) + frame("s", opcode=0),
    frame(b"\x03\xe8bye", opcode=8),
    frame("x" * 300),
    frame(b"binary", opcode=2),
]
PACKETS = [
    "0",
    '0/admin,{"token":1}',
    "1",
    event("register", {"id": ["a", 2]}, 12)[1:],
    '51-["a",{"_placeholder":true,"num":0}]',
    '312[{"a":1}]',
    '4{"message":"x"}',
]
TYPES = ["application/json", "application/x-www-form-urlencoded", "", "multipart/form-data; boundary=b", "text/html"]
MULTIPART = b'--b\r\nContent-Disposition: form-data; name="destination"\r\n\r\nx\r\n--b--\r\n'
PUSHES = [b'{"destination":["a"],"data":{"x":[1,2.5,null,"\\ud83d\\ude00"]},"event":"e"}', FORM, MULTIPART]

LONG = int(os.environ.get("FUZZ", "0"))  # new inputs in each test; 0 for the few of the suite
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))


def fuzz(examples):
    """Decorate a test with the number of its inputs, and whether they are new ones."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    options = settings(max_examples=LONG or examples, deadline=None, database=None, suppress_health_check=checks)
    return (lambda test: seed(SEED)(options(test))) if LONG else settings(options, derandomize=True)


steady, live = fuzz(300), fuzz(100)


@pytest.fixture(autouse=LONG > 0)
def told():
    """Print the command that repeats a long run; pytest shows it if the test fails."""
    print(f"FUZZ={LONG} FUZZ_SEED={SEED}")


@st.composite
def mutated(draw, samples):
    """Return several samples in a row, with up to four changes."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(samples), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, len(data)))
        junk = draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b":", b" ", b"0"])))
        end = position + draw(st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 1000)))
        data[position:end] = junk
    return bytes(data)


def fuzzed(samples):
    return st.one_of(mutated(samples), st.binary(max_size=300))


def as_bytes(packets):
    return [packet.encode() for packet in packets]


cuts = st.lists(st.integers(0, 500), max_size=6)


# The parsers.


@steady
@given(fuzzed(REQUESTS), cuts)
@example(REQUESTS[4] * 900, [70])
def test_any_bytes_are_requests_or_rejected_however_they_are_split(data, cuts):
    checks.check_http(data, cuts)


@steady
@given(fuzzed(FRAMES), cuts)
def test_any_bytes_are_messages_or_a_close_code_however_they_are_split(data, cuts):
    checks.check_websocket(data, cuts)


@steady
@given(fuzzed([*as_bytes(PACKETS), b"4", b"\x1e", b"b", b"QUJD"]))
def test_any_payload_is_packets_or_refused(data):
    checks.check_payload(data)


@steady
@given(fuzzed(as_bytes(PACKETS)))
@example(b"2" + b"[" * 100_000)
@example(b"2" + b"9" * 5000 + b"[]")
def test_any_text_is_a_packet_that_clients_may_send_or_is_rejected(data):
    checks.check_packet(data.decode("utf-8", "replace"))


@steady
@given(fuzzed(PUSHES), st.sampled_from(TYPES))
@example(MULTIPART.replace(b"name", b"nam"), TYPES[3])
@example(b'{"destination":' + b"9" * 3900 + b',"data":1}', TYPES[0])
def test_any_body_is_a_push_or_refused_with_a_reason(data, content_type):
    checks.check_push(data, content_type)


# A relay that runs.


@pytest.fixture(scope="module")
def target(relay):
    """Provide a relay, and check at the end that it still serves, has logged nothing, and holds nothing more."""
    descriptors = fds(relay)
    yield relay
    assert relay.request("GET", "/health/live")[0] == 200
    wait_for(lambda: fds(relay) <= descriptors + 2, "the end of what was left behind")
    assert relay.push("a", "x")["connections"] == 0
    most = 8 + 5  # those of the setting `threads`, and main, watchdog, maintenance, log and reload
    assert len(os.listdir(f"/proc/{relay.process.pid}/task")) <= most
    assert "Traceback" not in relay.log.read_text(), relay.log.read_text()


def tell(relay, sock, data):
    """Send the bytes, close our side, and read until the relay closes its own."""
    sock.settimeout(10)
    got = b""
    with sock, contextlib.suppress(ConnectionError):
        sender = threading.Thread(target=send_all, args=(sock, data))
        sender.start()
        while piece := sock.recv(65536):
            got += piece
        sender.join()
    assert relay.process.poll() is None
    return got


def send_all(sock, data):
    with contextlib.suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


@own_only
@live
@given(data=fuzzed(REQUESTS))
def test_a_relay_answers_or_closes_whatever_requests_come(target, data):
    got = tell(target, socket.create_connection(("127.0.0.1", target.port)), data)
    assert re.match(rb"(HTTP/1\.1 \d\d\d [A-Z]|$)", got), got


@own_only
@live
@given(data=fuzzed(FRAMES))
def test_a_relay_answers_or_closes_whatever_frames_come(target, data):
    tell(target, open_websocket(target.port, "a"), data)


@own_only
@live
@given(packets=st.lists(fuzzed(as_bytes(PACKETS)), min_size=1, max_size=3))
def test_a_relay_answers_or_closes_whatever_packets_come(target, packets):
    tell(target, open_websocket(target.port, "a"), b"".join(frame(b"4" + packet) for packet in packets))


@own_only
@live
@given(data=fuzzed([*as_bytes(PACKETS), b"4", b"\x1e", b"3", b"bQUJD"]))
def test_a_relay_answers_or_refuses_whatever_payload_comes(target, data):
    path = "/socket.io/?EIO=4&transport=polling"
    path += "&sid=" + json.loads(target.request("GET", path)[2][1:])["sid"]
    status, headers, body = target.request("POST", path, b"40\x1e" + data)
    assert (status, body) == (200, b"ok") or (status == 400 and json.loads(body)["message"])
    target.request("POST", path, b"1")  # Engine.IO's close


@own_only
@live
@given(data=fuzzed(PUSHES), content_type=st.sampled_from(TYPES))
def test_a_relay_delivers_or_refuses_whatever_push_comes(target, data, content_type):
    status, headers, body = target.request("POST", "/push", data, {"Content-Type": content_type})
    assert status in (200, 400, 415) and json.loads(body)
