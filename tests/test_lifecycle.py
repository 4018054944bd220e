"""Graceful shutdown: requests in progress are finished, every client learns when to reconnect, and nothing accepted is
lost.
"""

import contextlib
import http.client
import json
import re
import signal
import socket
import threading
import time

import pytest
from clients import WebSocketClient, open_websocket, read_all
from conftest import DEADLINE, own_only, wait_for
from crowd import crowd, run, until
from measures import seconds_to_end

from pushrelay.lifecycle import FINISH_SECONDS, Draining, spread_for

SIO = "/socket.io/?EIO=4&transport="
DRAIN = re.compile(r'42\["relay_drain",\{"reconnect_in_ms":(\d+)\}\]')
PUSH_HEAD = (
    "POST /push HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n"
)


def begin_push(relay, body):
    """Send half of a push; return its socket and the other half."""
    sock = socket.create_connection(("127.0.0.1", relay.port), DEADLINE)
    sock.sendall(PUSH_HEAD.format(len(body)).encode() + body[:5])
    return sock, body[5:]


def going_down(relay):
    """Send SIGTERM, and wait until the relay logs its shutdown."""
    relay.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "going down" in relay.log.read_text(), "the word")


class Poller:
    """A raw client that polls on one kept connection."""

    def __init__(self, relay):
        self.connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
        self.path = SIO + "polling"
        self.path += "&sid=" + json.loads(self.ask("GET")[1:])["sid"]
        self.ask("POST", "40")
        assert self.ask("GET").startswith("40")

    def ask(self, method, body=None):
        self.connection.request(method, self.path, body)
        return self.connection.getresponse().read().decode()

    def listen(self, packets):
        """Poll until the server closes the session."""
        while "1" not in packets:
            packets += [packet for packet in self.ask("GET").split("\x1e") if packet not in ("2", "6")]


def connected_websocket(relay):
    client = WebSocketClient(relay.port, SIO + "websocket")
    client.receive()
    client.send("40")
    assert client.receive().startswith("40")
    return client


def test_a_relay_without_clients_ends_at_once_and_logs_it(start_relay):
    relay = start_relay()
    assert relay.stop() == 0
    assert seconds_to_end(relay) < FINISH_SECONDS
    said = relay.log.read_text()
    assert said.count("going down") == said.count("down: 0 clients were sent away") == 1


def test_a_second_signal_ends_it_at_once(start_relay):
    relay = start_relay()
    sock, _ = begin_push(relay, b"destination=42&data=never")
    with sock:
        wait_for(lambda: relay.request("GET", "/health/ready")[0] == 200, "a turn for the request")
        going_down(relay)
        relay.process.send_signal(signal.SIGINT)
        assert relay.process.wait(DEADLINE) == -signal.SIGINT, "not 0, as when it has gone down in order"


def test_every_client_learns_when_to_reconnect_and_then_its_transport_ends(start_relay, server):
    relay = start_relay(drain_spread=7)
    websockets = [connected_websocket(relay) for _ in range(8)]
    polls = [[] for _ in range(3 if server == "own" else 0)]  # Werkzeug's polls may connect too late
    threads = [threading.Thread(target=Poller(relay).listen, args=(packets,)) for packets in polls]
    for thread in threads:
        thread.start()
    going_down(relay)
    told = [[client.receive(), client.receive()] for client in websockets]
    for thread in threads:
        thread.join(DEADLINE)
    assert relay.process.wait(DEADLINE) == 0
    delays = [int(DRAIN.fullmatch(first)[1]) for first, _ in (*told, *polls)]
    assert all(0 <= delay <= 1011 for delay in delays) and len(set(delays)) > 1, delays  # 7000 with 7,000 clients
    assert all(rest in (None, "1") for _, rest in told), "no DISCONNECT of Socket.IO: clients would not come back"
    assert all(rest == "1" for _, rest in polls)


def test_few_clients_reconnect_soon_and_many_are_spread_up_to_the_setting():
    assert [spread_for(clients, 5) for clients in (0, 500, 4000, 20_000)] == [1, 1.5, 5, 5]
    assert spread_for(10, 0.5) == 0.5 and spread_for(10_000, 0) == 0


class Nobody:
    """Clients and waiters of a relay that has none; counts the calls."""

    def __init__(self):
        self.drained = 0

    def shut(self):
        """Accept no new clients."""

    def finish(self):
        """Answer all waiting pushes."""

    def drain(self, spread, seconds):
        self.drained += 1
        return 0


def test_a_relay_ends_once_and_later_callers_wait_for_the_end():
    nobody, closed, may_close = Nobody(), [], threading.Event()
    draining = Draining(nobody, nobody, 0.0)

    def close():
        may_close.wait(DEADLINE)
        closed.append("store")

    threads = [threading.Thread(target=draining.end, args=(close,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[1].join(0.1)
    assert draining.reason == "draining" and all(thread.is_alive() for thread in threads) and not closed
    may_close.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert closed == ["store"] and nobody.drained == 1


@own_only
def test_a_client_between_two_polls_learns_it_with_its_next_poll(start_relay):
    relay = start_relay()
    poller, packets = Poller(relay), []
    going_down(relay)
    poller.listen(packets)
    assert DRAIN.fullmatch(packets[0]) and packets[1] == "1"
    assert relay.process.wait(DEADLINE) == 0


@own_only
def test_requests_in_progress_are_finished_and_kept_connections_get_a_last_response(start_relay):
    relay = start_relay()
    kept = [http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE) for _ in range(4)]
    for connection in kept:
        connection.request("GET", "/health/live")
        connection.getresponse().read()
    sock, rest = begin_push(relay, b"destination=42&data=begun")
    going_down(relay)
    with socket.socket() as other:  # the next relay can listen already
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for(lambda: bind(other, relay.port), "a free port")
    asked = [
        ("GET", "/health/ready", None, 503, b'"draining"'),
        ("GET", "/health/live", None, 200, b"true"),
        ("POST", "/push", "destination=42&data=kept", 200, b'"connections":0'),
        ("GET", SIO + "polling", None, 503, b'"draining"'),
    ]
    for connection, (method, path, body, status, said) in zip(kept, asked, strict=True):
        connection.request(method, path, body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (status, "close"), path
        assert said in answer.read()
    with sock:
        sock.sendall(rest)
        assert b" 200 OK" in read_all(sock)
    assert relay.process.wait(DEADLINE) == 0
    relay.start()
    assert [each["data"] for each in history(relay)] == ["kept", "begun"]


def bind(sock, port):
    with contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        sock.listen()
        return True


def history(relay, destination="42"):
    return json.loads(relay.request("GET", f"/history?destination={destination}")[2])["publications"]


def test_an_incomplete_request_is_rejected_when_the_server_ends(serve):
    client = serve(lambda environ, start_response: [start_response("200 OK", []), b""][1:])
    sock = client.connect()
    sock.sendall(PUSH_HEAD.format(99).encode() + b"destination")
    idle = client.connect()
    wait_for(lambda: sum(each.is_owed() for each in client.server._conversations()) == 1, "the request")
    began = time.monotonic()
    client.server.drain(0.2)
    client.server.finish(1)
    assert time.monotonic() - began < DEADLINE
    answer = read_all(sock)
    assert b" 503 " in answer and b'"draining"' in answer and b"\r\nRetry-After: " in answer
    assert read_all(idle) == b""


def test_pushes_during_the_shutdown_are_stored_or_not_answered_with_200(start_relay):
    relay = start_relay()
    taken, stop = [], threading.Event()

    def push(name):
        number = 0
        connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while not stop.is_set():
                number += 1
                body = f"destination=42&data={name}-{number}"
                connection.request("POST", "/push", body, {"Content-Type": "application/x-www-form-urlencoded"})
                answer = connection.getresponse()
                if answer.status == 200:
                    taken.append(json.loads(answer.read())["id"])

    threads = [threading.Thread(target=push, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(taken) > 20, "some pushes")
    assert relay.stop() == 0
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    relay.start()
    kept = history(relay)
    assert len(set(taken)) == len(taken)
    last = max(int(each.split(":")[1]) for each in taken)
    assert int(kept[-1]["id"].split(":")[1]) >= last, "a push was answered and is not there"


@own_only
def test_a_client_that_does_not_read_does_not_delay_the_shutdown(start_relay):
    relay = start_relay()
    with open_websocket(relay.port, "deaf", buffer=4096):
        for _ in range(10):
            relay.push("deaf", "x" * 80_000)
        assert relay.stop() == 0
    assert seconds_to_end(relay) < FINISH_SECONDS


@own_only
@pytest.mark.timed  # a client that polls has a second to ask again
def test_a_crowd_of_clients_is_notified_completely_within_seconds(start_relay, many_files):
    relay = start_relay()

    async def scene():
        async with crowd(relay.port, 500, 50) as members:
            delays = []
            for member in members:
                member.take = lambda packet: delays.append(DRAIN.fullmatch(packet))
            relay.process.send_signal(signal.SIGTERM)
            await until(lambda: relay.process.poll() is not None, "the end", 2 * DEADLINE)
            await until(lambda: len(delays) >= 550, "all delays", DEADLINE)
            return delays

    delays = run(scene())
    assert relay.process.returncode == 0 and seconds_to_end(relay) < FINISH_SECONDS
    assert sum(match is not None for match in delays) == 550
    assert "down: 550 clients" in relay.log.read_text()


WATCH_SOCKETS = """
window.opened = [];
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    opened.push(performance.now());
    this.addEventListener("message", ({data}) => {
      const drain = /^42\\["relay_drain",(.*)\\]$/.exec(data);
      if (drain) window.drained = [performance.now(), JSON.parse(drain[1]).reconnect_in_ms];
    });
  }
};
"""


@own_only
def test_relay_js_reconnects_at_its_own_time_and_loses_nothing(start_relay, page):
    relay = start_relay(drain_spread=1.5)
    page.open(relay.url, before=WATCH_SOCKETS).connect()
    relay.push("42", "before")
    assert page.pushed(1) == ["before"]
    relay.stop()
    relay.start()
    relay.push("42", "while away")
    page.until("seen.some(([what, status]) => status === 'recovered')")
    relay.push("42", "after")
    assert page.pushed(3) == ["before", "while away", "after"]
    (said, delay), opened = page.run("drained"), page.run("opened")
    assert opened[1] - said >= delay - 5, "not before its time"
    assert page.seen("error") == []


def test_the_official_client_reconnects(start_relay, official):
    relay = start_relay()
    client = official(relay.url, "websocket", "42")
    relay.stop()
    relay.start()
    client.wait("registered", 2)
    relay.push("42", "after")
    told, pushed = client.wait("event", 2)
    assert told["event"] == "relay_drain" and pushed["message"]["data"] == "after"
