"""The token bucket, which bounds pushes of a key and events of a client."""

import pytest

from pushrelay.token_bucket import TokenBucket


def test_a_bucket_lets_through_its_rate_and_one_burst():
    bucket = TokenBucket(10, 5)
    assert [bucket.take(now=100.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(now=100.0) == pytest.approx(0.1)
    assert bucket.take(now=100.05) == pytest.approx(0.05)
    assert [bucket.take(now=100.1), bucket.take(now=100.1) > 0] == [0.0, True]
    through = sum(not bucket.take(now=200 + step / 1000) for step in range(10_000))
    assert 103 <= through <= 106, "ten seconds and a burst"


def test_more_than_the_burst_needs_a_full_bucket_and_delays_the_next_one():
    bucket = TokenBucket(10, 5)
    assert bucket.take(50, now=0.0) == 0.0
    assert bucket.take(1, now=0.0) == pytest.approx(4.6)
    assert bucket.take(50, now=4.9) == pytest.approx(0.1)
    assert bucket.take(50, now=5.0) == 0.0


def test_a_refused_request_costs_nothing():
    bucket = TokenBucket(1, 1)
    assert bucket.take(now=0.0) == 0.0
    for _ in range(100):
        assert bucket.take(now=0.5) == pytest.approx(0.5)
    assert bucket.take(now=1.0) == 0.0


def test_an_overdrawn_bucket_gives_nothing_until_its_debt_is_paid():
    bucket = TokenBucket(10, 5)
    assert bucket.overdraw(3, now=0.0) == 0.0, "these tokens were there"
    assert bucket.overdraw(12, now=0.0) == pytest.approx(1.0)
    assert bucket.debt(now=0.4) == pytest.approx(0.6)
    assert bucket.take(now=1.0) == pytest.approx(0.1) and bucket.debt(now=1.0) == 0.0
    assert bucket.take(now=1.1) == 0.0


def test_a_debt_has_a_bound():
    bucket = TokenBucket(10, 5)
    assert bucket.overdraw(1_000_000, most=30, now=0.0) == pytest.approx(30.0)
    assert bucket.take(now=30.1) == 0.0
