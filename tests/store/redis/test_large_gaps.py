"""Publications that a node missed are read in parts, so that Redis does not end the new connection."""

from conftest import wait_for
from redis_nodes import broker_nodes, kill_links
from redis_server import RedisServer

from pushrelay.store import Draft

MANY = 60  # destinations
LARGE = "x" * 1_000_000


def test_a_large_gap_is_filled_over_one_connection(tmp_path):
    """All of it together is more than Redis's default limit for subscribed connections, 32 MiB."""
    with RedisServer(tmp_path) as redis, broker_nodes(redis.url) as open_node:
        node, other = open_node("a"), open_node("b")
        for n in range(MANY):
            node.come(f"d{n}")
        connect = node.link.place.connect

        def refuse(*_):
            raise ConnectionRefusedError

        node.link.place.connect = refuse
        kill_links(redis)
        wait_for(lambda: not node.link.is_up, "the end of the connection")
        other.wait_until_up()
        for n in range(MANY):
            other.broker.publish([Draft(f"d{n}", LARGE)])
            other.broker.publish([Draft(f"d{n}", "small")])
        session = node.link.session
        node.link.place.connect = connect
        wait_for(lambda: all(len(node.here.got[f"d{n}"]) == 2 for n in range(MANY)), "everything at this node", 60)
        assert all(node.here.data(f"d{n}") == [LARGE, "small"] for n in range(MANY))
        assert node.link.session == session + 1 and not node.here.sent_back
