"""The promises of every broker: one class of tests that each kind inherits."""

import collections
import functools
import json
import threading

import pytest
from conftest import DEADLINE, wait_for

from pushrelay.errors import Overtaken, StoreError
from pushrelay.store import Draft, open_broker
from pushrelay.store.publication import Mark, Receipt


class Clock:
    """The seconds since 1970. A test sets them."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


class Sockets:
    """Stands for the relay's sockets: a list that joined a destination gets its publications."""

    def __init__(self):
        self.joined = {}  # destination: lists of publications
        self.delivered = []

    def deliver(self, publication, skip_sid):
        self.delivered.append(publication)
        joined = self.joined.get(publication.destination, ())
        for got in joined:
            got.append(publication)
        return len(joined)

    def join(self, destination, got):
        self.joined.setdefault(destination, []).append(got)


def together(*works):
    """Run each in its own thread, all started at once; raise what one of them raised."""
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        start.wait(DEADLINE)
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def offset(position):
    return int(position.rpartition(":")[2])


def offsets(publications):
    return [offset(each.position) for each in publications]


def data(publications):
    return [each.data for each in publications]


class BrokerContract:
    """The promises. A subclass names the broker to try them on."""

    url = ""

    @pytest.fixture(autouse=True)
    def set_up(self, tmp_path):
        self.path = tmp_path / "relay.db"
        self.sockets, self.clock = Sockets(), Clock()
        self.brokers = []
        yield
        for broker in self.brokers:
            broker.close()

    def open(self, **options):
        url = self.url.format(path=self.path)
        options.setdefault("clock", self.clock)
        broker = open_broker(url, options.pop("deliver", self.sockets.deliver), **options)
        self.brokers.append(broker)
        broker.start()
        return broker

    def push(self, broker, destination, *values, **fields):
        return broker.publish([Draft(destination, value, **fields) for value in values])

    def recover(self, broker, destination, since):
        """Come as a newcomer; return the recovery, and the list that gets replayed and then live publications."""
        got = []
        return broker.recover(destination, since, got.append, lambda: self.sockets.join(destination, got)), got

    def sweep(self, broker):
        for _ in range(100_000):
            if not broker.sweep():
                return
        raise AssertionError("sweeping does not end")

    # Publishing.

    def test_a_publication_is_delivered_with_all_that_was_pushed(self):
        broker = self.open()
        [receipt] = broker.publish([Draft("42", {"a": [1, None]}, "order", ttl=60)])
        [publication] = self.sockets.delivered
        assert receipt == Receipt(publication.position, 0, False)
        assert publication == ("42", f"{broker.epoch}:1", "order", '{"a":[1,null]}', self.clock(), self.clock() + 60)
        assert publication.data == {"a": [1, None]}

    def test_offsets_count_from_one_in_each_destination(self):
        broker = self.open()
        assert [offset(r.position) for r in self.push(broker, "a", "x", "y") + self.push(broker, "b", "z")] == [1, 2, 1]

    def test_the_receipt_counts_the_sockets_and_skips_the_one_named(self):
        seen = []
        broker = self.open(deliver=lambda publication, skip_sid: seen.append(skip_sid) or 3)
        assert self.push(broker, "42", "x", skip_sid="sid1")[0].connections == 3
        assert seen == ["sid1"]

    def test_any_json_value_comes_back_as_it_was_pushed(self):
        broker = self.open()
        values = ["", "text", '{"a":1}', "42", 42, 1.5, True, None, [], {"ä": "€ \U0001f600 \0"}, "\u2028", 10**30]
        self.push(broker, "42", *values)
        assert data(broker.history("42").publications) == values
        assert [type(each) for each in data(broker.history("42").publications)] == [type(each) for each in values]

    def test_data_that_is_not_json_is_refused_before_anything_is_stored(self):
        broker = self.open()
        for bad in (float("nan"), "\ud800", {"a": "\udfff"}, {1, 2}):
            with pytest.raises((ValueError, TypeError)):
                broker.publish([Draft("42", "good"), Draft("42", bad)])
        assert self.sockets.delivered == []
        assert broker.position("42") == f"{broker.epoch}:0"

    def test_a_publication_that_cannot_be_handed_out_is_still_accepted(self, caplog):
        def deliver(publication, skip_sid):
            raise OSError("the socket is gone")

        broker = self.open(deliver=deliver)
        assert self.push(broker, "42", "x")[0].connections == 0
        assert data(broker.history("42").publications) == ["x"]
        assert "handing out" in caplog.text

    def test_destinations_may_have_any_name(self):
        broker = self.open()
        for name in ("", "a:b", "ä€", "x" * 1000, "'; DROP TABLE", "%", "1", "01"):
            self.push(broker, name, name)
            assert data(broker.history(name).publications) == [name]

    def test_eight_threads_see_no_offset_twice_and_no_delivery_out_of_order(self):
        broker = self.open(history_size=10_000)
        receipts = []

        def publish(number):
            for i in range(50):
                receipts.extend(broker.publish([Draft("all", i), Draft(f"own{number}", i), Draft("all", i)]))

        together(*(functools.partial(publish, number) for number in range(8)))
        for name, count in [("all", 800)] + [(f"own{number}", 50) for number in range(8)]:
            delivered = [each for each in self.sockets.delivered if each.destination == name]
            assert offsets(delivered) == list(range(1, count + 1))
            assert offsets(broker.history(name).publications) == list(range(1, count + 1))
        assert len(receipts) == 1200

    def test_a_slow_delivery_holds_up_no_other_destination(self):
        blocked, free = threading.Event(), threading.Event()

        def deliver(publication, skip_sid):
            if publication.destination == "slow":
                blocked.set()
                assert free.wait(DEADLINE)
            return 0

        broker = self.open(deliver=deliver)
        names = (f"other{i}" for i in range(10_000))
        other = next(name for name in names if broker._stripe_of(name) is not broker._stripe_of("slow"))
        thread = threading.Thread(target=self.push, args=(broker, "slow", "x"))
        thread.start()
        assert blocked.wait(DEADLINE)
        self.push(broker, other, "x")
        assert self.recover(broker, other, f"{broker.epoch}:0")[0].replayed == 1
        free.set()
        thread.join(DEADLINE)

    # Marks.

    def marked(self, broker, before, after, *drafts):
        for draft in drafts:
            broker.delivered(draft.destination)  # somebody is connected
        return broker.publish_marked(list(drafts), Mark("table", before, after))

    def test_a_mark_changes_with_the_publications_of_its_transaction(self):
        broker = self.open()
        assert broker.mark("table") == ""
        receipts = self.marked(broker, "", "1,2", Draft("42", "a"), Draft("42", {"b": "ä"}))
        assert [offset(each.position) for each in receipts] == [1, 2]
        assert broker.mark("table") == "1,2" and broker.mark("other") == ""
        assert data(self.sockets.delivered) == data(broker.history("42").publications) == ["a", {"b": "ä"}]
        long = ",".join(map(str, range(50_000)))
        self.marked(broker, "1,2", long, Draft("42", "c"))
        self.marked(broker, long, "")
        assert broker.mark("table") == "" and offset(broker.position("42")) == 3

    def test_nothing_is_stored_if_a_mark_is_not_what_its_owner_believes(self):
        broker = self.open()
        self.marked(broker, "", "1", Draft("42", "a"))
        for wrong in ("", "2"):
            with pytest.raises(Overtaken, match="has moved the mark table"):
                self.marked(broker, wrong, "3", Draft("42", "b"))
        assert broker.mark("table") == "1" and broker.trouble is None
        assert data(self.sockets.delivered) == data(broker.history("42").publications) == ["a"]
        self.push(broker, "42", "c")
        assert data(broker.history("42").publications) == ["a", "c"]

    def test_a_mark_is_moved_from_one_text_once_and_pushes_beside_it_go_on(self):
        broker = self.open(history_size=1000)
        stored, refused = [], []

        def move(number):
            for n in range(10):
                before = broker.mark("table")
                try:
                    self.marked(broker, before, f"{number}:{n}", Draft("42", [before, f"{number}:{n}"]))
                    stored.append(before)
                except Overtaken:
                    refused.append(before)

        def push():
            for n in range(30):
                self.push(broker, "42", n)

        together(*(functools.partial(move, number) for number in range(4)), push, push)
        chain = [each for each in data(broker.history("42").publications) if isinstance(each, list)]
        assert [before for before, _ in chain] == ["", *(after for _, after in chain[:-1])]
        assert chain[-1][1] == broker.mark("table")
        assert len(stored) + len(refused) == 40 and len(set(stored)) == len(stored) == len(chain)
        assert len(broker.history("42").publications) == len(chain) + 60

    # Positions and history.

    def test_the_position_is_that_of_the_last_publication(self):
        broker = self.open()
        assert broker.position("42") == f"{broker.epoch}:0"
        assert self.push(broker, "42", "x", "y")[-1].position == broker.position("42") == f"{broker.epoch}:2"

    def test_the_history_after_a_position_has_the_oldest_publication_first(self):
        broker = self.open()
        self.push(broker, "42", *range(5))
        since = f"{broker.epoch}:2"
        assert broker.history("42", since)[1:] == (f"{broker.epoch}:5", True)
        assert data(broker.history("42", since).publications) == [2, 3, 4]
        assert data(broker.history("42", since, limit=2).publications) == [2, 3]
        assert broker.history("42", "other:2").recovered is False
        assert broker.history("never") == ([], f"{broker.epoch}:0", True)

    # Recovery.

    def test_recovery_replays_missed_publications_and_then_goes_live(self):
        broker = self.open()
        first = self.push(broker, "42", "seen", "missed", "missed too")[0]
        recovery, got = self.recover(broker, "42", first.position)
        self.push(broker, "42", "live")
        assert recovery == (f"{broker.epoch}:3", True, 2)
        assert data(got) == ["missed", "missed too", "live"]

    def test_without_since_a_newcomer_only_joins(self):
        broker = self.open()
        self.push(broker, "42", "before")
        recovery, got = self.recover(broker, "42", None)
        assert recovery == (f"{broker.epoch}:1", False, 0)
        assert self.push(broker, "42", "live")[0].connections == 1
        assert data(got) == ["live"]

    def test_a_position_nobody_gave_recovers_nothing_and_gives_the_position_now(self):
        broker = self.open()
        self.push(broker, "42", "a", "b")
        e = broker.epoch
        for since in (
            "",
            ":",
            "1",
            "other:1",
            f"{e}:3",
            f"{e}:-1",
            f"{e}:1.0",
            f"{e}:",
            f"{e}: 1",
            f"{e}:+1",
            f"{e}:²",
        )[:] + (f"{e}:{10**30}", f"{e}:99999999999999999999", f"{e}:0x1", f"{e}:1\n", f"x{e}:1", "\ud800:1", "\0"):
            recovery, got = self.recover(broker, "42", since)
            assert recovery == (f"{e}:2", False, 0), since
            assert got == []

    def test_history_that_no_longer_reaches_back_is_not_replayed_in_part(self):
        broker = self.open(history_size=5)
        self.push(broker, "42", *range(8))
        assert data(broker.history("42").publications) == [3, 4, 5, 6, 7]
        assert self.recover(broker, "42", f"{broker.epoch}:2") == ((f"{broker.epoch}:8", False, 0), [])
        assert self.recover(broker, "42", f"{broker.epoch}:3")[0] == (f"{broker.epoch}:8", True, 5)

    def test_a_publication_that_its_publisher_did_not_want_kept_is_not_missed(self):
        broker = self.open(history_size=3)
        self.push(broker, "42", "kept")
        self.push(broker, "42", *range(100), ttl=0)
        self.push(broker, "42", "short", ttl=5)
        self.push(broker, "42", "kept too")
        assert data(self.recover(broker, "42", f"{broker.epoch}:0")[1]) == ["kept", "short", "kept too"]
        self.clock.now += 6
        for _ in range(2):
            recovery, got = self.recover(broker, "42", f"{broker.epoch}:0")
            assert recovery == (f"{broker.epoch}:103", True, 2)
            assert data(got) == ["kept", "kept too"]
            self.sweep(broker)

    def test_a_publication_that_became_too_old_is_lost_to_a_client_that_needs_it(self):
        broker = self.open(history_ttl=100)
        self.push(broker, "42", "old")
        self.push(broker, "42", "capped", ttl=1000)
        self.clock.now += 101
        self.push(broker, "42", "new")
        for _ in range(2):
            assert self.recover(broker, "42", f"{broker.epoch}:0")[0].recovered is False
            assert self.recover(broker, "42", f"{broker.epoch}:1")[0].recovered is False
            assert data(self.recover(broker, "42", f"{broker.epoch}:2")[1]) == ["new"]
            assert data(broker.history("42").publications) == ["new"]
            self.clock.now += 61
            self.sweep(broker)
            self.clock.now -= 61

    def test_without_history_a_client_that_missed_something_learns_it(self):
        for options in ({"history_size": 0}, {"history_ttl": 0}):
            self.path = self.path.with_name(f"{next(iter(options))}.db")
            broker = self.open(**options)
            self.push(broker, "42", "x")
            assert broker.history("42").publications == []
            assert self.recover(broker, "42", f"{broker.epoch}:0")[0] == (f"{broker.epoch}:1", False, 0)
            assert self.recover(broker, "42", f"{broker.epoch}:1")[0].recovered is True

    def test_a_clock_that_is_set_back_loses_nothing(self):
        broker = self.open(history_ttl=100)
        self.push(broker, "42", "before")
        self.clock.now -= 50_000
        self.push(broker, "42", "after")
        self.sweep(broker)
        assert data(self.recover(broker, "42", f"{broker.epoch}:0")[1]) == ["before", "after"]

    def test_nothing_is_missing_and_nothing_comes_twice_while_others_push(self):
        broker = self.open(history_size=1000)
        names = [f"user{i}" for i in range(50)]
        for name in names:
            self.push(broker, name, "before", "missed")
        done = threading.Event()
        results = []

        def publish():
            for i in range(12):
                broker.publish([Draft(name, i) for name in names[i % 2 :: 2]])
                broker.publish([Draft(name, i) for name in names[:3] for _ in range(3)])
            done.set()

        def come_and_go():
            while not done.is_set():
                for name in names:
                    results.append((name, *self.recover(broker, name, f"{broker.epoch}:1")))

        together(publish, publish, publish, publish, come_and_go, come_and_go, come_and_go)
        for name, recovery, got in results:
            last = offset(broker.position(name))
            assert recovery.recovered
            assert offsets(got) == list(range(2, last + 1))
            assert offset(recovery.position) == recovery.replayed + 1

    def test_the_position_in_a_recovery_is_where_live_publications_begin_also_without_since(self):
        broker = self.open()
        results, done = [], threading.Event()

        def publish():
            for i in range(300):
                self.push(broker, "42", i)
            done.set()

        def come():
            while not done.is_set() and len(results) < 300:
                results.append(self.recover(broker, "42", None))

        together(publish, publish, come)
        for recovery, got in results:
            assert offsets(got) == list(range(offset(recovery.position) + 1, 601))

    def test_a_newcomer_misses_nothing_that_is_handed_out_before_its_transaction_is_over(self):
        broker, results = self.open(), []

        class Queue(collections.deque):
            """Another publisher hands out what was just queued, and then a newcomer comes."""

            def append(this, item):
                super().append(item)
                with broker._stripe_of("42").lock:
                    broker._stripe_of("42").drain()
                results.extend(self.recover(broker, "42", since) for since in (None, f"{broker.epoch}:1"))

        self.push(broker, "42", "first")
        broker._stripe_of("42").queue = Queue()
        self.push(broker, "42", "second", "third")
        broker._stripe_of("42").queue = collections.deque()
        self.push(broker, "42", "fourth")
        assert len(results) == 4
        for number, (recovery, got) in enumerate(results):
            first = 2 if number % 2 else offset(recovery.position) + 1
            assert offsets(got) == list(range(first, 5))

    def test_a_replay_is_complete_even_if_more_is_pushed_during_it_than_the_history_keeps(self):
        broker = self.open(history_size=3)
        self.push(broker, "42", "a", "b")
        got = []

        def send(publication):
            got.append(publication)
            if len(got) == 1:
                self.push(broker, "42", *range(50))

        recovery = broker.recover("42", f"{broker.epoch}:0", send, lambda: self.sockets.join("42", got))
        self.push(broker, "42", "live")
        assert recovery == (f"{broker.epoch}:52", True, 52)
        assert offsets(got) == list(range(1, 54))

    def test_a_newcomer_that_goes_away_during_its_replay_leaves_nothing_behind(self):
        broker = self.open()
        self.push(broker, "42", "x")

        def send(publication):
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            broker.recover("42", f"{broker.epoch}:0", send, lambda: pytest.fail("it joined"))
        assert broker._stripe_of("42").live_queues == {}
        assert self.push(broker, "42", "y")[0].connections == 0

    # Acknowledgements.

    def test_an_acknowledged_position_moves_forward_only(self):
        broker = self.open()
        first, second, _ = self.push(broker, "42", "a", "b", "c")
        assert broker.acked("42") == f"{broker.epoch}:0"
        for position in (second.position, first.position, second.position):
            broker.ack("42", position)
            assert broker.acked("42") == second.position
        assert data(self.recover(broker, "42", "acked")[1]) == ["c"]

    def test_a_client_that_never_acknowledged_gets_everything_if_everything_is_there(self):
        broker = self.open(history_size=2)
        assert self.recover(broker, "42", "acked")[0] == (f"{broker.epoch}:0", True, 0)
        self.push(broker, "42", "a", "b")
        assert data(self.recover(broker, "42", "acked")[1]) == ["a", "b"]
        self.push(broker, "42", "c")
        assert self.recover(broker, "42", "acked")[0] == (f"{broker.epoch}:3", False, 0)

    def test_an_acknowledgement_of_a_position_that_was_never_pushed_is_refused(self):
        broker = self.open()
        self.push(broker, "42", "x")
        for position in ("acked", "", "other:1", f"{broker.epoch}:2", f"{broker.epoch}:x"):
            with pytest.raises(ValueError, match="acknowledge"):
                broker.ack("42", position)
        assert broker.acked("42") == f"{broker.epoch}:0"

    def test_an_acknowledgement_survives_later_publications(self):
        broker = self.open()
        broker.ack("42", self.push(broker, "42", "a")[0].position)
        self.push(broker, "42", "b")
        assert offset(broker.acked("42")) == 1

    # Idempotency.

    def test_a_repeated_key_is_answered_as_the_first_was_and_not_pushed(self):
        broker = self.open()
        self.sockets.join("42", [])
        first = self.push(broker, "42", "x", key="k")[0]
        self.sockets.join("42", [])
        self.push(broker, "42", "between")
        assert self.push(broker, "42", "x", key="k") == [Receipt(first.position, 1, True)]
        assert data(self.sockets.delivered) == data(broker.history("42").publications) == ["x", "between"]

    def test_an_idempotency_key_belongs_to_one_destination(self):
        broker = self.open()
        receipts = broker.publish(
            [Draft("a", 1, key="k"), Draft("b", 2, key="k"), Draft("1", 3, key="1:"), Draft("", 4, key="1:1")]
        )
        assert [receipt.repeated for receipt in receipts] == [False] * 4

    def test_a_key_twice_in_one_batch_is_one_push(self):
        broker = self.open()
        self.sockets.join("42", [])
        receipts = self.push(broker, "42", "x", "x", key="k")
        assert receipts == [Receipt(f"{broker.epoch}:1", 1, False), Receipt(f"{broker.epoch}:1", 1, True)]

    def test_a_key_is_known_for_five_minutes(self):
        broker = self.open()
        self.push(broker, "42", "x", key="k")
        self.clock.now += 299
        assert self.push(broker, "42", "x", key="k")[0].repeated
        self.clock.now += 2
        assert not self.push(broker, "42", "x", key="k")[0].repeated
        assert self.push(broker, "42", "x", key="k")[0] == Receipt(f"{broker.epoch}:2", 0, True)

    def test_eight_threads_with_one_key_push_once_and_get_the_same_receipt(self):
        broker = self.open()
        self.sockets.join("42", [])
        receipts = []
        for key in map(str, range(20)):
            together(*[lambda key=key: receipts.extend(self.push(broker, "42", key, key=key))] * 8)
        assert data(self.sockets.delivered) == list(map(str, range(20)))
        assert sum(not receipt.repeated for receipt in receipts) == 20
        assert {receipt.connections for receipt in receipts} == {1}

    def test_a_publisher_that_repeats_a_key_waits_until_the_first_push_is_handed_out(self):
        blocked, free, receipts = threading.Event(), threading.Event(), []

        def deliver(publication, skip_sid):
            blocked.set()
            assert free.wait(DEADLINE)
            return 7

        broker = self.open(deliver=deliver)
        stored, hand_out = [], broker.hand_out

        def note_and_hand_out(items):
            stored.append(items)
            hand_out(items)

        broker.hand_out = note_and_hand_out
        threads = [
            threading.Thread(target=lambda: receipts.extend(self.push(broker, "42", "x", key="k"))) for _ in range(2)
        ]
        threads[0].start()
        assert blocked.wait(DEADLINE)
        threads[1].start()
        wait_for(lambda: len(stored) == 2, "the repeat to be stored")
        threads[1].join(0.05)
        assert receipts == []
        free.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(receipts) == [Receipt(f"{broker.epoch}:1", 7, repeated) for repeated in (False, True)]

    # Bounds.

    def test_the_history_keeps_a_number_of_publications_of_each_destination(self):
        broker = self.open(history_size=20)
        for i in range(200):
            self.push(broker, "busy", i)
        self.push(broker, "quiet", "x")
        assert data(broker.history("busy").publications) == list(range(180, 200))
        self.push(broker, "batch", *range(1000))
        assert data(broker.history("batch").publications) == list(range(980, 1000))
        assert data(broker.history("quiet").publications) == ["x"]

    def test_a_destination_forgotten_never_gives_an_id_twice(self):
        broker = self.open(history_ttl=100)
        seen = {receipt.position for receipt in self.push(broker, "a", *range(30)) + self.push(broker, "b", 1)}
        for _ in range(4):
            self.clock.now += 90_000
            self.sweep(broker)
        old = f"{broker.epoch}:29"
        assert self.recover(broker, "a", old)[0] == (f"{broker.epoch}:30", False, 0)
        receipts = self.push(broker, "a", "x") + self.push(broker, "new", "x")
        assert [offset(each.position) for each in receipts] == [31, 31]
        assert not seen & {each.position for each in receipts}
        assert self.recover(broker, "a", old)[0].recovered is False
        assert data(self.recover(broker, "new", "acked")[1]) == ["x"]

    def test_a_destination_that_is_used_is_not_forgotten(self):
        broker = self.open(history_ttl=100)
        for _ in range(10):
            self.push(broker, "42", "x", ttl=0)
            self.push(broker, "1", "x")
            self.clock.now += 50_000
            self.sweep(broker)
        assert broker.position("42") == broker.position("1") == f"{broker.epoch}:10"

    # Life and death.

    def test_nothing_happens_before_the_start(self):
        before = threading.active_count()
        broker = open_broker(self.url.format(path=self.path), self.sockets.deliver)
        assert threading.active_count() <= before  # one of an earlier test may end in the meantime
        assert not list(self.path.parent.iterdir())
        with pytest.raises(StoreError):
            self.push(broker, "42", "x")

    def test_after_the_close_a_push_is_refused(self):
        broker = self.open()
        broker.close()
        with pytest.raises(StoreError, match="closed"):
            self.push(broker, "42", "x")
        broker.close()


class LocalBrokerContract(BrokerContract):
    """The further promises of brokers whose store belongs to one relay: in Redis, Redis's own limits apply."""

    def test_a_committed_publication_that_is_not_handed_out_yet_comes_once(self):
        broker = self.open()
        self.push(broker, "42", "before")
        committed, go_on, transact = threading.Event(), threading.Event(), broker._store.transact

        def transact_and_wait(jobs):
            transact(jobs)
            committed.set()
            assert go_on.wait(DEADLINE)

        broker._store.transact = transact_and_wait
        thread = threading.Thread(target=self.push, args=(broker, "42", "x"))
        thread.start()
        assert committed.wait(DEADLINE)
        replayed, live = self.recover(broker, "42", f"{broker.epoch}:0"), self.recover(broker, "42", None)
        go_on.set()
        thread.join(DEADLINE)
        assert [data(got) for _, got in (replayed, live)] == [["before", "x"], ["x"]]
        assert replayed[0].position == live[0].position == f"{broker.epoch}:1"

    def test_a_publication_that_is_committed_while_a_newcomer_asks_the_store_comes_once(self):
        """The store is read before the list of uncommitted publications: in the other order it would come twice."""
        broker = self.open()
        self.push(broker, "42", "before")
        committed, go_on = threading.Event(), threading.Event()
        transact, tip = broker._store.transact, broker._store.tip
        workers = []

        def transact_and_wait(jobs):
            transact(jobs)
            committed.set()
            assert go_on.wait(DEADLINE)

        def tip_while_committing(destination):
            if not workers and threading.current_thread() is threading.main_thread():
                broker._store.transact = transact_and_wait
                workers.append(threading.Thread(target=self.push, args=(broker, "42", "x")))
                workers[0].start()
                assert committed.wait(DEADLINE)
            return tip(destination)

        broker._store.tip = tip_while_committing
        _, got = self.recover(broker, "42", f"{broker.epoch}:0")
        broker._store.transact = transact
        go_on.set()
        workers[0].join(DEADLINE)
        assert data(got) == ["before", "x"]

    def test_old_keys_are_swept(self):
        broker = self.open()
        broker._archive.limits.max_keys = 100
        for i in range(300):
            self.push(broker, "42", "x", key=f"{i}")
        self.sweep(broker)
        assert self.push(broker, "42", "x", key="0")[0].repeated is False
        assert self.push(broker, "42", "x", key="299")[0].repeated is True

    def test_the_history_keeps_a_number_of_bytes_and_drops_the_oldest_first(self):
        broker = self.open(history_bytes=2 << 20)
        for i in range(100):
            self.clock.now += 10
            for k in range(10):
                self.push(broker, f"user{i}-{k}", "x" * 10_000)
        self.sweep(broker)
        broker.flush()
        kept = [bool(broker.history(f"user{i}-0").publications) for i in range(100)]
        assert 5 < sum(kept) < 22
        assert kept == sorted(kept)
        assert self.recover(broker, "user0-0", f"{broker.epoch}:0")[0].recovered is False

    def test_one_destination_cannot_fill_the_store(self):
        broker = self.open(history_bytes=2 << 20, history_size=100_000)
        for i in range(600):
            self.push(broker, "42", f"{i} " + "x" * 10_000)
        kept = broker.history("42").publications
        assert 100 < len(kept) < 230
        assert offsets(kept) == list(range(601 - len(kept), 601))
        assert self.recover(broker, "42", f"{broker.epoch}:1")[0].recovered is False

    def test_names_alone_cannot_fill_the_store(self):
        broker = self.open(history_bytes=1 << 20)
        for i in range(40):
            broker.publish([Draft(f"{i}-{k}-{'x' * 200}", "x", ttl=0) for k in range(250)])
        self.sweep(broker)
        assert broker.position(f"0-0-{'x' * 200}") != f"{broker.epoch}:0"
        assert self.bytes_of(broker) < 1.2 * (1 << 20)


class TestMemoryBroker(LocalBrokerContract):
    url = "memory:"

    def bytes_of(self, broker):
        return broker._store._bytes

    def test_each_start_has_an_epoch_of_its_own(self):
        assert self.open().epoch != self.open().epoch


class TestSQLiteBroker(LocalBrokerContract):
    url = "sqlite:{path}"

    def bytes_of(self, broker):
        pages, free = (
            broker._store._writer.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count")
        )
        return (pages - free) * 4096

    def test_all_is_there_again_after_a_restart(self):
        broker = self.open(history_size=5)
        self.sockets.join("42", [])
        first, second = self.push(broker, "42", "x", {"y": 1}, key=None)
        self.push(broker, "0", "x", ttl=0)
        self.push(broker, "9", *range(9))
        keyed = self.push(broker, "42", "z", key="k")[0]
        broker.ack("42", first.position)
        broker.close()
        again = self.open(history_size=5)
        assert again.epoch == broker.epoch
        assert again.position("42") == keyed.position
        assert offset(again.position("0")) == 1
        assert again.acked("42") == first.position
        assert self.push(again, "42", "z", key="k") == [Receipt(keyed.position, 1, True)]
        assert self.recover(again, "42", first.position)[0] == (keyed.position, True, 2)
        assert self.recover(again, "9", f"{again.epoch}:3")[0].recovered is False
        assert offset(self.push(again, "42", "next")[0].position) == 4
        assert json.dumps(again.history("42").publications[1].data) == '{"y": 1}'
