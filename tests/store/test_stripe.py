"""Pending publications, the queues of stripes, and the live queues of newcomers."""

import pytest

from pushrelay.store.publication import Publication
from pushrelay.store.stripe import LIVE_QUEUE_BYTES, MAX_SKIPPED, PENDING_BYTES, KeyUse, LiveQueue, Pending, Stripe


def placed(destination, offset, data="x", ttl=60.0, **fields):
    """Return an item as the store leaves it."""
    item = Pending(destination, data, **fields)
    item.offset, item.position = offset, f"e:{offset}"
    item.publication = Publication(destination, item.position, item.event, item.text, 100.0, 100.0 + ttl)
    return item


# Pending.


@pytest.mark.parametrize("fields", [("\ud800", 1), ("x", "\ud800"), ("x", {"a": "\ud800"}), ("x", float("nan"))])
def test_data_that_is_not_json_or_not_unicode_is_refused_at_once(fields):
    with pytest.raises(ValueError):
        Pending(*fields)
    with pytest.raises(ValueError):
        Pending("x", 1, "\ud800")
    with pytest.raises(ValueError):
        Pending("x", 1, key="\ud800")
    with pytest.raises(ValueError):
        Pending("x", 1, skip_sid="\ud800")


def test_the_text_is_used_as_it_is_if_it_is_known():
    assert Pending("x", object(), text="[1]").data == [1]


def test_items_of_one_push_share_the_use_of_its_key_and_have_a_key_each():
    use = KeyUse('"a"')
    items = [Pending(name, "a", key="k", use=use) for name in ("x", "1:x")]
    assert use.keys == [item.key for item in items] == ["1:xk", "3:1:xk"]
    assert Pending("x", "a").use is None


def test_a_number_in_a_form_and_in_json_is_the_same_push_and_other_contents_are_another():
    same = {KeyUse(text).fingerprint for text in ("1", '"1"')}
    others = [KeyUse("2"), KeyUse("1", "order"), KeyUse("1", ttl=5), KeyUse("1", skip_sid="a")]
    assert len(same) == 1 and len(same | {each.fingerprint for each in others}) == 5


def test_a_receipt_is_that_of_the_item_that_is_repeated():
    first = placed("x", 3)
    first.connections = 2
    assert first.receipt() == ("e:3", 2, False, False)
    repeated = Pending("x", "x", key="k")
    repeated.first = first
    assert repeated.receipt() == ("e:3", 2, True, False)
    repeated.use.is_reused = True
    assert repeated.receipt().reused


# Stripes.


def test_a_stripe_hands_out_in_order_and_counts_the_sockets():
    delivered = []
    stripe = Stripe({}, lambda publication, skip_sid: delivered.append((publication.position, skip_sid)) or 4)
    items = [placed("x", 1), placed("y", 1, skip_sid="me"), placed("x", 2)]
    stripe.queue.extend(items)
    stripe.drain()
    assert delivered == [("e:1", None), ("e:1", "me"), ("e:2", None)]
    assert [item.connections for item in items] == [4, 4, 4] and not stripe.queue


def test_handing_out_tells_newcomers_that_they_need_not_wait_for_the_transaction():
    committing = {"x": 3, "y": 1}
    stripe = Stripe(committing, lambda publication, skip_sid: 0)
    stripe.queue.extend([placed("x", 3), placed("x", 4)])
    stripe.drain()
    assert committing == {"x": 5, "y": 1}


def test_a_delivery_that_fails_stops_no_other(caplog):
    def deliver(publication, skip_sid):
        if publication.destination == "bad":
            raise OSError("gone")
        return 1

    stripe = Stripe({}, deliver)
    items = [placed("bad", 1), placed("good", 1)]
    stripe.queue.extend(items)
    stripe.drain()
    assert [item.connections for item in items] == [0, 1] and "handing out to 'bad' failed" in caplog.text


def test_a_live_queue_collects_what_is_handed_out_while_it_is_attached():
    stripe, live_queue, other = Stripe({}, lambda publication, skip_sid: 0), LiveQueue(), LiveQueue()
    stripe.detach("x", live_queue)  # it never was
    stripe.attach("x", live_queue)
    stripe.attach("x", other)
    stripe.queue.extend([placed("x", 1), placed("y", 1)])
    stripe.drain()
    stripe.detach("x", live_queue)
    stripe.queue.append(placed("x", 2))
    stripe.drain()
    stripe.detach("x", other)
    assert [item.position for item in live_queue.items] == ["e:1"] and live_queue.last == "e:1"
    assert len(other) == 2 and stripe.live_queues == {}


class Unfinished:
    """A delivery to many sockets."""

    def __init__(self, sockets):
        self.connections = self.left = sockets
        self.error = None

    def go_on(self, most):
        if self.error:
            raise self.error("gone")
        self.left -= min(self.left, most)


def test_a_large_fan_out_goes_on_in_turns_and_only_its_own_destination_waits():
    large = [Unfinished(10), Unfinished(3)]
    stripe = Stripe({}, lambda publication, skip_sid: large[publication.data] if publication.destination == "x" else 2)
    items = [placed("x", 1, 0), placed("x", 2, 1), placed("y", 1)]
    for item in items:
        item.stripe = stripe
    stripe.queue.extend(items[:2])
    assert stripe.drain(6) == 0 and (large[0].left, large[1].left) == (4, 3) and items[0].connections == 10
    stripe.queue.append(items[2])
    assert stripe.drain(0) == -2 and large[0].left == 4 and [item.stripe for item in items] == [stripe, stripe, None]
    assert stripe.drain(5) == 0 and (large[0].left, large[1].left) == (0, 2) and items[0].stripe is None
    with stripe:  # nothing is being handed out
        assert large[1].left == 0 and items[1].stripe is None and stripe.deliveries == 15
    assert not stripe.lock.locked()
    large[0].left = large[1].left = 9
    stripe.queue.extend([placed("x", 3, 0), placed("x", 4, 1)])
    stripe.drain(1)
    assert stripe.drain() > 9 and large[0].left == large[1].left == 0 and not stripe.queue


def test_a_large_fan_out_that_fails_is_over(caplog):
    failing = Unfinished(10)
    stripe, item = Stripe({}, lambda publication, skip_sid: failing), placed("bad", 1)
    item.stripe = stripe
    stripe.queue.append(item)
    stripe.drain(1)
    failing.error = OSError
    stripe.finish()
    assert item.stripe is None and "handing out to 'bad' failed" in caplog.text


def test_an_interrupt_while_fan_outs_are_completed_leaves_the_lock_free():
    unfinished = Unfinished(10)
    stripe, item = Stripe({}, lambda publication, skip_sid: unfinished), placed("x", 1)
    stripe.queue.append(item)
    stripe.drain(1)
    unfinished.error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), stripe:
        pass
    assert not stripe.lock.locked()


# Live queues.


def test_a_live_queue_that_overflows_holds_nothing_and_starts_again():
    live_queue = LiveQueue()
    size = LIVE_QUEUE_BYTES // 3 - PENDING_BYTES - 2
    for number in range(1, 4):
        live_queue.add(placed("x", number, "a" * size))
    assert len(live_queue) == 3 and not live_queue.overflowed
    live_queue.add(placed("x", 4))
    assert live_queue.overflowed and not live_queue.items and not live_queue.dropped_ephemeral
    live_queue.restart()
    live_queue.add(placed("x", 5))
    assert [item.offset for item in live_queue.items] == [5] and live_queue.last == "e:5"


def test_a_live_queue_notes_that_it_dropped_what_no_store_keeps():
    live_queue = LiveQueue()
    live_queue.add(placed("x", 1, ttl=0.0))
    live_queue.add(placed("x", 2, "a" * LIVE_QUEUE_BYTES))
    assert live_queue.overflowed and live_queue.dropped_ephemeral


def test_items_that_were_taken_and_not_sent_come_back_before_later_ones():
    live_queue = LiveQueue()
    live_queue.add(placed("x", 1))
    taken = live_queue.take()
    live_queue.add(placed("x", 2))
    live_queue.put_back(taken)
    assert [item.offset for item in live_queue.items] == [1, 2]
    taken = live_queue.take()
    live_queue.add(placed("x", 3, "a" * LIVE_QUEUE_BYTES))
    live_queue.put_back(taken)
    assert live_queue.overflowed and not live_queue.items


def test_a_live_queue_notes_what_is_not_meant_for_its_newcomer_up_to_a_bound():
    live_queue = LiveQueue("me")
    for number in range(1, MAX_SKIPPED + 10):
        live_queue.add(placed("x", number, skip_sid="me"))
    live_queue.add(placed("x", 5000, skip_sid="somebody else"))
    assert live_queue.skipped == set(range(1, MAX_SKIPPED + 1))
