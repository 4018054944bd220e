"""Limits of a push's data: how deep it is nested, how large it is as browsers get it, and which numbers it holds."""

import base64
import io
import json
import time

import pytest
from clients import Wire
from conftest import own_only, wait_for

from pushrelay import json_text
from pushrelay.access.tokens import Tokens, sign
from pushrelay.engine.packet import data_of
from pushrelay.errors import Refused
from pushrelay.push import batching
from pushrelay.push.batching import Batcher
from pushrelay.push.fields import MOST_STORED, Push, decimal, push_of, read_pushes
from pushrelay.push.publisher import items_of
from pushrelay.rooms.packet import INVALID, Packet
from pushrelay.settings import Settings, SettingsError, load
from pushrelay.store import Draft
from pushrelay.store.stripe import Pending

DEPTH = json_text.MAX_DEPTH
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


def nested(levels):
    return "[" * levels + "]" * levels


def push(relay, body, headers=JSON):
    status, _, answer = relay.request("POST", "/push", body.encode(), headers)
    return status, json.loads(answer)


def environ_of(body, content_type="application/json"):
    body = body if isinstance(body, bytes) else body.encode()
    return {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


# Nesting.


@pytest.mark.parametrize(
    "shape", [nested, lambda n: '{"":' * (n - 1) + "{}" + "}" * (n - 1)], ids=["arrays", "objects"]
)
def test_data_of_the_greatest_depth_is_accepted_and_one_level_more_is_refused(shape):
    for text in (shape(DEPTH), f'["[[[",{shape(DEPTH - 1)},"\\"[",{{"\\\\":[]}}]', "[" + "[]," * 500 + "{}]"):
        assert json_text.read(text) == json.loads(text)
    for text in (shape(DEPTH + 1), f'["[[[",{shape(DEPTH)},"\\"["]', "[" + "[]," * 500 + shape(DEPTH) + "]"):
        with pytest.raises(json_text.TooDeep, match="100 levels"):
            json_text.read(text)


@pytest.mark.parametrize("depth", [DEPTH, DEPTH + 1, 970, 20_000, 450_000])
@pytest.mark.parametrize("way", ["json", "batch", "ndjson"])
def test_the_deepest_data_is_delivered_kept_and_recovered(relay, way, depth):
    name = f"deep-{way}-{depth}"
    before = relay.push(name, "before")["id"]
    live = Wire(relay.port)
    live.call("register", {"id": name})
    item = f'{{"destination":"{name}","data":{nested(depth)}}}'
    body = f'[{item},{{"destination":"{name}","data":"beside"}}]' if way == "batch" else item
    status, answer = push(relay, body, LINES if way == "ndjson" else JSON)
    told, beside = answer if way == "batch" else (answer[0] if way == "ndjson" else answer, None)
    history = relay.request("GET", f"/history?destination={name}")
    assert history[0] == 200
    events, registered = Wire(relay.port).call("register", {"id": name, "since": before})
    assert registered["ids"][name]["recovered"]
    got = [message["data"] for message in events]
    assert [message["data"] for message in live.call("ack", {})[0]] == got
    if depth > DEPTH:
        assert status == (400 if way == "json" else 200) and f"{DEPTH} levels" in told["message"]
    else:
        assert status == 200 and got[0] == json.loads(nested(depth))
    assert beside is None or ("id" in beside and got[-1] == "beside"), "a bad item of a batch fails alone"


@own_only
def test_endlessly_nested_packets_are_answered_and_leave_no_traceback(relay):
    client = Wire(relay.port)
    for text in (
        "4" + "[" * 90_000,
        "42" + nested(45_000),
        '427["push",' + nested(40_000) + "]",
        '42["x",' + nested(990) + "]",
    ):
        client.send(text)
    assert client.call("unregister", {"id": "1"})[1]["ok"], "it is connected still"


def test_json_from_strangers_is_never_read_deeper_than_the_limit():
    assert data_of("4" + "[" * 90_000) == "[" * 90_000
    for depth in (DEPTH + 1, 970, 40_000):
        packet = Packet(encoded_packet=f'2["push",{{"data":{nested(depth)}}}]')
        assert packet.data[0] == INVALID and "100 levels" in packet.data[1]
    assert Packet(encoded_packet=f'2["push",{{"data":{nested(DEPTH)}}}]').data[0] == "push"


def test_tokens_are_not_read_deeper_than_the_limit():
    tokens = Tokens(Settings(secret=("x" * 40,)))
    assert tokens.read(sign({"ids": ["42"], "more": json.loads(nested(DEPTH - 1))}, "x" * 40))
    with pytest.raises(Refused, match="100 levels"):
        tokens.read(sign({"ids": ["42"], "more": json.loads(nested(DEPTH))}, "x" * 40))
    header = base64.urlsafe_b64encode(f'{{"alg":{nested(900)}}}'.encode()).decode()
    with pytest.raises(Refused, match="100 levels"):
        tokens.read(f"{header}.e30.e30")


# Numbers.

NO_NUMBERS = ["1_0", " 5 ", "٣", "٣.٥", "1e999", "NaN", "nan", "inf", "-0", "+1", "0x10", "1" * 400, "1.", ".5", "５"]  # noqa: RUF001


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("field", ["ttl", "wait"])
def test_a_time_that_is_not_a_plain_number_is_refused(relay, field, text):
    status, _, answer = relay.request(
        "POST", "/push", json.dumps({"destination": "a", "data": 1, field: text}).encode(), JSON
    )
    assert (status, json.loads(answer)["error"]) == (400, f"invalid_{field}")


@pytest.mark.parametrize("value", ["1" * 400, "1" * 5000, "1e999", "-1e999", "true", "-1", "-0.0", "[]", "{}"])
def test_a_number_out_of_range_fails_alone_in_its_batch(relay, value):
    good = '{"destination":"numbers","data":1,"ttl":1}'
    for field in ("ttl", "wait", "id", "destination", "data"):
        if field == "data" and value[-1] not in "19":
            continue
        if (field, value) in (
            ("data", "-1"),
            ("id", "-1"),
            ("destination", "-1"),
            ("destination", "-0.0"),
            ("destination", "[]"),
        ):
            continue
        item = f'{{"destination":"numbers","data":1,"{field}":{value}}}'
        status, answer = push(relay, f"[{good},{item},{good}]")
        assert status == 200 and "id" in answer[0] and "id" in answer[2], (field, answer)
        assert answer[1]["error"] == f"invalid_{field}", answer[1]


@pytest.mark.parametrize(
    "value", ["1" + "0" * 308, "9007199254740993", "-" + "9" * 308, "1e308", '"' + "1" * 5000 + '"']
)
def test_a_number_that_a_double_can_hold_is_passed_on(value):
    text = read_pushes(environ_of(f'{{"destination":"a","data":[{value}]}}'), Settings()).text
    assert json.loads(text) == json.loads(f"[{value}]")


@pytest.mark.parametrize("digits", [309, 310, 400, 4300, 4301, 100_000])
def test_a_whole_number_that_would_be_infinity_in_a_browser_is_refused(digits):
    for number in ("9" * digits, "-" + "9" * digits):
        with pytest.raises(Refused, match="out of range") as refused:
            read_pushes(environ_of(f'{{"destination":"a","data":{{"n":[{number}]}}}}'), Settings())
        assert refused.value.error == "invalid_data"


def test_reading_a_long_number_takes_no_longer_than_reading_its_digits():
    began = time.monotonic()
    assert json_text.read("[" + "1" * 5_000_000 + "]") == [float("inf")]
    assert time.monotonic() - began < 10, "int() would take minutes, were it allowed to"


def test_an_offset_that_no_store_can_hold_is_not_a_position(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "x")])
    broker.flush()
    for offset in (str(2**63 - 1), str(2**63), "9" * 19, "9" * 400, "٣", "1_0", "-1", ""):
        since = f"{broker.epoch}:{offset}"
        assert not broker.history("42", since).recovered
        assert not broker.recover("42", since, lambda publication: None, lambda: None).recovered


@pytest.mark.parametrize("text", ["1_0", "٣", "nan", "inf", "1e400", "1" * 400, "-1", "0x1"])
def test_a_setting_that_is_not_a_plain_number_stops_the_start(text):
    for name in ("history_ttl", "max_body"):
        with pytest.raises(SettingsError, match=name):
            load({}, {name: text})


def test_ids_of_packets_are_written_with_plain_digits():
    for text in ('2٣["a"]', '٢["a"]', '2/x,٣["a"]', '2²["a"]', "", "x", "7[]"):
        assert Packet(encoded_packet=text).data[0] == INVALID
    assert Packet(encoded_packet='2/x٣,12["٣"]').id == 12


def test_only_plain_decimals_are_numbers():
    assert [decimal(text) for text in ("0", "1.5", "30", "1.0E-5", "9223372036854775807")] == [
        0,
        1.5,
        30,
        1e-5,
        2.0**63,
    ]
    assert [decimal(text) for text in NO_NUMBERS] == [None] * len(NO_NUMBERS)


# Bytes.

GROWING = {
    "quotes": '"',
    "backslashes": "\\",
    "line ends": "\n",
    "control characters": "\x01",
    "two bytes": "ä",
    "three bytes": "水",
    "four bytes": "😀",
}


@pytest.mark.parametrize("character", GROWING.values(), ids=GROWING)
def test_data_of_max_body_bytes_is_accepted_and_one_byte_more_is_refused(character):
    settings = Settings(max_body=10_000)
    each = len(json.dumps(character, ensure_ascii=False).encode()) - 2
    most = 9998 // each
    data = character * most + "x" * (9998 - most * each)
    assert len(push_of({"destination": "a", "data": data}, settings).text.encode()) == 10_000
    with pytest.raises(Refused, match=r"takes 10001 bytes as JSON.*at most 10000.*max_body") as refused:
        push_of({"destination": "a", "data": data + "x"}, settings)
    assert (refused.value.status, refused.value.error) == (413, "too_large")


def test_numbers_that_grow_when_they_are_encoded_count_as_browsers_get_them():
    with pytest.raises(Refused, match="max_body"):
        read_pushes(
            environ_of('{"destination":"a","data":[' + ",".join(["1E15"] * 1500) + "]}"), Settings(max_body=10_000)
        )


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_largest_push_reaches_a_client_with_the_smallest_outbox(start_relay, connect, transport):
    relay = start_relay(max_outbox=65536)
    first = relay.push("large", "before")["id"]
    for data in ("x" * 900_000, '"' * 490_000):
        client = connect(relay.url, "large", transport=transport)
        assert relay.push_json(destination="large", data=data)[0] == 200
        assert client.data(1) == [data]
    if transport == "websocket":
        late = connect(relay.url, transport=transport)
        assert late.call("register", {"id": "large", "since": first})["ids"]["large"]["replayed"] == 2
        assert [len(each) for each in late.data(2)] == [900_000, 490_000]


def test_a_push_that_no_client_could_receive_is_refused_with_both_sizes(relay):
    for form in (b"destination=a&data=" + b"\x01" * 990_000, b"destination=a&data=" + b'"' * 999_900):
        status, _, answer = relay.request("POST", "/push", form)
        assert status == 413 and "max_body" in json.loads(answer)["message"]
        assert "1000000" in json.loads(answer)["message"]


@own_only
def test_a_page_that_may_push_has_the_same_limits(start_relay):
    relay = start_relay(socket_push="yes", max_body=20_000)
    client = Wire(relay.port)
    assert client.call("push", {"destination": "a", "data": "x" * 19_000})[1]["ok"]
    refused = client.call("push", {"destination": "a", "data": "\x01" * 5000})[1]
    assert refused["error"] == "too_large" and "30002" in refused["message"]


# Many destinations.


def names(count):
    return [f"n{number}" for number in range(count)]


def test_one_request_may_store_the_limit_of_bytes_and_no_byte_more():
    settings = Settings()
    count = 64
    fits = "x" * (MOST_STORED // count - 2)
    assert push_of({"destination": names(count), "data": fits}, settings)
    with pytest.raises(Refused, match="over all destinations") as refused:
        push_of({"destination": names(count), "data": fits + "x"}, settings)
    assert refused.value.status == 413
    half = json.dumps({"destination": names(count // 2), "data": fits})
    batch = Settings(max_body=1 << 20)
    assert len(read_pushes(environ_of(f"[{half},{half}]"), batch)) == 2
    one = json.dumps({"destination": "one", "data": ""})
    with pytest.raises(Refused, match="over all destinations"):
        read_pushes(environ_of(f"[{half},{half},{one}]"), batch)


def test_one_request_never_stores_more_than_the_history_may_hold():
    settings = Settings(history_bytes=1 << 20)
    with pytest.raises(Refused, match="one request may store 1048576"):
        push_of({"destination": names(2), "data": "x" * 600_000}, settings)
    with pytest.raises(SettingsError, match=r"max_body.*history_bytes"):
        Settings(max_body=2 << 20, history_bytes=1 << 20)


def test_publications_of_one_push_share_its_text():
    for push in (
        push_of({"destination": names(100), "data": {"a": "b" * 1000}}, Settings()),
        Push(["a"], False, "push", "1"),
    ):
        assert len({id(item.text) for item in items_of(push)}) == 1


class Store:
    """A broker that keeps what is stored, by transaction."""

    def __init__(self):
        self.transactions = []

    def store_soon(self, items, stored):
        self.transactions.append([len(item.text) for item in items])
        stored(None)

    def hand_out(self, items, most):
        return []

    def sweep_after(self, count):
        pass


class Calls:
    """A poller that calls back when the test wants it."""

    polled = 0.0

    def __init__(self):
        self.calls = []

    def call_afterwards(self, callback, *args):
        self.calls.append((callback, args))


def test_large_pushes_take_turns_and_a_small_one_overtakes_them():
    store, poller, told = Store(), Calls(), []
    batcher = Batcher(store)
    large = Pending("a", "", text='"' + "x" * batching.MOST_BYTES_AT_ONCE + '"')
    for _ in range(5):
        batcher.add([large], lambda error: told.append("large"), poller)
    batcher.add([Pending("b", "small")], lambda error: told.append("small"), poller)
    while poller.calls:
        callback, args = poller.calls.pop(0)
        callback(*args)
    assert [len(each) for each in store.transactions] == [2, 1, 1, 1, 1]
    assert told == ["small", "large", "large", "large", "large", "large"]


def test_a_push_counts_before_it_is_added(monkeypatch):
    monkeypatch.setattr(batching, "MOST_BYTES", 10_000)
    batcher, poller = Batcher(Store()), Calls()
    large = [Pending("a", "", text="x" * 9000), Pending("b", "", text="x" * 9000)]
    batcher.check_room(large)  # alone it has room, or no large push ever would
    batcher.add(large[:1], lambda error: None, poller)
    batcher.check_room([Pending("c", "", text="x" * 1000)])
    with pytest.raises(Refused, match="later"):
        batcher.check_room([Pending("c", "", text="x" * 1001)])


@own_only
def test_a_large_push_to_many_destinations_is_refused_with_advice_and_others_continue(relay):
    status, answer = push(relay, json.dumps({"destination": names(1000), "data": "x" * 980_000}))
    assert (status, answer["error"]) == (413, "too_large") and "fewer destinations" in answer["message"]
    status, answer = push(relay, json.dumps({"destination": names(1000), "data": "x" * 4000}))
    assert status == 200 and len(answer) == 1000
    wait_for(lambda: relay.push("other", "x"))
