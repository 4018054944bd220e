"""The settings broker and durability lead to a broker, or to a sentence."""

import re

import pytest
from conftest import ROOT

from pushrelay.settings.redis_url import SCHEMES
from pushrelay.settings.values import BROKER_HELP, BROKERS
from pushrelay.store import open_broker
from pushrelay.store.memory import MemoryStore
from pushrelay.store.open import STORES, RedisOptions, file_of


def test_the_settings_know_the_same_kinds_of_broker_as_the_store():
    assert {*STORES, *SCHEMES} == set(BROKERS)
    assert not STORES.keys() & set(SCHEMES)


def test_the_docs_and_the_help_have_each_kind():
    [row] = re.findall(r"^\| `broker`.*", (ROOT / "docs/settings.md").read_text(), re.M)
    for kind in BROKERS.values():
        assert f"`{kind.usage}`" in row and kind.usage in BROKER_HELP


def test_each_kind_has_its_store_and_its_file():
    assert isinstance(open_broker("memory:", lambda publication, skip_sid: 0)._store, MemoryStore)
    assert file_of("memory:") is None
    assert file_of("sqlite:/var/lib/relay.db") == "/var/lib/relay.db"


def test_each_address_of_a_redis_leads_to_its_broker_and_to_no_file():
    urls = ["redis://h/1", "rediss://h/1", "unix:///run/redis.sock", "redis+sentinel://h/m", "rediss+sentinel://h/m"]
    assert {each.partition(":")[0] for each in urls} == set(SCHEMES)
    for url in urls:
        broker = open_broker(url, lambda publication, skip_sid: 0, redis=RedisOptions(node="n"))
        assert broker.is_shared and broker.name == "n" and file_of(url) is None


def test_options_are_the_limits_of_the_history():
    broker = open_broker("memory:", lambda publication, skip_sid: 0, history_size=7, history_ttl=9.0)
    assert (broker._archive.limits.history_size, broker._archive.limits.history_ttl) == (7, 9.0)


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:x", "sqlite:", "sqlite", "sqlite://relay.db", "mysql:x", "redis"]
)
def test_a_broker_that_does_not_exist_is_refused_with_what_to_write(url):
    with pytest.raises(ValueError, match="memory:, or sqlite: and a file"):
        open_broker(url, lambda publication, skip_sid: 0)


def test_a_durability_that_does_not_exist_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match="process or power"):
        open_broker("memory:", lambda publication, skip_sid: 0, durability="full")
