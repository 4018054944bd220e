"""Checks of the snippets about Redis in the docs."""

import contextlib
import re
import subprocess
import textwrap
import time

import pytest
from conftest import Relay
from redis_server import RedisServer

from pushrelay.cli.banner import checked
from pushrelay.cli.redis_report import report_on
from pushrelay.errors import StoreError
from pushrelay.settings import load
from pushrelay.settings.redis_url import redis_url
from pushrelay.store.redis.place import Place
from pushrelay.store.redis.verdicts import Wanted, warnings
from pushrelay.store.redis.wire import Wire


def redis_settings(lab, text):
    """Check settings that name a Redis, without connecting to it."""
    file = lab.folder / "redis.ini"
    file.write_text(text)
    assert redis_url(load({}, {"config": str(file)}).broker).addresses == (("127.0.0.1", 6379),)


def redis_conf(lab, text):
    """Check that a Redis with these lines, and one whose data they keep safe, is used without a warning."""
    lines = {"appendonly": "yes", **dict(line.split(" ", 1) for line in text.splitlines())}
    with RedisServer(lab.folder / "redis-conf", **lines) as server:
        place = Place(server.url)
        if "min-replicas-to-write" in lines:
            assert str(server.ask("SET", "a", "b")).startswith("NOREPLICAS")
        sock, facts = place.connect(time.monotonic() + 20)
        sock.close()
        assert not warnings(facts, Wanted(), place.url)


def redis_user(lab, text):
    """Check that the user may do what the relay does, and nothing else."""
    assert text.startswith("user relay ")
    with RedisServer(lab.folder / "redis-user", user=text.removeprefix("user ")) as server:
        sock, _ = Place(server.url.replace("127", "relay:PASSWORD@127")).connect(time.monotonic() + 20, blocking=True)
        with contextlib.closing(sock):
            wire = Wire(sock)
            script = "redis.call('RPUSH', KEYS[1], 1) redis.call('PUBLISH', 'relay:{0}', 'x') return redis.call('TIME')"
            allowed = [
                ("SCRIPT", "LOAD", script),
                ("EVAL", script, 1, "relay:{0}:s:42"),
                ("HGETALL", "relay:{0}:meta"),
                ("WAIT", 0, 1),
            ]
            forbidden = [("GET", "other"), ("FLUSHALL",), ("CONFIG", "GET", "requirepass"), ("PUBLISH", "other", "x")]
            deadline = time.monotonic() + 20
            for command in allowed:
                assert "NOPERM" not in str(wire.ask(deadline, *command)), command
            for command in forbidden:
                assert "NOPERM" in str(wire.ask(deadline, *command)), command
        with pytest.raises(StoreError, match="asks for a password|does not accept"):
            Place(server.url.replace("127", "relay:WRONG@127")).connect(time.monotonic() + 20)


def redis_report(lab, text):
    """Check that the start prints these lines about a Redis with an append-only file."""
    with RedisServer(lab.folder / "redis-report", appendonly="yes") as server:
        printed = checked(settings := load({}, {"config": "/dev/null", "broker": server.url}), report_on(settings))
    shown = re.sub(r"Redis [\d.]+ at redis://[\d.:]+/", "Redis … at …/", textwrap.dedent(text))
    real = re.sub(r"Redis [\d.]+ at redis://[\d.:]+/", "Redis … at …/", textwrap.dedent(printed.split("\n", 1)[1]))
    assert real.endswith(shown)


def redis_memory(lab, text):
    """Run the commands for a Redis in which a relay has stored a publication of 119 bytes."""
    folder = lab.folder / "redis-memory"
    with RedisServer(folder) as server:
        relay = Relay(folder / "relay.log", broker=server.url)
        try:
            relay.push("42", "x" * 117)
            commands = text.replace("redis-cli", f"redis-cli -p {server.port}")
            said = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True).stdout
        finally:
            relay.kill()
    history, _, rest = said.partition("\n")
    assert 300 < int(history) < 400 and "used_memory_human" in rest, said
