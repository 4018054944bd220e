"""Threads on demand: no more than allowed, none without work."""

import itertools
import threading
from collections import deque

import pytest
from conftest import wait_for

from pushrelay.client import workers
from pushrelay.client.workers import Workers


class Queue(deque):
    """A queue that notes which items were taken; the workers hold their lock then."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def pop(self):
        self.taken.append(self.popleft())
        return self.taken[-1]


numbers = itertools.count()  # threads of an earlier test may still end


@pytest.fixture
def name():
    return f"test-workers-{next(numbers)}"


@pytest.fixture
def threads(name):
    return lambda: [each for each in threading.enumerate() if each.name == name]


@pytest.fixture
def start(monkeypatch, name):
    """Start workers whose work waits for `go_on`; returns what adds an item, and the items that were taken and done."""
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
    lock, queue, go_on = threading.Lock(), Queue(), threading.Event()
    done = []

    def work(item):
        assert go_on.wait(10)
        done.append(item)

    def start(most):
        pool = Workers(name, most, lock, queue, work)

        def add(item):
            with lock:
                queue.append(item)
                pool.notify()

        return pool, add, go_on, queue.taken, done

    yield start
    go_on.set()


def test_no_more_threads_than_allowed_take_items_in_order(start, threads):
    _, add, go_on, taken, done = start(2)
    for n in range(5):
        add(n)
    wait_for(lambda: len(taken) == 2, "both threads to be busy")
    assert len(threads()) == 2
    go_on.set()
    wait_for(lambda: len(done) == 5, "all items")
    assert taken == [0, 1, 2, 3, 4]


def test_idle_threads_end_and_new_ones_start_with_the_next_item(start, threads):
    pool, add, go_on, _, done = start(2)
    go_on.set()
    add(1)
    wait_for(lambda: not threads() and pool._threads == 0, "the thread to end")
    add(2)
    wait_for(lambda: done == [1, 2], "the second item")


def test_an_idle_thread_takes_the_next_item(start, threads, monkeypatch):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 10)
    pool, add, go_on, _, done = start(2)
    go_on.set()
    add(1)
    wait_for(lambda: pool._idle == 1, "the thread to be idle")
    first = threads()
    add(2)
    wait_for(lambda: done == [1, 2], "the second item")
    assert threads() == first


def test_another_number_of_threads_applies_while_all_are_busy(start, threads, monkeypatch):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 1000)
    pool, add, go_on, taken, done = start(1)
    for n in range(6):
        add(n)
    pool.resize(3)
    wait_for(lambda: len(taken) == 3, "two more threads")
    pool.resize(1)
    go_on.set()
    wait_for(lambda: len(done) == 6, "all items")
    wait_for(lambda: len(threads()) == pool._threads == 1, "two threads to end")
    add(6)
    wait_for(lambda: len(done) == 7, "the next item")
    pool.resize(0)
    wait_for(lambda: not threads(), "the last thread to end")


def test_an_item_for_which_the_system_has_no_thread_is_taken_with_the_next(start, name, monkeypatch):
    pool, add, go_on, _, done = start(2)
    go_on.set()
    begin, failures = threading.Thread.start, []

    def failing(thread):
        if thread.name == name and not failures:
            failures.append(thread)
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    add(1)
    assert failures and pool._threads == 0
    add(2)
    wait_for(lambda: done == [1, 2], "both items")
