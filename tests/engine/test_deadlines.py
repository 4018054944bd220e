"""Deadlines: their order, their timer, and what closed sessions leave behind."""

import threading
import time
import types

import pytest
from conftest import DEADLINE

from pushrelay.engine.deadlines import SWEEP_AT, Deadlines
from pushrelay.server.poller import Poller


def session(sid="a client"):
    return types.SimpleNamespace(sid=sid, closed=False)


@pytest.fixture
def poller():
    poller = Poller(2)
    poller.start()
    yield poller
    poller.close()


def test_deadlines_of_all_queues_are_met_by_one_timer(poller):
    deadlines, both = Deadlines(poller), threading.Barrier(3)
    queues = [deadlines.new_queue(lambda *_: threading.Thread(target=both.wait).start()) for _ in range(2)]
    now = time.monotonic()
    deadlines.add(queues[0], now + 0.2, session())
    deadlines.add(queues[1], now + 0.1, session())  # so the timer is moved
    both.wait(DEADLINE)


def test_a_session_that_is_closed_misses_no_deadline():
    deadlines, met = Deadlines(Poller()), []
    queue = deadlines.new_queue(lambda session, deadline, now: met.append((session.sid, deadline, now)))
    gone, here = session("gone"), session("here")
    deadlines.add(queue, 100.0, gone)
    deadlines.add(queue, 101.0, here)
    gone.closed = True
    deadlines.meet(100.5)
    assert met == []
    deadlines.meet(102.0)
    assert met == [("here", 101.0, 102.0)]


def test_a_deadline_that_fails_leaves_the_others_theirs_and_is_in_the_log(caplog):
    deadlines, met = Deadlines(Poller()), []

    def when_due(session, deadline, now):
        if session.sid == "broken":
            raise RuntimeError("no")
        met.append(session.sid)

    queue = deadlines.new_queue(when_due)
    for sid in ("first", "broken", "last"):
        deadlines.add(queue, 100.0, session(sid))
    deadlines.meet(101.0)
    assert met == ["first", "last"] and "broken" in caplog.text


def test_closed_sessions_are_swept_out_once_they_are_many():
    deadlines = Deadlines(Poller())
    queue = deadlines.new_queue(lambda *_: None)
    sessions = [session() for _ in range(SWEEP_AT + 2)]
    for each in sessions:
        deadlines.add(queue, time.monotonic() + 1000, each)
    for each in sessions[:-1]:
        each.closed = True
        deadlines.count_closed()
    assert [each for _, each in queue.entries] == [sessions[-1]]


def test_after_stop_no_deadline_is_met():
    deadlines, met = Deadlines(Poller()), []
    deadlines.add(deadlines.new_queue(lambda session, *_: met.append(session)), 100.0, session())
    deadlines.stop()
    deadlines.meet(200.0)
    assert met == []
