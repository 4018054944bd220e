"""Slots in all and for each address."""

from pushrelay.server.quota import RETRY_SECONDS, Quota, retry_after


def test_a_quota_names_the_limit_that_was_reached():
    quota = Quota(3, 2)
    assert [quota.acquire("a") for _ in range(3)] == ["", "", "address"]
    assert [quota.acquire(None), quota.acquire("b")] == ["", "all"]
    quota.release("a")
    assert (quota.acquire("b"), quota.used) == ("", 3)


def test_retry_after_is_a_random_number_of_seconds():
    values = {int(retry_after()) for _ in range(200)}
    assert values <= set(RETRY_SECONDS) and len(values) > 1


def test_slots_are_released_under_the_lock():
    quota, held = Quota(10, 10), []

    class Noting:
        def __enter__(self):
            held.append((quota.used, dict(quota._by_address)))

        def __exit__(self, *error):
            held.append((quota.used, dict(quota._by_address)))

    quota.acquire("192.0.2.1")
    quota._lock = Noting()
    quota.release("192.0.2.1")
    assert held == [(1, {"192.0.2.1": 1}), (0, {})], "both change while it is held"
