"""Waiting for a condition."""

import time

from pushrelay.waiting import wait_until


def test_it_returns_as_soon_as_the_condition_is_true():
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), 10) is True


def test_it_gives_up_after_its_seconds():
    began = time.monotonic()
    assert wait_until(lambda: False, 0.02) is False
    assert time.monotonic() - began >= 0.02
