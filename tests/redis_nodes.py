"""Brokers on one Redis in this process: nodes whose clients are lists."""

import contextlib
import secrets
import threading
import time
from collections import defaultdict

from conftest import wait_for

from pushrelay.store import Draft, open_broker
from pushrelay.store.open import RedisOptions


class Here:
    """The clients of one node: each destination has as many sockets as `sockets` says, and `got` what came to them."""

    def __init__(self):
        self.sockets = defaultdict(int)
        self.got = defaultdict(list)  # by destination: the publications, in the order in which they came
        self.skipped = []  # the sids that were not to get one
        self.closed, self.sent_back, self.acks = [], [], []
        self.waits = []  # destinations of pushes that wait
        self.joined = []  # for tests that join by themselves

    def deliver(self, publication, skip_sid):
        self.got[publication.destination].append(publication)
        self.skipped.append(skip_sid)
        return self.sockets[publication.destination]

    def holders(self, destination):
        return self.sockets[destination], 1_700_000_000.5 if self.sockets[destination] else 0.0

    def close(self, destinations):
        self.closed.append(destinations)
        return sum(self.sockets.pop(each, 0) for each in destinations)

    def send_back(self, destinations):
        self.sent_back += destinations

    def acknowledged(self, destination, offset, sid):
        self.acks.append((destination, offset, sid))

    def waiting(self):
        return self.waits

    def data(self, destination):
        return [each.data for each in self.got[destination]]

    def offsets(self, destination):
        return [int(each.position.rpartition(":")[2]) for each in self.got[destination]]


class BrokerNode:
    """A broker, and its clients."""

    def __init__(self, url, prefix, name, options, **limits):
        self.here = Here()
        redis = RedisOptions(redis_prefix=prefix, node=name, **options)
        self.broker = open_broker(url, self.here.deliver, redis=redis, **limits)
        self.broker.attach(self.here)
        self.link = self.broker._link
        self.keys = f"{prefix}:{{0}}:"

    def come(self, destination, sockets=1):
        """Have sockets of a destination registered here."""
        self.broker.delivered(destination)
        self.here.sockets[destination] += sockets
        self.broker.changed(destination, False)

    def leave(self, destination):
        self.here.sockets[destination] = 0
        self.broker.changed(destination, True)

    def push(self, destination, *values, **fields):
        return self.broker.publish([Draft(destination, value, **fields) for value in values])

    def push_soon(self, *drafts):
        """Push without waiting. Return a list that gets the receipts, or the error."""
        answer = []

        def publish():
            try:
                answer.extend(self.broker.publish(list(drafts)))
            except Exception as error:
                answer.append(error)

        threading.Thread(target=publish, daemon=True).start()
        return answer

    def kept(self, destination):
        """Return the data in the history."""
        return [each.data for each in self.broker.history(destination).publications]

    def cuts(self):
        """Return how many connections ended, by the reason."""
        return {reason: count for reason, count in self.broker._measures.cuts.counts().items() if count}

    def missed(self):
        """Return the number of publications that were handed out late, after a new connection."""
        return self.broker._measures.missed

    def wait_until_up(self, session=0):
        """Wait for a connection that is later than `session`."""
        wait_for(lambda: self.link.is_up and self.link.session > session, f"a new connection of {self.broker.name}")


@contextlib.contextmanager
def broker_nodes(url, **common):
    """Open nodes that share a Redis and have a prefix of their own: open_node(history_size=10)."""
    prefix = f"test-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as opened:

        def open_node(name="", patience=20.0, replicas=0, address=url, **limits):
            options = {"redis_patience": patience, "redis_wait": replicas}
            node = BrokerNode(address, prefix, name, options, **{**common, **limits})
            opened.callback(node.broker.close)
            node.broker.start()
            return node

        yield open_node


def links(redis):
    """Return the ids of the connections that subscribe, by CLIENT LIST."""
    lines = redis.ask("CLIENT", "LIST").decode().splitlines()
    fields = [dict(each.partition("=")[::2] for each in line.split()) for line in lines]
    return [each["id"] for each in fields if each["sub"] != "0"]


def kill_links(redis):
    """End all connections that subscribe."""
    for each in links(redis):
        redis.ask("CLIENT", "KILL", "ID", each)


def eventually(condition, what):
    """Wait for a condition, with a deadline that allows for a Redis that was away."""
    return wait_for(condition, what, 40)


def pause_writes(redis, seconds):
    """Have Redis execute no command that writes for some seconds."""
    redis.ask("CLIENT", "PAUSE", int(seconds * 1000), "WRITE")
    return time.monotonic() + seconds
