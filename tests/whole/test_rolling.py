"""A rolling restart of three relays on one Redis, behind nginx: tests/rolling.py with fewer clients."""

import rolling
from redis_server import RedisServer


def test_a_rolling_restart_under_pushes_loses_nothing(tmp_path, many_files):
    with RedisServer(tmp_path / "redis") as redis:
        seen = rolling.run(tmp_path, "abc", 200, 50, settled=0.5, broker=redis.url)
    wrong = {name: seen[name] for name in ("lost", "twice", "out_of_order", "not_recovered")}
    assert not any(wrong.values()), seen
    assert seen["deliveries"] == 10 * seen["pushes"] and seen["pushes"] > 50
    assert seen["returns"] >= 200, "each client was sent away at least once"
