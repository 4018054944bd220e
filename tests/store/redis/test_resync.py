"""Publications that a node missed while its connection was away are queued once, in order."""

import threading
import time

from pushrelay.store.publication import Publication
from pushrelay.store.redis.entry import Entry, write_body
from pushrelay.store.redis.held import ASKED, Earlier, Held
from pushrelay.store.redis.link import State
from pushrelay.store.redis.resync import Missed, _new_entries, queue_missed
from pushrelay.store.stripe import Pending


class Stripe:
    """Keeps the offsets that are queued."""

    def __init__(self):
        self.lock = threading.Lock()
        self.queue = []


def entries(*offsets, generation=1):
    """Return entries of a history that are kept for an hour."""
    now = time.time()
    body = write_body(Pending("42", "x"), now, now + 3600, False).encode()
    return [Entry(offset, generation, body) for offset in offsets]


def queued(reached, tip, history):
    """Return the offsets that are queued for a destination, and its Held."""
    stripe = Stripe()
    held = Held(lambda destination: stripe)
    held.reached[b"42"] = reached
    queue_missed(Missed({b"42": tip}, {b"42": history} if history else {}, []), held, "epoch", time.time())
    assert all(isinstance(item.publication, Publication) for item in stripe.queue)
    return [item.offset for item in stripe.queue], held


def test_everything_that_was_missed_is_queued():
    assert queued(5, 8, entries(6, 7, 8))[0] == [6, 7, 8]


def test_what_is_published_while_the_histories_are_read_is_queued_once():
    offsets, held = queued(5, 6, entries(6, 7, 8))
    assert offsets == [6, 7, 8]
    assert not held.wants(b"42", 7) and not held.wants(b"42", 8)  # their messages arrive after the histories
    assert held.wants(b"42", 9)


def test_a_store_that_went_back_counts_from_its_own_offset():
    offsets, held = queued(50, 20, entries(19, 20, generation=2))
    assert offsets == [19, 20] and held.wants(b"42", 21)


def test_a_destination_without_missed_publications_counts_from_the_offset_in_the_store():
    offsets, held = queued(50, 20, [])
    assert offsets == [] and held.wants(b"42", 21)


def test_a_store_that_comes_back_counts_where_it_was_left():
    held = Held(lambda destination: Stripe())
    held.reached.update({b"42": 7, b"43": ASKED})
    held.leave("old", 3)
    held.reached[b"42"] = 100
    assert held.earlier["old"] == Earlier(3, {b"42": 7})
    for epoch in ("a", "b"):
        held.leave(epoch, 4)
    assert list(held.earlier) == ["a", "b"]  # it remembers the last two


def missing(history, reached, trimmed):
    """Return the offsets of what is new to a node, and whether something is missing."""
    before, now = State("old", generation=1), State("new", generation=2)
    new, is_lost = _new_entries(history, reached, trimmed, before, now)
    return [each.offset for each in new], is_lost


def test_what_expired_while_the_node_was_away_is_missing_also_in_a_new_epoch():
    assert missing([], 50, 60) == ([], True)
    assert missing([], 50, 50) == ([], False)
    assert missing([], 50, 0) == ([], False)  # the store was emptied, or nothing after it was to be kept
    assert missing(entries(61, generation=2), 50, 60) == ([61], True)
    assert missing(entries(51, generation=2), 50, 50) == ([51], False)
    assert missing(entries(50, generation=1) + entries(51, generation=2), 50, 40) == ([51], False)
