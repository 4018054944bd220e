"""A node queues each offset of a destination that it holds once and in order, from its question for the last one on."""

import pytest

from pushrelay.store.redis.entry import Arrived
from pushrelay.store.redis.held import ASKED, MOST_EARLIER, Held, Hole
from pushrelay.store.stripe import Stripe


@pytest.fixture
def stripe():
    return Stripe({}, lambda publication, skip_sid: 0)


@pytest.fixture
def held(stripe):
    return Held(lambda destination: stripe)


def arrived(offset, destination="42"):
    return Arrived(destination, offset, "epoch", b'1.0 2.0 0 4 0 push"x"')


def queued(stripe):
    return [item.offset for item in stripe.queue]


def hold(held, offset):
    held.ask(b"42")
    assert held.found(b"42", offset) == []


def test_what_nobody_holds_is_not_wanted(held):
    assert not held.wants(b"42", 1)


def test_each_offset_is_wanted_once_and_none_may_be_left_out(held, stripe):
    hold(held, 5)
    assert not held.wants(b"42", 5) and not held.wants(b"42", 1)
    with pytest.raises(Hole):
        held.wants(b"42", 7)
    assert held.wants(b"42", 6) and held.put(b"42", arrived(6)) is stripe
    assert not held.wants(b"42", 6) and held.wants(b"42", 7) and queued(stripe) == [6]


def test_what_arrives_before_the_answer_is_queued_after_it(held, stripe):
    held.ask(b"42")
    for offset in (4, 5, 6, 7):
        assert held.wants(b"42", offset) and held.put(b"42", arrived(offset)) is None
    assert [item.offset for item in held.found(b"42", 5)] == [6, 7] == queued(stripe)
    assert held.reached == {b"42": 7} and held.wants(b"42", 8)


def test_the_answer_to_a_second_thread_changes_nothing(held, stripe):
    held.ask(b"42")
    held.put(b"42", arrived(1))
    assert len(held.found(b"42", 0)) == 1
    assert held.found(b"42", 0) == [] and held.found(b"other", 3) == []
    assert held.reached == {b"42": 1} and queued(stripe) == [1]


@pytest.mark.parametrize("offsets", [(7,), (6, 8)])
def test_a_hole_behind_the_answer_is_noticed(held, stripe, offsets):
    held.ask(b"42")
    for offset in offsets:
        held.put(b"42", arrived(offset))
    with pytest.raises(Hole):
        held.found(b"42", 5)
    assert queued(stripe) == []


def test_a_destination_whose_offset_was_not_found_is_forgotten(held):
    held.ask(b"42")
    held.put(b"42", arrived(1))
    held.give_up(b"42")
    assert held.reached == {} == held._early
    hold(held, 3)
    held.give_up(b"42")  # another thread has found it
    assert held.reached == {b"42": 3}
    held.drop(b"42")
    held.drop(b"42")
    assert held.reached == {}


def test_only_what_is_asked_for_is_dropped_with_the_questions(held):
    hold(held, 3)
    held.ask(b"7")
    held.drop_asked()
    assert held.reached == {b"42": 3} and not held._early


def test_the_last_few_stores_are_remembered_without_what_is_not_known(held):
    hold(held, 3)
    held.ask(b"7")
    assert held.reached[b"7"] == ASKED
    for number in range(MOST_EARLIER + 2):
        held.leave(f"epoch{number}", number)
    held.leave("epoch3", 9)
    assert list(held.earlier)[-1] == "epoch3" and len(held.earlier) == MOST_EARLIER
    assert held.earlier["epoch3"] == (9, {b"42": 3})
