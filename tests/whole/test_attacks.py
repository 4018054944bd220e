"""Requests of somebody who means harm, and their harmless ends."""

import contextlib
import json
import re
import socket
import struct
import threading
import time

import pytest
from clients import UPGRADE, frame, open_websocket, read_all
from conftest import DEADLINE, own_only, wait_for
from gate import Gate
from measures import cpu_share, rss

LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# Only the relay's own server, because its engine is attacked here.
pytestmark = own_only


def connect_to(relay, buffer=0):
    """Return a plain connection. With a small `buffer` its kernel takes little that is not read."""
    sock = socket.socket()
    sock.settimeout(DEADLINE)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.connect(("127.0.0.1", relay.port))
    return sock


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


def test_requests_without_a_pause_between_them_are_all_answered(relay):
    push = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 125\r\n\r\ndestination=nobody&data=" + b"x" * 101
    with connect_to(relay) as sock:
        threading.Thread(target=sock.sendall, args=(push * 2000 + LAST,)).start()
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 2001


def test_an_endless_header_is_rejected_even_after_other_requests(relay):
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = ask(relay, live + live + b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000)
    assert [answer.count(status) for status in (b" 200 OK", b" 431 ")] == [2, 1]


def open_polling(relay, *ids):
    """Return the query of a long-polling session that holds these ids."""
    query = "/socket.io/?EIO=4&transport=polling"
    sid = json.loads(relay.request("GET", query)[2][1:])["sid"]
    query += f"&sid={sid}"
    relay.request("POST", query, b"40\x1e42" + json.dumps(["register", {"id": list(ids)}]).encode())
    relay.request("GET", query)
    return query


@pytest.mark.timed  # it measures time
def test_a_poll_that_breaks_off_after_unread_bytes_uses_no_cpu(relay):
    with connect_to(relay) as sock:
        sock.sendall(f"GET {open_polling(relay)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sock.sendall(b"x" * 200_000)
        wait_for(lambda: cpu_share(relay, 0.1) == 0, "a quiet relay")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert cpu_share(relay) < 0.3


@pytest.mark.timed  # it measures time
def test_a_client_that_closes_its_side_and_does_not_read_uses_no_cpu(relay):
    with open_websocket(relay.port, "half", buffer=4096) as sock:
        for _ in range(12):  # more than the kernel takes, but less than the outbox may hold
            relay.push("half", "x" * 80_000)
        sock.shutdown(socket.SHUT_WR)
        assert cpu_share(relay) < 0.3


def is_open(sock):
    """Return whether the other side is still connected, without reading anything."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


def test_a_last_response_that_the_client_does_not_read_is_dropped(start_relay):
    relay = start_relay(send_timeout=0.5, idle_timeout=0.5, max_body=20_000_000, max_outbox=40_000_000)
    query = open_polling(relay, "unread")
    with connect_to(relay, buffer=4096) as sock:
        sock.sendall(f"GET {query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        relay.push("unread", "x" * 15_000_000)
        wait_for(lambda: not is_open(sock), "the end of the connection")


@pytest.mark.parametrize("behind", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize(
    "part", [b"GET /hea", b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\ndest"]
)
def test_a_slow_request_gets_a_408_even_after_another(start_relay, behind, part):
    relay = start_relay(header_timeout=0.4, body_timeout=0.4)
    with connect_to(relay) as sock:
        sock.sendall(behind + part)
        feet = threading.Thread(target=drip, args=(sock,))
        feet.start()
        assert b" 408 " in read_all(sock)
        feet.join()


def drip(sock):
    """Send a byte now and then until the other side closes."""
    with contextlib.suppress(OSError):
        for _ in range(100):
            sock.sendall(b"x")
            time.sleep(0.1)


@pytest.mark.parametrize("upgrading", [False, True], ids=["ping frames", "probes"])
def test_a_client_that_keeps_sending_requests_and_never_reads_is_closed(start_relay, upgrading):
    relay = start_relay(max_outbox=65536)
    sock = half_upgraded(relay) if upgrading else open_websocket(relay.port, "deaf", buffer=4096)
    before = rss(relay)
    questions = (frame("2probe") if upgrading else frame(b"x" * 125, opcode=9)) * 500
    with sock:
        sock.settimeout(None)
        with pytest.raises(ConnectionError):
            for _ in range(60_000_000 // len(questions)):
                sock.sendall(questions)
    assert rss(relay) - before < 15_000_000


def half_upgraded(relay):
    """Return a WebSocket that asks to upgrade a polling session."""
    sock = connect_to(relay, buffer=4096)
    sock.sendall(UPGRADE.replace(b"websocket HTTP", b"websocket&" + sid_of(open_polling(relay)) + b" HTTP"))
    assert b" 101 " in sock.recv(1000)
    return sock


def sid_of(query):
    return query[query.index("sid=") :].encode()


def test_the_handler_of_a_slow_pollers_end_may_publish_to_it(start_relay):
    relay = start_relay(program="tests/busy_relay.py", max_outbox=65536)
    open_polling(relay, "leavers")
    for _ in range(3):
        relay.push("leavers", "x" * 60_000)
    wait_for(lambda: relay.push("leavers", "still there?")["connections"] == 0, "its end")


def test_pings_do_not_wait_for_the_apps_disconnect_handlers(start_relay):
    relay = start_relay(program="tests/busy_relay.py", ping_interval=0.5, ping_timeout=2.5)
    gate, silent = Gate(relay), [open_websocket(relay.port, "held") for _ in range(6)]
    with open_websocket(relay.port, "other") as other, contextlib.ExitStack() as stack:
        for sock in silent:
            stack.enter_context(sock)
        pings = 0
        while not gate.held() or pings < 3:  # the last three come while the handlers wait
            if frame_of(other) == "2":
                pings += bool(gate.held())
                other.sendall(frame("3"))
    gate.open()


def frame_of(sock):
    """Return the text of one short frame."""
    length = sock.recv(2, socket.MSG_WAITALL)[1]
    return sock.recv(length, socket.MSG_WAITALL).decode()


CHUNKED = b"POST /push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
        CHUNKED + b" 1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1_0\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1\rx\r\n0\r\n\r\n",
        CHUNKED + b"1\r\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1\r\nx0\r\n\r\n",
        CHUNKED + b"\r\n1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1;\nx\r\n0\r\n\r\n",
        CHUNKED + b"1;a\0b\r\nx\r\n0\r\n\r\n",
        CHUNKED + b'1;a="b\r\n"\r\nx\r\n0\r\n\r\n',
        CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n",
        CHUNKED + b"1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n",
        CHUNKED + b"0\r\nA: b\rc\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        b"GET /health\0/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nA\0: y\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        b"GET /health/live HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET\t/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_nothing_is_read_after_an_ambiguous_request(relay, data):
    answer = ask(relay, LIVE + data + LIVE, shut=True)
    assert [answer.count(status) for status in (b"HTTP/1.1 200", b"HTTP/1.1 400")] == [1, 1]
    assert answer.endswith(b"}") and b'"bad_request"' in answer


@pytest.mark.parametrize("data", [b"GET /health/live\r\n\r\n", b"GET /health/live HTTP/0.9\r\nHost: x\r\n\r\n"])
def test_http_0_9_is_rejected(relay, data):
    assert ask(relay, data + LIVE).startswith(b"HTTP/1.1 505 ")


def test_the_host_in_the_target_replaces_the_host_header(relay):
    path = b"/socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: good.example\r\nOrigin: http://good.example\r\n"
    end = b"Connection: close\r\n\r\n"
    assert ask(relay, b"GET " + path + end).startswith(b"HTTP/1.1 200")
    assert ask(relay, b"GET http://evil.example" + path + end).startswith(b"HTTP/1.1 403")


def test_pipelined_requests_of_all_kinds_keep_their_order(relay):
    form = b"destination=order&data=x"
    push = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(form), form)
    chunked = CHUNKED + b"%x;why=not\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(form), form)
    head = b"HEAD /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    nowhere = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = ask(relay, push + LIVE + chunked + head + nowhere + push + LAST)
    kinds = re.findall(rb'HTTP/1.1 (404|200)|:(\d+)","connections"', answer)
    assert [status or b"push" for status, _ in kinds] == [
        *(b"200", b"push", b"200", b"200", b"push", b"200", b"404", b"200", b"push", b"200")
    ]


def test_an_endless_chunk_extension_uses_no_memory_and_times_out(start_relay):
    relay = start_relay(body_timeout=0.5)
    with connect_to(relay) as sock:
        sock.sendall(CHUNKED + b"1;")
        before = rss(relay)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                sock.sendall(b"a" * 65536)
                assert rss(relay) - before < 10_000_000
        feet = threading.Thread(target=drip, args=(sock,))
        feet.start()
        # Data that the relay has not read when it closes resets the connection, and the reset may overtake the answer.
        # The connection ends either way, or this read runs into its time-out.
        with contextlib.suppress(ConnectionError):
            assert b" 408 " in read_all(sock)
        feet.join()


def test_a_client_that_registers_and_leaves_at_once_causes_no_error(start_relay):
    relay = start_relay(ping_interval=1, ping_timeout=1)
    for number in range(60):
        query = open_polling(relay)
        poll, post = connect_to(relay), connect_to(relay)
        body = "42" + json.dumps(["register", {"id": [f"{number}-{n}" for n in range(100)]}])
        head = f" {query} HTTP/1.1\r\nHost: x\r\nContent-Length: "
        poll.sendall(f"GET{head}0\r\n\r\n".encode())
        post.sendall(f"POST{head}{len(body)}\r\n\r\n{body}".encode())
        poll.close()
        post.close()
    wait_for(lambda: relay.push("59-0", "x")["connections"] == 0, "the end of the last")
    log = relay.log.read_text()
    assert "Traceback" not in log, log[-2000:]


def send_what_is_taken(sock, data):
    """Send until the relay reads no more and the buffers between are full."""
    sock.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        for start in range(0, len(data), 65536):
            sock.sendall(data[start : start + 65536])


def test_requests_after_a_parked_poll_are_kept_as_bytes_and_answered_after_it(start_relay):
    relay = start_relay()
    query = open_polling(relay, "polled")
    with contextlib.ExitStack() as stack:
        last = stack.enter_context(connect_to(relay))
        last.sendall(f"GET {query} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + LIVE * 1500 + LAST)
        before = rss(relay)
        for _ in range(50):
            sock = stack.enter_context(connect_to(relay))
            head = f"GET {open_polling(relay)} HTTP/1.1\r\nHost: x\r\n\r\n"
            sock.sendall(head.encode())
            send_what_is_taken(sock, b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 60_000)
        wait_for(lambda: cpu_share(relay, 0.1) == 0, "a relay that has read what it wants to read")
        assert rss(relay) - before < 30_000_000, "at most 64 KiB behind each poll"
        relay.push("polled", "x")
        assert read_all(last).count(b"HTTP/1.1 200 OK") == 1502


@pytest.mark.parametrize("end", [b"\r\nInjected: yes", b"\nInjected: yes", b"\rInjected: yes"])
def test_no_client_can_add_a_line_to_a_response_or_to_the_log(start_relay, end):
    relay = start_relay(access_log="yes")
    encoded = b"".join(b"%%%02x" % byte for byte in end)
    for request in (
        b"GET /x%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % encoded,
        b"GET /history?destination=a&since=%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % encoded,
        b"GET /health/live HTTP/1.1\r\nHost: x%b\r\nConnection: close\r\n\r\n" % end.strip(b"\r\n"),
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nOrigin: http://x%b\r\n\r\n" % encoded,
    ):
        head = ask(relay, request, shut=True).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 ") and b"injected" not in head.lower()
    form = b"destination=a%b&data=x%b" % (encoded, encoded)
    push = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
        len(form),
        form,
    )
    assert ask(relay, push).startswith(b"HTTP/1.1 400 ")
    assert not any(line.startswith("Injected") for line in relay.log.read_text().splitlines())
