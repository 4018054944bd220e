"""The fixtures of most tests of the broker on Redis. A file that needs another Redis has its own of the same name."""

import pytest
from redis_nodes import broker_nodes
from redis_server import RedisServer


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def open_node(redis):
    """Open nodes on this Redis: see broker_nodes()."""
    with broker_nodes(redis.url) as opened:
        yield opened
