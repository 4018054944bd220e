"""A rolling restart of several relays behind nginx, with clients that give `since`, while programs push.

    python tests/rolling.py                 three relays on one Redis, 3,000 clients, 200 pushes/s
    python tests/rolling.py 3 500 100       three relays, 500 clients, 100 pushes/s
    python tests/rolling.py 1 500 100       one relay on SQLite, which its clients have to wait for

Every tenth client polls; the others use WebSocket. Ten clients share a destination. Each relay in turn gets SIGTERM,
and is started again when it has ended. Prints what was lost, or came twice or out of order, and for how long clients
were away: from the end of the connection until the answer to the registration on the next one.
"""

import asyncio
import collections
import contextlib
import json
import pathlib
import random
import resource
import signal
import statistics
import sys
import tempfile
import time

from balancers import KEY, PATH, NginxBalancer, Nodes
from crowd import PollingMember, WebSocketMember, read_answer, until
from crowd import run as run_in_thread

AT_ONCE = 100  # clients that connect for the first time at the same time
SHARING = 10  # clients of one destination
PUSHERS = 8  # connections that push
SETTLED = 2.0  # seconds of pushes before the first restart, after the last one, and between two


class Returning:
    """A member of a crowd that comes back with its last position, and notes for how long it was away."""

    path = PATH

    def __init__(self, port, destination):
        super().__init__(port, destination)
        self.away = []  # seconds, each time
        self.not_recovered = 0
        self._left = 0.0
        self._delay = 0.0
        self.noted = self._registered

    async def stay(self, doors):
        """Stay connected until this is cancelled."""
        async with doors:
            await self.open()
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, AssertionError, ValueError):
                await self.listen()
            self.drop()
            self._left = self._left or time.monotonic()
            await self._come_back()

    async def _come_back(self):
        self.answer = None
        while self.answer is None:
            await asyncio.sleep(self._delay or random.uniform(0.05, 0.15))
            self._delay = 0.0
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, AssertionError, ValueError):
                await asyncio.wait_for(self.open(), 10)

    def take(self, packet):
        if packet.startswith('42["relay_drain"'):
            self._left = time.monotonic()
            self._delay = json.loads(packet[2:])[1]["reconnect_in_ms"] / 1000
        elif packet.startswith('42["push",'):
            message = json.loads(packet[2:])[1]
            self.got.append(int(message["data"]))
            self.register["since"] = message["id"]

    def _registered(self, answer):
        told = answer["ids"][self.name]
        if self._left:
            self.away.append(time.monotonic() - self._left)
            self._left = 0.0
            self.not_recovered += not told["recovered"]
        else:
            self.register["since"] = told["position"]


class ReturningWebSocket(Returning, WebSocketMember):
    """One with a WebSocket."""


class ReturningPolling(Returning, PollingMember):
    """One that polls."""


class Pusher:
    """A program that pushes numbers to its destinations in turn, and sends each again until it is accepted."""

    def __init__(self, port, destinations):
        self._port, self._destinations = port, destinations
        self.pushed = collections.Counter()  # accepted, by destination
        self.took = []  # seconds until each was accepted
        self.repeated = 0  # requests that had no answer with 200
        self._writer = None

    async def run(self, rate, ended):
        began, count = time.monotonic(), 0
        while not ended.is_set():
            await self._push(self._destinations[count % len(self._destinations)])
            count += 1
            await asyncio.sleep(max(0.0, began + count / rate - time.monotonic()))

    async def _push(self, destination):
        number, began = self.pushed[destination], time.monotonic()
        while not await self._ask(destination, number):
            self.repeated += 1
            await asyncio.sleep(0.05)
        self.pushed[destination] += 1
        self.took.append(time.monotonic() - began)

    async def _ask(self, destination, number):
        body = f"destination={destination}&data={number}"
        head = (
            f"POST /push HTTP/1.1\r\nHost: relay\r\nX-Relay-Key: {KEY}\r\nIdempotency-Key: {destination}-{number}\r\n"
        )
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write((head + body).encode())
            await asyncio.wait_for(read_answer(self._reader), 10)
            return True
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = None
        return False


async def roll(nodes, balancer, clients, rate, settled=SETTLED):
    """Restart each node in turn, and return what the clients saw. `settled` is in seconds."""
    groups = [f"group-{n}" for n in range(max(1, clients // SHARING))]
    kinds = [ReturningPolling if n % 10 == 0 else ReturningWebSocket for n in range(clients)]
    members = [kind(balancer.port, groups[n // SHARING % len(groups)]) for n, kind in enumerate(kinds)]
    pushers = [Pusher(balancer.push_port, groups[n::PUSHERS]) for n in range(min(PUSHERS, len(groups)))]
    doors, ended = asyncio.Semaphore(AT_ONCE), asyncio.Event()
    staying = [asyncio.create_task(member.stay(doors)) for member in members]
    try:
        await until(lambda: all(member.answer for member in members), "the registration of all", 120)
        pushing = [asyncio.create_task(pusher.run(rate / len(pushers), ended)) for pusher in pushers]
        downs = []
        for relay in nodes:
            await asyncio.sleep(settled)
            downs.append(await asyncio.to_thread(restart, relay))
            await until(lambda: all(member.answer for member in members), "the return of all")
        await asyncio.sleep(settled)
        ended.set()
        await asyncio.gather(*pushing)
        pushed = sum((pusher.pushed for pusher in pushers), collections.Counter())
        with contextlib.suppress(AssertionError):
            await until(lambda: all(len(member.got) >= pushed[member.name] for member in members), "all", 30)
    finally:
        for task in staying:
            task.cancel()
        await asyncio.gather(*staying, return_exceptions=True)
        for member in members:
            member.drop()
    return seen(members, pushers, pushed, downs)


def restart(relay):
    """Restart a relay as systemd does; return the seconds from SIGTERM until it serves again."""
    began = time.monotonic()
    relay.process.send_signal(signal.SIGTERM)
    relay.process.wait(30)
    relay.start()
    return time.monotonic() - began


def seen(members, pushers, pushed, downs):
    expected = {name: list(range(count)) for name, count in pushed.items()}
    away = [seconds for member in members for seconds in member.away]
    took = [seconds for pusher in pushers for seconds in pusher.took]
    return {
        "clients": len(members),
        "pushes": sum(pushed.values()),
        "deliveries": sum(len(member.got) for member in members),
        "lost": sum(len(set(expected.get(member.name, [])) - set(member.got)) for member in members),
        "twice": sum(len(member.got) - len(set(member.got)) for member in members),
        "out_of_order": sum(member.got != sorted(member.got) for member in members),
        "not_recovered": sum(member.not_recovered for member in members),
        "returns": len(away),
        "median_away_s": round(statistics.median(away), 2) if away else 0,
        "longest_away_s": round(max(away, default=0), 2),
        "repeated_pushes": sum(pusher.repeated for pusher in pushers),
        "longest_push_s": round(max(took, default=0), 2),
        "restarts_s": [round(seconds, 1) for seconds in downs],
    }


def run(folder, names, clients, rate, settled=SETTLED, **settings):
    """Start the relays and nginx, restart each relay, and return what the clients saw."""
    settings = {"ping_interval": 25, "ping_timeout": 20, "history_size": 1000, "max_per_address": 1_000_000, **settings}
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(contextlib.closing(Nodes(folder, names, **settings)))
        balancer = stack.enter_context(contextlib.closing(NginxBalancer(nodes)))
        return run_in_thread(roll(nodes, balancer, clients, rate, settled))


def main(count=3, clients=3000, rate=200):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = {}
        if count > 1:
            from redis_server import RedisServer

            settings["broker"] = stack.enter_context(RedisServer(pathlib.Path(folder) / "redis", appendonly="yes")).url
        for key, value in run(pathlib.Path(folder), "abc"[:count], clients, rate, **settings).items():
            print(f"{key} {value}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
