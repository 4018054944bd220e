"""The promises of every broker, on a Redis; and what several nodes promise together."""

import threading

import pytest
from redis_server import ENGINES, RedisServer

from pushrelay.store.open import RedisOptions
from tests.store.test_broker import BrokerContract


@pytest.fixture(scope="module", params=list(ENGINES))
def redis(request, tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), request.param, appendonly="yes") as server:
        yield server


class TestRedisBroker(BrokerContract):
    """Sockets are connected at every destination: a node hands out what somebody there wants."""

    @pytest.fixture(autouse=True)
    def server(self, redis):
        self.url = redis.url
        redis.ask("FLUSHALL")

    def open(self, **options):
        options.setdefault("redis", RedisOptions(redis_prefix=self.path.stem))
        broker = super().open(**options)
        publish, held, lock = broker.publish, set(), threading.Lock()

        def publish_to_somebody(drafts):
            with lock:
                for name in {draft.destination for draft in drafts} - held:
                    broker.delivered(name)
                    held.add(name)
            return publish(drafts)

        broker.publish = publish_to_somebody
        return broker
