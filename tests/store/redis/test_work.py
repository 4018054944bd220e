"""Work that is done after the lock of the link is released."""

from pushrelay.store.redis.entry import Arrived
from pushrelay.store.redis.work import Work
from pushrelay.store.stripe import Stripe


def test_stripes_are_drained_once_and_then_calls_are_made_in_order():
    done = []
    stripe = Stripe({}, lambda publication, skip_sid: done.append(publication.position) or 1)
    for offset in (1, 2):
        stripe.queue.append(Arrived("42", offset, "epoch", b'1.0 2.0 0 4 0 push"x"'))
    work = Work()
    work.call(lambda: done.append("first"))
    work.drain(stripe)
    work.drain(None)
    work.drain(stripe)
    work.call(lambda: done.append("second"))
    assert done == []
    work.run()
    assert done == ["epoch:1", "epoch:2", "first", "second"]
    assert stripe.lock.acquire(blocking=False)


def test_a_call_that_fails_is_logged_and_the_next_one_is_made(caplog):
    done = []
    work = Work()
    work.call(lambda: 1 / 0)
    work.call(lambda: done.append("made"))
    work.run()
    assert done == ["made"] and "ZeroDivisionError" in caplog.text
