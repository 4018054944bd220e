"""Recovery as programs see it: what a socket that comes back is sent, and acknowledgements."""

import json
import select
import threading
import time

import pytest
from conftest import wait_for
from posting import epoch_of, get, in_thread, later, pushed, wires

own_server_only = pytest.mark.parametrize("server", ["own"], indirect=True)


@pytest.fixture
def wire():
    with wires() as connect:
        yield connect


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
def test_closing_connections_includes_sockets_whose_replay_is_in_progress(start_relay, wire):
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
def test_nobody_waits_for_many_clients_that_do_not_read_their_replay(start_relay, wire):
    relay = start_relay(threads=4)
    first = [relay.push("unread", "x" * 100_000)["id"] for _ in range(80)][0]
    for client in [wire(relay.port, buffer=4096) for _ in range(12)]:
        client.emit("register", {"id": "unread", "since": first})
    for _ in range(200):
        relay.push("other", "x")  # within DEADLINE, which is less than send_timeout


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
