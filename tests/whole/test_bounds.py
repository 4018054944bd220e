"""Each limit is exact: that much is accepted, one more is refused, and a refusal uses nothing up.

A row of BOUNDS names a limit and a function `attempt(small, size)` that tries to use `size` of it, on the relay `small`
or on a part of one. The function returns whether that was accepted, and asserts that a refusal is the documented one. A
new limit needs a row; the last tests find a setting without one.
"""

import json
import re
import socket
import threading
import time
import urllib.parse
from types import SimpleNamespace

import pytest
from clients import WebSocketClient, event, masked, read_all
from conftest import DEADLINE, own_only

from pushrelay import names as naming
from pushrelay.access import tokens
from pushrelay.access.member import Member
from pushrelay.access.tokens import Tokens, sign
from pushrelay.engine import limits
from pushrelay.engine import packet as message
from pushrelay.engine.limits import ClientLimiter, LimitReached
from pushrelay.errors import NotYet, Refused
from pushrelay.presence.members import Members
from pushrelay.push import fields as pushes
from pushrelay.push.waiters import Waiters
from pushrelay.rooms import deferred
from pushrelay.rooms.deferred import DeferredPackets
from pushrelay.server import websocket as ws
from pushrelay.server.quota import Quota
from pushrelay.server.websocket import WebSocket
from pushrelay.settings import TABLE, Settings
from pushrelay.store.events import SENDS, Bounds, LocalEvents, QueueFull, new_event
from pushrelay.store.group_commit import GroupCommit
from pushrelay.store.memory import MemoryStore
from pushrelay.store.store import HistoryLimits
from pushrelay.token_bucket import TokenBucket

SIO = "/socket.io/?EIO=4&transport="
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
LIMITS = {
    "max_body": 40_000,
    "max_header": 2000,
    "max_message": 3000,
    "max_ids": 5,
    "max_id_length": 20,
    "history_size": 7,
}
BOUNDS = {}


@pytest.fixture(scope="module")
def small(relay_with):
    return relay_with(**LIMITS)


def bound(name, limit):
    """Enter a function into the table, under the name of a setting or of the thing it tries."""

    def enter(attempt):
        BOUNDS[f"{name}: {attempt.__name__}"] = (limit, attempt)
        return attempt

    return enter


def is_taken(answer, status, error):
    """Return whether (status, headers, body) is a 200; assert that it is this refusal if not."""
    got, _, body = answer
    assert got == 200 or (got, json.loads(body)["error"]) == (status, error), body
    return got == 200


def register(small, ids):
    """Register these ids on a new connection, and return the error, or None."""
    client = WebSocketClient(small.port, SIO + "websocket")
    try:
        for packet in ("40", event("register", {"id": ids}, 1)):
            client.send(packet)
        answer = ""
        while not answer.startswith("431"):
            answer = client.receive()
        return json.loads(answer[3:])[0].get("error")
    finally:
        client.close()


# Bodies, headers and messages.


@bound("max_body", LIMITS["max_body"])
def a_form(small, size):
    body = b"destination=a&data=".ljust(size, b"x")
    return is_taken(small.request("POST", "/push", body, FORM), 413, "too_large")


@bound("max_body", LIMITS["max_body"])
def json_text(small, size):
    body = b'{"destination":"a","data":"' + b"x" * (size - 29) + b'"}'
    assert len(body) == size
    return is_taken(small.request("POST", "/push", body, JSON), 413, "too_large")


@bound("max_body", LIMITS["max_body"])
def a_body_in_chunks(small, size):
    body = b"destination=a&data=".ljust(size, b"x")
    chunks = b"%x\r\n%b\r\n1\r\n%b\r\n0\r\n\r\n" % (size - 1, body[:-1], body[-1:])
    head = b"POST /push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port), DEADLINE) as sock:
        sock.sendall(head + chunks)
        answer = read_all(sock)
    assert answer[9:12] in (b"200", b"413"), answer
    return answer[9:12] == b"200"


@bound("max_header", LIMITS["max_header"])
def a_header(small, size):
    """The size is that of the target, and for each line that of its name and value and four more."""
    fields = [b"Host: localhost", b"Connection: close", b"X-Long: "]
    counted = len(b"/health/live") + sum(len(field) + 2 for field in fields)
    fields[-1] += b"x" * (size - counted)
    with socket.create_connection(("127.0.0.1", small.port), DEADLINE) as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n")
        answer = read_all(sock)
    assert answer[9:12] in (b"200", b"431"), answer
    return answer[9:12] == b"200"


def long_register(size):
    """Return a packet of this many bytes that registers something."""
    packet = event("register", {"id": "a", "pad": ""}, 1)
    packet = packet.replace('"pad": ""', '"pad": "' + "x" * (size - len(packet)) + '"')
    assert len(packet) == size
    return packet.encode()


def is_answered(client, frames):
    """Return whether the relay answers the message in these frames; assert that it closes with 1009 if not."""
    client.send("40")
    client.sock.sendall(frames)
    try:
        while True:
            opcode, payload = client.frame()
            if payload.startswith(b"431["):
                return True
            if opcode in (None, ws.CLOSE):
                assert int.from_bytes(payload[:2], "big") == ws.TOO_BIG
                return False
    finally:
        client.close()


@bound("max_message", LIMITS["max_message"])
def one_frame(small, size):
    return is_answered(WebSocketClient(small.port, SIO + "websocket"), masked(ws.TEXT, long_register(size)))


@bound("max_message", LIMITS["max_message"])
def fragments(small, size):
    packet = long_register(size)
    frames = masked(ws.TEXT, packet[:1000], final=False) + masked(ws.CONTINUATION, packet[1000:])
    return is_answered(WebSocketClient(small.port, SIO + "websocket"), frames)


@bound("max_message", LIMITS["max_message"])
def a_polling_payload(small, size):
    sid = json.loads(small.request("GET", SIO + "polling")[2][1:])["sid"]
    path = f"{SIO}polling&sid={sid}"
    small.request("POST", path, b"40")
    status, _, body = small.request("POST", path, long_register(size))
    assert status == 200 or status == 413, body
    return status == 200


@bound("packets of a payload", message.MAX_PACKETS)
def noops(small, size):
    try:
        return len(message.split_payload(b"\x1e".join([b"6"] * size))) == size
    except ValueError:
        return False


@bound("payload of a control frame", 125)
def a_ping(small, size):
    connection = WebSocket(1000)
    connection.receive(masked(ws.PING, b"x" * size))
    assert connection.close_code in (None, ws.PROTOCOL_ERROR)
    return connection.take_output() == ws.frame(ws.PONG, b"x" * size) and connection.close_code is None


# Names, lists and batches.


@bound("max_id_length", LIMITS["max_id_length"])
def a_destination_of_two_bytes_a_character(small, size):
    form = urllib.parse.urlencode({"destination": "ü" * size, "data": ""}).encode()
    return is_taken(small.request("POST", "/push", form, FORM), 400, "invalid_destination")


@bound("max_id_length", LIMITS["max_id_length"])
def an_id(small, size):
    error = register(small, ["x" * size])
    assert error in (None, "invalid_destination")
    return error is None


@bound("max_ids", LIMITS["max_ids"])
def a_list(small, size):
    error = register(small, [f"id-{n}" for n in range(size)])
    assert error in (None, "too_many_ids", "too_many_destinations")
    return error is None


@bound("max_ids", LIMITS["max_ids"])
def one_after_the_other(small, size):
    client = WebSocketClient(small.port, SIO + "websocket")
    client.send("40")
    errors = set()
    for number in range(size):
        client.send(event("register", {"id": f"id-{number}"}, number))
        while not (answer := client.receive()).startswith("43"):
            pass
        errors.add(json.loads(answer[answer.index("[") :])[0].get("error"))
    client.close()
    assert errors <= {None, "too_many_ids"}
    return errors == {None}


@bound("destinations of a push", naming.MAX_PUSHES)
def destinations(small, size):
    body = json.dumps({"destination": [f"{n}" for n in range(size)], "data": 1}).encode()
    return is_taken(small.request("POST", "/push", body, JSON), 400, "too_many_destinations")


@bound("publications of a batch", naming.MAX_PUSHES)
def a_batch(small, size):
    body = b"[" + b",".join([b'{"destination":"a"}'] * size) + b"]"  # without data, each is refused on its own
    return is_taken(small.request("POST", "/push", body, JSON), 400, "too_many_pushes")


@bound("publications of a batch", naming.MAX_PUSHES)
def lines(small, size):
    body = b'{"destination":"a"}\n' * size
    return is_taken(
        small.request("POST", "/push", body, {"Content-Type": "application/x-ndjson"}), 400, "too_many_pushes"
    )


def field(small, error, **fields):
    form = urllib.parse.urlencode({"destination": "a", "data": "", **fields}).encode()
    return is_taken(small.request("POST", "/push", form, FORM), 400, error)


@bound("an event's name", naming.MAX_EVENT_LENGTH)
def an_event(small, size):
    return field(small, "invalid_event", event="e" * size)


@bound("an idempotency key", pushes.MAX_KEY_LENGTH)
def a_key(small, size):
    return field(small, "invalid_id", id=f"{time.monotonic_ns()}".ljust(size, "k"))


@bound("an idempotency key", pushes.MAX_KEY_LENGTH)
def a_key_in_the_header(small, size):
    headers = {**FORM, "Idempotency-Key": f"{time.monotonic_ns()}".ljust(size, "k")}
    return is_taken(small.request("POST", "/push", b"destination=a&data=", headers), 400, "invalid_id")


@bound("seconds that a push waits", int(pushes.MAX_WAIT))
def seconds(small, size):
    try:
        return pushes.push_of({"destination": "a", "data": "", "wait": size}, Settings()).wait == size
    except Refused as refused:
        assert refused.error == "invalid_wait"
        return False


@bound("a token", tokens.MAX_TOKEN)
def a_token(small, size):
    secret = "0123456789" * 4
    for names in range(size):  # three bytes become four characters, so the right length takes a try or two
        token = sign({"ids": ["a"], "pad": "x" * (size * 3 // 4 - 120 + names)}, secret)
        if len(token) >= size:
            break
    try:
        return bool(Tokens(Settings(secret=(secret,))).read(token.ljust(size, "=")).ids)
    except Refused as refused:
        return "bytes at most" not in refused.message


# History and clients.


@bound("history_size", LIMITS["history_size"])
def publications(small, size):
    destination = f"kept-{time.monotonic_ns()}"
    for number in range(size):
        small.push(destination, number)
    kept = json.loads(small.request("GET", f"/history?destination={destination}")[2])["publications"]
    assert [each["data"] for each in kept] == [str(number) for number in range(size)][-LIMITS["history_size"] :]
    return len(kept) == size


@bound("max_connections", 3)
def clients(small, size):
    return all_enter(ClientLimiter(3, limits.ANY_NUMBER), range(size), "too_many_connections")


@bound("max_per_address", 3)
def clients_of_an_address(small, size):
    admitted = ClientLimiter(10, 3, address_of=lambda environ: environ)
    assert admitted.acquire("another address") and admitted.acquire(None) is None
    return all_enter(admitted, ["an address"] * size, "too_many_of_address")


def all_enter(admitted, environs, error):
    try:
        for environ in environs:
            admitted.acquire(environ)
    except LimitReached as full:
        assert full.error == error
        return False
    return True


@bound("max_per_address", 3)
def places(small, size):
    taken = Quota(10, 3)
    return {taken.acquire("an address") for _ in range(size)} == {""}


@bound("max_waiting", 3)
def waiting_pushes(small, size):
    waiters = Waiters(3)
    try:
        entered = [waiters.enter(["a"]) for _ in range(size)]
    except Refused as refused:
        assert (refused.status, refused.error) == (503, "too_many_waiting")
        return False
    for waiter in entered:
        waiter.finish()
    return len(waiters) == 0


@bound("max_webhooks", 3)
def messages_that_wait_for_php(small, size):
    store = MemoryStore(HistoryLimits())
    events = LocalEvents(store.events, GroupCommit(store.transact))
    events.bounds = Bounds(3)
    try:
        events.put([new_event("send", "a", "{}") for _ in range(size)])
    except QueueFull:
        return False
    return events.depth(SENDS).events == size


@bound("max_members", 7)
def users(small, size):
    members = Members(SimpleNamespace(), threading.RLock(), lambda: 0.0, 7, lambda *_: None, lambda seconds: None)
    try:
        admitted = [members.admit(f"sid-{n}", ["room"], Member(f"user-{n}")) for n in range(size)]
    except Refused as refused:
        assert refused.error == "too_many_members"
        return False
    for each in admitted:
        each.withdraw()
    return not list(members.destinations())


@bound("packets that wait for PHP", deferred.MOST_PACKETS)
def packets(small, size):
    def handle(client, packet):
        raise NotYet(lambda callback: None)

    held = DeferredPackets(handle, lambda *_: None)
    return all(held.receive("a client", "x", 100) for _ in range(size))


@bound("bytes of packets that wait for PHP", deferred.MOST_MESSAGES * 100)
def bytes_of_packets(small, size):
    def handle(client, packet):
        raise NotYet(lambda callback: None)

    held = DeferredPackets(handle, lambda *_: None)
    return held.receive("a client", "x" * 99, 100) and held.receive("a client", "x" * (size - 99), 100)


@bound("push_rate", 50)
def pushes_of_a_key(small, size):
    bucket = TokenBucket(50, 50)
    return all(bucket.take(1, now=100.0) == 0.0 for _ in range(size))


@bound("max_event_rate", 100)
def events_at_once(small, size):
    bucket = TokenBucket(10, 100)
    return all(bucket.take(1, now=100.0) == 0.0 for _ in range(size))


@own_only
@pytest.mark.parametrize("name", BOUNDS)
def test_exactly_the_limit_is_accepted_and_one_more_is_refused(small, name):
    limit, attempt = BOUNDS[name]
    assert attempt(small, limit), f"{limit} is allowed"
    assert not attempt(small, limit + 1), f"{limit + 1} is too much"
    assert attempt(small, limit), "a refusal uses nothing up"


# Their tests are elsewhere: bytes are counted afterwards, and requests to the site need a PHP that is slow.
ELSEWHERE = {"max_outbox", "max_outboxes", "history_bytes", "auth_concurrency", "max_requests", "max_answer"}


def test_every_setting_that_is_a_limit_has_a_row_in_the_table():
    limits = {each.name for each in TABLE if re.match(r"max_|history_(size|bytes)|push_rate|auth_conc", each.name)}
    assert limits - {name.partition(":")[0] for name in BOUNDS} == ELSEWHERE


NUMBERS = {}
for row in TABLE:
    try:
        row.parse("x")
    except ValueError as error:
        if found := re.search(r"from (\S+) to (\S+)", str(error)):
            NUMBERS[row.name] = (row, float(found[1]), float(found[2]))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_setting_accepts_its_smallest_and_largest_value_and_nothing_beyond(name):
    row, low, high = NUMBERS[name]
    step = 1 if isinstance(row.default, int) else 0.001
    assert row.parse(f"{low:.15g}") == low and row.parse(f"{high:.15g}") == high
    for beyond in (low - step, high + step):
        with pytest.raises(ValueError, match="from"):
            row.parse(f"{beyond:.15g}")
