"""The facts in INFO and CONFIG GET, also if CONFIG is forbidden."""

import contextlib
import time

import pytest
from redis_server import RedisServer

from pushrelay.store.redis.facts import facts_of
from pushrelay.store.redis.place import Place


def test_a_user_who_may_not_read_the_configuration_learns_the_rest(tmp_path):
    users = ["relay on >pw allkeys allchannels +@all -@dangerous +info"]
    with RedisServer(tmp_path, user=users, appendonly="yes", maxmemory_policy="volatile-ttl") as server:
        url = server.url.replace("127.0.0.1", "relay:pw@127.0.0.1")
        sock, facts = Place(url).connect(time.monotonic() + 20)
        with contextlib.closing(sock):
            assert (facts.appendfsync, facts.timeout, facts.pubsub_limit, facts.syncs) == (None, None, None, None)
            assert facts.appends and facts.policy == "volatile-ttl" and len(facts.run_id) == 40


@pytest.mark.parametrize(
    ("info", "name", "version"),
    [
        ({"redis_version": "6.0.16"}, "Redis 6.0.16", (6, 0, 16)),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.8"}, "Valkey 8.1.8", (7, 2, 4)),
        ({"redis_version": "8.0-m01"}, "Redis 8.0-m01", (8, 0, 1)),
        ({}, "Redis 0", (0,)),
    ],
)
def test_versions_are_those_of_redis_and_names_those_of_the_product(info, name, version):
    facts = facts_of(info, {})
    assert (facts.name, facts.version) == (name, version)


def test_limits_are_read_from_the_lines_of_redis_conf():
    limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"
    facts = facts_of({"role": "master"}, {"client-output-buffer-limit": limits, "timeout": "300"})
    assert (facts.pubsub_limit, facts.timeout) == ((33554432, 8388608, 60), 300)
