"""GET /history is read as its reader takes it: bounded in memory and in bytes, and continued without a gap."""

import contextlib
import json
import pathlib
import resource
import socket
import time

import pytest
from conftest import DEADLINE, own_only, wait_for

from pushrelay.store import Draft, open_broker
from pushrelay.store import listing as module


def rss(relay):
    pages = int(pathlib.Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def ask(relay, destination, **fields):
    query = "&".join(f"{name}={value}" for name, value in {"destination": destination, **fields}.items())
    status, _, body = relay.request("GET", f"/history?{query}")
    return status, json.loads(body)


def ask_all(relay, destination, **fields):
    """Follow `more` to the end, as docs/http-api.md describes; return the answers."""
    answers = [ask(relay, destination, **fields)[1]]
    while answers[-1]["more"]:
        fields["since"] = answers[-1]["publications"][-1]["id"]
        answers.append(ask(relay, destination, **fields)[1])
        assert answers[-1]["recovered"]
    return answers


@pytest.fixture(params=["memory", "sqlite"])
def broker(request, tmp_path):
    def open_with(**options):
        url = "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/relay.db"
        opened.append(open_broker(url, lambda *_: 0, **options))
        opened[-1].start()
        return opened[-1]

    opened = []
    yield open_with
    for each in opened:
        each.close()


def test_a_history_is_given_in_parts_that_join_without_a_gap(relay):
    ids = [relay.push("parts", number)["id"] for number in range(10)]
    for limit, sizes in ((3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (11, [10])):
        answers = ask_all(relay, "parts", limit=limit)
        assert [len(answer["publications"]) for answer in answers] == sizes
        assert [each["id"] for answer in answers for each in answer["publications"]] == ids
        assert {answer["position"] for answer in answers} == {ids[-1]}
    assert [each["id"] for each in ask(relay, "parts", since=ids[4], limit=2)[1]["publications"]] == ids[5:7]
    assert not ask(relay, "parts", since=ids[-1], limit=1)[1]["more"]


@pytest.mark.parametrize("limit", ["0", "-1", "", "1_0", "%D9%A3", "1e2", "nan", "1000000", "9" * 400, "%201"])
def test_a_limit_that_is_not_a_plain_number_is_refused(relay, limit):
    status, answer = ask(relay, "parts", limit=limit)
    assert (status, answer["error"]) == (400, "invalid_limit")


def test_an_answer_is_bounded_in_bytes_and_continued(start_relay):
    relay = start_relay()
    data = [f"{number}" + "x" * 900_000 for number in range(12)]
    for each in data:
        relay.push("large", each)
    answers = ask_all(relay, "large")
    assert [len(answer["publications"]) for answer in answers] == [10, 2]
    assert [each["data"] for answer in answers for each in answer["publications"]] == data


def test_a_listing_has_what_was_pushed(relay):
    for data in ("x", "", 1, 1.5, -0.0, 1e308, None, True, [], {}, {"ü": ["水", {"a": '\x01"\\'}]}):
        relay.push_json(destination="values", data=data, event="näme")
    got = ask(relay, "values")[1]["publications"]
    assert [(each["event"], json.dumps(each["data"])) for each in got][-1] == (
        "näme",
        '{"\\u00fc": ["\\u6c34", {"a": "\\u0001\\"\\\\"}]}',
    )
    assert [each["data"] for each in got][:5] == ["x", "", 1, 1.5, -0.0]
    assert all(each["created"] <= time.time() + 1 < each["expires"] for each in got)


@own_only
def test_slow_readers_of_a_long_history_cost_little_memory_each_and_give_it_back(start_relay):
    relay = start_relay()
    for number in range(100):
        relay.push("long", f"{number}" + "x" * 80_000)
    ask(relay, "long")
    before, readers = rss(relay), 60
    with contextlib.ExitStack() as opened:
        socks = []
        for _ in range(readers):
            sock = opened.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(DEADLINE)
            sock.connect(("127.0.0.1", relay.port))
            sock.sendall(b"GET /history?destination=long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            socks.append(sock)
        assert all(b" 200 OK" in sock.recv(1000) for sock in socks)
        wait_for(lambda: relay.push("beside", "x"))
        # The send-ahead (256 KiB), a page and one publication, and what the allocator keeps; whole, it is 480 MB.
        assert rss(relay) - before < readers << 20
    wait_for(lambda: relay.push("beside", "x"))
    assert [len(answer["publications"]) for answer in ask_all(relay, "long")] == [100]
    assert rss(relay) - before < readers << 20, "and it does not grow by asking again"


def test_publications_that_are_dropped_while_they_are_read_end_the_answer_with_more(broker, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 10)
    broker = broker(history_size=10)
    for number in range(10):
        broker.publish([Draft("42", f"{number:08}")])
    listing = broker.listing("42")
    pages = listing.pages()
    got = next(pages)
    for number in range(10, 200):
        broker.publish([Draft("42", f"{number:08}")])
    broker.flush()
    got += [each for page in pages for each in page]
    assert [each.data for each in got] == [f"{number:08}" for number in range(len(got))] and len(got) < 10
    assert listing.more and not broker.history("42", got[-1].position).recovered


def test_pushes_that_come_while_a_listing_is_read_are_not_in_it_and_leave_no_gap(broker, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 10)
    broker = broker()
    for number in range(10):
        broker.publish([Draft("42", number)])
    listing = broker.listing("42")
    pages = listing.pages()
    got = next(pages)
    [receipt] = broker.publish([Draft("42", "late")])
    got += [each for page in pages for each in page]
    assert [each.data for each in got] == list(range(10)) and got[-1].position == listing.position
    assert not listing.more
    assert [each.position for each in broker.history("42", listing.position).publications] == [receipt.position]


def test_publications_that_expired_leave_no_gap_in_an_answer(broker, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 10)
    broker = broker()
    for number in range(20):
        broker.publish([Draft("42", number, ttl=None if number % 5 == 0 else 0.01)])
    wait_for(lambda: len(broker.history("42").publications) == 4)
    assert [each.data for each in broker.history("42").publications] == [0, 5, 10, 15]
    assert [each.data for each in broker.history("42", limit=3).publications] == [0, 5, 10]
    listing = broker.listing("42", limit=4)
    assert sum(map(len, listing.pages())) == 4 and not listing.more


def test_a_store_that_goes_away_ends_the_answer_with_more(broker, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 10)
    opened = broker()
    for number in range(10):
        opened.publish([Draft("42", number * 10**9)])
    listing = opened.listing("42")
    pieces = listing.answer()
    begun = next(pieces)
    page = opened._store.read

    def away(*args, **options):
        raise module.StoreError("away")

    opened._store.read = away
    answer = json.loads(begun + "".join(pieces))
    opened._store.read = page
    assert answer["more"] and answer["publications"][-1]["data"] < 9 * 10**9


def test_a_listing_that_was_read_while_an_epoch_ended_has_positions_that_nobody_takes_for_new_ones():
    broker = open_broker("memory:", lambda publication, skip_sid: 0)
    broker.start()
    since = broker.publish([Draft("42", n) for n in range(3)])[0].position
    before, read = broker.epoch, broker._archive.read

    def read_and_lose(*args, **options):
        page = read(*args, **options)
        broker._store.epoch = "another"
        return page

    broker._archive.read = read_and_lose
    listed = broker.history("42", since)
    assert not listed.recovered
    assert {each.position.partition(":")[0] for each in [*listed.publications, listed]} == {before}
