"""Pushes that wait for an acknowledgement, however what happens to them meets in time."""

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


def test_it_is_answered_when_each_destination_is_acknowledged(waiters, answers):
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


def test_no_acknowledgement_is_too_quick_for_it(waiters, answers):
    waiter = waiters.enter(["a"])
    waiters.note("a", 5, "one")
    waiter.expect(receipts(5), answers.append)
    assert answers == [{"a": 1}] and len(waiters) == 0


def test_no_end_is_too_quick_for_it(waiters, answers):
    """The time may be up, in another thread, before the push that waits has said how it is to be answered."""
    waiter = waiters.enter(["a"])
    waiter.finish()
    waiter.expect(receipts(5), answers.append)
    assert answers == [{"a": 0}] and len(waiters) == 0


def test_it_is_answered_once(waiters, answers):
    waiter = waiters.enter(["a"])
    waiter.expect(receipts(5), answers.append)
    waiter.finish()
    waiter.finish()
    waiters.note("a", 5, "one")
    assert answers == [{"a": 0}] and len(waiters) == 0


def test_so_many_wait_and_no_more(waiters, answers):
    waiting = [waiters.enter([name]) for name in "aab"]
    with pytest.raises(Refused, match="max_waiting"):
        waiters.enter(["c"])
    waiting[0].finish()
    waiters.enter(["c"])
    assert len(waiters) == 3


def test_at_the_end_all_are_answered(waiters, answers):
    for name in "ab":
        waiters.enter([name, "both"]).expect(receipts(1, 1), answers.append)
    waiters.note("a", 1, "one")
    waiters.finish()
    assert sorted(map(sorted, answers)) == [["a", "both"], ["b", "both"]] and len(waiters) == 0


def test_a_push_that_comes_after_the_end_began_is_answered_at_once(waiters, answers):
    waiters.enter(["a"]).expect(receipts(1), answers.append)
    waiters.finish()
    assert answers == [{"a": 0}]
    waiters.enter(["b"]).expect(receipts(1), answers.append)
    assert answers == [{"a": 0}, {"b": 0}] and len(waiters) == 0


def test_a_destination_that_was_waited_for_once_leaves_nothing_in_memory(waiters):
    for number in range(10):
        waiters.enter([str(number), "both"]).finish()
    assert waiters._by_destination == {}
