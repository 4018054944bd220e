"""The loop on a thread of its own: events, timers, and its end."""

import contextlib
import socket
import threading
import time

import pytest
from conftest import DEADLINE, wait_for

from pushrelay.store.redis.loop import IN, OUT, ThreadLoop


@pytest.fixture
def loop():
    loop = ThreadLoop()
    loop.start()
    yield loop
    loop.close()


class Source:
    """One end of a connection, and what came on it."""

    share = None

    def __init__(self):
        self.sock, self.other = socket.socketpair()
        self.sock.setblocking(False)
        self.got, self.runs, self.threads = b"", 0, set()

    def fileno(self):
        return self.sock.fileno()

    def run(self):
        self.runs += 1
        self.threads.add(threading.current_thread().name)
        with contextlib.suppress(BlockingIOError):
            self.got += self.sock.recv(100)

    def close(self):
        self.other.close()
        self.sock.close()


@pytest.fixture
def source():
    source = Source()
    yield source
    source.close()


def threads():
    return [each for each in threading.enumerate() if each.name == "redis-link"]


def passed(loop):
    """Wait until the loop has gone round once more."""
    done = threading.Event()
    loop.call_later(0, done.set)
    assert done.wait(DEADLINE)


def test_it_has_one_thread_also_if_it_is_started_twice():
    before = set(threads())  # some of earlier tests may still end
    loop = ThreadLoop()
    assert not set(threads()) - before
    loop.start()
    loop.start()
    assert len(set(threads()) - before) == 1
    loop.close()
    assert not set(threads()) - before


def test_an_event_runs_its_source_once_for_each_time_that_it_is_armed(loop, source):
    loop.watch(source, IN)
    source.other.send(b"a")
    wait_for(lambda: source.got == b"a", "the first byte")
    source.other.send(b"b")
    passed(loop)
    assert (source.got, source.runs) == (b"a", 1)
    loop.rearm(source.fileno(), IN)
    wait_for(lambda: source.got == b"ab", "the second byte")
    loop.rearm(source.fileno(), IN | OUT)  # it can be written to
    wait_for(lambda: source.runs == 3, "the event for writing")
    assert source.threads == {"redis-link"}


def test_a_source_runs_soon_without_an_event(loop, source):
    for _ in range(2):
        loop.run_soon(source)
    wait_for(lambda: source.runs == 2, "both runs")
    assert source.threads == {"redis-link"}


def test_timers_are_called_in_their_order_and_not_before_their_time(loop):
    called, begin = [], time.monotonic()

    def set_all():  # on the loop's thread, so that none comes before the last one is set
        for seconds, word in ((0.06, "c"), (0.02, "a"), (0.04, "b"), (0.02, "a2")):
            loop.call_later(seconds, lambda word: called.append((word, time.monotonic() - begin)), word)

    loop.call_later(0, set_all)
    wait_for(lambda: len(called) == 4, "all timers")
    assert [word for word, _ in called] == ["a", "a2", "b", "c"]
    assert all(at >= due for (_, at), due in zip(called, (0.02, 0.02, 0.04, 0.06), strict=True))


def test_a_timer_that_is_set_earlier_than_the_others_is_not_late(loop):
    called = []
    loop.call_later(100, called.append, "late")
    passed(loop)  # it waits for that one now
    loop.call_later(0.01, called.append, "early")
    wait_for(lambda: called == ["early"], "the earlier one")


def test_a_timer_can_be_cancelled(loop):
    called, later = [], threading.Event()

    def set_and_cancel():  # on the loop's thread, so that the timer cannot come in between
        timer = loop.call_later(0.02, called.append, "x")
        loop.call_later(0.04, later.set)
        timer.cancel()

    loop.call_later(0, set_and_cancel)
    assert later.wait(DEADLINE) and called == []


def test_a_timer_may_set_another_one_from_the_thread(loop):
    done = threading.Event()
    loop.call_later(0, lambda: loop.call_later(0, done.set))
    assert done.wait(DEADLINE)


def test_an_error_is_logged_and_the_loop_goes_on(loop, source, caplog):
    loop.call_later(0, lambda: 1 / 0)
    passed(loop)
    assert "ZeroDivisionError" in caplog.text
    loop.watch(source, IN)
    source.other.send(b"a")
    wait_for(lambda: source.got, "an event after the error")


def test_a_retired_socket_is_closed_by_the_thread_and_its_source_runs_no_more(loop, source):
    loop.watch(source, IN)
    loop.retire(source.sock)
    wait_for(lambda: source.other.recv(1) == b"", "the end")
    passed(loop)
    assert source.sock.fileno() == -1 and source.runs == 0


def test_many_threads_may_use_it_at_once(loop):
    called, sources = [], [Source() for _ in range(20)]

    def use(source):
        loop.watch(source, IN)
        source.other.send(b"a")
        loop.call_later(0, called.append, 1)

    users = [threading.Thread(target=use, args=(each,)) for each in sources]
    for each in users:
        each.start()
    wait_for(lambda: len(called) == 20 and all(each.got for each in sources), "everything")
    for each in sources:
        loop.retire(each.sock)
    wait_for(lambda: all(each.sock.fileno() == -1 for each in sources), "the end of all")
    for each in sources:
        each.close()


def test_it_can_be_closed_by_its_own_thread(source):
    loop = ThreadLoop()
    loop.start()
    thread = loop._thread
    loop.watch(source, IN)
    loop.call_later(0, loop.close)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    loop.call_later(0, source.run)  # nobody calls it any more, and nothing fails
    loop.close()
    assert source.runs == 0
