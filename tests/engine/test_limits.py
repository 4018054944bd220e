"""The limits on one client, on one address and on all clients: what a refusal contains, and that others continue.

All tests are about the relay's own server, because Werkzeug's is for a few clients.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

import engineio
import pytest
from clients import WebSocketClient, enter, event, frame, masked, open_websocket, read_all
from conftest import DEADLINE, ROOT, Relay, fds, need, own_only, wait_for
from measures import work_of

from pushrelay.engine.engine import Engine
from pushrelay.engine.limits import ClientLimiter
from pushrelay.server import websocket as ws

SIO = "/socket.io/?EIO=4&transport="
TESTS = ROOT / "tests"


def closed_with(client, until=None):
    """Return the code of the close frame that ends the connection, whatever comes before it."""
    while True:
        opcode, payload = client.frame()
        if opcode in (None, ws.CLOSE):
            return int.from_bytes(payload[:2], "big") if payload else None


# Clients.


@pytest.fixture(scope="module")
def one_address(tmp_path_factory):
    """Return what one_address.py saw in its own network."""
    command = ["unshare", "-n", sys.executable, str(TESTS / "one_address.py"), str(tmp_path_factory.mktemp("one"))]
    need(shutil.which("unshare") and shutil.which("ip"), "unshare and ip (apt-get install util-linux iproute2)")
    need(os.geteuid() == 0 and subprocess.run(["unshare", "-n", "true"]).returncode == 0, "a network namespace (root)")
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_one_address_has_at_most_max_per_address_clients_and_other_addresses_are_still_served(one_address):
    assert one_address["let_in"] == [101] * 3
    status, retry_after, body = one_address["polling"]
    assert (status, one_address["websocket"]) == (429, 429)
    assert 0 < int(retry_after) < 60 and "max_per_address" in json.loads(body)["message"]
    assert one_address["other"] == 200
    assert one_address["again"] == 200, "after one has gone"


def test_one_address_has_two_connections_for_each_client_and_other_addresses_are_still_served(one_address):
    assert one_address["taken"] == 6, "two for each client"
    assert len(one_address["beyond"]) == 1, one_address["beyond"]
    status, has_retry_after, body = one_address["beyond"][0]
    assert status == "HTTP/1.1 503 Service Unavailable" and has_retry_after
    assert "max_per_address" in json.loads(body)["message"]
    assert one_address["meanwhile"] == 200


def test_a_network_of_ipv6_addresses_counts_as_one(one_address):
    assert one_address["ipv6"] == [200, 429, 200]


@own_only
def test_a_client_beyond_max_connections_gets_a_503_with_the_time_to_try_again(start_relay):
    relay = start_relay(max_connections=2)
    first, second = enter(relay, "42"), enter(relay)
    status, headers, body = relay.request("GET", SIO + "polling")
    refusal = json.loads(body)
    assert (status, refusal["error"], "max_connections" in refusal["message"]) == (503, "too_many_connections", True)
    assert 0 < int(headers["Retry-After"]) < 60
    refused = WebSocketClient(relay.port, SIO + "websocket")
    assert " 503 " in refused.status and any(line.startswith(b"Retry-After: ") for line in refused.headers)
    assert relay.push("42", "still here")["connections"] == 1
    assert "still here" in first.receive()
    second.close()
    wait_for(lambda: relay.request("GET", SIO + "polling")[0] == 200, "a free slot")
    refused.close()
    first.close()


@pytest.mark.timed  # it measures time
def test_every_way_in_which_a_client_ends_frees_its_slot(serve):
    limiter = ClientLimiter(1000, 1000, address_of=lambda environ: environ["HTTP_X_TEST_ADDRESS"])
    engine = Engine(ping_interval=1.5, ping_timeout=1.5, admission=limiter)

    def connected(sid, environ):
        if "refuse" in environ["QUERY_STRING"]:
            return False
        if "leave" in environ["QUERY_STRING"]:
            engine.disconnect(sid)
        return None

    engine.on("connect", connected)
    client = serve(engineio.WSGIApp(engine, engineio_path="socket.io"), threads=4)
    quota, port = limiter._quota, client.port

    def get(path, address):
        return client.request("GET", path, headers={"X-Test-Address": address})

    def one_of_each(address):
        get(SIO + "polling&refuse=1", address)
        get(SIO + "polling&leave=1", address)
        get(SIO + "websocket", address)  # fails: a plain GET cannot become a WebSocket
        get("/socket.io/?EIO=3&transport=polling", address)
        for _ in range(5):
            get(SIO + "polling", address)  # it never polls again
            sid = json.loads(get(SIO + "polling", address)[2][1:])["sid"]
            upgrade = WebSocketClient(port, f"{SIO}websocket&sid={sid}")
            upgrade.send("2probe")
            upgrade.receive()
            upgrade.send("5")
            upgrade.close()
            left = json.loads(get(SIO + "polling", address)[2][1:])["sid"]
            client.request("POST", f"{SIO}polling&sid={left}", "1", {"X-Test-Address": address})

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(one_of_each, [f"198.51.100.{n}" for n in range(4)]))
    assert len(quota._by_address) == 4 and quota.used == len(engine.sockets) >= 20
    wait_for(lambda: not engine.sockets, "the end of all")
    assert (quota.used, quota._by_address) == (0, {})


@pytest.mark.timed  # it measures time
@own_only
def test_a_client_that_registers_nothing_gets_the_reason_and_is_closed(start_relay):
    relay = start_relay(register_timeout=2, socket_push="yes")
    registered, pushed = enter(relay, "42"), enter(relay)
    registered.send(event("unregister", {"id": "42"}, 2))
    assert registered.receive() == '432[{"ok":true}]'
    pushed.send(event("push", {"destination": "43", "data": 1}, 1))
    assert '"ok":true' in pushed.receive()
    silent = WebSocketClient(relay.port, SIO + "websocket")  # not even a CONNECT
    idle = enter(relay)
    name, error = json.loads(idle.receive().removeprefix("42"))
    assert (name, error["error"]) == ("relay_error", "register_timeout")
    assert "register_timeout" in error["message"]
    assert closed_with(idle) == closed_with(silent) == ws.POLICY_VIOLATION
    for client in (registered, pushed):
        client.send(event("register", {"id": "44"}, 3))
        assert '"ok":true' in client.receive(), "it may stay"


@pytest.mark.timed  # it measures time
@own_only
def test_a_polling_client_that_registers_nothing_gets_the_reason(start_relay):
    relay = start_relay(register_timeout=1)
    sid = json.loads(relay.request("GET", SIO + "polling")[2][1:])["sid"]
    path = f"{SIO}polling&sid={sid}"
    relay.request("POST", path, b"40")
    packets = []
    while "1" not in packets:
        packets += relay.request("GET", path)[2].decode().split("\x1e")
    assert "register_timeout" in packets[-2]


# Events of one client.


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Return a relay whose clients may send ten events a second, and 100 at once."""
    relay = Relay(tmp_path_factory.mktemp("strict") / "log", server="own", max_event_rate=10)
    yield relay
    assert relay.stop() == 0
    assert "Traceback" not in relay.log.read_text(), relay.log.read_text()


def test_events_beyond_the_rate_are_refused_and_the_client_stays(strict):
    client = enter(strict, "events")
    frames = [masked(ws.TEXT, event("register", {"id": "events"}, n).encode()) for n in range(2, 152)]
    began = time.monotonic()
    client.sock.sendall(b"".join(frames))
    answers = [client.receive() for _ in range(150)]
    taken = sum('"ok":true' in answer for answer in answers)
    assert 98 <= taken <= 101 + 10 * (time.monotonic() - began)
    assert all('"ok":true' in answer for answer in answers[:98])
    refused = [answer for answer in answers if '"ok":true' not in answer]
    assert all('"too_many_events"' in answer and "max_event_rate" in answer for answer in refused)
    assert strict.push("events", "x")["connections"] == 1
    assert '"x"' in client.receive()
    client.close()


def test_a_client_that_asks_for_no_answers_is_warned_once_a_second(strict):
    client = enter(strict, "quiet")
    began = time.monotonic()
    client.sock.sendall(masked(ws.TEXT, event("unregister", {"id": "other"}).encode()) * 250 + masked(ws.PING, b"end"))
    frames = []
    while (frame := client.frame()) != (ws.PONG, b"end"):
        frames.append(frame[1])
    warnings = sum(b'"too_many_events"' in payload for payload in frames)
    assert 1 <= warnings == len(frames) <= 1 + (time.monotonic() - began)
    client.close()


@pytest.mark.parametrize(
    "flood",
    [
        masked(ws.TEXT, event("ack", {"id": "42", "position": "x"}, 7).encode()),
        masked(ws.TEXT, b"40/nowhere,"),
        masked(ws.TEXT, b"45" + b"9" * 10 + b"-[]"),
        masked(ws.BINARY, b"xx"),
        masked(ws.TEXT, b"3"),
        masked(ws.TEXT, b"6"),
        masked(ws.PING, b""),
        masked(ws.PONG, b"x"),
        masked(ws.CONTINUATION, b"", final=False),
    ],
    ids=["events", "connects", "attachments", "binary", "pongs", "noops", "ping frames", "pong frames", "fragments"],
)
def test_a_flood_closes_its_client_and_no_other(strict, flood):
    other, client = enter(strict, "bystander"), enter(strict)
    with contextlib.suppress(OSError):
        client.sock.sendall(masked(ws.TEXT, b"4", final=False) if flood[0] == ws.CONTINUATION else b"")
        for _ in range(30):
            client.sock.sendall(flood * 500)
    assert closed_with(client) in (ws.POLICY_VIOLATION, None)
    strict.push("bystander", "x")
    assert '"x"' in other.receive()
    other.close()
    client.close()


def test_empty_packets_in_polling_payloads_are_a_flood_too(strict):
    sid = json.loads(strict.request("GET", SIO + "polling")[2][1:])["sid"]
    path = f"{SIO}polling&sid={sid}"
    payload = b"\x1e".join([b"6"] * 900)
    assert strict.request("POST", path, payload)[0] == 200
    wait_for(lambda: strict.request("POST", path, payload)[0] == 400, "the end of the session")


def test_of_a_closed_polling_client_only_a_few_last_packets_are_kept(strict):
    first = [strict.push("parting", "x" * 90_000)["id"] for _ in range(4)][0]
    sid = json.loads(strict.request("GET", SIO + "polling")[2][1:])["sid"]
    path = f"{SIO}polling&sid={sid}"
    register = json.dumps(["register", {"id": "parting", "since": first.partition(":")[0] + ":0"}])
    strict.request("POST", path, f"40\x1e42{register}".encode())
    flood = b"\x1e".join([b"6"] * 900)
    last = wait_for(lambda: (answer := strict.request("POST", path, flood)[2]) != b"ok" and answer, "its end")
    assert last == b"1", "a client whose slot is free has nothing waiting for it"


# Slowness.


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """Return a relay with short timeouts."""
    log = tmp_path_factory.mktemp("hasty") / "log"
    relay = Relay(log, server="own", body_timeout=0.5, header_timeout=0.5, ping_interval=0.2)
    yield relay
    assert relay.stop() == 0


@pytest.mark.timed  # it measures time
@pytest.mark.parametrize(
    "begun", [masked(ws.TEXT, b"42[" + b"x" * 90), masked(ws.TEXT, b"4", final=False)], ids=["frame", "fragments"]
)
def test_a_client_whose_message_is_not_complete_in_time_is_closed(hasty, begun):
    client = enter(hasty, "slow")
    rest = begun[20:]
    client.sock.sendall(begun[:20] if rest else begun)
    stop = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            for byte in rest or masked(ws.PONG, b"") * 20:
                client.sock.sendall(bytes([byte]))
                if stop.wait(0.02):
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    assert closed_with(client) == ws.POLICY_VIOLATION, "before it is complete"
    assert time.monotonic() - began > 0.3
    stop.set()
    thread.join(DEADLINE)
    client.close()


@pytest.mark.timed  # it measures time
def test_a_client_whose_messages_all_arrive_in_halves_stays(hasty):
    client = enter(hasty, "halves")
    end, number = time.monotonic() + 1.0, 1
    half = b""
    while time.monotonic() < end:  # twice as long as one message may take
        number += 1
        message = masked(ws.TEXT, event("register", {"id": "halves"}, number).encode())
        client.sock.sendall(half + message[:20])
        half = message[20:]
        time.sleep(0.05)
    client.sock.sendall(half)
    got = ""
    while not got.startswith(f"43{number}"):
        got = client.receive()
        assert got is not None
    client.close()


def test_an_idle_connection_and_an_incomplete_header_time_out(hasty):
    with socket.create_connection(("127.0.0.1", hasty.port), DEADLINE) as idle:
        assert read_all(idle) == b""
    with socket.create_connection(("127.0.0.1", hasty.port), DEADLINE) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
        assert b" 408 " in read_all(half)


@own_only
def test_other_clients_do_not_wait_for_the_end_of_many_unfinished_requests(start_relay, many_files):
    relay = start_relay(header_timeout=300, body_timeout=300)
    listener = enter(relay, "patient")
    head = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for half in (b"GET / HTTP/1.1\r\nHo", head + b"destination=", b""):
            for _ in range(150):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port), DEADLINE))
                sock.sendall(half)
        for _ in range(150):
            sock = stack.enter_context(open_websocket(relay.port, "half"))
            sock.sendall(frame("42" + "x" * 100)[:50])
        for n in range(50):
            push_and_hear(relay, listener, "patient", n)
    listener.close()


def push_and_hear(relay, listener, destination, number):
    """Push over a new connection, and wait until the listener has it. Return the seconds that the relay works."""
    before = work_of(relay)
    relay.push(destination, f"number {number}")
    assert f"number {number}" in listener.receive()
    return work_of(relay) - before


# Connections.


@own_only
def test_while_thousands_connect_the_connected_clients_are_served(start_relay):
    relay = start_relay(max_connections=800)
    listener = enter(relay, "calm")
    command = [sys.executable, str(TESTS / "storm.py"), str(relay.port), "2000"]
    storm = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    took = []
    while storm.poll() is None:
        took.append(push_and_hear(relay, listener, "calm", len(took)))
    seen = json.loads(storm.stdout.read())
    storm.stdout.close()
    assert seen == {"let in": 799, "refused": 201}
    # Seconds of work: the storm makes the relay work for more than half a second. Not the longest: a busy machine may
    # have held up this test.
    assert statistics.median(took) < 0.15
    listener.close()


class Crowded:
    """A relay with few file descriptors, and connections that use them."""

    def __init__(self, relay):
        self.relay = relay
        self.held = []

    def fill(self, enough, path="/health/live"):
        """Open connections that send nothing, until the answer to one more request is `enough`."""
        for _ in range(250):
            answer = self.ask(path)
            if enough(answer):
                return answer
            self.held.append(socket.create_connection(("127.0.0.1", self.relay.port), DEADLINE))
        raise AssertionError("it accepts any number of connections")

    def ask(self, path="/health/live", body=None):
        """Return the head and the body of the answer to a request on a new connection that could be kept."""
        method, length = ("POST", len(body)) if body else ("GET", 0)
        form = "Content-Type: application/x-www-form-urlencoded\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{form}Content-Length: {length}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.relay.port), DEADLINE) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(head.encode() + (body or b""))
            got = b""
            with contextlib.suppress(ConnectionError):
                while b"}" not in got and (piece := sock.recv(65536)):
                    got += piece
            return got.decode()

    def drop(self):
        for sock in self.held:
            sock.close()
        self.held.clear()


@own_only
def test_when_file_descriptors_run_out_pushes_and_connected_clients_continue(start_relay):
    relay = start_relay(program="tests/few_files.py", header_timeout=30)
    assert "the limit on open files is 200" in relay.log.read_text()
    client, crowded = enter(relay, "42"), Crowded(relay)
    kept = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)

    def push_kept(data):
        kept.request(
            "POST", "/push", f"destination=42&data={data}", {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert json.loads(kept.getresponse().read())["connections"] == 1
        assert data in client.receive()

    push_kept("one")
    crowded.fill(lambda answer: "Connection: close" in answer)
    for _ in range(60):  # one after another: they do not add up
        assert "200 OK" in crowded.ask("/push", b"destination=42&data=new")
        assert '"new"' in client.receive()
    answer = crowded.fill(lambda answer: " 503 " in answer, SIO + "polling")
    assert "Retry-After: " in answer and "ulimit -n" in answer and '"code":4' in answer
    answer = crowded.fill(lambda answer: " 503 " in answer)
    assert "Retry-After: " in answer and "ulimit -n" in answer and '"too_many_connections"' in answer
    push_kept("two")
    assert fds(relay) < 200
    # Connections beyond the usual ones must send their request at once, so a push soon finds room again.
    wait_for(lambda: "200 OK" in crowded.ask("/push", b"destination=43&data=later"), "room")
    crowded.drop()
    wait_for(lambda: "Connection: close" not in crowded.ask(), "room for all")
    push_kept("three")
    assert relay.log.read_text().count("is refused") == 1
    client.close()
