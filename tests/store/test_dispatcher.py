"""The path of publications from the store to the sockets."""

import pytest

from pushrelay.errors import StoreError
from pushrelay.store import Draft, open_broker
from pushrelay.store.stripe import Pending


def opened(deliver=lambda publication, skip_sid: 1):
    broker = open_broker("memory:", deliver)
    broker.start()
    return broker, broker._dispatcher


def test_a_destination_has_one_stripe():
    _, dispatcher = opened()
    assert dispatcher.stripe_of("42") is dispatcher.stripe_of("4" + "2")
    assert {dispatcher.stripe_of(f"user{number}") for number in range(5000)} == set(dispatcher.stripes)


def test_a_publication_that_is_being_committed_is_not_reached_yet():
    broker, dispatcher = opened()
    broker.publish([Draft("42", n) for n in range(3)])
    assert dispatcher.reached("42") == 3
    dispatcher.committing["42"] = 2
    assert dispatcher.reached("42") == 1 and dispatcher.reached("other") == 0
    del dispatcher.committing["42"]
    assert dispatcher.reached("42", broker._store.tip("42")) == 3


def test_nothing_counts_as_being_committed_after_a_transaction_whether_it_failed_or_not():
    broker, dispatcher = opened()
    broker.publish([Draft("42", n) for n in range(3)])
    assert dispatcher.committing == {}
    with pytest.raises(StoreError):
        broker._group_commit.run(lambda: dispatcher.committing.update({"42": 4}) or 1 / 0)
    assert dispatcher.committing == {} and dispatcher.reached("42") == 3


def test_asking_how_far_sockets_are_hands_out_what_is_queued():
    delivered = []
    broker, dispatcher = opened(lambda publication, skip_sid: delivered.append(publication.position) or 1)
    broker.store([Pending("42", n) for n in range(3)])
    stripe = dispatcher.stripe_of("42")
    assert not delivered and len(stripe.queue) == 3
    with stripe.lock:
        found = dispatcher.delivered(stripe, "42")
    assert found == (broker.epoch, 3, 3) and found.position == delivered[-1] == f"{broker.epoch}:3"
    assert stripe.live_queues == {}
