"""The thread of presence: it sends events in batches, and lets users leave in time."""

import threading
import time

from conftest import wait_for

from pushrelay.presence.worker import BATCH_SECONDS, Worker


class Work:
    """A worker, and what it did: the times of its batches, and of its looks for users to let go."""

    def __init__(self, ends=(), fails=False):
        self.batches, self.looks, self.ends, self.fails = [], [], list(ends), fails
        self.worker = Worker(self.flush, self.end_due)

    def flush(self):
        self.batches.append(time.monotonic())
        if self.fails:
            raise ZeroDivisionError
        return 0.0

    def end_due(self, now):
        self.looks.append(now)
        return now + self.ends.pop() if self.ends else None


def test_no_thread_runs_until_there_is_something_to_do():
    before = threading.active_count()
    work = Work()
    assert threading.active_count() <= before  # one of an earlier test may end in the meantime
    work.worker.close()


def test_the_first_event_is_sent_at_once_and_the_next_ones_together():
    work = Work()
    work.worker.changed()
    wait_for(lambda: work.batches)
    for _ in range(100):
        work.worker.changed()
    wait_for(lambda: len(work.batches) >= 2)
    assert work.batches[1] - work.batches[0] >= BATCH_SECONDS
    work.worker.close()
    sent = len(work.batches)
    assert sent < 6, "2, unless the machine is so busy that the changes came slowly"
    work.worker.changed()
    assert len(work.batches) == sent


def test_users_are_let_go_in_time_and_again_when_the_next_is_due():
    work = Work(ends=[0.05, 0.02])
    began = time.monotonic()
    work.worker.wake(60)
    work.worker.wake(0.1)
    wait_for(lambda: len(work.looks) == 3)
    assert began + 0.1 <= work.looks[0] <= work.looks[1] - 0.02 and not work.batches
    work.worker.close()


def test_an_error_does_not_end_the_thread(caplog):
    work = Work(fails=True)
    work.worker.changed()
    wait_for(lambda: "presence failed" in caplog.text)
    work.fails = False
    work.worker.changed()
    wait_for(lambda: len(work.batches) == 2)
    work.worker.close()


def test_a_thread_that_the_system_refuses_is_started_for_the_next_change(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    work = Work()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        work.worker.changed()
        work.worker.wake(0.01)
    work.worker.changed()
    wait_for(lambda: work.batches)
    work.worker.wake(0.01)
    wait_for(lambda: work.looks)
    work.worker.close()
