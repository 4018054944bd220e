"""The steps of a push in this process: store, hand out, sweep."""

import inspect

import pytest

from pushrelay.errors import StoreError
from pushrelay.store import Broker, Draft, open_broker
from pushrelay.store.local_broker import SWEEP_EVERY, LocalBroker
from pushrelay.store.stripe import Pending


def opened(deliver=lambda publication, skip_sid: 1):
    broker = open_broker("memory:", deliver)
    broker.start()
    return broker


def test_it_has_every_method_of_a_broker_with_the_same_arguments():
    methods = [name for name, _ in inspect.getmembers(Broker, inspect.isfunction) if not name.startswith("_")]
    assert len(methods) > 15
    for name in methods:
        assert inspect.signature(getattr(LocalBroker, name)) == inspect.signature(getattr(Broker, name)), name


def test_stored_items_are_handed_out_by_the_next_step():
    delivered = []
    broker = opened(lambda publication, skip_sid: delivered.append(publication.data) or 2)
    items = [Pending("42", "a"), Pending("other", "b")]
    broker.store(items)
    assert broker.position("42").endswith(":1") and delivered == []
    broker.hand_out(items)
    assert delivered == ["a", "b"] and [item.receipt().connections for item in items] == [2, 2]
    broker.hand_out(items)  # there is nothing left to hand out
    assert delivered == ["a", "b"]


def test_items_that_exceed_what_may_be_handed_out_in_one_turn_are_left():
    broker = opened(lambda publication, skip_sid: 30)
    items = [Pending(str(number), "x") for number in range(100)]
    broker.store(items)
    left = broker.hand_out(items, 100)
    assert len(left) == 93 and sum(item.connections for item in items) == 210
    while left:
        left = broker.hand_out(left, 1000)
    assert {item.connections for item in items} == {30}


def test_publishing_nothing_needs_no_transaction():
    assert open_broker("memory:", lambda publication, skip_sid: 1).publish([]) == []  # it would be refused


def test_one_sweep_follows_a_number_of_publications():
    broker, sweeps = opened(), []
    broker.sweep = lambda: sweeps.append(1) or False
    broker.sweep_after(SWEEP_EVERY - 1)
    assert not sweeps
    broker.sweep_after(1)
    assert len(sweeps) == 1


def test_a_sweep_that_fails_does_not_fail_the_push():
    broker = opened()

    def fail(now):
        raise StoreError("the disk is full")

    broker._store.retain = fail
    broker.sweep_after(SWEEP_EVERY)
    assert broker.trouble == "the disk is full"


def test_a_failure_of_the_store_is_a_sentence_and_the_log_has_its_traceback(caplog):
    broker = opened()

    def fail(items, *options):
        raise ZeroDivisionError("a bug")

    append, broker._store.append = broker._store.append, fail
    with pytest.raises(StoreError, match="see the log"):
        broker.publish([Draft("42", 1, key="k")])
    assert "ZeroDivisionError" in caplog.text and broker.trouble and not broker._keys.pending
    broker._store.append = append
    assert not broker.publish([Draft("42", 1, key="k")])[0].repeated and broker.trouble is None


def test_it_can_be_closed_at_any_time_and_more_than_once():
    broker = open_broker("memory:", lambda publication, skip_sid: 1)
    broker.close()
    broker.start()
    broker.close()
    broker.close()
    with pytest.raises(StoreError, match="closed"):
        broker.sweep()
