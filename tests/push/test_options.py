"""The options of a push (ttl, id, wait, except), batches, and the history, as programs see them."""

import http.client
import json
import signal
import socket
import time

import pytest
from conftest import DEADLINE, wait_for
from posting import get, in_thread, later, post, pushed, wires

own_server_only = pytest.mark.parametrize("server", ["own"], indirect=True)


@pytest.fixture
def wire():
    with wires() as connect:
        yield connect


# ttl.


def test_a_push_with_ttl_0_is_delivered_and_not_kept(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": "ttl"})
    before = relay.push("ttl", "before")["id"]
    gone = relay.push("ttl", "gone", ttl=0)["id"]
    after = relay.push("ttl", "after")["id"]
    assert [each["data"] for each in client.events(3)] == ["before", "gone", "after"]
    assert gone == later(before) and after == later(gone)
    events, answer = wire(relay.port).call("register", {"id": "ttl", "since": before})
    assert [each["data"] for each in events] == ["after"]
    assert answer["ids"]["ttl"] == {"position": after, "recovered": True, "replayed": 1}


def test_a_push_with_a_short_ttl_leaves_history_when_that_has_passed(relay, wire):
    before = relay.push("short", "before")["id"]
    relay.push("short", "gone", ttl="2")

    def kept():
        answer = get(relay, f"/history?destination=short&since={before}")[1]
        return [each["data"] for each in answer["publications"]]

    assert kept() == ["gone"]
    wait_for(lambda: kept() == [], "the end of its ttl")
    events, answer = wire(relay.port).call("register", {"id": "short", "since": before})
    assert (events, answer["ids"]["short"]["recovered"]) == ([], True)


@pytest.mark.parametrize("ttl", ["-1", "soon", "", "inf", "nan", "1e400"])
def test_an_invalid_ttl_is_refused(relay, ttl):
    assert post(relay, {"destination": "a", "data": 1, "ttl": ttl})[1]["error"] == "invalid_ttl"


# Idempotency.


@pytest.mark.parametrize("how", ["field", "header", "quoted header"])
def test_a_repeated_push_is_answered_the_same_and_delivered_once(relay, wire, how):
    name = f"repeat {how}"
    client = wire(relay.port)
    client.call("register", {"id": name})
    fields, headers = {"destination": name, "data": "once"}, {}
    if how == "field":
        fields["id"] = "key-1"
    else:
        headers["Idempotency_Key"] = '"key-1"' if how == "quoted header" else "key-1"
    first = post(relay, fields, **headers)
    assert first[1]["connections"] == 1
    assert post(relay, fields, **headers) == first
    other = relay.push(name, "other", id="key-2")
    assert other["id"] == later(first[1]["id"])
    assert [each["data"] for each in client.events(2)] == ["once", "other"]


def test_an_idempotency_key_belongs_to_one_destination(relay):
    first = post(relay, {"destination": ["key-a", "key-b"], "data": 1, "id": "k"})[1]
    again = post(relay, {"destination": ["key-b", "key-c"], "data": 1, "id": "k"})[1]
    assert again[0] == first[1]
    assert again[1]["destination"] == "key-c"
    assert len(get(relay, "/history?destination=key-b")[1]["publications"]) == 1


def test_the_field_goes_before_the_header(relay):
    first = post(relay, {"destination": "both", "data": 1, "id": "field"}, Idempotency_Key="header")[1]
    assert relay.push("both", 1, id="field") == first
    assert relay.push("both", 1, id="header")["id"] == later(first["id"])


@own_server_only
def test_a_repeat_after_a_restart_is_answered_as_the_first(start_relay, wire):
    relay = start_relay()
    wire(relay.port).call("register", {"id": "again"})
    first = relay.push("again", "x", id="k")
    assert first["connections"] == 1
    relay.kill()
    relay.start()
    assert relay.push("again", "x", id="k") == first
    assert len(get(relay, "/history?destination=again")[1]["publications"]) == 1


def test_concurrent_repeats_are_one_push(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": "concurrent"})
    answers = []
    for number in range(10):
        waiting = [in_thread(lambda n=number: relay.push("concurrent", n, id=f"k{n}")) for _ in range(8)]
        answers.append([each() for each in waiting])
    assert all(each == same[0] for same in answers for each in same)
    assert [each["id"] for each in client.events(10)] == [same[0]["id"] for same in answers]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", [], {}, True, 1.5])
def test_an_invalid_idempotency_key_is_refused(relay, key):
    assert post(relay, {"destination": "a", "data": 1, "id": key})[1]["error"] == "invalid_id"


# Waiting.


def test_a_push_that_waits_is_answered_when_a_client_acknowledges(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": "wait"})
    answer = in_thread(relay.request, "POST", "/push", b"destination=wait&data=x&wait=30")  # longer than DEADLINE
    position = client.events(1)[0]["id"]
    assert client.call("ack", {"id": "wait", "position": position})[1] == {"ok": True}
    status, _, body = answer()
    assert status == 200
    assert json.loads(body) == {"destination": "wait", "id": position, "connections": 1, "acked": 1}


def test_a_push_that_nobody_acknowledges_is_answered_when_its_time_is_up(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": "time-up"})
    earlier = relay.push("time-up", "earlier")["id"]
    client.emit("ack", {"id": "time-up", "position": earlier})
    start = time.monotonic()
    answer = relay.push("time-up", "x", wait="0.4")
    assert time.monotonic() - start > 0.39
    assert answer == {"destination": "time-up", "id": later(earlier), "connections": 1, "acked": 0}


def test_a_push_to_several_waits_for_each(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": ["several-a", "several-b"]})
    answer = in_thread(post, relay, {"destination": ["several-a", "several-b"], "data": 1, "wait": 15})
    for number, event in enumerate(client.events(2)):
        client.emit("ack", {"id": event["destination"], "position": event["id"]}, number + 2)
    assert [each["acked"] for each in answer()[1]] == [1, 1]


def test_a_repeat_of_what_was_acknowledged_does_not_wait(relay, wire):
    client = wire(relay.port)
    client.call("register", {"id": "wait-again"})
    position = relay.push("wait-again", "x", id="k")["id"]
    client.call("ack", {"id": "wait-again", "position": position})
    assert relay.push("wait-again", "x", id="k", wait=30)["acked"] == 1  # within DEADLINE, so it did not wait


@pytest.mark.parametrize("wait", ["31", "-1", "yes"])
def test_an_invalid_wait_is_refused(relay, wait):
    assert post(relay, {"destination": "a", "data": 1, "wait": wait})[1]["error"] == "invalid_wait"


def open_push(relay, destination, wait):
    """Send a push that waits, and return the socket without reading."""
    body = f"destination={destination}&data=x&wait={wait}".encode()
    sock = socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE)
    sock.sendall(b"POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return sock


@own_server_only
def test_200_pushes_that_wait_hold_no_thread(start_relay, wire):
    relay = start_relay(threads=4)
    client = wire(relay.port)
    client.call("register", {"id": "held"})
    waiting = [open_push(relay, "held", 30) for _ in range(200)]
    last = client.events(200)[-1]["id"]
    for _ in range(20):
        relay.push("other", "x")  # each within DEADLINE: no thread waits for the end of these
    client.call("ack", {"id": "held", "position": last})
    for sock in waiting:
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200") and b'"acked":1' in answer
        sock.close()


@own_server_only
def test_waiting_pushes_beyond_the_limit_are_refused_until_one_has_ended(start_relay, wire):
    relay = start_relay(max_waiting=3)
    waiting = [open_push(relay, "full", 25) for _ in range(3)]

    def kept():
        return get(relay, "/history?destination=full")[1]["publications"]

    wait_for(lambda: len(kept()) == 3, "three waiting pushes")
    status, answer = post(relay, {"destination": "full", "data": 1, "wait": 1})
    assert (status, answer["error"]) == (503, "too_many_waiting")
    assert "max_waiting" in answer["message"] and len(kept()) == 3
    relay.push("full", "without wait")
    waiting.pop().close()
    wait_for(lambda: post(relay, {"destination": "full", "data": 1, "wait": 0.01})[0] == 200, "the place of who left")
    for sock in waiting:
        sock.close()


@own_server_only
def test_pushes_that_wait_while_the_relay_is_stopped_are_answered(start_relay):
    relay = start_relay()
    waiting = [open_push(relay, "stopped", 25) for _ in range(3)]
    wait_for(lambda: len(get(relay, "/history?destination=stopped")[1]["publications"]) == 3, "three waiting pushes")
    relay.stop()
    for sock in waiting:
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200") and b'"acked":0' in answer
        sock.close()


def test_pushes_with_a_short_wait_are_all_answered(relay):
    for number in range(100):
        assert relay.push("hardly", number, wait="0.0001")["acked"] == 0


# except.


def test_the_socket_named_in_except_does_not_get_it_live(relay, wire):
    one, other = wire(relay.port), wire(relay.port)
    for client in (one, other):
        client.call("register", {"id": "except"})
    answer = relay.push("except", "x", **{"except": one.sid})
    assert answer["connections"] == 1
    relay.push("except", "y")
    assert [each["data"] for each in other.events(2)] == ["x", "y"]
    assert [each["data"] for each in one.events(1)] == ["y"]


# Batches.


def as_lines(items):
    return "\n".join(map(json.dumps, items)) + "\n\n"


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_a_batch_is_answered_item_by_item_and_a_bad_one_fails_alone(relay, wire, kind):
    name = kind.rpartition("/")[2]
    client = wire(relay.port)
    client.call("register", {"id": [name, "too"]})
    items = [
        {"destination": name, "data": 0},
        {"data": "nobody's"},
        {"destination": [name, "too"], "data": [1, 2], "event": "order"},
        "no object",
        {"destination": name, "data": 3, "wait": 1},
        {"destination": name, "data": 4, "ttl": 0},
        {"destination": name, "data": 5, "unknown": 1},
    ]
    status, answers = post(relay, as_lines(items) if "nd" in kind else items, kind)
    assert status == 200 and len(answers) == len(items)
    assert answers[0] == {"destination": name, "id": answers[0]["id"], "connections": 1}
    assert answers[1]["error"] == "missing_destination" and answers[1]["message"]
    assert [each["destination"] for each in answers[2]] == [name, "too"]
    assert answers[3]["error"] == "invalid_json"
    assert answers[4]["error"] == "invalid_wait"
    assert answers[5]["id"] == later(answers[0]["id"], 2)
    assert answers[6]["error"] == "unknown_field"
    assert [each["id"] for each in client.events(4) if each["destination"] == name] == [
        later(answers[0]["id"], n) for n in range(3)
    ]


def test_a_line_that_is_not_json_fails_alone(relay):
    _, answers = post(
        relay, '{"destination":"line","data":1}\n{oops\n\n{"destination":"line","data":2}', "application/x-ndjson"
    )
    assert [each.get("error") for each in answers] == [None, "invalid_json", None]


def test_a_batch_as_a_whole_is_bounded(relay):
    item = {"destination": "bound", "data": 1}
    assert post(relay, [item] * 1001)[1]["error"] == "too_many_pushes"
    assert post(relay, [{"destination": ["a", "b"], "data": 1}] * 501)[1]["error"] == "too_many_pushes"
    assert get(relay, "/history?destination=bound")[1]["publications"] == []
    assert post(relay, []) == (200, [])
    status, answers = post(relay, [item] * 1000)
    assert status == 200 and [each["id"] for each in answers] == [later(answers[0]["id"], n) for n in range(1000)]


@own_server_only
@pytest.mark.parametrize(
    ("durability", "size"),
    [("process", 20), ("process", 500), ("power", 20)],
    ids=["in the journal", "too large for the journal", "power"],
)
def test_a_batch_is_stored_wholly_or_not_at_all_whenever_the_relay_is_killed(
    start_relay, open_at, tmp_path, durability, size
):
    items = [{"destination": f"whole-{n}", "data": "x" * size} for n in range(900)]
    for moment, stored in (("while it is stored", 0), ("before the commit", 0), ("after the commit", 1)):
        (tmp_path / "die").write_text(moment)
        file = tmp_path / "whole.db"
        relay = start_relay(program="tests/dying_relay.py", broker=f"sqlite:{file}", durability=durability)
        relay.push("whole-0", "first")
        with pytest.raises((OSError, http.client.HTTPException)):
            post(relay, items)
        assert relay.process.wait(DEADLINE) == -signal.SIGKILL
        broker = open_at(file, durability=durability)
        counts = [len(broker.history(f"whole-{n}").publications) for n in (1, 450, 899)]
        assert counts == [stored] * 3, moment
        broker.close()


def test_a_repeated_batch_is_answered_the_same(relay):
    items = [{"destination": "batch-key", "data": n} for n in range(3)] + [
        {"destination": "batch-key", "data": 3, "id": "own"}
    ]
    first = post(relay, items, Idempotency_Key="b1")
    assert post(relay, items, Idempotency_Key="b1") == first
    assert len({each["id"] for each in first[1]}) == 4
    assert relay.push("batch-key", 1, id="b1#1") == first[1][1]
    assert relay.push("batch-key", 3, id="own") == first[1][3]
    assert len(get(relay, "/history?destination=batch-key")[1]["publications"]) == 4


def test_the_root_address_accepts_no_batch(relay):
    status, answer = post(relay, [{"destination": "a", "data": 1}], path="/")
    assert (status, answer["error"]) == (400, "invalid_json")


# GET /history and /health/ready.


def test_history_returns_what_is_kept_and_the_current_position(relay):
    ids = pushed(relay, "history", 3)
    relay.push_json(destination="history", data={"a": 1}, event="order")
    status, answer = get(relay, "/history?destination=history")
    assert status == 200
    assert (answer["destination"], answer["position"], answer["recovered"]) == ("history", later(ids[-1]), True)
    assert [each["id"] for each in answer["publications"]] == [*ids, later(ids[-1])]
    last = answer["publications"][-1]
    assert (last["event"], last["data"]) == ("order", {"a": 1})
    assert abs(last["created"] - time.time()) < 60 and last["expires"] > last["created"]
    answer = get(relay, f"/history?destination=history&since={ids[1]}")[1]
    assert [each["id"] for each in answer["publications"]] == [ids[2], later(ids[2])]
    assert get(relay, f"/history?destination=history&since={later(ids[-1], 9)}")[1]["recovered"] is False
    assert get(relay, "/history?destination=history&since=garbage")[1]["recovered"] is False
    assert get(relay, "/history?destination=never")[1]["publications"] == []


def test_history_is_refused_to_callers_that_may_not_push(relay):
    assert get(relay, "/history")[1]["error"] == "missing_destination"
    assert get(relay, "/history?destination=" + "x" * 300)[1]["error"] == "invalid_destination"
    status, answer = get(relay, "/history?destination=a", X_Forwarded_For="192.0.2.1")
    assert (status, answer["error"]) == (401, "missing_key")
    status, answer = get(relay, "/history?destination=a", Origin="https://example.com")
    assert (status, answer["error"]) == (403, "origin_not_allowed")


def test_a_relay_that_takes_pushes_is_ready(relay):
    assert get(relay, "/health/ready") == (200, {"ready": True})
