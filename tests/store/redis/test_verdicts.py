"""The verdict on a Redis: refusals, warnings, and what a push survives, on real servers with such configurations."""

import dataclasses
import time

import pytest
from redis_server import RedisServer

from pushrelay.settings.redis_url import redis_url
from pushrelay.store.redis.facts import facts_of
from pushrelay.store.redis.place import Place
from pushrelay.store.redis.verdicts import Wanted, outlives, refusals, warnings

SOUND = facts_of(
    {"redis_version": "7.0.15", "role": "master", "aof_enabled": "1", "maxmemory_policy": "noeviction"},
    {"appendfsync": "everysec", "timeout": "0", "client-output-buffer-limit": "pubsub 33554432 8388608 60"},
)
LOCAL = redis_url("redis://127.0.0.1:6379/0")


def of(**changes):
    return dataclasses.replace(SOUND, **changes)


@pytest.fixture
def learn(tmp_path):
    """Start a Redis with this configuration and return its facts."""

    def learn(**config):
        with RedisServer(tmp_path / str(time.monotonic_ns()), **config) as server:
            sock, facts = Place(server.url).look(time.monotonic() + 20)
            sock.close()
            return facts

    return learn


def test_a_usual_redis_is_neither_refused_nor_warned_about(learn):
    facts = learn(appendonly="yes", maxmemory="100mb", maxmemory_policy="volatile-ttl")
    assert not refusals(facts, Wanted()) and not warnings(facts, Wanted(), LOCAL)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_policy_that_removes_any_key_is_refused(learn, policy):
    [why] = refusals(learn(maxmemory_policy=policy), Wanted())
    assert policy in why and "volatile-ttl or noeviction" in why


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": (5, 0, 14), "name": "Redis 5.0.14"}, "Redis 5.0.14 is too old"),
        ({"role": "slave"}, "address of the master"),
        ({"mode": "cluster"}, "Redis Cluster"),
        ({"mode": "sentinel"}, "redis+sentinel://"),
        ({"loading": True}, "wait until it is ready"),
    ],
)
def test_a_redis_that_cannot_keep_pushes_is_refused(changes, words):
    [why] = refusals(of(**changes), Wanted())
    assert words in why


def test_power_is_promised_only_if_every_write_is_synced(learn):
    power = Wanted("power")
    assert not refusals(learn(appendonly="yes", appendfsync="always"), power)
    [why] = refusals(learn(appendonly="yes"), power)
    assert "appendfsync always, and it is everysec" in why
    [why] = refusals(learn(appendonly="yes", appendfsync="always", no_appendfsync_on_rewrite="yes"), power)
    assert "no-appendfsync-on-rewrite no" in why
    [why] = refusals(learn(), power)
    assert "appendonly yes and appendfsync always" in why
    [why] = refusals(of(appendfsync="always"), Wanted("power", has_sentinels=True))
    assert "redis_wait = 1" in why
    assert not refusals(of(appendfsync="always"), Wanted("power", 1, has_sentinels=True))


def test_a_redis_that_hides_its_configuration_cannot_be_verified():
    hidden = of(appendfsync=None, timeout=None, pubsub_limit=None)
    assert not refusals(hidden, Wanted("power"))
    [why] = warnings(hidden, Wanted("power"), LOCAL)
    assert "unknown whether appendfsync is always" in why
    assert "the relay may not read that" in "\n".join(outlives(hidden, Wanted("power")))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "appendonly no"),
        ({"appendonly": "yes", "appendfsync": "no"}, "set it to everysec"),
        ({"appendonly": "yes", "maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, "set it to volatile-ttl"),
        ({"appendonly": "yes", "timeout": 5}, "timeout 0"),
        ({"appendonly": "yes", "client_output_buffer_limit": "pubsub 1mb 512kb 60"}, "pubsub 64mb 32mb 60"),
        ({"appendonly": "yes", "client_output_buffer_limit": "pubsub 64mb 1mb 1"}, "1024 KiB behind"),
        ({"appendonly": "yes", "no_appendfsync_on_rewrite": "yes"}, "no-appendfsync-on-rewrite yes"),
    ],
)
def test_a_risky_configuration_is_warned_about_with_the_line_to_write(learn, config, words):
    [why] = warnings(learn(**config), Wanted(), LOCAL)
    assert words in why


def test_configurations_without_risk_are_not_warned_about():
    for changes in (
        {"policy": "volatile-lru", "maxmemory": 0},
        {"policy": "noeviction", "maxmemory": 1 << 20},
        {"timeout": 300},
        {"pubsub_limit": (0, 0, 0)},
    ):
        assert not warnings(of(**changes), Wanted(), LOCAL)


def test_replicas_that_are_missing_for_redis_wait_are_warned_about():
    assert "0 connected replicas" in warnings(SOUND, Wanted(redis_wait=1), LOCAL)[0]
    assert not warnings(of(replicas=1), Wanted(redis_wait=1), LOCAL)


def test_a_master_that_may_be_cut_off_from_its_replicas_is_warned_about():
    [why] = warnings(of(min_replicas=0), Wanted(has_sentinels=True), LOCAL)
    assert "min-replicas-to-write 1" in why
    for facts, wanted in (
        (of(min_replicas=0), Wanted()),
        (of(min_replicas=1), Wanted(has_sentinels=True)),
        (of(min_replicas=0, replicas=1), Wanted(redis_wait=1, has_sentinels=True)),
        (of(), Wanted(has_sentinels=True)),  # it hides its configuration
    ):
        assert not warnings(facts, wanted, LOCAL)


def test_a_redis_of_the_network_without_a_password_is_warned_about():
    for url in ("redis://10.0.0.7", "rediss://redis.example.com", "redis+sentinel://127.0.0.1,10.0.0.7/m"):
        [why] = warnings(SOUND, Wanted(), redis_url(url))
        assert "requirepass" in why
    for url in ("redis://:pw@10.0.0.7", "redis://localhost", "redis://[::1]", "unix:///run/redis.sock"):
        assert not warnings(SOUND, Wanted(), redis_url(url))


@pytest.mark.parametrize(
    ("changes", "wanted", "words"),
    [
        (
            {"appends": False},
            Wanted(),
            ("if Redis ends     all pushes since its last snapshot are lost", "without power     all"),
        ),
        (
            {},
            Wanted(),
            ("if Redis ends     no accepted push is lost", "of up to 2 s are lost (appendfsync everysec)"),
        ),
        ({"appendfsync": "no"}, Wanted(), ("half a minute may be lost",)),
        ({"skips_syncs": True}, Wanted(), ("half a minute may be lost (no-appendfsync-on-rewrite yes)",)),
        ({"appendfsync": "always"}, Wanted(), ("no accepted push is lost, if the disk keeps what it confirms",)),
        ({}, Wanted(), ("at a failover     there is no replica",)),
        ({"replicas": 1}, Wanted(), ("pushes that the replica does not have yet are lost",)),
        ({}, Wanted(has_sentinels=True), ("pushes that the replica does not have yet are lost",)),
        (
            {"replicas": 1},
            Wanted(redis_wait=1),
            ("no push is lost if a replica takes over that confirmed it (redis_wait = 1)",),
        ),
    ],
)
def test_what_a_push_survives_is_written_in_words(changes, wanted, words):
    lines = outlives(of(**changes), wanted)
    assert len(lines) == 3 and all(word in "\n".join(lines) for word in words), lines
