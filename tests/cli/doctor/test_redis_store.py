"""The doctor examines the Redis of the settings."""

import contextlib
import importlib.metadata
import io
import re

import pytest
from conftest import free_port
from redis_server import RedisServer

from pushrelay.cli.doctor.redis_store import redis_store
from pushrelay.cli.doctor.report import Report
from pushrelay.settings import load

PASSWORD = "7gqT-zLw2_xRb9Vn1"


def examined(url, **others):
    """Return what the doctor prints about this Redis, on one line, and its number of failures."""
    report = Report()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        redis_store(report, load({}, {"config": "/dev/null", "broker": url, **others}))
    text = " ".join(said.getvalue().split())
    assert PASSWORD not in text
    return text, report.failures


def test_a_sound_redis_is_named_with_what_a_push_survives(tmp_path):
    with RedisServer(tmp_path, appendonly="yes", requirepass=PASSWORD) as server:
        text, failures = examined(server.url)
        assert failures == 0 and "warn" not in text
        assert re.search(rf"ok store: Redis [\d.]+ at redis://127.0.0.1:{server.port}/0 ", text)
        assert "if Redis ends no accepted push is lost" in text
        server.ask("CONFIG", "SET", "timeout", "3")
        text, failures = examined(server.url)
        assert failures == 0 and "warn store: Redis closes connections after 3 s" in text
        text, failures = examined(server.url.replace(PASSWORD, f"{PASSWORD[:-1]}2"))
        assert failures == 1 and "FAIL store:" in text and "does not accept the user or the password" in text


def test_a_redis_that_the_start_would_refuse_is_a_failure(tmp_path):
    with RedisServer(tmp_path, maxmemory_policy="allkeys-lfu") as server:
        text, failures = examined(server.url)
        assert failures == 1 and "maxmemory-policy is allkeys-lfu" in text and "ok store" not in text
    text, failures = examined(f"redis://127.0.0.1:{free_port()}")
    assert failures == 1 and "start Redis there" in text


@pytest.mark.parametrize("name", ["redis", "hiredis"])
def test_a_package_that_is_missing_is_a_failure_with_the_line_to_type(monkeypatch, name):
    real = importlib.metadata.version

    def version(asked):
        if asked == name:
            raise importlib.metadata.PackageNotFoundError
        return real(asked)

    monkeypatch.setattr(importlib.metadata, "version", version)
    text, failures = examined("redis://127.0.0.1")
    assert failures == 1 and f"the package {name} is missing" in text and "-m pip install -r" in text
