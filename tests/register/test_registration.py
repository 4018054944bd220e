"""Positions in answers, all ids or none, and that nothing is delivered after a socket has left."""

import json
import threading
import time

import pytest
from clients import Wire
from conftest import DEADLINE, wait_for
from desk import SECRET, start_thread

from pushrelay.access.tokens import sign
from pushrelay.errors import StoreError
from pushrelay.settings import Settings
from pushrelay.store.publication import Publication, offset_of
from pushrelay.store.stripe import LIVE_QUEUE_BYTES, LiveQueue, Pending

own_server_only = pytest.mark.parametrize("server", ["own"], indirect=True)


@pytest.fixture
def expire(monkeypatch):
    """Return a function that sets the clock ahead by more than a minute, when tokens of `token_for_a_minute` end."""
    real, ahead = time.time, []
    monkeypatch.setattr(time, "time", lambda: real() + sum(ahead))
    return lambda: ahead.append(61)


def token_for_a_minute(*ids):
    return sign({"ids": ids or ["*"], "exp": time.time() + 60}, SECRET)


# Positions in answers.


@pytest.mark.parametrize("since", [None, 0, 2])
def test_a_second_register_names_no_position_beyond_what_the_socket_was_sent(desk, since):
    desk.push("42", "a", "b")
    desk.connect("page")
    desk.register("page", "42", since=desk.since(0))
    desk.store("42", "stored", "and not handed out")
    answer = desk.register("page", "42", **({} if since is None else {"since": desk.since(since)}))["42"]
    before_it = desk.got("page")
    assert offset_of(answer["position"]) == len(before_it)
    desk.hand_out()
    desk.push("42", "later")
    assert desk.got("page") == ["a", "b", "stored", "and not handed out", "later"]


def test_a_second_register_does_not_count_what_is_committed_and_not_yet_queued(desk):
    desk.push("42", "before")
    desk.connect("page")
    desk.register("page", "42")
    committed, go_on, transact = threading.Event(), threading.Event(), desk.broker._store.transact

    def transact_and_wait(jobs):
        transact(jobs)
        committed.set()
        assert go_on.wait(DEADLINE)

    desk.broker._store.transact = transact_and_wait
    pushing = start_thread(desk.push, "42", "x")
    assert committed.wait(DEADLINE)
    try:
        answers = [desk.register("page", "42")["42"], desk.register("page", "42", since=desk.since(1))["42"]]
        assert [offset_of(answer["position"]) for answer in answers] == [1, 1]
        assert desk.got("page") == []
    finally:
        go_on.set()
        pushing.join(DEADLINE)
    assert desk.got("page") == ["x"]


def test_a_socket_that_has_received_all_it_asks_for_is_sent_nothing_again(desk):
    desk.connect("page")
    position = desk.register("page", "42")["42"]["position"]
    desk.push("42", "a", "b")
    assert desk.register("page", "42", since=position)["42"] == {
        "position": desk.since(2),
        "recovered": True,
        "replayed": 0,
    }
    assert desk.got("page") == ["a", "b"]


def test_me_and_the_name_of_one_destination_have_the_same_position(open_desk):
    desk = open_desk(settings=Settings(id_cookie="PHPSESSID"))
    cookie = "0123456789abcdef0123456789"
    desk.connect("page", f"PHPSESSID={cookie}")
    desk.register("page", "me")
    desk.connect("other")
    desk.store(cookie, "a", "b")
    answer = desk.register("page", "me")["me"]
    assert offset_of(answer["position"]) == len(desk.got("page"))
    desk.hand_out()
    assert desk.got("page") == ["a", "b"]


def test_a_position_also_counts_publications_that_except_the_socket(desk):
    desk.connect("page")
    desk.register("page", "42")
    desk.push("42", "not for it", skip_sid="page")
    assert desk.register("page", "42", since=desk.since(0))["42"]["position"] == desk.since(1)
    assert desk.got("page") == []


def test_a_socket_that_knows_a_position_before_its_delivery_gets_what_follows_it(desk):
    desk.connect("page")
    desk.register("page", "42")
    [position] = desk.store("42", "known from elsewhere")
    for sid in ("page", desk.connect("new")):
        assert desk.register(sid, "42", since=position)["42"]["position"] == position
    desk.hand_out()
    desk.push("42", "behind")
    assert desk.got("page") == ["known from elsewhere", "behind"]
    assert desk.got("new")[-1] == "behind"


@own_server_only
def test_pushes_during_a_second_register_are_counted_by_its_answer_or_follow_it(relay):
    wire = Wire(relay.port)
    seen = offset_of(wire.call("register", {"id": "again"})[1]["ids"]["again"]["position"])
    items = [{"destination": "again", "data": n} for n in range(500)]
    pushing = start_thread(lambda: [relay.request("POST", "/push", json.dumps(items).encode(), {
        "Content-Type": "application/json"}) for _ in range(4)])  # fmt: skip
    while pushing.is_alive():
        events, answer = wire.call("register", {"id": "again"})
        seen += len(events)
        assert offset_of(answer["ids"]["again"]["position"]) <= seen
    wire.close()


# Leaving.


@pytest.mark.parametrize("how", ["unregister", "expire", "close"])
def test_nothing_comes_for_an_id_after_its_last_message(open_desk, expire, how):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    desk.connect("page")
    desk.register("page", "42", token=token_for_a_minute("42"))
    under_way, go_on = threading.Event(), threading.Event()

    def hold_up():
        under_way.set()
        assert go_on.wait(DEADLINE)

    desk.sockets.before_delivery = hold_up
    pushing = start_thread(desk.push, "42", "a", "b")
    assert under_way.wait(DEADLINE)
    goodbye = {
        "unregister": lambda: desk.call("page", "unregister", id="42"),
        "expire": desk.registrations.each_second,
        "close": lambda: desk.registrations.close(["42"]),
    }[how]
    if how == "expire":
        expire()
    leaving = start_thread(goodbye)
    leaving.join(0.2)
    go_on.set()
    for thread in (pushing, leaving):
        thread.join(DEADLINE)
    desk.push("42", "c")
    events = [each[0] for each in desk.sockets.wire["page"]]
    assert events[-1] == {"unregister": "answer", "expire": "relay_error", "close": "disconnect"}[how]
    assert desk.got("page") in (["a"], ["a", "b"])


def end_in_thread(desk, how):
    """Have another thread take the page out of its rooms while its register runs. Return when that is done."""
    leaving = start_thread(
        *([desk.registrations.each_second] if how == "expire" else [desk.registrations.close, ["42"]])
    )
    wait_for(lambda: "page" not in desk.sockets.rooms["to:42"], "the end of it")
    return leaving


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("how", ["expire", "close"])
def test_no_answer_has_a_position_that_came_after_the_socket_was_taken_out_of_the_room(open_desk, expire, how, waits):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    desk.push("41", *range(5))
    desk.connect("page")
    token = token_for_a_minute()
    desk.register("page", "42", token=token)
    if waits:
        desk.sockets.read("page", 2)
    handed, ends = desk.broker.delivered, []

    def end_first(destination):
        if destination == "42" and not ends:
            if how == "expire":
                expire()
            ends.append(end_in_thread(desk, how))
            desk.push("42", "missed")
        return handed(destination)

    if waits:
        desk.emit("page", "register", id=["42", "41"], since={"41": desk.since(0)}, token=token)
        assert len(desk.answers("page")) == 1
    desk.broker.delivered = end_first
    if waits:
        desk.sockets.read("page")
    else:
        desk.emit("page", "register", id="42", token=token)
    ends[0].join(DEADLINE)
    assert desk.answers("page")[1:] == [{"ok": False, "error": "token_expired" if how == "expire" else "disconnected"}]
    assert "missed" not in desk.got("page")
    assert "page" not in desk.sockets.rooms["to:42"] and "page" not in desk.sockets.rooms["to:41"]


@pytest.mark.parametrize("how", ["expire", "close"])
def test_a_register_enters_no_room_after_its_socket_was_taken_out_of_the_others(open_desk, expire, how):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    desk.push("41", "last")
    desk.push("43", "of another turn")
    desk.connect("page")
    token = token_for_a_minute()
    desk.register("page", "42", token=token)
    send, enter, entered, ends = desk.sockets.send_if_clear, desk.sockets.enter_room, [], []

    def end_and_send(text, sid):
        if not ends:
            if how == "expire":
                expire()
            ends.append(end_in_thread(desk, how))
        return send(text, sid)

    desk.sockets.read("page", 1)
    desk.sockets.send_if_clear = end_and_send
    desk.sockets.enter_room = lambda *args: (entered.append(args), enter(*args))
    desk.emit("page", "register", id=["41", "43"], since={"41": desk.since(0), "43": desk.since(0)}, token=token)
    ends[0].join(DEADLINE)
    assert entered == [] and desk.push("41", "too late")
    assert "too late" not in desk.got("page") and desk.live_queues() == [] and desk.registrations._in_progress == {}


@pytest.mark.parametrize("how", ["expire", "close"])
def test_an_id_without_replay_is_not_joined_after_its_socket_was_taken_out_of_its_rooms(open_desk, expire, how):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    desk.connect("page")
    token = token_for_a_minute()
    desk.register("page", "42", token=token)
    join, enter, entered = desk.broker.join, desk.sockets.enter_room, []

    def end_and_join(*args):
        if how == "expire":
            expire()
        end_in_thread(desk, how)
        return join(*args)

    desk.broker.join = end_and_join
    desk.sockets.enter_room = lambda *args: (entered.append(args), enter(*args))
    desk.emit("page", "register", id="41", token=token)
    assert entered == [] and not desk.answers("page")[-1]["ok"]


def test_a_socket_that_leaves_in_the_middle_of_a_turn_is_offered_nothing_more(desk):
    desk.push("42", *range(50))
    desk.connect("page")
    send, offered = desk.sockets.send_if_clear, []

    def send_and_leave(text, sid):
        offered.append(text)
        sent = send(text, sid)
        desk.leave(sid)
        return sent

    desk.sockets.send_if_clear = send_and_leave
    desk.emit("page", "register", id="42", since=desk.since(0))
    assert len(offered) == 1 and desk.live_queues() == [] and desk.registrations._in_progress == {}


# All ids or none.


def failing_at(desk, name):
    """Make the history of a destination unreadable from its second page on, or from the first if that is "at once"."""
    page = desk.broker._store.read

    def fail(destination, *args, **options):
        if destination == name:
            raise StoreError("away")
        return page(destination, *args, **options)

    desk.broker._store.read = fail


def test_a_register_whose_second_id_fails_leaves_the_socket_in_no_room(desk):
    failing_at(desk, "bad")
    desk.connect("page")
    answer = desk.call("page", "register", id=["good", "bad"], since={"bad": desk.since(0)})
    assert answer == {"ok": False, "error": "store_not_available"}
    assert desk.push("good", "x") and desk.got("page") == []
    assert desk.sockets.get_rooms("page", "/") == ["page"]


def test_a_failed_register_leaves_earlier_expiry_times_as_they_were(open_desk):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    failing_at(desk, "bad")
    desk.connect("page")
    soon, late = time.time() + 100, time.time() + 1000
    desk.register("page", "good", token=sign({"ids": ["*"], "exp": soon}, SECRET))
    token = sign({"ids": ["*"], "exp": late}, SECRET)
    assert not desk.call("page", "register", id=["good", "bad"], since={"bad": desk.since(0)}, token=token)["ok"]
    holder = desk.environs["page"]["relay.socket_state"]
    assert list(holder.expiry.values()) == [pytest.approx(soon, abs=1)]


def test_rights_that_end_during_the_replay_leave_the_socket_in_no_room(open_desk, expire):
    desk = open_desk(settings=Settings(secret=(SECRET,)))
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id=["41", "42"], since={"42": desk.since(0)}, token=token_for_a_minute())
    expire()
    desk.registrations.each_second()
    assert desk.push("41", "x") and desk.got("page") == [0, 1], "the first id is left at once"
    desk.sockets.read("page")
    assert desk.answers("page") == [{"ok": False, "error": "token_expired"}]
    assert desk.got("page") == [0, 1] and desk.sockets.get_rooms("page", "/") == ["page"]
    assert desk.live_queues() == [] and desk.registrations._in_progress == {}


def test_a_registered_id_misses_nothing_if_its_history_cannot_be_read(desk):
    desk.connect("page")
    desk.push("42", "before")
    desk.register("page", "42")
    failing_at(desk, "42")
    desk.store("42", "during")
    assert desk.call("page", "register", id="42", since=desk.since(0))["error"] == "store_not_available"
    desk.hand_out()
    desk.push("42", "after")
    assert desk.got("page") == ["during", "after"]


def test_a_registered_socket_whose_replay_fails_is_closed_so_that_it_reconnects(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.register("page", "42")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.push("42", "missed")
    failing_at(desk, "42")
    desk.sockets.read("page")
    assert ("cut",) in desk.sockets.wire["page"] and "page" not in desk.sockets.here
    assert desk.got("page") == [0, 1]


# Real sockets.


@own_server_only
def test_four_slow_readers_of_a_large_replay_do_not_delay_a_fifth(start_relay, connect):
    relay = start_relay()
    first = [relay.push("large", f"{n}" + "x" * 400_000)["id"] for n in range(25)][0]
    slow = [Wire(relay.port, buffer=16384) for _ in range(4)]
    for wire in slow:
        wire.emit("register", {"id": "large", "since": first})
    fifth, polling = Wire(relay.port, buffer=65536), connect(relay.url, transport="polling")
    fifth.emit("register", {"id": "large", "since": first})
    began = []
    while len(began) < 8:  # this client is slow as well
        began += fifth.events(1)
        time.sleep(0.1)
    for wire, before in ((fifth, began), (slow[0], [])):
        events, answer = wire.until_answer()
        assert [event["data"].strip("x") for event in before + events] == [str(n) for n in range(1, 25)]
        assert answer["ids"]["large"]["recovered"]
    assert polling.call("register", {"id": "large", "since": first})["ids"]["large"]["replayed"] == 24
    assert [data.strip("x") for data in polling.data(24)] == [str(n) for n in range(1, 25)]
    for wire in (*slow, fifth):
        wire.close()


@own_server_only
def test_a_replay_of_publications_of_the_largest_size_reaches_a_slow_reader(start_relay):
    relay = start_relay()
    first = [relay.push("big", f"{n}" + "x" * 900_000)["id"] for n in range(8)][0]
    wire = Wire(relay.port, buffer=65536)
    wire.emit("register", {"id": "big", "since": f"{first.rpartition(':')[0]}:0"})
    time.sleep(0.5)
    events, answer = wire.until_answer()
    assert [event["data"].strip("x") for event in events] == [str(n) for n in range(8)]
    assert answer["ids"]["big"]["recovered"] and relay.push("big", "live")["connections"] == 1
    assert wire.events(1)[0]["data"] == "live"
    wire.close()


@own_server_only
def test_clients_that_do_not_read_hold_no_thread(start_relay):
    relay = start_relay(threads=2)
    first = [relay.push("still", "x" * 500_000)["id"] for _ in range(20)][0]
    still = [Wire(relay.port, buffer=16384) for _ in range(6)]
    for wire in still:
        wire.emit("register", {"id": "still", "since": first})
    for n in range(50):
        assert relay.push("other", n)["connections"] == 0
    for wire in still:
        wire.close()
    wait_for(lambda: relay.push("still", "x")["connections"] == 0, "the end of all")


def test_the_live_queue_of_a_replay_stays_within_its_limit_after_an_item_was_put_back():
    live_queue, size = LiveQueue("newcomer"), 0
    while not live_queue.overflowed and size <= 2 * LIVE_QUEUE_BYTES:
        item = Pending("42", "x" * 1000)
        item.publication = Publication("42", "epoch:1", "push", item.text, 0.0, 60.0)
        live_queue.add(item)
        size += 1000
        live_queue.put_back(live_queue.take())
    assert live_queue.overflowed and size <= LIVE_QUEUE_BYTES and not live_queue.items
