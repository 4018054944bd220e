"""No client delays or starves another, whatever it sends within its limits.

These tests are about the relay's own server. The same at full size: python tests/crowds.py all 60
"""

import contextlib
import http.client
import json
import os
import socket
import threading
import time

import crowds
import engineio
import pytest
from clients import PATH as SIO
from clients import UPGRADE, enter, event, frame, masked, open_websocket
from conftest import DEADLINE, wait_for
from crowds import quantile
from gate import Gate, push_often
from measures import work_of

from pushrelay.engine.engine import Engine
from pushrelay.server.poller import Poller

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# Seconds of the relay's work that may go before another's push: it is 3 to 5 ms, and 25 to 65 ms without turns.
LIMIT = 0.012


@pytest.fixture(scope="session")
def server():
    """Run on the relay's own server: Werkzeug's has a thread for each connection."""
    return "own"


def waits(relay, during, ask):
    """Call ask() again and again while `during()` runs. Return the work that the relay does in nine of ten of them.

    That is how much of the others' work goes first, in seconds, and the same on a busy machine.
    """
    worker, work = threading.Thread(target=during), []
    worker.start()
    while worker.is_alive() or not work:
        before = work_of(relay)
        ask()
        work.append(work_of(relay) - before)
        time.sleep(0.01)
    worker.join()
    return quantile(work, 0.9)


def push_waits(relay, during):
    """Return the same for pushes of another publisher."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)) as connection:

        def push():
            connection.request("POST", "/push", "destination=other&data=x", FORM)
            assert connection.getresponse().read()

        return waits(relay, during, push)


def in_background(work):
    """Run a function in a process of lower priority, beside the publisher that measures, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            os.nice(5)
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def send_and_read(socks, data, enough):
    """Send `data` on all sockets at once, and read each until `enough(bytes)` or its end."""

    def talk(sock):
        sender = threading.Thread(target=lambda: sock.sendall(data), daemon=True)
        sender.start()
        got = bytearray()
        with contextlib.suppress(OSError):
            while not enough(got) and (piece := sock.recv(262144)):
                got += piece

    threads = [threading.Thread(target=talk, args=(sock,), daemon=True) for sock in socks]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)


REGISTER = event("register", {"id": "42"}, 7)


def websockets(relay):
    return [open_websocket(relay.port, "42") for _ in range(60)]


def plain(relay):
    return [socket.create_connection(("127.0.0.1", relay.port), DEADLINE) for _ in range(60)]


def pipelined(path, count):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * count


CROWDS = {
    "events": (websockets, frame(REGISTER) * 400, lambda got: got.count(b"437[") >= 400),
    "requests": (plain, pipelined("/health/live", 200), lambda got: got.count(b" 200 OK") >= 200),
    "handshakes": (plain, pipelined(SIO + "polling", 120), lambda got: got.count(b" 200 OK") >= 120),
}


@pytest.mark.parametrize("kind", CROWDS)
def test_a_push_does_not_wait_for_events_that_a_crowd_sends_at_once(start_relay, kind):
    relay = start_relay()
    made, data, enough = CROWDS[kind]
    socks = made(relay)
    assert push_waits(relay, lambda: in_background(lambda: send_and_read(socks, data, enough))) < LIMIT
    for sock in socks:
        sock.close()


def test_a_push_does_not_wait_for_the_packets_of_many_long_posts(start_relay):
    relay = start_relay()
    body = "\x1e".join(["40", *[REGISTER] * 900]).encode()

    def post_all():
        def post(sid):
            connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)
            connection.request("POST", f"{SIO}polling&sid={sid}", body)
            connection.getresponse().read()

        threads = [threading.Thread(target=post, args=(sid,)) for sid in sids]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    sids = [json.loads(relay.request("GET", SIO + "polling")[2][1:])["sid"] for _ in range(25)]
    assert push_waits(relay, lambda: in_background(post_all)) < LIMIT


def test_a_client_does_not_wait_for_the_crowd_of_another_address(start_relay):
    relay = start_relay(trusted_proxies="127.0.0.1")

    def visitor(address):
        sock = socket.create_connection(("127.0.0.1", relay.port), 60)
        sock.sendall(UPGRADE.replace(b"\r\n\r\n", f"\r\nX-Forwarded-For: {address}\r\n\r\n".encode()) + frame("40"))
        got = b""
        while b'40{"sid"' not in got:
            got += sock.recv(65536)
        return sock

    crowd, other = [visitor("192.0.2.1") for _ in range(40)], visitor("192.0.2.2")

    def flood():
        in_background(lambda: send_and_read(crowd, frame(REGISTER) * 900, lambda got: got.count(b"437[") >= 900))

    def register():
        other.sendall(frame(event("register", {"id": "43"}, 8)))
        got = b""
        while b"438[" not in got:
            got += other.recv(65536)

    assert waits(relay, flood, register) < LIMIT
    for sock in (*crowd, other):
        sock.close()


# Turns.


@pytest.fixture
def slow_engine(serve):
    """Provide an Engine with four threads whose handler takes 1 ms for each message, once a gate is open, and records
    it.
    """
    eio = Engine(ping_interval=25, ping_timeout=20)
    handled, gate, waiting = [], threading.Event(), threading.Event()

    def handle(sid, message):
        waiting.set()
        gate.wait(DEADLINE)
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass
        handled.append(message)

    eio.on("message", handle)
    client = serve(engineio.WSGIApp(eio, engineio_path="socket.io"), threads=4)
    client.handled, client.gate, client.waiting = handled, gate, waiting
    return client


def test_a_client_with_one_event_has_its_turn_between_clients_with_many(slow_engine):
    client, handled = slow_engine, slow_engine.handled
    many = [client.websocket(SIO + "websocket") for _ in range(8)]
    one = client.websocket(SIO + "websocket")
    for each in (*many, one):
        each.receive()
    for each in many:
        each.sock.sendall(masked(1, b"4many") * 100)
    assert client.waiting.wait(DEADLINE)
    one.send("4one")
    client.gate.set()
    wait_for(lambda: len(handled) == 801, "all of them")
    assert handled.index("one") < 400


def test_events_sent_before_a_client_closed_are_handled_completely_and_in_order(slow_engine):
    client, handled = slow_engine, slow_engine.handled
    client.gate.set()
    sender = client.websocket(SIO + "websocket")
    sender.receive()
    sender.sock.sendall(b"".join(masked(1, b"4%d" % n) for n in range(300)) + masked(8, b"\x03\xe8"))
    assert sender.receive() is None, "the answer to its close comes last"
    assert handled == [str(n) for n in range(300)]


def test_pipelined_requests_are_answered_in_order_over_many_turns_and_a_bad_one_last(serve):
    def app(environ, start_response):
        end = time.monotonic() + 0.0005
        while time.monotonic() < end:
            pass
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    requests = b"".join(f"GET /n{n}. HTTP/1.1\r\nHost: x\r\n\r\n".encode() for n in range(300))
    got = serve(app).raw(requests + b"nonsense\r\n\r\n")
    places = [got.index(f"/n{n}.".encode()) for n in range(300)]
    assert places == sorted(places) and got.count(b" 200 OK") == 300
    assert got.rindex(b" 400 ") > places[-1]


def test_an_invalid_packet_after_a_turn_closes_the_session_of_a_post(slow_engine):
    client, handled = slow_engine, slow_engine.handled
    client.gate.set()
    sid = json.loads(client.request("GET", SIO + "polling")[2][1:])["sid"]
    status = client.request("POST", f"{SIO}polling&sid={sid}", "\x1e".join([*["4x"] * 100, "nonsense"]))[0]
    assert status == 400 and len(handled) == 100
    assert client.request("GET", f"{SIO}polling&sid={sid}")[0] == 400


def test_the_watchdog_survives_its_own_failures(monkeypatch):
    poller, failures = Poller(threads=2), []
    sleep = time.sleep

    def failing(seconds):
        if threading.current_thread().name == "poller-watchdog" and len(failures) < 3:
            failures.append(seconds)
            raise OSError(22, "Invalid argument")
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", failing)
    poller.start()
    try:
        wait_for(lambda: len(failures) == 3)
        stuck, done = threading.Event(), threading.Event()
        poller.call_later(0, stuck.wait, DEADLINE)
        poller.call_later(0, done.set)
        assert done.wait(DEADLINE / 2), "nobody took over from a handler that blocks"
        stuck.set()
    finally:
        poller.close()


# The cost of events.


def test_a_register_costs_what_it_replays_and_waits_when_that_is_too_much(start_relay):
    relay = start_relay()
    first = relay.push("42", 0)["id"]
    since = f"{first.rpartition(':')[0]}:0"
    items = [{"destination": f"full-{n}", "data": n} for n in range(10) for _ in range(100)]
    assert relay.request("POST", "/push", json.dumps(items).encode(), {"Content-Type": "application/json"})[0] == 200
    client, other = enter(relay), enter(relay)
    ids = [f"full-{n}" for n in range(10)]
    began = time.monotonic()
    for n in range(14):  # each replays 1,000 publications, or 100 events; 1,000 are allowed at once
        client.send(event("register", {"id": ids, "since": dict.fromkeys(ids, since)}, n))
        client.send(event("unregister", {"id": ids}, 100 + n))
    other.send(event("register", {"id": "42", "since": since}, 1))
    assert '"replayed":1' in [other.receive() for _ in range(2)][1]
    answers = {}
    while len(answers) < 28:
        if (packet := client.receive()).startswith("43"):
            number, _, answer = packet[2:].partition("[")
            answers[int(number)] = answer
    assert all(answers[n].count('"replayed":100') == 10 and '"ok":true' in answers[100 + n] for n in range(14))
    assert time.monotonic() - began > 2
    for each in (client, other):
        each.close()


def test_a_push_from_a_page_counts_each_destination(start_relay):
    relay = start_relay(socket_push="yes")
    client = enter(relay)
    for n in range(4):
        client.send(event("push", {"destination": [f"k{n}" for n in range(900)], "data": "x"}, n))
    answers = [client.receive() for _ in range(4)]
    assert ["too_many_events" in each for each in answers] == [False, False, True, True]
    client.close()


# The thread that visitors cannot take.


THREADS = 6


def test_events_that_block_leave_a_thread_for_pushes(start_relay):
    relay = start_relay(program="tests/busy_relay.py", threads=THREADS)
    gate, clients = Gate(relay), [enter(relay) for _ in range(10)]
    for each in clients:
        each.send(event("block", 2, 1))
    gate.wait(THREADS - 1)
    push_often(relay)
    assert gate.held() == THREADS - 1
    gate.open()
    for each in clients:
        while '"blocked"' not in each.receive():
            pass


def test_clients_whose_end_blocks_leave_a_thread_for_pushes(start_relay):
    relay = start_relay(program="tests/busy_relay.py", threads=THREADS)
    gate, clients = Gate(relay), [enter(relay, "held") for _ in range(40)]
    for each in clients:
        each.close()
    gate.wait(THREADS - 1)
    push_often(relay)
    assert gate.held() == THREADS - 1
    gate.open()
    gate.wait(40)


# Everything at once, for a few seconds; python tests/crowds.py all 60 runs longer.


@pytest.mark.timed  # it takes the processors for long
def test_crowds_at_their_limits_delay_no_push_and_miss_nothing(tmp_path):
    seen = crowds.run(["allowance", "registering", "slow_readers", "departed"], 3, tmp_path, nice=5)
    assert seen["p90_of_work_ms"] < LIMIT * 1000 and not seen["refused"] and not seen["traceback"], seen
    assert seen["mib_peak"] < crowds.MOST_MIB, seen
    for name, told in seen["crowds"].items():
        assert (
            told.get("lost", 0) == 0
            and told.get("clients") == sum(told.get(fate, 0) for fate in ("complete", "told", "lost"))
            or "visitors" in told
        ), (name, told)
    assert len(seen["crowds"]) == 4, seen
