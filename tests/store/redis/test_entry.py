"""A publication comes back from Redis, and from the messages between nodes, as it was pushed."""

import pytest

from pushrelay.store.publication import Kept
from pushrelay.store.redis.entry import (
    Arrived,
    kept_of,
    kept_without_data,
    read_body,
    read_entry,
    write_body,
)
from pushrelay.store.stripe import Pending

EVENTS = ["push", "", "an event", "1 2 3", "ä€\U0001f600", "a\r\nb\0"]
SIDS = [None, "sid", "a b", "ä"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("sid", SIDS)
@pytest.mark.parametrize("data", ["", "text ", " text", {"ä": "€ \U0001f600 \0\r\n"}, None, 10**30])
def test_a_body_has_everything_that_was_pushed(event, sid, data):
    item = Pending("42", data, event, skip_sid=sid)
    body = read_body(write_body(item, 1700000000.1, 1700003600.25, False).encode())
    assert body == (1700000000.1, 1700003600.25, False, event, sid, item.text)


def test_times_are_exact():
    for created in (0.1 + 0.2, 1e-7, 1.7e9, 12345678901234.567, 1e22):
        assert read_body(write_body(Pending("42", 1), created, created / 3, True).encode())[:3] == (
            created,
            created / 3,
            True,
        )


def test_an_entry_of_a_history_is_kept_as_in_other_stores():
    item = Pending("42", "ä 1 2 3", "an event", skip_sid="sid")
    raw = b"1000000000000001 7 " + write_body(item, 5.5, 6.5, True).encode()
    assert read_entry(raw)[:2] == (10**15 + 1, 7)
    assert kept_of(raw) == Kept(10**15 + 1, "an event", item.text, 5.5, 6.5, True)
    assert kept_without_data(b"3 7 5.5 6.5 1 ") == Kept(3, "", "", 5.5, 6.5, True)
    assert kept_without_data(b"3 7 5.5 6.5 0 ").own is False


def test_what_arrives_is_delivered_like_what_was_pushed_here():
    pushed = Pending("ä 42", {"a": 1}, "order", skip_sid="sid")
    arrived = Arrived("ä 42", 9, "epoch", write_body(pushed, 5.5, 6.5, False).encode())
    assert arrived.publication == ("ä 42", "epoch:9", "order", pushed.text, 5.5, 6.5)
    assert (arrived.offset, arrived.position, arrived.skip_sid) == (9, "epoch:9", "sid")
    assert arrived.use is None and arrived.connections == 0
