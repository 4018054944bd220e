"""Whatever clients and publishers do, and however they leave, the relay keeps nothing of it.

Each scenario runs against a relay that counts the entries of all its tables: see leaves.py. Each run has destinations
of its own, so that the check finds whatever is kept by name.
"""

import json
import socket
import struct
import time

import pytest
from clients import UPGRADE, WebSocketClient, event, frame, read_all
from conftest import DEADLINE, own_only, wait_for
from leaves import census, counts_of, leaves_nothing

from pushrelay.access.tokens import sign
from pushrelay.push.waiters import Waiters
from pushrelay.server.quota import Quota

SIO = "/socket.io/?EIO=4&transport="
SECRET = "0123456789" * 4
FOREVER = 4_000_000_000
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


@pytest.fixture(scope="module")
def counted(relay_with):
    """Return a relay with short pings and time limits, so that their timers end within the test.

    They are long enough for clients on a busy machine, which answer no ping.
    """
    limits = {"max_ids": 5, "max_waiting": 5, "max_message": 5000, "max_body": 100_000, "max_outbox": 65536}
    times = {
        "ping_interval": 0.5,
        "ping_timeout": 2,
        "register_timeout": 2,
        "body_timeout": 1,
        "header_timeout": 1,
    }
    return relay_with(program="tests/counted_relay.py", secret=SECRET, **limits, **times)


def token(name, **claims):
    return sign({"ids": [f"{name}*"], "push": [f"{name}*"], **claims}, SECRET)


def enter(relay, name, *ids, **claims):
    """Return a WebSocket client that has registered these ids."""
    client = WebSocketClient(relay.port, SIO + "websocket")
    client.send("40")
    if ids:
        client.send(event("register", {"id": list(ids), "token": token(name, **claims)}, 1))
        while not (answer := client.receive()).startswith("431"):
            pass
        assert '"ok":true' in answer, answer
    return client


def reset(sock):
    """Reset a connection, without a close frame."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def cut(client):
    client.file.close()
    reset(client.sock)


def send(relay, data):
    sock = socket.create_connection(("127.0.0.1", relay.port), DEADLINE)
    sock.sendall(data)
    return sock


def open_polling(relay):
    return f"{SIO}polling&sid=" + json.loads(relay.request("GET", SIO + "polling")[2][1:])["sid"]


# Clients.


@scenario
def clients_that_say_goodbye(relay, name):
    client = enter(relay, name, f"{name}-a", f"{name}-b")
    client.send(event("unregister", {"id": f"{name}-a"}, 2))
    assert relay.push(f"{name}-b", "x")["connections"] == 1
    client.send("41")
    client.send("1")
    client.close()


@scenario
def clients_that_are_cut(relay, name):
    for ids in ((), (f"{name}-a",)):
        cut(enter(relay, name, *ids))


@scenario
def clients_that_never_connect_to_the_namespace(relay, name):
    cut(WebSocketClient(relay.port, SIO + "websocket"))
    relay.request("GET", SIO + "polling")


@scenario
def clients_that_are_silent(relay, name):
    client = enter(relay, name, f"{name}-a")
    while client.frame()[0] is not None:  # pings are not answered
        pass
    client.close()


@scenario
def polling_clients(relay, name):
    path = open_polling(relay)
    register = event("register", {"id": f"{name}-a", "token": token(name)}, 1)
    assert relay.request("POST", path, f"40\x1e{register}".encode())[0] == 200
    relay.request("GET", path)
    relay.request("POST", path, b"1")


@scenario
def parked_polls_that_are_cut(relay, name):
    path = open_polling(relay)
    relay.request("POST", path, b"40")
    relay.request("GET", path)
    reset(send(relay, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))


@scenario
def upgrades(relay, name):
    for last in ("5", None):
        path = open_polling(relay)
        relay.request("POST", path, b"40")
        client = WebSocketClient(relay.port, path.replace("polling", "websocket"))
        client.send("2probe")
        assert client.receive() == "3probe"
        if last:
            client.send(last)
        cut(client)


@scenario
def handshakes_and_frames_that_break_off(relay, name):
    reset(send(relay, UPGRADE[:80]))
    reset(send(relay, UPGRADE))
    client = enter(relay, name, f"{name}-a")
    client.sock.sendall(frame(event("register", {"id": "x" * 1000}))[:500])
    cut(client)
    client = enter(relay, name, f"{name}-a")
    client.sock.sendall(frame("42", final=False) + frame(b"x" * 1000, opcode=0, final=False))
    cut(client)


@scenario
def clients_that_do_not_read(relay, name):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", relay.port))
    with sock:
        register = frame("40") + frame(event("register", {"id": f"{name}-a", "token": token(name)}, 1))
        sock.sendall(UPGRADE + register)
        wait_for(lambda: relay.push(f"{name}-a", "x" * 90_000)["connections"], "its registration")
        wait_for(lambda: not relay.push(f"{name}-a", "x" * 90_000)["connections"], "its end")


@scenario
def events_that_are_refused(relay, name):
    client = enter(relay, name, f"{name}-a")
    fine = token(name)
    for number, message in enumerate(
        (
            {"id": f"{name}-b"},
            {"id": f"{name}-b", "token": "x.y.z"},
            {"id": f"{name}-b", "token": token(name, exp=1)},
            {"id": [f"{name}-{n}" for n in range(9)], "token": fine},
            {"id": f"{name}-b", "token": fine, "since": "nonsense"},
            {"id": "another's", "token": fine},
        ),
        10,
    ):
        client.send(event("register", message, number))
    client.send("42[]")
    client.send(event("nonsense", None, 30))
    client.send(event("push", {"destination": "another's", "data": 1}, 31))
    while not (answer := client.receive()).startswith("4331"):
        assert answer is not None
    cut(client)


@scenario
def messages_that_are_too_large(relay, name):
    client = enter(relay, name, f"{name}-a")
    client.send("42" + "x" * 10_000)
    assert client.receive() is None
    client.close()
    path = open_polling(relay)
    assert relay.request("POST", path, b"4" + b"x" * 10_000)[0] == 413


@scenario
def tokens_that_expire(relay, name):
    client = enter(relay, name, f"{name}-a", exp=time.time() + 2)
    lasting = enter(relay, name, f"{name}-b", exp=FOREVER)
    while (said := client.receive()) is not None and "token_expired" not in said:
        client.send("3")
    cut(client)
    cut(lasting)


# Publishers.


@scenario
def newcomers_that_recover(relay, name):
    position = relay.push(f"{name}-a", 0)["id"]
    for number in range(5):
        relay.push(f"{name}-a", number)
    for since in (position, "acked", position.partition(":")[0] + ":99"):
        client = enter(relay, name, f"{name}-b")
        client.send(event("register", {"id": f"{name}-a", "token": token(name), "since": since}, 2))
        cut(client)


@scenario
def pushes_with_keys(relay, name):
    for _ in range(2):
        relay.push(f"{name}-a", "x", id=name)
    relay.push_json(destination=f"{name}-a", data="y", id=name)


@scenario
def pushes_that_wait(relay, name):
    client = enter(relay, name, f"{name}-a", f"{name}-b")
    body = f"destination={name}-a&data=x&wait=9".encode()
    push = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with send(relay, push) as acknowledged:
        while "push" not in (packet := client.receive()):
            pass
        position = json.loads(packet[2:])[1]["id"]
        client.send(event("ack", {"id": f"{name}-a", "position": position}, 3))
        assert b'"acked":1' in acknowledged.recv(4096)
    assert relay.push(f"{name}-b", "x", wait=0.1)["acked"] == 0
    reset(send(relay, push))
    too_many = [send(relay, push) for _ in range(7)]
    for sock in too_many:
        reset(sock)
    cut(client)


@scenario
def requests_that_are_refused(relay, name):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for method, path, body, headers in (
        ("POST", "/push", b"data=x", form),
        ("POST", "/push", b"x" * 200_000, form),
        ("POST", "/push", b"destination=a&data=x", {**form, "Via": "1.1 proxy"}),
        ("POST", "/push", b"destination=a&data=x", {**form, "X-Relay-Key": "wrong"}),
        ("POST", "/push", b"[", {"Content-Type": "application/json"}),
        ("GET", f"/{name}", None, {}),
        ("PUT", "/push", b"x", {}),
        ("GET", SIO + "polling", None, {"Origin": "https://evil.example"}),
        ("GET", SIO + "polling&sid=unknown", None, {}),
        ("GET", f"/history?destination={name}&since=x:1", None, {}),
    ):
        relay.request(method, path, body, headers)


@scenario
def requests_that_break_off(relay, name):
    head = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
    for data in (
        b"",
        b"GET / HT",
        head,
        head.replace(b"300000", b"900") + b"destination=",
        b"\0",
        b"GET / HTTP/9\r\n\r\n",
    ):
        reset(send(relay, data))
    with send(relay, b"POST /push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx") as late:
        assert b" 408 " in read_all(late)


@own_only
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_left_behind_by(counted, name):
    run = SCENARIOS[name]
    run(counted, "warm-up")  # fills the caches, which stay full
    wait_for(lambda: not counts_of(counted).get("Engine.sockets"), "the end of its clients")
    with leaves_nothing(count=lambda: counts_of(counted)):
        for number in range(2):
            run(counted, f"run-{time.monotonic_ns()}-{number}")


# The check itself.


def test_leftovers_are_found_and_named():
    waiters, places = Waiters(10), Quota(10, 10)
    with leaves_nothing(waiters, places):
        waiters.enter(["a"]).finish()
        places.acquire("x")
        places.release("x")
    assert census(waiters, places) == {}
    with pytest.raises(AssertionError, match="Waiters._by_destination"), leaves_nothing(waiters, deadline=0.1):
        waiters.enter(["a"])
    with pytest.raises(AssertionError, match="Quota.used"), leaves_nothing(places, deadline=0.1):
        places.acquire("x")
    with pytest.raises(AssertionError, match="files"), leaves_nothing(deadline=0.1):
        kept = socket.socket()
    kept.close()


@own_only
def test_clients_are_counted_while_they_are_connected(counted):
    before = counts_of(counted)
    with send(counted, UPGRADE):
        wait_for(lambda: counts_of(counted).get("Engine.sockets", 0) == before.get("Engine.sockets", 0) + 1)
