"""The verdict on the Redis of the settings: for the start, `--check` and the doctor."""

import time
from typing import NamedTuple

from pushrelay.settings import Settings
from pushrelay.settings.values import is_redis

PATIENCE = 5.0  # seconds within which a Redis must answer


class RedisReport(NamedTuple):
    """The verdict on a Redis that answers."""

    name: str  # "Redis 7.0.15 at redis://127.0.0.1:6379/0"
    refusals: list[str]  # why the relay must not use it, with what to do
    warnings: list[str]  # what is risky, with what to do
    survives: list[str]  # when an accepted push is lost: three lines


def report_on(settings: Settings) -> RedisReport | None:
    """Connect to the Redis of the settings and return the verdict; None if the settings name no Redis.

    Raises StoreError, with what to do, if a package is missing, or if there is no Redis that answers within PATIENCE.
    """
    if not is_redis(settings.broker):
        return None
    from pushrelay.store.redis.packages import check_packages

    check_packages()
    # After the check: these modules import the packages.
    from pushrelay.store.redis.place import place_of
    from pushrelay.store.redis.verdicts import outlives, refusals, warnings

    place = place_of(settings)
    sock, facts = place.look(time.monotonic() + PATIENCE)
    sock.close()
    return RedisReport(
        f"{facts.name} at {place}",
        refusals(facts, place.wanted),
        warnings(facts, place.wanted, place.url),
        outlives(facts, place.wanted),
    )
