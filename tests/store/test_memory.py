"""How much memory a memory store takes, and that it takes no more than it may."""

from pushrelay.store import Draft, open_broker
from pushrelay.store.memory import OVERHEAD


def opened(**options):
    broker = open_broker("memory:", lambda publication, skip_sid: 0, **options)
    broker.start()
    return broker


def test_everything_that_is_kept_is_counted_and_given_back():
    now = [1000.0]
    broker = opened(clock=lambda: now[0], history_size=2)
    broker.publish([Draft("42", "x" * 98)] * 5 + [Draft("not kept", 1, ttl=0)])
    assert broker._store._bytes == 2 * (OVERHEAD + 100) + OVERHEAD + len("42") + OVERHEAD + len("not kept")
    now[0] += 10_000
    while broker.sweep():
        pass
    now[0] += broker._archive.limits.forget_after + 1
    while broker.sweep():
        pass
    assert broker._store._bytes == 0 and not broker._store._destinations


def test_keys_are_found_by_age_although_one_was_used_again():
    now = [1000.0]
    broker = opened(clock=lambda: now[0])
    broker.publish([Draft("42", 1, key="again"), Draft("42", 1, key="other")])
    now[0] += 301
    broker.publish([Draft("42", 1, key="again")])
    broker.sweep()
    assert list(broker._store._keys) == ["2:42again"]


def test_a_store_that_was_closed_can_still_be_read():
    broker = opened()
    broker.publish([Draft("42", 1)])
    broker.close()
    assert [each.data for each in broker.history("42").publications] == [1]
