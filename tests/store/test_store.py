"""The promises of every store: one class of tests that each kind inherits."""

import pytest

from pushrelay.store.group_commit import Job
from pushrelay.store.open import STORES
from pushrelay.store.store import Deadline, HistoryLimits
from pushrelay.store.stripe import Pending


class Clock:
    """The seconds since 1970. A test sets them."""

    now = 1_700_000_000.0

    def __call__(self):
        return self.now


def nothing_is_repeated(item, use, now):
    return False


class StoreContract:
    """The promises. A subclass names the kind of store, and what follows its colon in the setting."""

    kind = ""
    rest = ""

    @pytest.fixture(autouse=True)
    def set_up(self, tmp_path):
        self.path = tmp_path / "relay.db"
        self.clock = Clock()
        self.stores = []
        yield
        for store in self.stores:
            store.close()

    def open(self, **limits):
        self.limits = HistoryLimits(**limits)
        rest = self.rest.format(path=self.path)
        store = STORES[self.kind].make(rest, self.limits, self.clock, "process")
        store.open()
        self.stores.append(store)
        return store

    def transact(self, store, *works):
        """Do works in one transaction, as GroupCommit does, and return their results."""
        jobs = [Job(work) for work in works]
        store.transact(jobs)
        return [job.result for job in jobs]

    def append(self, store, *items, is_repeat=nothing_is_repeated):
        """Append items in their own transaction; return the arguments of each call of place()."""
        placed = []

        def place(item, offset, created, expires):
            item.offset = offset
            item.publication = item.publication._replace(created=created, expires=expires)
            placed.append((item, offset, created, expires))

        self.transact(store, lambda: store.append(list(items), self.clock(), place, is_repeat))
        return placed

    def test_every_item_is_placed_in_order_and_with_its_times(self):
        store = self.open(history_ttl=100)
        a, b, c = Pending("x", 1), Pending("y", 2, ttl=10), Pending("x", 3, ttl=1000)
        now = self.clock()
        assert self.append(store, a, b, c) == [(a, 1, now, now + 100), (b, 1, now, now + 10), (c, 2, now, now + 100)]

    def test_an_item_is_placed_before_anybody_can_see_its_offset(self):
        store = self.open()
        seen = []

        def place(item, offset, created, expires):
            item.offset = offset
            seen.append(store.tip("x").offset)

        self.transact(store, lambda: store.append([Pending("x", n) for n in range(3)], 0.0, place, nothing_is_repeated))
        assert all(offset <= number for number, offset in enumerate(seen))

    def test_a_repeated_item_is_not_stored(self):
        store = self.open()
        first, again = Pending("x", 1, key="k"), Pending("x", 1, key="k")
        asked = []

        def is_repeat(item, use, now):
            asked.append((item, use, now))
            return item is again

        assert [item for item, *_ in self.append(store, first, again, Pending("x", 2), is_repeat=is_repeat)][0] is first
        assert asked == [(first, first.use, self.clock()), (again, again.use, self.clock())]
        assert [each.text for each in store.read("x", 0).kept] == ["1", "2"]

    def test_a_repeat_leaves_no_trace_in_an_empty_history(self):
        store = self.open()
        again = Pending("x", 1, key="k")
        self.append(store, again, Pending("x", 2), is_repeat=lambda item, use, now: item is again)
        page = store.read("x", 0)
        assert [(each.offset, each.text) for each in page.kept] == [(1, "2")] and page.tip == (1, 0, 0, False)

    def test_a_key_is_found_with_its_connections_until_it_is_too_old(self):
        store = self.open()
        item = Pending("x", 1, key="k")
        self.append(store, item)
        item.connections = 7
        self.transact(store, lambda: store.set_connections([item]))
        now = self.clock()
        find = lambda at: self.transact(store, lambda: store.find_key(item.key, at))[0]  # noqa: E731
        assert find(now) == find(now + 299) == (1, 7, item.use.fingerprint)
        assert find(now + 300) is None
        assert self.transact(store, lambda: store.find_key("1:xother", now)) == [None]

    def test_the_tip_is_that_of_the_last_publication_and_of_the_last_acknowledgement(self):
        store = self.open()
        assert store.tip("x") == (0, 0, 0, False)
        self.append(store, *(Pending("x", n) for n in range(5)))
        self.transact(store, lambda: store.ack("x", 3))
        self.transact(store, lambda: store.ack("x", 2), lambda: store.ack("never", 1))
        assert store.tip("x") == (5, 0, 3, False)
        assert store.tip("never") == (0, 0, 0, False)

    def test_a_page_is_bounded_in_bytes_and_has_one_publication_at_least(self):
        store = self.open()
        self.append(store, *(Pending("x", "a" * 100) for _ in range(5)))
        assert [each.offset for each in store.read("x", 0, 250).kept] == [1, 2]
        assert store.read("x", 0, 250).more and not store.read("x", 3, 250).more
        assert [each.offset for each in store.read("x", 2, 1).kept] == [3]
        assert [each.offset for each in store.read("x", 2, with_data=False).kept] == [3, 4, 5]
        assert store.read("x", 5) == ([], (5, 0, 0, False), False)
        assert store.read("never", 0) == ([], (0, 0, 0, False), False)

    def test_a_publication_that_is_not_kept_is_lost_unless_its_publisher_asked_for_that(self):
        store = self.open(history_size=0)
        self.append(store, Pending("wished", 1, ttl=0), Pending("lost", 1))
        assert store.read("wished", 0) == ([], (1, 0, 0, False), False)
        assert store.read("lost", 0) == ([], (1, 1, 0, False), False)

    def test_retaining_drops_what_expired_and_returns_whether_there_is_more(self):
        store = self.open(history_ttl=10, retain_seconds=0.0, retain_least=1)
        self.append(store, *(Pending(f"x{n}", n) for n in range(3)))
        assert not self.transact(store, lambda: store.retain(self.clock()))[0]
        self.clock.now += 100
        calls = 1
        while self.transact(store, lambda: store.retain(self.clock()))[0]:
            calls += 1
        assert 3 <= calls < 20
        self.transact(store, store.flush)
        assert [store.read(f"x{n}", 0) for n in range(3)] == [([], (1, 1, 0, False), False)] * 3

    def test_flushing_and_probing_change_nothing_that_anybody_sees(self):
        store = self.open()
        self.append(store, Pending("x", 1))
        self.transact(store, store.flush)
        self.transact(store, store.probe)
        assert [each.text for each in store.read("x", 0).kept] == ["1"]

    def test_a_mark_has_the_text_that_was_set_last(self):
        store = self.open()
        assert self.transact(store, lambda: store.mark("a")) == [""]
        self.transact(store, lambda: store.set_mark("a", "1"), lambda: store.set_mark("a", "ä\0"))
        assert self.transact(store, lambda: store.mark("a"), lambda: store.mark("b")) == ["ä\0", ""]


class TestMemoryStore(StoreContract):
    kind = "memory"

    def test_each_opening_has_an_epoch_of_its_own(self):
        assert self.open().epoch != self.open().epoch


class TestSQLiteStore(StoreContract):
    kind, rest = "sqlite", "{path}"

    def test_nothing_of_a_transaction_that_fails_remains(self):
        store = self.open()
        self.append(store, Pending("x", "before", key="k"))

        def fail():
            raise ZeroDivisionError

        def place(item, offset, created, expires):
            item.offset = offset

        item = Pending("x", "refused", key="other")
        with pytest.raises(ZeroDivisionError):
            self.transact(store, lambda: store.append([item], 0.0, place, nothing_is_repeated), fail)
        assert [each.text for each in store.read("x", 0).kept] == ['"before"']
        assert store.tip("x").offset == 1
        assert self.transact(store, lambda: store.find_key(item.key, 0.0)) == [None]


@pytest.mark.parametrize(
    ("ttl", "options", "lifetime"),
    [
        (None, {}, (3600.0, False)),
        (10, {}, (10, True)),
        (3600, {}, (3600, True)),
        (5000, {}, (3600.0, False)),
        (0, {}, (0, True)),
        (None, {"history_size": 0}, (0.0, False)),
        (10, {"history_size": 0}, (0.0, False)),
        (0, {"history_size": 0}, (0.0, True)),
    ],
)
def test_an_expiry_that_its_publisher_asked_for_is_marked_as_its_own(ttl, options, lifetime):
    assert HistoryLimits(**options).lifetime(ttl) == lifetime


def test_retention_over_its_limits_takes_a_least_number_of_steps_however_long_they_take():
    limits = HistoryLimits(retain_seconds=-1.0, retain_least=5)
    crowded, calm = Deadline(limits), Deadline(limits)
    assert [crowded.is_over(lambda: True) for _ in range(6)] == [False] * 4 + [True] * 2
    assert calm.is_over(lambda: False)
