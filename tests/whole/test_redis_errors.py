"""Each error of Redis reaches the publisher, the log and the health check as a sentence, and ends with its cause."""

import json

import pytest
from cluster import Cluster
from conftest import DEADLINE, wait_for
from posting import in_thread, post
from redis_server import RedisServer

LONG = 3 * DEADLINE


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis", appendonly="yes", requirepass="secret-of-redis") as redis:
        yield redis


@pytest.fixture
def node(tmp_path, redis):
    with Cluster(tmp_path, redis.url, 1, redis_patience=1) as (node,):
        yield node
        assert "Traceback" not in node.text(), node.text()
        assert redis.password not in node.text()


def refused(node, *words):
    """Return whether a push is refused with a sentence that has these words."""
    status, answer = post(node, {"destination": "42", "data": "x"})
    return status == 503 and answer["error"] == "store_not_available" and has(answer["message"], words)


def has(text, words):
    return all(word in text.lower() for word in words)


def assert_said(node, *words):
    """Pushes, the health check, the status and the log give the reason."""
    wait_for(lambda: refused(node, *words), f"a refusal with {words}: {post(node, {'destination': '42', 'data': 'x'})}")
    wait_for(lambda: has(node.trouble() or "", words), f"/health/ready with {words}: {node.trouble()}")
    wait_for(lambda: shown(node, words), "the reason in the status")
    wait_for(lambda: [line for line in node.text().splitlines() if has(line, words)], f"a line with {words}")


def shown(node, words):
    found = json.loads(node.request("GET", "/status.json")[2])
    return found["verdict"]["code"] == "redis" and has(found["state"]["reason"] or "", words)


def assert_recovers(node):
    node.wait_until_ready(LONG)
    wait_for(lambda: post(node, {"destination": "42", "data": "x"})[0] == 200, "a push", LONG)


def test_a_full_redis(redis, node):
    redis.ask("CONFIG", "SET", "maxmemory", "1mb")
    assert_said(node, "memory", "maxmemory")
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert_recovers(node)


def test_a_redis_that_became_a_replica(redis, node):
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    assert_said(node, "replica")
    redis.ask("REPLICAOF", "NO", "ONE")
    assert_recovers(node)


def test_another_password(redis, node):
    redis.ask("CONFIG", "SET", "requirepass", "another")
    redis.password = "another"
    redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    redis.ask("CLIENT", "KILL", "TYPE", "normal")
    assert_said(node, "password")
    redis.ask("CONFIG", "SET", "requirepass", "secret-of-redis")
    redis.password = "secret-of-redis"
    assert_recovers(node)


def test_a_redis_that_demands_a_password(tmp_path):
    with RedisServer(tmp_path / "redis") as redis, Cluster(tmp_path, redis.url, 1, redis_patience=1) as (node,):
        redis.ask("CONFIG", "SET", "requirepass", "another")
        redis.password = "another"
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        redis.ask("CLIENT", "KILL", "TYPE", "normal")
        assert_said(node, "password")


def test_a_redis_that_is_loading(redis, node):
    post(node, [{"destination": f"d{number}", "data": "x" * 100} for number in range(900)])
    redis.ask("BGREWRITEAOF")  # Redis answers while it loads a snapshot, hardly while it loads commands
    wait_for(lambda: b"aof_rewrite_in_progress:0" in redis.ask("INFO", "persistence"), "the snapshot")
    redis.kill()
    redis.config |= {"key-load-delay": 20_000, "loading-process-events-interval-bytes": 1024}
    started = in_thread(redis.start)
    assert_said(node, "still reads its data")
    redis.ask("CONFIG", "SET", "key-load-delay", "0")
    started()
    assert_recovers(node)


def test_scripts_that_were_removed(redis, node):
    redis.ask("SCRIPT", "FLUSH")
    status, answer = post(node, {"destination": "42", "data": "x"})
    assert status == 200, answer


def test_a_redis_that_is_away(redis, node):
    redis.kill()
    assert_said(node, "redis")
    assert json.loads(node.request("GET", "/health/live")[2]) == {"live": True}
    redis.start()
    assert_recovers(node)


def test_a_push_that_was_under_way_when_redis_went_away_is_not_known_to_be_refused(redis, node):
    redis.pause()
    try:
        wait_for(lambda: refused(node, "not known"), "the refusal of a push that may have been stored")
        status, answer = post(node, {"destination": "42", "data": "y", "id": "again"})
        assert status == 503
    finally:
        redis.resume()
    node.wait_until_ready(LONG)
    first, second = [answered(lambda: post(node, {"destination": "42", "data": "y", "id": "again"})) for _ in range(2)]
    assert first == second
    _, _, history = answered(lambda: node.request("GET", "/history?destination=42"))
    assert [each["data"] for each in json.loads(history)["publications"]].count("y") == 1


def answered(ask):
    """Return the first answer that is not a refusal: on a busy machine the relay may wait for Redis once more."""
    return wait_for(lambda: (answer := ask())[0] == 200 and answer, "an answer", LONG)
