"""Webhooks under failure: each event at least once, in order, whatever is killed. And how fast they are.

    python tests/webhooks_chaos.py [--seconds 60] [--redis NODES] [--figures]

Pages come and go at a relay, or at several on one Redis. The receiver in PHP works, fails or is slow, and
relays are killed and started again. At the end the last event about each destination must be the truth, no destination
may be reported online twice in a row, and the events about a destination must be in the order in which they happened.

With --figures it measures instead: events per second, the seconds from an event to PHP, what webhooks cost a client
that registers and disconnects, and the seconds until another relay sends.
"""

import argparse
import contextlib
import json
import pathlib
import random
import statistics
import sys
import tempfile
import time

from cluster import Cluster
from conftest import Relay, wait_for
from posting import wires
from receivers import SECRET, Receivers
from redis_server import RedisServer

MODES = ["200", "200", "500", "poison", "slow", "404"]
DESTINATIONS = [f"user-{number}" for number in range(20)]


class Chaos:
    """The relays, the receiver, and the pages; `held` has the destinations that a page has now."""

    def __init__(self, folder, site, nodes):
        self.folder, self.site, self.nodes = folder, site, nodes
        self.pages = {}  # by destination: the wire and its node
        self.incidents = {}
        self._wires = contextlib.ExitStack()
        self._open = self._wires.enter_context(wires())

    def come(self, destination):
        node = random.choice(self.nodes)
        with contextlib.suppress(OSError, AssertionError, ValueError):
            wire = self._open(node.port)
            if wire.call("register", {"id": [destination]})[1]["ok"]:
                self.pages[destination] = wire, node

    def go(self, destination):
        wire, _ = self.pages.pop(destination)
        with contextlib.suppress(OSError):
            wire.close()

    def churn(self):
        """Let some pages come and go."""
        for destination in random.sample(DESTINATIONS, 3):
            self.go(destination) if destination in self.pages else self.come(destination)

    def incident(self):
        """Change the receiver's behavior, or kill a relay and start it again."""
        kind = random.choice([*MODES, "kill", "kill"])
        self.incidents[kind] = self.incidents.get(kind, 0) + 1
        if kind != "kill":
            self.site.behave("a", kind)
            return
        node = random.choice(self.nodes)
        node.kill()
        time.sleep(random.uniform(0, 2))
        node.start()
        for destination, (_, its_node) in list(self.pages.items()):
            if its_node is node:
                self.go(destination)
                if random.random() < 0.7:
                    self.come(destination)

    def run(self, seconds):
        end, incident_at = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            self.churn()
            if time.monotonic() > incident_at:
                self.incident()
                incident_at = time.monotonic() + random.uniform(1, 4)
            time.sleep(0.1)
        self.site.behave("a", "200")

    def states(self):
        """Return the last event about each destination."""
        return {event["destination"]: event["event"] for event in self.site.events("a")}

    def settle(self):
        """Wait until PHP knows what is true."""
        wanted = {each: "online" if each in self.pages else "offline" for each in DESTINATIONS}

        def is_settled():
            states = self.states()
            return all(states.get(each, "offline") == state for each, state in wanted.items())

        wait_for(is_settled, "PHP knows what is true", 150)

    def check(self):
        """Return what is wrong with the events that PHP accepted."""
        wrong, last, numbers = [], {}, {}
        requests = self.site.requests("a")
        for event in self.site.events("a"):
            name, kind = event["destination"], event["event"]
            if last.get(name, "offline") == kind:
                wrong.append(f"{name} is reported {kind} twice in a row")
            last[name] = kind
            if event["at"] < numbers.get(name, 0):
                wrong.append(f"{name}: an event comes after a later one")
            numbers[name] = event["at"]
        wrong += ["a request had a wrong signature" for each in requests if each["status"] == 403]
        return wrong

    def close(self):
        self._wires.close()


def chaos(folder, seconds, count):
    """Run it, print what happened, and return the exit code."""
    with contextlib.ExitStack() as opened:
        site = opened.enter_context(Receivers(folder, workers=8))
        settings = {"webhook_url": site.url("a"), "webhook_secret": SECRET, "presence_grace": "500ms"}
        nodes = opened.enter_context(_relays(folder, count, settings))
        run = Chaos(folder, site, nodes)
        opened.callback(run.close)
        run.run(seconds)
        run.settle()
        wrong, requests = run.check(), site.requests("a")
        accepted = [event for each in requests if each["status"] == 200 for event in each["events"]]
        print(
            f"{len(site.events('a'))} events, {len(accepted) - len(site.events('a'))} of them came again; "
            f"{len(requests)} requests, {sum(each['status'] != 200 for each in requests)} of them failed; "
            f"incidents {run.incidents}; wrong: {len(wrong)}"
        )
        for each in wrong:
            print(f"    {each}")
        return bool(wrong)


@contextlib.contextmanager
def _relays(folder, count, settings):
    if count:
        with (
            RedisServer(folder / "redis", appendonly="yes") as redis,
            Cluster(folder, redis.url, count, **settings) as found,
        ):
            found.wait_until_ready()
            yield list(found)
    else:
        relay = Relay(folder / "relay.log", **settings)
        try:
            yield [relay]
        finally:
            relay.kill()


# Figures.


def cpu(relay):
    """Return the seconds of CPU that a relay has used."""
    fields = pathlib.Path(f"/proc/{relay.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def figures(folder):
    """Print the figures."""
    with Receivers(folder, workers=4) as site:
        for broker in ("sqlite", "memory"):
            base = folder / broker
            base.mkdir()
            settings = {"broker": "memory:"} if broker == "memory" else {}
            measure(base, site, broker, settings)
    handover(folder)


def measure(folder, site, broker, settings):
    on = {"webhook_url": site.url(broker), "webhook_secret": SECRET, "presence_grace": 0}
    relay = Relay(folder / "on.log", **settings, **on)
    with wires() as open_wire:
        wire = open_wire(relay.port)
        wire.call("register", {"id": ["warm-up"]})
        waits = []
        for number in range(90):
            began = time.time()
            wire.call("register", {"id": [f"latency-{number}"]})
            wait_for(lambda: len(site.events(broker)) == number + 2, "the event")  # noqa: B023
            waits.append(site.requests(broker)[-1]["at"] - began)
            time.sleep(0.02)
        p50, p90 = statistics.median(waits), sorted(waits)[80]
        print(f"{broker}: from register to PHP: p50 {1000 * p50:.1f} ms, p90 {1000 * p90:.1f} ms")
    # 20,000 events that wait, then are delivered.
    site.behave(broker, "500")
    count = 20_000
    with wires() as open_wire:
        several = [open_wire(relay.port) for _ in range(count // 100)]
        for start, wire in enumerate(several):
            wire.call("register", {"id": [f"mass-{start}-{number}" for number in range(100)]})
        wait_for(lambda: _waiting(relay) >= count, "all events wait", 120)
        seen = len(site.requests(broker))
        site.behave(broker, "200")
        relay.request("POST", "/webhooks?action=retry")
        wait_for(lambda: _waiting(relay) == 0, "all are delivered", 120)
    got = [each for each in site.requests(broker)[seen:] if each["status"] == 200]
    seconds = got[-1]["at"] - got[0]["at"]
    print(f"{broker}: {sum(len(each['events']) for each in got) / seconds:,.0f} events/s delivered in batches of 100")
    relay.kill()
    costs = {"off": [], "on": []}
    for _ in range(3):
        for name, more in (("off", {}), ("on", on)):
            relay = Relay(folder / f"cost-{name}-{time.monotonic_ns()}.log", **settings, **more)
            costs[name].append(cost(relay))
            relay.kill()
    off, with_hooks = (statistics.median(costs[name]) for name in ("off", "on"))
    print(f"{broker}: CPU for a client that connects, registers and leaves: {off:.0f} µs off, {with_hooks:.0f} µs on")


def cost(relay, count=1500):
    """Return the CPU in µs for a client with a destination of its own."""
    with wires() as open_wire:
        open_wire(relay.port).call("register", {"id": ["warm-up"]})
        began = cpu(relay)
        for number in range(count):
            wire = open_wire(relay.port)
            wire.call("register", {"id": [f"cost-{number}"]})
            wire.close()
        time.sleep(1)
        return 1e6 * (cpu(relay) - began) / count


def _waiting(relay):
    return json.loads(relay.request("GET", "/webhooks")[2])["urls"][0]["waiting"]


def handover(folder, rounds=3):
    """Kill the relay that sends, and measure how long the next event takes."""
    seconds = []
    for number in range(rounds):
        base = folder / f"handover-{number}"
        base.mkdir()
        with contextlib.ExitStack() as opened:
            site = opened.enter_context(Receivers(base))
            settings = {"webhook_url": site.url("a"), "webhook_secret": SECRET}
            nodes = opened.enter_context(_relays(base, 3, settings))
            open_wire = opened.enter_context(wires())
            sender = wait_for(lambda: [each for each in nodes if _state(each) != "elsewhere"], "a sender")[0]  # noqa: B023
            other = next(each for each in nodes if each is not sender)
            sender.kill()
            killed = time.time()
            open_wire(other.port).call("register", {"id": ["42"]})
            wait_for(lambda: site.events("a"), "the event", 60)  # noqa: B023
            seconds.append(site.requests("a")[-1]["at"] - killed)
    print(f"three relays, the sender killed: {', '.join(f'{each:.1f}' for each in seconds)} s until the next event")


def _state(relay):
    return json.loads(relay.request("GET", "/webhooks")[2])["urls"][0]["state"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--redis", type=int, default=0, metavar="NODES", help="relays on one Redis; 0: one, on SQLite")
    parser.add_argument("--figures", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        return figures(folder) if given.figures else chaos(folder, given.seconds, given.redis)


if __name__ == "__main__":
    sys.exit(main())
