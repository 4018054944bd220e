"""Replays to sockets that read slowly, leave in the middle, or outlive the store."""

import contextlib

import pytest
from conftest import wait_for
from desk import Desk

from pushrelay.register import registration as registering
from pushrelay.store import replay, stripe
from pushrelay.store.publication import Publication, offset_of

own_server_only = pytest.mark.parametrize("server", ["own"], indirect=True)


def test_a_replay_continues_when_its_socket_has_room_and_ends_without_gap_or_overlap(desk):
    desk.push("42", *range(10))
    desk.connect("page")
    desk.sockets.read("page", 4)
    desk.emit("page", "register", id="42", since=desk.since(0))
    for n in range(10, 50):
        desk.push("42", n)
        if not n % 10:
            desk.sockets.read("page", 4)
    assert desk.got("page") == list(range(20)) and desk.answers("page") == []
    desk.sockets.read("page")
    desk.push("42", 50)
    [answer] = desk.answers("page")
    assert answer["ids"]["42"] == {"position": desk.since(50), "recovered": True, "replayed": 50}
    assert desk.got("page") == list(range(51))
    assert desk.live_queues() == []


def test_no_event_is_built_for_a_socket_that_has_no_room_for_it(desk, monkeypatch):
    desk.push("42", *range(10))
    desk.connect("page")
    as_event, built = Publication.as_event, []
    monkeypatch.setattr(Publication, "as_event", lambda each: built.append(each) or as_event(each))
    desk.sockets.read("page", 1)
    desk.emit("page", "register", id="42", since=desk.since(0))
    for _ in range(9):
        desk.sockets.read("page", 1)
    assert desk.got("page") == list(range(10)) and len(built) == 10


def test_a_replay_that_waits_keeps_little_of_what_is_pushed_and_nothing_is_missing(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.push("42", *["x" * 1000] * 900)
    [live_queue] = desk.live_queues()
    assert sum(len(item.text) for item in live_queue.items) <= stripe.LIVE_QUEUE_BYTES
    desk.sockets.read("page")
    assert desk.answers("page")[0]["ids"]["42"] == {"position": desk.since(905), "recovered": True, "replayed": 905}
    assert desk.got("page") == [*range(5), *["x" * 1000] * 900]


def test_a_replay_reads_the_store_in_pages(desk, monkeypatch):
    monkeypatch.setattr(replay, "PAGE_BYTES", 3000)
    values = [str(n) + "x" * (n * 37 % 5000) for n in range(60)]
    desk.push("42", *values)
    pages, read = [], desk.broker._store.read

    def noted(destination, after, max_bytes=None, with_data=True):
        page = read(destination, after, max_bytes, with_data)
        pages.extend([page.kept] if with_data else [])
        return page

    monkeypatch.setattr(desk.broker._store, "read", noted)
    desk.connect("page")
    assert desk.register("page", "42", since=desk.since(0))["42"]["recovered"]
    assert desk.got("page") == values
    sizes = [sum(len(each.text) for each in kept) for kept in pages]
    assert len(sizes) > 20 and all(size <= 3000 or len(kept) == 1 for size, kept in zip(sizes, pages, strict=True))


def test_the_answer_reports_what_history_drops_during_a_replay(open_desk):
    desk = open_desk(history_size=10)
    desk.push("42", *range(10))
    desk.connect("page")
    desk.sockets.read("page", 3)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.push("42", *["x" * 20_000] * 40)
    desk.sockets.read("page")
    [answer] = desk.answers("page")
    assert answer["ids"]["42"] == {"position": desk.since(50), "recovered": False, "replayed": 3}
    desk.push("42", "live")
    assert desk.got("page") == [0, 1, 2, "live"]


def test_other_clients_have_their_turn_between_parts_of_a_large_replay(desk, monkeypatch):
    monkeypatch.setattr(registering, "TURN_BYTES", 1000)
    desk.push("42", *["x" * 300] * 20)
    desk.connect("page")
    desk.sockets.space["page"] = 1000
    desk.emit("page", "register", id="42", since=desk.since(0))
    assert 0 < len(desk.got("page")) < 6
    turns = 0
    while not desk.answers("page"):
        desk.sockets.read("page", 1000)
        turns += 1
    assert turns > 3 and len(desk.got("page")) == 20


def test_a_publication_that_a_socket_may_not_get_is_in_no_replay_of_it(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.push("42", "its own", skip_sid="page")
    desk.push("42", *["x" * 1000] * 100)
    desk.push("42", "its own", skip_sid="page")
    desk.sockets.read("page")
    assert desk.answers("page")[0]["ids"]["42"]["position"] == desk.since(107)
    assert "its own" not in desk.got("page") and len(desk.got("page")) == 105


def test_a_socket_that_leaves_during_its_replay_leaves_nothing_behind(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id=["41", "42"], since={"42": desk.since(0)})
    assert len(desk.live_queues()) == 1 and len(desk.registrations._in_progress) == 1
    desk.leave("page")
    assert desk.live_queues() == [] and desk.registrations._in_progress == {}
    assert desk.push("42", "x") and desk.got("page") == [0, 1]


def test_a_socket_that_is_sent_away_during_its_replay_is_counted_and_gets_no_more(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id="42", since=desk.since(0))
    assert desk.registrations.close(["42"]) == 1
    desk.sockets.read("page")
    assert desk.got("page") == [0, 1] and desk.sockets.wire["page"][-1] == ("disconnect",)
    assert desk.live_queues() == [] and desk.registrations._in_progress == {}


def test_packets_that_a_socket_sends_during_its_replay_are_handled_after_it(desk):
    desk.push("42", *range(5))
    desk.connect("page")
    desk.sockets.read("page", 2)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.emit("page", "unregister", id="42")
    assert desk.answers("page") == []
    desk.sockets.read("page")
    assert [answer["ok"] for answer in desk.answers("page")] == [True, True] and desk.got("page") == list(range(5))
    desk.push("42", "x")
    assert desk.got("page") == list(range(5))


def lose_the_store(desk, path):
    """Remove the store's files while the relay uses them, and wait until it has begun a new store."""
    desk.broker.flush()
    before = desk.broker.epoch
    for suffix in ("", "-wal", "-shm", "-recent"):
        (path.parent / f"{path.name}{suffix}").unlink(missing_ok=True)

    def has_noticed():
        desk.push("any", "x")
        return desk.broker.epoch != before

    wait_for(has_noticed, "a new store")


@pytest.fixture
def desk_to_lose(tmp_path):
    with contextlib.closing(Desk(f"sqlite:{tmp_path}/relay.db", history_size=1000)) as desk:
        yield desk, lambda: lose_the_store(desk, tmp_path / "relay.db")


def test_no_answer_of_a_register_that_waited_has_an_offset_of_a_store_that_was_lost(desk_to_lose):
    desk, lose = desk_to_lose
    desk.push("first", *range(100))
    desk.push("second", *range(100))
    desk.connect("page")
    desk.sockets.read("page", 3)
    desk.emit("page", "register", id=["first", "second"], since={"first": desk.since(99), "second": desk.since(0)})
    lose()
    [live] = desk.push("first", "a")
    desk.sockets.read("page")
    [answer] = desk.answers("page")
    assert answer["ids"]["first"] == {"position": live, "recovered": False, "replayed": 1}
    assert answer["ids"]["second"]["recovered"] is False
    assert answer["ids"]["second"]["position"].partition(":")[0] == desk.broker.epoch
    desk.push("first", "b")
    assert desk.got("page")[-2:] == ["a", "b"]


@pytest.mark.parametrize("size", [1, 1000])  # held in the live_queue, and too much for it
def test_a_replay_that_waits_while_the_store_is_lost_does_not_hide_what_the_new_store_has(desk_to_lose, size):
    desk, lose = desk_to_lose
    desk.push("42", *range(100))
    desk.connect("page")
    desk.sockets.read("page", 99)
    desk.emit("page", "register", id="42", since=desk.since(0))
    desk.push("42", "in the live_queue", "behind it")
    desk.sockets.read("page", 1)
    assert len(desk.got("page")) == 100, "the rest of it is in the live_queue"
    lose()
    missed = desk.push("42", *["x" * size] * 90)[-1]
    desk.sockets.read("page")
    [answer] = desk.answers("page")
    assert answer["ids"]["42"]["recovered"] is False and answer["ids"]["42"]["position"] == missed
    desk.push("42", "live")
    assert desk.got("page")[-1] == "live"
    again = desk.register("page", "42", since=missed)["42"]
    assert again["recovered"] and again["replayed"] == 0 and offset_of(again["position"]) == offset_of(missed) + 1


def test_a_page_that_registers_again_after_the_store_was_lost_gets_a_position_in_the_new_one(desk_to_lose):
    desk, lose = desk_to_lose
    desk.push("42", *range(10))
    desk.connect("page")
    old = desk.register("page", "42")["42"]["position"]
    lose()
    [live] = desk.push("42", "a")
    answer = desk.register("page", "42", since=old)["42"]
    assert answer["position"] == live and not answer["recovered"]
