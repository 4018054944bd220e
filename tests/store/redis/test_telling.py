"""The operator hears of the connection to Redis, and not more than once a minute."""

import pytest

from pushrelay.store.redis import telling
from pushrelay.store.redis.telling import Telling


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(telling, "time", clock)
    return clock


def lines(caplog):
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_the_end_and_the_return_are_told(clock, caplog):
    told = Telling("redis://here/0")
    told.back(1)  # nothing has ended
    told.ended("eof", "Redis closed it")
    told.failed("redis://here/0 refuses connections: start Redis there")
    told.back(2.5)
    assert lines(caplog) == [
        "the connection to redis://here/0 ended (eof: Redis closed it); connecting again",
        "redis://here/0 refuses connections: start Redis there",
        "connected to redis://here/0 again after 2.5 s",
    ]


def test_connections_that_end_again_and_again_are_told_once_a_minute_with_their_number(clock, caplog):
    told = Telling("redis://here/0")
    for _ in range(100):
        clock.now += 0.5
        told.ended("hole", "something is missing")
        told.failed("it does not answer")
        told.back(0.1)
    assert len(lines(caplog)) == 3
    clock.now += 20
    told.ended("hole", "something is missing")
    assert lines(caplog)[0].endswith("(it ended 99 more times since this was last logged)")
