"""The start and `--check` print what is known about the Redis of the settings."""

import re

import pytest
from conftest import free_port
from redis_server import RedisServer

from pushrelay.cli import startup
from pushrelay.cli.banner import banner, checked
from pushrelay.cli.redis_report import report_on
from pushrelay.errors import StoreError
from pushrelay.settings import load

PASSWORD = "7gqT-zLw2_xRb9Vn1"


def settings_of(url, **others):
    return load({}, {"config": "/dev/null", "broker": url, **others})


def test_a_store_that_is_no_redis_has_no_report():
    assert report_on(settings_of("memory:")) is None
    assert "stores pushes in" not in checked(settings_of("memory:"))


def test_the_texts_tell_when_an_accepted_push_is_lost_and_never_the_password(tmp_path):
    with RedisServer(tmp_path, appendonly="yes", requirepass=PASSWORD) as server:
        settings = settings_of(server.url)
        for text in (banner(settings, 81), checked(settings, report_on(settings))):
            assert re.search(rf"\n  stores pushes in  Redis [\d.]+ at redis://127.0.0.1:{server.port}/0\n", text)
            assert "  if Redis ends     no accepted push is lost (appendonly yes)\n" in text
            assert "  without power     pushes of up to 2 s are lost (appendfsync everysec)\n" in text
            assert "  at a failover     there is no replica that could take over" in text
            assert PASSWORD not in text and "warning: Redis" not in text
        server.ask("CONFIG", "SET", "appendonly", "no")
        for text in (banner(settings, 81), checked(settings, report_on(settings))):
            assert "warning: Redis has appendonly no" in text
            assert "if Redis ends     all pushes since its last snapshot are lost" in text


def test_a_redis_that_must_not_be_used_is_reported_with_the_reason(tmp_path):
    with RedisServer(tmp_path, maxmemory_policy="allkeys-lru") as server:
        found = report_on(settings_of(server.url, durability="power"))
        assert [why.split(",")[0] for why in found.refusals] == [
            "maxmemory-policy is allkeys-lru",
            "durability = power needs appendonly yes and appendfsync always in redis.conf",
        ]


def test_the_start_goes_on_if_redis_goes_away_just_before_the_banner():
    assert "serves on" in banner(settings_of(f"redis://127.0.0.1:{free_port()}"), 81)
    with pytest.raises(StoreError, match="refuses connections"):
        report_on(settings_of(f"redis://127.0.0.1:{free_port()}"))


def test_check_ends_with_a_sentence_if_the_start_would_refuse_the_redis(tmp_path, capsys):
    with RedisServer(tmp_path, maxmemory_policy="allkeys-lru") as server:
        with pytest.raises(SystemExit) as ended:
            startup._check(settings_of(server.url))
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        assert said.err.startswith("relay: Redis ") and "maxmemory-policy is allkeys-lru" in said.err
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        with pytest.raises(SystemExit) as ended:
            startup._check(settings_of(server.url))
        assert ended.value.code == 0 and "stores pushes in  Redis" in capsys.readouterr().out
