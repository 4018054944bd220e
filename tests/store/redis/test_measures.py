"""The metrics of a broker on Redis."""

from conftest import wait_for
from redis_server import RedisServer

from pushrelay.store import Draft, open_broker


def metrics(broker):
    return {family.name: family.values for family in broker.metrics()}


def test_the_metrics_follow_the_connection_and_what_is_published(tmp_path):
    with RedisServer(tmp_path, appendonly="yes") as redis:
        broker = open_broker(redis.url, lambda publication, skip_sid: 0)
        broker.start()
        try:
            broker.delivered("42")
            broker.publish([Draft("42", 1), Draft("43", 2)])
            broker.publish([Draft("42", 1, key="k")])
            broker.publish([Draft("42", 1, key="k")])
            wait_for(lambda: metrics(broker)["relay_redis_echo_seconds"].buckets()[-1][1], "a beat")
            now = metrics(broker)
            assert now["relay_redis_up"] == 1 and now["relay_nodes"] == 1
            assert now["relay_publications_total"] == 3
            assert dict(now["relay_batch_publications"].buckets())[1] == 2
            assert set(now["relay_redis_cuts_total"].values()) == {0}
            redis.kill()
            wait_for(lambda: not metrics(broker)["relay_redis_up"], "the end of the connection")
            redis.restart()
            wait_for(lambda: metrics(broker)["relay_redis_up"], "a new connection")
            now = metrics(broker)
            assert now["relay_redis_cuts_total"][("eof",)] == 1
            assert now["relay_resyncs_total"] == {("nothing",): 1, ("filled",): 0, ("lost",): 0}
            assert now["relay_epochs_total"] == 1
        finally:
            broker.close()
