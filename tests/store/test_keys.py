"""A push whose key was used before is answered as the first one was."""

from pushrelay.store.keys import Keys
from pushrelay.store.publication import KeyRecord
from pushrelay.store.stripe import KeyUse, Pending


class Store:
    """A store that knows some keys, and counts the questions."""

    epoch = "e"

    def __init__(self, **known):
        self.known = known
        self.asked = []

    def find_key(self, key, now):
        self.asked.append(key)
        return self.known.get(key.rpartition(":")[2])


def test_a_key_that_nobody_used_is_new_and_is_looked_up_once():
    store = Store()
    keys, item = Keys(store), Pending("a", 1, key="k")
    assert not keys.is_repeat(item, item.use, 0.0) and not keys.is_repeat(item, item.use, 0.0)
    assert store.asked == ["1:ak"]


def test_a_stored_key_answers_with_what_is_stored():
    fingerprint = KeyUse("1").fingerprint
    for stored in (fingerprint, None):  # older relays stored no fingerprint
        keys, item = Keys(Store(ak=KeyRecord(7, 3, stored))), Pending("a", 1, key="k")
        assert keys.is_repeat(item, item.use, 0.0)
        assert (item.position, item.connections, item.is_reused) == ("e:7", 3, False)


def test_an_item_on_its_way_answers_before_the_store_is_asked():
    store = Store()
    keys, first, again = Keys(store), Pending("a", 1, key="k"), Pending("a", 1, key="k")
    keys.pending[first.key] = first
    assert keys.is_repeat(again, again.use, 0.0) and again.first is first and store.asked == []


def test_a_push_of_which_one_key_was_used_for_something_else_is_wholly_reused():
    use = KeyUse("1")
    items = [Pending(name, 1, key="k", use=use) for name in ("a", "b")]
    keys = Keys(Store(bk=KeyRecord(7, 3, "of another push")))
    assert [keys.is_repeat(item, use, 0.0) for item in items] == [True, True]
    assert all(item.is_reused and not item.position for item in items)


def test_one_push_may_be_new_to_one_destination_and_a_repeat_to_another():
    use = KeyUse("1")
    items = [Pending(name, 1, key="k", use=use) for name in ("a", "b")]
    keys = Keys(Store(bk=KeyRecord(7, 3, use.fingerprint)))
    assert [keys.is_repeat(item, use, 0.0) for item in items] == [False, True]
