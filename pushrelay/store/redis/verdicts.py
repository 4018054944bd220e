"""The verdict on a Redis: what keeps the relay from using it, what is risky, and what an accepted push survives."""

from typing import NamedTuple

from pushrelay.addresses import is_loopback
from pushrelay.settings import Settings
from pushrelay.settings.redis_url import RedisURL

from .facts import Facts

OLDEST = (6, 0)
# Bytes that wait for a relay which reads slowly. Redis's default of 32 MiB is 2.4 s of 46,000 publications per second.
PUBSUB_BYTES = (32 << 20, 8 << 20)  # the hard and the soft limit
SHORTEST_TIMEOUT = 10  # seconds: a relay asks for something each second, so only shorter ones could cut it


class Wanted(NamedTuple):
    """The settings that a Redis must satisfy, under their own names, and whether Sentinels watch over it."""

    durability: str = Settings.durability
    redis_wait: int = Settings.redis_wait
    has_sentinels: bool = False


DEFAULT = Wanted()


def refusals(facts: Facts, wanted: Wanted) -> list[str]:
    """Return why the relay must not use this Redis, each with what to do; empty if it may."""
    found = []
    if facts.mode == "sentinel":
        found.append("this is a Sentinel: write broker = redis+sentinel://HOST:PORT/NAME with the name of its master")
    if facts.version < OLDEST:
        found.append(f"{facts.name} is too old: the relay needs Redis 6 or later, or Valkey")
    if facts.mode == "cluster":
        found.append("this is a Redis Cluster, which the relay does not support: use a standalone Redis or Sentinels")
    if facts.role != "master":
        found.append(
            "this is a replica, which takes no writes: set broker to the address of the master, or to the Sentinels "
            "(redis+sentinel://…)"
        )
    if facts.loading:
        found.append("it is starting and still reads its data: wait until it is ready")
    if facts.policy.startswith("allkeys-"):
        found.append(
            f"maxmemory-policy is {facts.policy}, so a full Redis would remove the relay's own counters and give an "
            "offset twice: set it to volatile-ttl or noeviction in redis.conf, or use a Redis of the relay's own"
        )
    if wanted.durability == "power":
        found += _lacks_power(facts, wanted)
    return found


def _lacks_power(facts: Facts, wanted: Wanted) -> list[str]:
    found = []
    if not facts.appends:
        found.append(
            "durability = power needs appendonly yes and appendfsync always in redis.conf, or durability = process"
        )
    elif facts.appendfsync == "always" and facts.skips_syncs:
        found.append("durability = power needs no-appendfsync-on-rewrite no in redis.conf, or durability = process")
    elif facts.syncs is False:
        found.append(
            f"durability = power needs appendfsync always, and it is {facts.appendfsync}: change it in redis.conf, or "
            "set durability = process"
        )
    if wanted.has_sentinels and not wanted.redis_wait:
        found.append(
            "durability = power with Sentinels needs redis_wait = 1 or more, because a failover loses what the replica "
            "does not have"
        )
    return found


def warnings(facts: Facts, wanted: Wanted, url: RedisURL) -> list[str]:
    """Return what is risky about this Redis, each with what to do."""
    return [*_about_data(facts, wanted), *_about_connections(facts, url)]


def _about_data(facts: Facts, wanted: Wanted) -> list[str]:
    found = []
    if not facts.appends:
        found.append(
            "Redis has appendonly no: when it restarts, all publications since its last snapshot are lost; set "
            "appendonly yes in redis.conf"
        )
    elif facts.appendfsync == "no":
        found.append("Redis has appendfsync no: a power failure may lose half a minute; set it to everysec")
    elif facts.skips_syncs:
        found.append("Redis has no-appendfsync-on-rewrite yes: a power failure may lose half a minute; set it to no")
    if facts.policy.startswith("volatile-") and facts.policy != "volatile-ttl" and facts.maxmemory:
        found.append(
            f"Redis has maxmemory-policy {facts.policy}: when it is full, it removes histories in no useful order; set "
            "it to volatile-ttl"
        )
    if wanted.redis_wait > facts.replicas:
        found.append(
            f"redis_wait is {wanted.redis_wait} and Redis has {facts.replicas} connected replicas, so no push can be "
            "confirmed: start the replicas, or lower redis_wait"
        )
    if wanted.has_sentinels and not wanted.redis_wait and facts.min_replicas == 0:
        found.append(
            "Redis takes pushes even if it is cut off from its replicas and from the Sentinels, and a failover loses "
            "them: set min-replicas-to-write 1 and min-replicas-max-lag 10 in redis.conf, or redis_wait = 1"
        )
    if wanted.durability == "power" and facts.syncs is None:
        found.append(
            "Redis does not let the relay read its configuration (CONFIG GET), so it is unknown whether appendfsync is "
            "always, which durability = power needs: check it yourself"
        )
    return found


def _about_connections(facts: Facts, url: RedisURL) -> list[str]:
    found = []
    if facts.timeout and facts.timeout < SHORTEST_TIMEOUT:
        found.append(f"Redis closes connections after {facts.timeout} s (timeout): set timeout 0 in redis.conf")
    low = [limit for limit, usual in zip(facts.pubsub_limit or (), PUBSUB_BYTES, strict=False) if 0 < limit < usual]
    if low:
        found.append(
            f"Redis cuts a relay that is {min(low) >> 10} KiB behind: set client-output-buffer-limit pubsub 64mb 32mb "
            "60 in redis.conf"
        )
    if not url.password and not url.path and not all(is_loopback(host) for host, _ in url.addresses):
        found.append(
            "Redis has no password, so everybody in its network can read and publish everything: set requirepass or a "
            "user in Redis, and write it into broker"
        )
    return found


def outlives(facts: Facts, wanted: Wanted) -> list[str]:
    """Return what becomes of accepted pushes if Redis ends, without power, and at a failover: a line for each.

    The end of a relay loses nothing, whatever the Redis.
    """
    return [
        f"if Redis ends     {_end(facts)}",
        f"without power     {_power(facts)}",
        f"at a failover     {_failover(facts, wanted)}",
    ]


def _end(facts: Facts) -> str:
    if not facts.appends:
        return "all pushes since its last snapshot are lost (appendonly no)"
    return "no accepted push is lost (appendonly yes)"


def _power(facts: Facts) -> str:
    if not facts.appends:
        return "all pushes since the last snapshot are lost (appendonly no)"
    if facts.syncs is None:
        return "pushes of up to 2 s are lost, unless appendfsync is always (the relay may not read that)"
    if facts.syncs:
        return "no accepted push is lost, if the disk keeps what it confirms (appendfsync always)"
    if facts.skips_syncs:
        return "pushes of half a minute may be lost (no-appendfsync-on-rewrite yes)"
    if facts.appendfsync == "everysec":
        return "pushes of up to 2 s are lost (appendfsync everysec)"
    return "pushes of half a minute may be lost (appendfsync no)"


def _failover(facts: Facts, wanted: Wanted) -> str:
    if wanted.redis_wait:
        return f"no push is lost if a replica takes over that confirmed it (redis_wait = {wanted.redis_wait})"
    if wanted.has_sentinels or facts.replicas:
        return "pushes that the replica does not have yet are lost (redis_wait = 1 prevents that)"
    return "there is no replica that could take over"
