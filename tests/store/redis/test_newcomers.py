"""Newcomers wait for a Redis that is away for a moment, and no longer."""

import threading
import time

import pytest
from conftest import DEADLINE

from pushrelay.store.redis.loop import ThreadLoop
from pushrelay.store.redis.newcomers import Newcomers


class Link:
    """The part of a link that newcomers look at."""

    def __init__(self):
        self.lock = threading.RLock()
        self.is_up, self.down_since = False, time.monotonic()
        self.loop = ThreadLoop()


@pytest.fixture
def link():
    link = Link()
    link.loop.start()
    yield link
    link.loop.close()


def test_newcomers_are_called_when_redis_is_back_or_their_patience_is_over(link):
    newcomers, called = Newcomers(link, 60), []
    newcomers.call_when_back(lambda: called.append("before the start"))
    newcomers.may_wait = True
    assert newcomers.must_wait()
    newcomers.call_when_back(lambda: called.append("waited"))
    newcomers.let_in()
    assert called == ["before the start"]
    link.is_up = True
    newcomers.let_in()
    newcomers.let_in()
    assert called == ["before the start", "waited"] and not newcomers.must_wait()


def test_nobody_waits_for_longer_than_the_patience(link):
    newcomers, called = Newcomers(link, 0.2), threading.Event()
    newcomers.may_wait = True
    newcomers.call_when_back(called.set)
    assert called.wait(DEADLINE) and not newcomers.must_wait()
