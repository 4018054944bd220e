"""Work that comes while the store is busy shares the next transaction."""

import threading

import pytest
from conftest import DEADLINE, wait_for
from stores import data, push

from pushrelay.errors import StoreError
from pushrelay.store.group_commit import GroupCommit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_pushes_that_wait_for_a_commit_share_the_next_one(path, open_at):
    broker = open_at(path, durability="power")
    commits, first, go_on = [], threading.Event(), threading.Event()

    def slow_commit(sql):
        if sql == "COMMIT":
            commits.append(sql)
            first.set()
            assert go_on.wait(DEADLINE)

    broker._store._writer.connection.set_trace_callback(slow_commit)
    threads = [threading.Thread(target=push, args=(broker, i)) for i in range(9)]
    threads[0].start()
    assert first.wait(DEADLINE)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(broker._group_commit._waiting) == 8, "the others wait")
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(commits) == 2
    assert sorted(data(broker)) == list(range(9))


def test_everyone_gets_the_result_of_their_own_work():
    def transact(jobs):
        for job in jobs:
            job.result = job.work()

    group_commit = GroupCommit(transact)
    assert [group_commit.run(lambda n=n: n * 2) for n in range(3)] == [0, 2, 4]


def test_jobs_that_came_while_the_store_was_busy_are_one_transaction_and_fail_together():
    batches, busy, go_on, errors = [], threading.Event(), threading.Event(), []

    def transact(jobs):
        batches.append(len(jobs))
        if len(batches) > 1:
            raise StoreError("full", "no room")
        busy.set()
        assert go_on.wait(DEADLINE)
        jobs[0].result = None

    group_commit = GroupCommit(transact)

    def run():
        try:
            group_commit.run(lambda: None)
        except StoreError as error:
            errors.append((str(error), error.public))

    first = threading.Thread(target=group_commit.run, args=(lambda: None,))
    first.start()
    assert busy.wait(DEADLINE)
    others = [threading.Thread(target=run) for _ in range(4)]
    for thread in others:
        thread.start()
    wait_for(lambda: len(group_commit._waiting) == 4, "the others wait")
    go_on.set()
    for thread in (first, *others):
        thread.join(DEADLINE)
    assert batches == [1, 4] and errors == [("full", "no room")] * 4


def test_an_interruption_leaves_the_store_free_for_the_next():
    calls = []

    def transact(jobs):
        calls.append(jobs)
        if len(calls) == 1:
            raise KeyboardInterrupt

    group_commit = GroupCommit(transact)
    with pytest.raises(KeyboardInterrupt):
        group_commit.run(lambda: None)
    jobs = calls[0]
    assert jobs[0].is_done and jobs[0].error == ("the relay was interrupted",) * 2
    group_commit.exclusive(lambda: calls.append("alone"))
    assert calls[-1] == "alone"


def test_work_that_is_exclusive_waits_for_the_transaction():
    busy, go_on, order = threading.Event(), threading.Event(), []

    def transact(jobs):
        busy.set()
        assert go_on.wait(DEADLINE)
        order.append("transaction")
        jobs[0].result = None

    group_commit = GroupCommit(transact)
    writer = threading.Thread(target=group_commit.run, args=(lambda: None,))
    writer.start()
    assert busy.wait(DEADLINE)
    closer = threading.Thread(target=group_commit.exclusive, args=(lambda: order.append("exclusive"),))
    closer.start()
    wait_for(lambda: group_commit._sleepers, "it waits")
    go_on.set()
    writer.join(DEADLINE)
    closer.join(DEADLINE)
    assert order == ["transaction", "exclusive"]
