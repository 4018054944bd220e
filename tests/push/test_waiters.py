"""Pushes that wait for an acknowledgement, in every order of events."""

import pytest

from pushrelay.errors import Refused
from pushrelay.push.waiters import Waiters
from pushrelay.store.publication import Receipt


@pytest.fixture
def waiters():
    return Waiters(3)


@pytest.fixture
def answers():
    return []


def receipts(*offsets):
    return [Receipt(f"epoch:{offset}", 1) for offset in offsets]


def test_a_push_is_answered_when_each_destination_is_acknowledged(waiters, answers):
    waiter = waiters.enter(["a", "b"])
    waiter.expect(receipts(5, 6), answers.append)
    waiters.note("a", 4, "one")
    waiters.note("a", 5, "one")
    waiters.note("c", 9, "one")
    assert answers == []
    waiters.note("b", 7, "two")
    assert answers == [{"a": 1, "b": 1}] and len(waiters) == 0


def test_a_client_that_acknowledges_twice_counts_once(waiters, answers):
    waiters.enter(["a", "b"]).expect(receipts(5, 6), answers.append)
    for offset, sid in ((5, "one"), (6, "one"), (7, "two")):
        waiters.note("a", offset, sid)
    waiters.note("b", 6, "one")
    assert answers == [{"a": 2, "b": 1}]


def test_an_acknowledgement_before_the_push_has_its_receipts_counts(waiters, answers):
    waiter = waiters.enter(["a"])
    waiters.note("a", 5, "one")
    waiter.expect(receipts(5), answers.append)
    assert answers == [{"a": 1}] and len(waiters) == 0


def test_a_wait_may_end_before_the_push_has_its_receipts(waiters, answers):
    """Another thread may end the wait before expect() is called."""
    waiter = waiters.enter(["a"])
    waiter.finish()
    waiter.expect(receipts(5), answers.append)
    assert answers == [{"a": 0}] and len(waiters) == 0


def test_a_push_is_answered_once(waiters, answers):
    waiter = waiters.enter(["a"])
    waiter.expect(receipts(5), answers.append)
    waiter.finish()
    waiter.finish()
    waiters.note("a", 5, "one")
    assert answers == [{"a": 0}] and len(waiters) == 0


def test_at_most_the_limit_of_pushes_wait(waiters, answers):
    waiting = [waiters.enter([name]) for name in "aab"]
    with pytest.raises(Refused, match="max_waiting"):
        waiters.enter(["c"])
    waiting[0].finish()
    waiters.enter(["c"])
    assert len(waiters) == 3


def test_all_waiting_pushes_are_answered_when_the_relay_stops(waiters, answers):
    for name in "ab":
        waiters.enter([name, "both"]).expect(receipts(1, 1), answers.append)
    waiters.note("a", 1, "one")
    waiters.finish()
    assert sorted(map(sorted, answers)) == [["a", "both"], ["b", "both"]] and len(waiters) == 0


def test_a_push_is_answered_at_once_while_the_relay_stops(waiters, answers):
    waiters.enter(["a"]).expect(receipts(1), answers.append)
    waiters.finish()
    assert answers == [{"a": 0}]
    waiters.enter(["b"]).expect(receipts(1), answers.append)
    assert answers == [{"a": 0}, {"b": 0}] and len(waiters) == 0


def test_a_finished_wait_leaves_nothing_in_memory(waiters):
    for number in range(10):
        waiters.enter([str(number), "both"]).finish()
    assert waiters._by_destination == {}
