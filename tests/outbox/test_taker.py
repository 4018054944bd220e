"""Committed rows are pushed once and in order, whatever fails."""

import threading

import pytest
from conftest import DEADLINE, wait_for

from pushrelay.outbox.database import Database
from pushrelay.outbox.taker import BATCH_ROWS


def test_rows_are_pushed_when_their_transaction_commits_and_never_if_it_is_rolled_back(site, run_outbox):
    running = run_outbox(site.url).wait_until("sending")
    open_, gone = site.transaction(), site.transaction()
    open_.insert("42", "first")
    gone.insert("42", "rolled back")
    site.insert(("42", "second"), ("42", '{"a":[1,null,"ä"]}', ("is_json", 1)), ("42", "€ \U0001f600"))
    assert running.data(3) == ["second", {"a": [1, None, "ä"]}, "€ \U0001f600"]
    gone.roll_back()
    open_.insert("42", "third")
    open_.commit()
    assert running.wait_for(5)[3:] == [("42", "first"), ("42", "third")]
    wait_for(lambda: site.waiting() == 0, "an empty table")
    assert running.part.trouble is None


def large_and_small(site, count):
    """Return two open transactions for one destination: a large one, and a small one whose id lies between its ids."""
    large, small = site.transaction(), site.transaction()
    large.insert("42", "large 0")
    small.insert("42", "small")
    for n in range(1, count):
        large.insert("42", f"large {n}")
    return large, small


def test_a_large_transaction_is_not_mixed_with_one_that_commits_after_it(site, run_outbox):
    count = 2 * BATCH_ROWS + 2
    large, small = large_and_small(site, count)
    running = run_outbox(site.url).wait_until("sending")
    publish = running.broker.publish_pending_marked

    def publish_and_commit_small(items, mark):
        publish(items, mark)
        if len(running.got) == BATCH_ROWS:
            small.commit()

    running.broker.publish_pending_marked = publish_and_commit_small
    large.commit()
    assert running.data(count + 1) == [*(f"large {n}" for n in range(count)), "small"]


def test_the_order_is_kept_if_another_relay_continues_in_the_middle_of_a_transaction(site, run_outbox):
    count = BATCH_ROWS + 5
    large, small = large_and_small(site, count)
    large.commit()
    running = run_outbox(site.url)
    publish = running.broker.publish_pending_marked

    def publish_and_end(items, mark):
        publish(items, mark)
        running.part._closing.set()

    running.broker.publish_pending_marked = publish_and_end
    running.wait_for(BATCH_ROWS)
    running.part.close()
    assert len(running.got) == BATCH_ROWS
    small.commit()
    running.broker.publish_pending_marked = publish
    run_outbox(site.url, broker=running.broker)
    assert running.data(count + 1) == [*(f"large {n}" for n in range(count)), "small"]


def test_large_rows_are_taken_a_few_at_a_time_and_in_order(site, run_outbox):
    with site.transaction() as transaction:
        for n in range(12):
            transaction.insert("42", f"{n} " + "x" * 400_000)
    running = run_outbox(site.url)
    assert [int(each.split()[0]) for each in running.data(12)] == list(range(12))
    wait_for(lambda: running.part._counts.batches >= 2, "the count of the batches")
    assert running.part._counts.batches == 2 and site.waiting() == 0


# Rows that somebody else has locked or deleted.


def test_a_locked_row_holds_up_its_own_destination_only(site, run_outbox):
    site.insert(("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"))
    locker = site.transaction()
    locker.run("SELECT * FROM relay_outbox WHERE id = 2 FOR UPDATE")
    running = run_outbox(site.url)
    assert running.wait_for(1) == [("b", "1")]
    site.insert(("a", "4"), ("b", "2"))
    assert running.wait_for(2) == [("b", "1"), ("b", "2")]
    locker.roll_back()
    assert running.wait_for(6)[2:] == [("a", str(n)) for n in (1, 2, 3, 4)]


def test_the_order_is_kept_if_another_relay_continues_while_a_row_is_locked(site, run_outbox):
    site.insert(("a", "1"), *(("b", str(n)) for n in range(BATCH_ROWS)), ("a", "2"), ("b", "last"))
    locker = site.transaction()
    locker.run("SELECT * FROM relay_outbox WHERE id = 1 FOR UPDATE")
    running = run_outbox(site.url)
    publish = running.broker.publish_pending_marked

    def publish_and_end(items, mark):
        publish(items, mark)
        running.part._closing.set()

    running.broker.publish_pending_marked = publish_and_end
    running.wait_for(BATCH_ROWS - 1)
    running.part.close()
    locker.roll_back()
    running.broker.publish_pending_marked = publish
    run_outbox(site.url, broker=running.broker)
    assert [data for destination, data in running.wait_for(BATCH_ROWS + 3) if destination == "a"] == ["1", "2"]


def test_a_row_without_a_time_or_with_a_reason_that_is_too_long_stops_no_other(site, run_outbox):
    with site.transaction() as transaction:
        transaction.run("SET sql_mode = ''")
        transaction.run(
            "ALTER TABLE relay_outbox MODIFY error VARCHAR(20) CHARACTER SET latin1, MODIFY is_json INT NULL"
        )
        transaction.run("INSERT INTO relay_outbox (destination, data, is_json, created) VALUES ('a', '1', NULL, 0)")
        transaction.insert("a", "{€", is_json=1)
    running = run_outbox(site.url)
    assert running.data(1) == ["1"]
    site.insert(("a", "2"))
    assert running.data(2) == ["1", "2"]
    wait_for(lambda: site.waiting() == 0, "that nothing waits")
    assert site.ask("SELECT error FROM relay_outbox")[0][0].startswith("invalid_json: data")


def test_a_row_with_the_id_0_or_the_highest_one_stops_no_other(site, run_outbox):
    with site.transaction() as transaction:
        transaction.run("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        for n in range(BATCH_ROWS):
            transaction.insert("42", str(n), id=n)
        transaction.insert("42", "last", id=(1 << 64) - 1)
    assert run_outbox(site.url).data(BATCH_ROWS + 1) == [*map(str, range(BATCH_ROWS)), "last"]


def test_a_row_that_is_deleted_before_it_is_taken_is_not_pushed(site, run_outbox):
    site.insert(("42", "1"), ("42", "2"), ("7", "3"))
    deleting = site.transaction()
    deleting.run("DELETE FROM relay_outbox WHERE id = 2")
    running = run_outbox(site.url)
    assert running.wait_for(1) == [("7", "3")]
    deleting.commit()
    assert running.wait_for(2)[1] == ("42", "1")
    wait_for(lambda: site.waiting() == 0, "an empty table")
    assert len(running.got) == 2


def test_open_transactions_delay_nobody(site, run_outbox):
    """A DELETE that scans the table would wait for their rows."""
    running = run_outbox(site.url).wait_until("sending")
    open_ = [site.transaction() for _ in range(4)]
    for n in range(8):
        for each in open_:
            each.insert("open", "x")
        site.insert(*(("42", f"{n}:{m}") for m in range(5)))
        running.wait_for(5 * n + 5)
    wait_for(lambda: site.waiting() == 0, "an empty table")
    wait_for(lambda: running.part._counts.batches >= 8, "the count of the last batch")
    assert running.part._failure is None
    for each in open_:
        each.roll_back()


def test_a_batch_that_is_under_way_delays_no_insert(site, run_outbox):
    under_way, go_on = threading.Event(), threading.Event()
    running = run_outbox(site.url)
    publish = running.broker.publish_pending_marked

    def publish_later(items, mark):
        under_way.set()
        assert go_on.wait(DEADLINE)
        publish(items, mark)

    running.broker.publish_pending_marked = publish_later
    site.insert(("42", "1"), ("42", "2"))
    assert under_way.wait(DEADLINE)
    with site.transaction() as transaction:
        transaction.run("SET SESSION innodb_lock_wait_timeout = 1")
        for n in range(3, 300):
            transaction.insert("42", str(n))
    go_on.set()
    assert running.data(299) == [str(n) for n in range(1, 300)]


# Failures.


class Fails:
    """Ends the connection before statements that begin with a text, `left` times."""

    def __init__(self, monkeypatch, begin, times):
        self.left, run = times, Database.run

        def run_or_fail(database, sql):
            if sql.startswith(begin) and self.left:
                self.left -= 1
                database.close()
            return run(database, sql)

        monkeypatch.setattr(Database, "run", run_or_fail)


@pytest.mark.parametrize("statement", ["BEGIN", "DELETE", "UPDATE", "COMMIT"])
def test_rows_are_pushed_once_wherever_the_connection_ends(site, run_outbox, monkeypatch, statement):
    fails = Fails(monkeypatch, statement, 2)
    site.insert(("42", "1"), ("", "refused"), ("42", "2"))
    running = run_outbox(site.url)
    site.insert(("42", "3"))
    running.wait_for(3)
    wait_for(lambda: site.waiting() == 0 and not fails.left, "an empty table")
    site.insert(("42", "4"))
    assert running.data(4) == ["1", "2", "3", "4"]


def test_a_new_row_that_has_the_id_of_one_that_was_stored_is_pushed(site, run_outbox, monkeypatch):
    fails = Fails(monkeypatch, "DELETE", 1000)
    site.insert(("42", "before"), ("42", "same"))
    running = run_outbox(site.url)
    running.wait_for(2)
    wait_for(lambda: fails.left < 998, "some failures")
    running.part.close()
    site.ask("TRUNCATE relay_outbox")
    site.insert(("42", "after"), ("42", "same"))
    fails.left = 0
    run_outbox(site.url, broker=running.broker)
    assert running.data(4) == ["before", "same", "after", "same"]
    wait_for(lambda: site.waiting() == 0, "an empty table")
