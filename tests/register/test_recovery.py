"""Recovery as programs see it: replay, acknowledgements, waiting pushes, idempotency, batches and history."""

import http.client
import json
import select
import signal
import socket
import threading
import time

import pytest
from clients import Wire
from conftest import DEADLINE, wait_for

own_server_only = pytest.mark.parametrize("server", ["own"], indirect=True)


@pytest.fixture
def wire():
    """Return a function that connects raw clients, which end with the test: wire(relay.port)."""
    wires = []

    def connect(port, **options):
        wires.append(Wire(port, **options))
        return wires[-1]

    yield connect
    for each in wires:
        each.close()


def post(relay, value, kind="application/json", path="/push", **headers):
    """POST JSON, or text as it is. Return the status and the decoded answer."""
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    status, _, answer = relay.request("POST", path, body, {"Content-Type": kind, **headers})
    return status, json.loads(answer)


def get(relay, path, **headers):
    status, _, answer = relay.request("GET", path, None, {n.replace("_", "-"): text for n, text in headers.items()})
    return status, json.loads(answer)


def pushed(relay, destination, count, **fields):
    """Push 0, 1, 2 and so on. Return their ids."""
    return [relay.push(destination, number, **fields)["id"] for number in range(count)]


def epoch_of(position):
    return position.rpartition(":")[0]


def later(position, by=1):
    epoch, _, offset = position.rpartition(":")
    return f"{epoch}:{int(offset) + by}"


def in_thread(function, *args):
    """Run a function in its own thread. Return a function that waits for the result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)), daemon=True)
    thread.start()

    def result():
        thread.join(DEADLINE)
        assert results, "it did not return"
        return results[0]

    return result


# Registering with since.


def test_missed_publications_come_in_order_before_the_acknowledgement(relay, wire):
    ids = pushed(relay, "missed", 6)
    client = wire(relay.port)
    events, answer = client.call("register", {"id": "missed", "since": ids[1]})
    assert [each["id"] for each in events] == ids[2:]
    assert [each["data"] for each in events] == ["2", "3", "4", "5"]
    assert answer == {"ok": True, "ids": {"missed": {"position": ids[-1], "recovered": True, "replayed": 4}}}
    live = relay.push("missed", "live")
    assert client.events(1) == [{"data": "live", "id": live["id"], "destination": "missed"}]


def test_a_replayed_publication_is_the_same_as_a_live_one(relay, wire):
    client = wire(relay.port)
    _, answer = client.call("register", {"id": "same"})
    data = {"a": [1, 2.5, None, True, "ü 👍 \u2028"], "": {}}
    relay.push_json(destination="same", data=data, event="order")
    client.emit("unregister", {"id": "same"}, 2)
    live = client.packet()
    again = wire(relay.port)
    again.emit("register", {"id": "same", "since": answer["ids"]["same"]["position"]})
    assert again.packet() == live


def test_each_id_is_recovered_from_its_own_position(relay, wire):
    first, second, third = (pushed(relay, name, 4) for name in ("each-a", "each-b", "each-c"))
    since = {"each-a": first[0], "each-b": "nonsense", "each-d": "x:1"}
    events, answer = wire(relay.port).call("register", {"id": ["each-a", "each-b", "each-c"], "since": since})
    assert [each["id"] for each in events] == first[1:]
    assert answer["ids"] == {
        "each-a": {"position": first[-1], "recovered": True, "replayed": 3},
        "each-b": {"position": second[-1], "recovered": False, "replayed": 0},
        "each-c": {"position": third[-1], "recovered": False, "replayed": 0},
    }


def test_a_client_that_missed_nothing_is_recovered_with_no_replay(relay, wire):
    position = pushed(relay, "nothing", 3)[-1]
    events, answer = wire(relay.port).call("register", {"id": "nothing", "since": position})
    assert (events, answer["ids"]["nothing"]) == ([], {"position": position, "recovered": True, "replayed": 0})


@pytest.mark.parametrize("kind", ["garbage", "empty", "another epoch", "the future", "no digits", "negative", "huge"])
def test_if_a_position_cannot_be_recovered_the_answer_has_the_current_position(relay, wire, kind):
    position = pushed(relay, "cannot", 3)[-1]
    since = {
        "garbage": "gar\u0000bage 👍",
        "empty": "",
        "another epoch": "0123456789:1",
        "the future": later(position),
        "no digits": epoch_of(position) + ":",
        "negative": epoch_of(position) + ":-1",
        "huge": epoch_of(position) + ":" + "9" * 4000,
    }[kind]
    events, answer = wire(relay.port).call("register", {"id": "cannot", "since": since})
    assert events == []
    assert answer["ids"]["cannot"] == {"position": position, "recovered": False, "replayed": 0}


def test_if_history_no_longer_reaches_back_the_answer_reports_it_and_nothing_is_replayed(start_relay, wire):
    relay = start_relay(history_size=3)
    ids = pushed(relay, "trimmed", 6)
    events, answer = wire(relay.port).call("register", {"id": "trimmed", "since": ids[1]})
    assert (events, answer["ids"]["trimmed"]) == ([], {"position": ids[-1], "recovered": False, "replayed": 0})
    events, answer = wire(relay.port).call("register", {"id": "trimmed", "since": ids[2]})
    assert [each["id"] for each in events] == ids[3:]
    assert answer["ids"]["trimmed"]["recovered"] is True


@pytest.mark.parametrize(
    ("ids", "since"), [(["a", "b"], "x:1"), ("a", 5), ("a", ["x:1"]), ("a", {"a": 5}), ("a", True), ("a", {"a": {}})]
)
def test_an_invalid_since_is_refused(relay, wire, ids, since):
    client = wire(relay.port)
    events, answer = client.call("register", {"id": ids, "since": since})
    assert (events, answer["ok"], answer["error"]) == ([], False, "invalid_since")
    assert relay.push("a", "x")["connections"] == 0


def test_registering_twice_does_not_replay_twice(relay, wire):
    ids = pushed(relay, "again", 3)
    client = wire(relay.port)
    assert len(client.call("register", {"id": "again", "since": ids[0]})[0]) == 2
    events, answer = client.call("register", {"id": "again", "since": ids[0]})
    assert (events, answer["ids"]["again"]["replayed"]) == ([], 0)
    assert relay.push("again", "x")["connections"] == 1
    assert [each["data"] for each in client.events(1)] == ["x"]


def test_a_registered_client_that_asks_for_more_than_it_received_gets_all_of_it(relay, wire):
    ids = pushed(relay, "more", 4)
    client = wire(relay.port)
    assert client.call("register", {"id": "more"})[1]["ids"]["more"]["recovered"] is False
    ids.append(relay.push("more", "live")["id"])
    assert client.call("register", {"id": "more", "since": ids[-1]})[1]["ids"]["more"]["replayed"] == 0
    for since, missed in ((ids[2], ids[3:]), (ids[0], ids[1:]), (ids[1], []), (later(ids[0], -1), ids), ("acked", [])):
        events, answer = client.call("register", {"id": "more", "since": since})
        assert [each["id"] for each in events] == missed
        assert answer["ids"]["more"] == {"position": ids[-1], "recovered": True, "replayed": len(missed)}
    assert client.call("register", {"id": "more", "since": later(ids[-1])})[1]["ids"]["more"]["recovered"] is False
    assert relay.push("more", "x")["connections"] == 1
    assert [each["data"] for each in client.events(1)] == ["x"]
    client.call("unregister", {"id": "more"})
    relay.push("more", "missed")
    assert client.call("register", {"id": "more", "since": ids[-1]})[1]["ids"]["more"]["replayed"] == 2


def test_an_id_named_twice_is_replayed_once(relay, wire):
    ids = pushed(relay, "7", 3)
    events, _ = wire(relay.port).call("register", {"id": ["7", 7, 7.0], "since": {"7": ids[0]}})
    assert [each["id"] for each in events] == ids[1:]


def test_with_pushes_during_the_replay_nothing_is_missing_or_duplicated(relay, wire):
    first = pushed(relay, "during", 20)[0]
    ended = threading.Event()

    def push_on():
        count = 0
        while not ended.is_set() and count < 60:  # history_size is 100
            relay.push("during", count)
            count += 1
        return 20 + count

    pushing = in_thread(push_on)
    clients = [wire(relay.port) for _ in range(5)]
    got = [client.call("register", {"id": "during", "since": first})[0] for client in clients]
    ended.set()
    total = pushing()
    for client, events in zip(clients, got, strict=True):
        while len(events) < total - 1:
            events += client.events(1)
        assert [each["id"] for each in events] == [later(first, n) for n in range(1, total)]


@own_server_only
def test_a_large_replay_reaches_a_slow_reader_whole(start_relay, wire):
    relay = start_relay()
    ids = [relay.push("large", f"{number}" + "x" * 65536)["id"] for number in range(100)]
    client = wire(relay.port, buffer=262144)
    client.emit("register", {"id": "large", "since": later(ids[0], -1)})
    events = []
    while len(events) < 100:
        events += client.events(5)
        time.sleep(0.02)
    assert [each["id"] for each in events] == ids
    assert all(len(each["data"]) > 65536 for each in events)
    _, answer = client.until_answer()
    assert answer["ids"]["large"] == {"position": ids[-1], "recovered": True, "replayed": 100}


@own_server_only
def test_closing_connections_includes_sockets_whose_replay_is_under_way(start_relay, wire):
    relay = start_relay()
    first = [relay.push("shut", "x" * 100_000)["id"] for _ in range(60)][0]
    client = wire(relay.port, buffer=4096)
    client.emit("register", {"id": "shut", "since": first})
    client.events(1)  # it takes time for the others
    _, _, answer = relay.request("DELETE", "/connections?destination=shut")
    assert json.loads(answer) == {"closed": 1}
    while client.packet() != "41":
        pass
    assert relay.push("shut", "x")["connections"] == 0


@own_server_only
def test_a_client_that_does_not_read_its_replay_is_closed_and_others_are_served(start_relay, wire):
    relay = start_relay(threads=4, ping_interval=2, ping_timeout=2)
    first = [relay.push("unread", "x" * 100_000)["id"] for _ in range(60)][0]
    client = wire(relay.port, buffer=4096)
    client.emit("register", {"id": "unread", "since": first})
    wait_for(lambda: relay.push("other", "x")["connections"] == 0, "a push meanwhile", 2)
    relay.push("unread", "pushes go on")
    ended = select.poll()
    ended.register(client.socket, 0)  # only the end of the connection
    assert ended.poll(15_000), "it was not closed"


@own_server_only
@pytest.mark.alone
def test_many_clients_that_do_not_read_their_replay_delay_nobody(start_relay, wire):
    relay = start_relay(threads=4)
    first = [relay.push("unread", "x" * 100_000)["id"] for _ in range(80)][0]
    for client in [wire(relay.port, buffer=4096) for _ in range(12)]:
        client.emit("register", {"id": "unread", "since": first})
    end, slowest = time.monotonic() + 2, 0.0
    while time.monotonic() < end:
        start = time.monotonic()
        relay.push("other", "x")
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 1.5


@own_server_only
def test_positions_outlive_a_restart(start_relay, wire):
    relay = start_relay()
    ids = pushed(relay, "restart", 3)
    relay.kill()
    relay.start()
    ids += pushed(relay, "restart", 2)
    events, answer = wire(relay.port).call("register", {"id": "restart", "since": ids[0]})
    assert [each["id"] for each in events] == ids[1:]
    assert answer["ids"]["restart"]["recovered"] is True


@own_server_only
def test_without_a_file_a_restart_is_another_epoch(start_relay, wire):
    relay = start_relay(broker="memory:")
    position = pushed(relay, "memory", 2)[0]
    assert len(wire(relay.port).call("register", {"id": "memory", "since": position})[0]) == 1
    relay.kill()
    relay.start()
    events, answer = wire(relay.port).call("register", {"id": "memory", "since": position})
    assert (events, answer["ids"]["memory"]["recovered"]) == ([], False)
    assert epoch_of(answer["ids"]["memory"]["position"]) != epoch_of(position)


# Acknowledging.


def test_since_acked_replays_what_is_not_acknowledged(relay, wire):
    ids = pushed(relay, "acked", 5)
    client = wire(relay.port)
    events, answer = client.call("register", {"id": "acked", "since": "acked"})
    assert [each["id"] for each in events] == ids
    assert client.call("ack", {"id": "acked", "position": ids[2]}) == ([], {"ok": True})
    events, answer = wire(relay.port).call("register", {"id": ["acked", "acked-new"], "since": "acked"})
    assert [each["id"] for each in events] == ids[3:]
    assert answer["ids"]["acked"] == {"position": ids[-1], "recovered": True, "replayed": 2}
    assert answer["ids"]["acked-new"]["recovered"] is True


@own_server_only
def test_an_acknowledgement_moves_forward_only_and_outlives_a_restart(start_relay, wire):
    relay = start_relay()
    ids = pushed(relay, "forward", 5)
    client = wire(relay.port)
    client.call("register", {"id": "forward"})
    for position in (ids[3], ids[0], later(ids[0], -1)):
        assert client.call("ack", {"id": "forward", "position": position})[1] == {"ok": True}
    assert [each["id"] for each in get(relay, "/history?destination=forward&since=acked")[1]["publications"]] == ids[4:]
    relay.kill()
    relay.start()
    events, _ = wire(relay.port).call("register", {"id": "forward", "since": "acked"})
    assert [each["id"] for each in events] == ids[4:]


@pytest.mark.parametrize("position", ["garbage", "", None, 5, {}, "another epoch", "the future"])
def test_an_invalid_position_is_not_acknowledged(relay, wire, position):
    last = pushed(relay, "refused", 2)[-1]
    position = {"another epoch": "0123456789:1", "the future": later(last)}.get(str(position), position)
    client = wire(relay.port)
    client.call("register", {"id": "refused"})
    answer = client.call("ack", {"id": "refused", "position": position})[1]
    assert (answer["ok"], answer["error"]) == (False, "invalid_position")
    assert len(answer["message"].split()) > 4


def test_only_a_registered_id_is_acknowledged(relay, wire):
    last = pushed(relay, "foreign", 2)[-1]
    client = wire(relay.port)
    assert client.call("ack", {"id": "foreign", "position": last})[1]["error"] == "not_registered"
    assert client.call("ack", {"position": last})[1]["error"] == "missing_id"
    client.call("register", {"id": ["foreign", "other"]})
    assert client.call("ack", {"id": ["foreign", "other"], "position": last})[1]["error"] == "invalid_id"
    assert len(get(relay, "/history?destination=foreign&since=acked")[1]["publications"]) == 2


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
