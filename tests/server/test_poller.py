"""Threads that share one epoll set."""

import socket
import threading
import time

import pytest
from conftest import DEADLINE, wait_for
from measures import open_fds

from pushrelay.server.poller import IN, ONE_SHOT, Poller, Turn


class Source:
    """A socket that records what it reads, and may block while it does."""

    share = None

    def __init__(self, poller, delay=0.0):
        self.poller, self.delay = poller, delay
        self.gate = threading.Event()  # it is stuck until this is set
        self.gate.set()
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.got, self.running, self.most = [], 0, 0
        poller.watch(self, IN | ONE_SHOT)

    def fileno(self):
        return self.near.fileno()

    def run(self):
        self.running += 1
        self.most = max(self.most, self.running)
        self.gate.wait(DEADLINE)
        time.sleep(self.delay)
        self.got.append(self.near.recv(100))
        self.running -= 1
        self.poller.rearm(self.near.fileno(), IN | ONE_SHOT)


@pytest.fixture
def undivided(monkeypatch):
    """A poller that is not started yet. Its watchdog sleeps, so one thread does everything, however slow it is."""
    monkeypatch.setattr("pushrelay.server.poller.TICK", 20)
    monkeypatch.setattr("pushrelay.server.poller.BUSY_TICK", 20)
    poller = Poller(threads=2)
    yield poller
    poller.close()


def test_a_poller_that_was_not_started_has_no_thread_and_no_descriptor():
    threads, descriptors = threading.active_count(), open_fds()
    Poller()
    # Not ==: a thread of an earlier test may end in the meantime.
    assert threading.active_count() <= threads and open_fds() <= descriptors


def test_one_source_is_run_by_one_thread_at_a_time(poller):
    source = Source(poller, delay=0.01)
    for _ in range(5):
        source.far.send(b"x")
        time.sleep(0.003)
    wait_for(lambda: sum(map(len, source.got)) == 5)
    assert source.most == 1


def test_a_stuck_handler_delays_no_other_source(poller):
    stuck, other = Source(poller), Source(poller)
    stuck.gate.clear()
    stuck.far.send(b"x")
    wait_for(lambda: stuck.running)
    other.far.send(b"x")
    wait_for(lambda: other.got, deadline=DEADLINE / 2)
    assert not stuck.got
    stuck.gate.set()


class Busy:
    """A source with a share that is not done until an event is set."""

    def __init__(self, poller, share, end):
        self.poller, self.share, self.end = poller, share, end

    def run(self):
        if not self.end.is_set():
            self.poller.run_again(self)


def test_a_timer_runs_while_sources_are_never_done(poller):
    came = threading.Event()
    for number in range(8):
        poller.run_again(Busy(poller, str(number), came))
    poller.call_later(0.05, came.set)
    assert came.wait(DEADLINE)


class Endless:
    """A source that works for a moment at each of its events, which never end."""

    share = None

    def __init__(self, poller):
        self.poller, self.is_over = poller, False
        self.near, self.far = socket.socketpair()
        self.far.send(b"x")
        poller.watch(self, IN | ONE_SHOT)

    def fileno(self):
        return self.near.fileno()

    def run(self):
        ends_at = time.perf_counter() + 0.0008
        while time.perf_counter() < ends_at:
            pass
        if not self.is_over:
            self.poller.rearm(self.fileno(), IN | ONE_SHOT)


def test_timers_and_shares_have_turns_while_events_come_faster_than_they_are_handled(poller):
    came, sources = threading.Semaphore(0), [Endless(poller) for _ in range(4)]
    for number in range(3):
        poller.call_later(0.01, came.release)
        poller.run_again(Turn(poller, str(number), came.release))
    assert all(came.acquire(timeout=DEADLINE / 4) for _ in range(6))
    for each in sources:
        each.is_over = True


def test_threads_are_added_up_to_the_limit_and_no_further(poller):
    sources = [Source(poller) for _ in range(6)]
    for source in sources:
        source.gate.clear()
        source.far.send(b"x")
    wait_for(lambda: poller.thread_count() == 4)
    wait_for(lambda: sum(source.running for source in sources) == 4)
    for source in sources:
        source.gate.set()
    wait_for(lambda: all(source.got for source in sources))
    assert poller.thread_count() == 4


def test_threads_without_work_end(monkeypatch):
    monkeypatch.setattr("pushrelay.server.poller.IDLE_SECONDS", 0.05)
    poller = Poller(threads=4)
    poller.start()
    source = Source(poller)
    source.gate.clear()
    source.far.send(b"x")
    wait_for(lambda: poller.thread_count() > 1)
    source.gate.set()
    wait_for(lambda: poller.thread_count() == 1)
    source.far.send(b"y")
    wait_for(lambda: b"y" in source.got)
    poller.close()


def test_timers_run_in_order_and_not_early(undivided):
    seen, start = [], time.monotonic()
    for delay in (0.06, 0.02, 0.04):
        undivided.call_later(delay, lambda delay=delay: seen.append((delay, time.monotonic() - start)))
    cancelled = undivided.call_later(0.03, seen.append, None)
    cancelled.cancel()
    undivided.start()
    wait_for(lambda: len(seen) == 3)
    assert [delay for delay, _ in seen] == [0.02, 0.04, 0.06]
    assert all(after >= delay for delay, after in seen)


class Step:
    """Work without a socket that records when it is run."""

    share = None

    def __init__(self, order, name, then=None):
        self.order, self.name, self.then = order, name, then

    def run(self):
        self.order.append(self.name)
        if self.then is not None:
            self.then()


def test_calls_for_afterwards_run_behind_the_events_at_hand(undivided):
    undivided.start()
    order = []

    def begin():
        undivided.call_afterwards(order.append, "afterwards")
        for name in "bcd":
            undivided.run_soon(Step(order, name))

    undivided.run_soon(Step(order, "a", begin))
    wait_for(lambda: len(order) == 5, "all of them")
    assert order == ["a", "b", "c", "d", "afterwards"]


def test_calls_for_afterwards_do_not_wait_for_a_flood(undivided):
    undivided.start()
    order = []

    def begin():
        undivided.call_afterwards(order.append, "afterwards")
        for number in range(1000):
            undivided.run_soon(Step(order, number))

    undivided.run_soon(Step(order, "a", begin))
    wait_for(lambda: len(order) == 1002, "all of them")
    assert 2 < order.index("afterwards") < 50


def test_a_call_for_afterwards_wakes_an_idle_poller(poller):
    came = threading.Event()
    poller.call_afterwards(came.set)
    assert came.wait(10)


def test_a_call_for_afterwards_just_before_the_poller_waits_is_made(poller):
    came, close_retired = threading.Event(), poller._close_retired

    def close_and_leave():  # the leader has found no work, and does not wait yet
        close_retired()
        poller._close_retired = close_retired
        poller.call_afterwards(came.set)

    poller._close_retired = close_and_leave
    poller.wake()
    assert came.wait(10)


def test_a_call_that_may_block_runs_if_a_thread_becomes_free_just_before_the_poller_waits():
    poller, stuck, free, came = Poller(threads=2), threading.Event(), threading.Event(), threading.Event()

    def block():
        stuck.set()
        free.wait(30)

    def close_and_free():  # the leader has found no other free thread, and does not wait yet
        close_retired()
        if poller._spare:
            poller._close_retired = close_retired
            free.set()
            wait_for(lambda: poller._idle)

    close_retired, poller._close_retired = poller._close_retired, close_and_free
    poller.start()
    try:
        poller.call_later(0, block)
        assert stuck.wait(10)
        wait_for(poller.is_short)
        poller._hand_over = lambda: None  # otherwise the watchdog may give the lead to the free thread
        poller.call_when_spare(came.set)
        assert came.wait(10)
    finally:
        free.set()
        poller.close()


def test_a_handler_that_raises_does_not_affect_others(poller):
    poller.call_later(0, lambda: 1 / 0)
    seen = []
    poller.call_later(0.01, seen.append, 1)
    wait_for(lambda: seen)


def test_an_idle_poller_uses_no_cpu(poller):
    def is_idle():
        before = time.process_time()
        time.sleep(0.5)
        return time.process_time() - before < 0.015

    wait_for(is_idle, "the watchdog's sleep, and the end of what other tests left in this process")


def test_a_retired_socket_is_closed_at_once_and_not_with_the_next_event(poller):
    near, far = socket.socketpair()
    wait_for(lambda: poller._waiting, "the leader to sleep")
    poller.retire(near)
    far.settimeout(DEADLINE)
    assert far.recv(1) == b""
    far.close()


def test_timers_that_are_due_are_queued_before_another_thread_can_poll(poller, monkeypatch):
    take_due, held = poller._take_due, []

    def noting():
        held.append(poller._polling.locked())
        take_due()

    monkeypatch.setattr(poller, "_take_due", noting)
    done = threading.Event()
    poller.call_later(0.01, done.set)
    assert done.wait(DEADLINE)
    assert held and all(held)
