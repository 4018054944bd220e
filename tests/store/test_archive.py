"""Which positions a history reaches back to."""

import pytest

from pushrelay.store.archive import Archive
from pushrelay.store.publication import Kept, Tip
from pushrelay.store.store import HistoryLimits


class Store:
    epoch = "e"

    def tip(self, destination):
        return Tip(9, 2, 5)


@pytest.fixture
def archive():
    return Archive(Store(), HistoryLimits(history_size=3), lambda: 100.0)


def kept(offset, expires=200.0, own=False):
    return Kept(offset, "push", '"x"', 0.0, expires, own)


@pytest.mark.parametrize(
    ("since", "offset"), [("e:7", 7), ("acked", 5), ("other:7", None), ("e:", None), ("e:+7", None), ("", None)]
)
def test_since_is_a_position_of_this_epoch_or_the_last_acknowledged_one(archive, since, offset):
    assert archive.offset_of("42", since) == offset


def test_a_history_is_complete_between_what_was_trimmed_and_the_tip(archive):
    tip = Tip(9, 2, 0)
    assert [archive.complete([], tip, after) for after in (1, 2, 9, 10)] == [None, [], [], None]


def test_an_expired_publication_is_a_loss_unless_its_publisher_set_the_expiry(archive):
    live, tip = kept(9), Tip(9, 2, 0)
    assert archive.complete([kept(8, expires=50.0, own=True), live], tip, 7) == [live]
    assert archive.complete([kept(8, expires=50.0), live], tip, 7) is None


def test_more_than_the_history_keeps_is_a_loss(archive):
    tip = Tip(9, 2, 0)
    assert archive.complete([kept(offset) for offset in (7, 8, 9)], tip, 6) is not None
    assert archive.complete([kept(offset) for offset in (6, 7, 8, 9)], tip, 5) is None


def test_a_publication_has_the_position_under_which_it_was_handed_out(archive):
    assert archive.publication("42", kept(7), "e") == ("42", "e:7", "push", '"x"', 0.0, 200.0)
