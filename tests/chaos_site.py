"""The site that chaos.py breaks: relays, their Redis, the network between them; and the kinds of failures."""

import contextlib
import re
import threading
import time
from typing import Any, NamedTuple

from cluster import Cluster
from conftest import DEADLINE, free_port, wait_for
from redis_server import Failover, RedisServer
from tcp_proxy import DOWN, UP, TcpProxy
from verdict import Allowed

RELAYS = 3
RELAY = {
    "history_size": 100_000,
    "history_bytes": "1G",
    "ping_interval": 10,
    "ping_timeout": 10,
    "drain_spread": 0.3,
    "max_outbox": 64 << 20,  # a client that is read late by this busy process is not a slow one
    "server": "own",
}
PROXIED = ("proxy_stall", "proxy_cut", "proxy_reset", "proxy_half_up", "proxy_half_down", "proxy_refuse", "proxy_delay")
COMMANDS = ("redis_pause", "redis_kill_one", "redis_kill_all")
RELAYS_FAIL = ("relay_kill", "relay_freeze", "relay_restart", "client_drop")


class Scenario(NamedTuple):
    """A setup of Redis, and what it promises."""

    config: dict[str, Any]  # of Redis; None: the relay has a store of its own
    relay: dict[str, Any]
    kinds: tuple[str, ...]
    allowed: Allowed
    has_sentinel: bool = False
    relays: int = RELAYS


FOLLOWED = {"min-replicas-to-write": 1, "min-replicas-max-lag": 10}
ALL = ("redis_kill", "redis_freeze", *COMMANDS, *RELAYS_FAIL, *PROXIED)
SCENARIOS = {
    "sqlite": Scenario(None, {}, RELAYS_FAIL, Allowed(), relays=1),
    "always": Scenario({"appendonly": "yes", "appendfsync": "always"}, {"durability": "power"}, ALL, Allowed()),
    "everysec": Scenario({"appendonly": "yes", "appendfsync": "everysec"}, {}, ALL, Allowed(epochs=True)),
    "failover": Scenario(
        {"appendonly": "yes", **FOLLOWED},
        {},
        ("failover", "redis_freeze", *COMMANDS, *RELAYS_FAIL),
        Allowed(epochs=True, losses=True),
        has_sentinel=True,
    ),
    # A master that was replaced is written to until it notices, and all of that is lost.
    "split": Scenario(
        {"appendonly": "yes"},
        {},
        ("failover", "failover_tail", "redis_freeze", *COMMANDS, *RELAYS_FAIL),
        Allowed(epochs=True, losses=True),
        has_sentinel=True,
    ),
    "wait": Scenario(
        {"appendonly": "yes", "appendfsync": "always", **FOLLOWED},
        {"durability": "power", "redis_wait": 1},
        ("failover", *COMMANDS, *RELAYS_FAIL),
        Allowed(epochs=True),
        has_sentinel=True,
    ),
    "no_aof": Scenario({"appendonly": "no"}, {}, ALL, Allowed(epochs=True, losses=True)),
    "flushed": Scenario(
        {"appendonly": "yes"}, {}, ("redis_flush", *COMMANDS, *RELAYS_FAIL), Allowed(epochs=True, losses=True)
    ),
}


# A kill in the middle of a write can leave half a transaction at the end of the append-only file. Redis 7.0.15 cuts
# the file after a whole command of it instead of before the transaction, and runs that half at its next start.
TORN = "MULTI calls can not be nested"


def is_torn(*servers):
    """Return whether one of these servers has damaged its own append-only file, so that it may lose something."""
    return any(TORN in server.log.read_text(errors="replace") for server in servers)


class OneRedis:
    """A Redis without replicas."""

    def __init__(self, folder, config):
        self.master = RedisServer(folder / "redis", port=free_port(), **config)

    def is_torn(self):
        return is_torn(self.master)

    def kill(self, pause):
        """Kill it, and start it again after a pause."""
        self.master.kill()
        time.sleep(pause)
        self.master.start()

    def freeze(self, seconds):
        self.master.pause()
        time.sleep(seconds)
        self.master.resume()

    def close(self):
        self.master.kill()


class Replicated:
    """A Redis with a replica, and Sentinels that promote it."""

    def __init__(self, folder, config):
        self._failover = Failover(folder, silence=0.5, **config)
        self._servers = {each.port: each for each in (self._failover.master, self._failover.replica)}
        self.url = self._failover.url

    def is_torn(self):
        return is_torn(*self._servers.values())

    @property
    def master(self):
        """The server that the first Sentinel names."""
        return self._servers[self._named()]

    def _named(self):
        return int(self._failover.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", Failover.NAME)[1])

    def _other(self, server):
        return next(each for each in self._servers.values() if each is not server)

    def fail(self, lost_tail):
        """Kill the master, once it has a replica, and let its replica become the master.

        If `lost_tail`, the replica does not get what is published in the last moments.
        """
        master = self._synchronized()
        replica = self._other(master)
        if lost_tail:
            replica.pause()
            master.ask("CLIENT", "KILL", "TYPE", "replica")
            time.sleep(0.15)
        master.kill()
        replica.resume()
        self._wait_for_another(master)
        self._demote(master, starts=True)

    def freeze(self, seconds):
        """Freeze the master. After a second the Sentinels replace it; it returns as if it were still the master."""
        master = self._synchronized()
        master.pause()
        time.sleep(seconds)
        master.resume()
        time.sleep(1.0)
        if seconds > 1.0:
            self._wait_for_another(master)
            self._demote(master, starts=False)

    def _synchronized(self):
        """Return the master when its replica has everything."""
        wait_for(lambda: b"state=online" in self.master.ask("INFO", "replication"), "the replica", 3 * DEADLINE)
        return self.master

    def _wait_for_another(self, master):
        wait_for(lambda: self.master is not master, "the failover", 3 * DEADLINE)
        wait_for(lambda: b"role:master" in self.master.ask("INFO", "replication"), "the new role")

    def _demote(self, server, starts):
        """Do now what the Sentinels would do after some seconds."""
        if starts:
            server.start()
        server.ask("REPLICAOF", "127.0.0.1", self.master.port)

    def close(self):
        for server in self._servers.values():
            server.resume()
        self._failover.__exit__()


class Site:
    """Relays on one Redis. Without Sentinels, each relay reaches it through a proxy of its own."""

    def __init__(self, folder, scenario):
        self.scenario = scenario
        self.redis = None
        self.proxies = []
        self._tasks = {}  # by node: a thread that starts it again
        with contextlib.ExitStack() as opened:
            urls = self._urls(folder, opened)
            self.cluster = opened.enter_context(Cluster(folder, urls, **RELAY, **scenario.relay))
            self.cluster.wait_until_ready(3 * DEADLINE)
            self._opened = opened.pop_all()

    def _urls(self, folder, opened):
        """Start what the relays need, and return the setting `broker` of each."""
        scenario = self.scenario
        if scenario.config is None:
            return [f"sqlite:{folder}/relay.db"] * scenario.relays
        kind = Replicated if scenario.has_sentinel else OneRedis
        self.redis = opened.enter_context(contextlib.closing(kind(folder, scenario.config)))
        if scenario.has_sentinel:
            return [self.redis.url] * scenario.relays
        for _ in range(scenario.relays):
            self.proxies.append(opened.enter_context(TcpProxy(self.redis.master.port)))
        return [f"redis://127.0.0.1:{proxy.port}/0" for proxy in self.proxies]

    def heal(self):
        """Undo all failures, and wait until every relay accepts pushes."""
        for proxy in self.proxies:
            proxy.allow()
        for task in list(self._tasks.values()):
            task.join()
        self.cluster.wait_until_ready(3 * DEADLINE)

    def close(self):
        for task in list(self._tasks.values()):
            task.join()
        for node in self.cluster:
            node.thaw()
        self._opened.close()

    # For the failures.

    def node(self, chance):
        """Return a relay that runs, chosen by chance."""
        node = chance.choice(self.cluster.nodes)
        if node in self._tasks:
            self._tasks.pop(node).join()
        return node

    def proxy(self, chance):
        return chance.choice(self.proxies)

    def later(self, node, *steps):
        """Do something with a relay in a thread."""

        def run():
            for step in steps:
                step()

        self._tasks[node] = threading.Thread(target=run, daemon=True)
        self._tasks[node].start()


# The failures. Each takes the site, the source of chance and the clients, and returns what it did.


def relay_kill(site, chance, _):
    node, pause = site.node(chance), chance.uniform(0.0, 0.5)
    node.kill()
    site.later(node, lambda: time.sleep(pause), node.restart)
    return node.name


def relay_restart(site, chance, _):
    node = site.node(chance)
    site.later(node, node.stop, node.restart)
    return node.name


def relay_freeze(site, chance, _):
    node, seconds = site.node(chance), chance.choice((0.3, 2.0))
    node.freeze()
    time.sleep(seconds)
    node.thaw()
    return f"{node.name} {seconds}"


def client_drop(site, chance, witnesses):
    witness = chance.choice(witnesses)
    witness.drop()
    return witness.name


def redis_kill(site, chance, _):
    site.redis.kill(chance.choice((0.0, 0.3, 1.0)))


def redis_freeze(site, chance, _):
    seconds = chance.choice((0.3, 2.2))
    site.redis.freeze(seconds)
    return str(seconds)


def redis_pause(site, chance, _):
    seconds = chance.choice((0.3, 2.5))
    site.redis.master.ask("CLIENT", "PAUSE", int(seconds * 1000), "WRITE")
    time.sleep(seconds)
    return str(seconds)


def redis_kill_all(site, chance, _):
    for kind in ("normal", "pubsub"):
        site.redis.master.ask("CLIENT", "KILL", "TYPE", kind)


def redis_kill_one(site, chance, _):
    """Kill one connection of a relay, chosen by chance."""
    clients = [
        each for each in site.redis.master.ask("CLIENT", "LIST").decode().splitlines() if "cmd=client" not in each
    ]
    clients = [each for each in clients if " flags=S" not in each and " flags=M" not in each]
    if clients:
        found = re.search(r"id=(\d+)", chance.choice(clients))
        site.redis.master.ask("CLIENT", "KILL", "ID", found[1])


def redis_flush(site, chance, _):
    site.redis.master.ask("FLUSHALL")


def failover(site, chance, _):
    site.redis.fail(lost_tail=False)


def failover_tail(site, chance, _):
    site.redis.fail(lost_tail=True)


def _through_proxy(act, seconds):
    """Return a failure of one relay's network: `act(proxy, chance)`, and after some seconds all is well again."""

    def fail(site, chance, _):
        proxy, time_ = site.proxy(chance), chance.choice(seconds)
        act(proxy, chance)
        time.sleep(time_)
        proxy.allow()
        return f"{site.cluster[site.proxies.index(proxy)].name} {time_}"

    return fail


proxy_stall = _through_proxy(lambda proxy, chance: proxy.stall(), (0.3, 3.5))
proxy_delay = _through_proxy(lambda proxy, chance: proxy.delay(chance.choice((0.02, 0.1))), (1.0,))
proxy_cut = _through_proxy(lambda proxy, chance: proxy.cut(), (0.0,))
proxy_reset = _through_proxy(lambda proxy, chance: proxy.cut(reset=True, one_of=chance), (0.0,))
proxy_half_up = _through_proxy(lambda proxy, chance: proxy.half_open(UP), (0.3, 1.5))
proxy_half_down = _through_proxy(lambda proxy, chance: proxy.half_open(DOWN), (0.3, 1.5))


def _refuse(proxy, chance):
    proxy.refuse()
    proxy.cut()


proxy_refuse = _through_proxy(_refuse, (0.5, 2.5))

KINDS = {name: globals()[name] for name in dict.fromkeys((*ALL, "redis_flush", "failover", "failover_tail"))}
