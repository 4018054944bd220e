"""A ring at one node is heard at all of them. Many rings are few messages."""

import threading

from conftest import DEADLINE, wait_for
from redis_nodes import kill_links

from pushrelay.store.redis import rings


def hear(node):
    """Return a list that grows with each ring that a node hears."""
    heard = []
    node.broker.rings.call_on_ring(lambda: heard.append(1))
    return heard


def test_a_ring_is_heard_at_all_nodes(open_node):
    first, second = open_node("a"), open_node("b")
    heard = hear(first), hear(second), hear(second)
    first.broker.rings.pass_on()
    wait_for(lambda: all(heard), "a ring at every node")


def test_rings_share_a_message_and_the_last_one_is_not_lost(open_node, monkeypatch):
    monkeypatch.setattr(rings, "EVERY_SECONDS", 1.0)
    first, second = open_node("a"), open_node("b")
    heard = hear(second)
    first.broker.rings.pass_on()
    wait_for(lambda: heard, "the first ring")
    for _ in range(1000):
        first.broker.rings.pass_on()
    wait_for(lambda: len(heard) == 2, "one more message for all the others")
    second.broker.rings.pass_on()
    wait_for(lambda: len(heard) == 3, "a ring of the other node")


def test_a_ring_while_redis_is_away_raises_nothing(open_node, redis):
    node = open_node("a")
    heard, over = hear(node), threading.Event()

    def ring():
        while not over.is_set():
            node.broker.rings.pass_on()

    thread = threading.Thread(target=ring)
    thread.start()
    try:
        session = node.link.session
        kill_links(redis)
        node.wait_until_up(session)
        before = len(heard)
        wait_for(lambda: len(heard) > before, "rings after the cut", DEADLINE)
    finally:
        over.set()
        thread.join()
