"""The costs of a client, a delivery, a push and a kept publication: the figures of docs/operations.md, on this machine.

.venv/bin/python tests/costs.py [clients, default 4000]
"""

import asyncio
import contextlib
import os
import pathlib
import resource
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from conftest import Relay, fds
from crowd import PollingMember, Pusher, WebSocketMember, crowd, until
from measures import cpu_seconds, proc, rss

DATA = "x" * 119  # with its destination and position, a small JSON message
PUSHES = 20_000


def show(what, value):
    print(f"{what:<58}{value}", flush=True)


def state(relay):
    return rss(relay), fds(relay), cpu_seconds(relay)


def written(relay):
    """Return the bytes that the relay's process has caused to be written to the disk."""
    lines = proc(relay, "io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def store_size(relay):
    path = relay.settings["broker"].partition(":")[2]
    return [os.path.getsize(f"{path}{suffix}") for suffix in ("", "-wal", "-recent")]


async def clients(relay, kind, count):
    """Measure clients of one kind, and a push to all of them."""
    before = state(relay)
    members = {"websockets": 0, "polling": 0} | {"websockets" if kind is WebSocketMember else "polling": count}
    async with crowd(relay.port, **members) as there:
        await asyncio.sleep(1)
        after = state(relay)
        for name, index, unit, scale in (
            ("memory", 0, "KiB", 1024),
            ("open files", 1, "", 1),
            ("CPU to connect", 2, "µs", 1e-6),
        ):
            show(f"{kind.__name__}, {name}", f"{(after[index] - before[index]) / count / scale:.1f} {unit}")
        if kind is WebSocketMember:
            await deliveries(relay, there)
            idle = cpu_seconds(relay)
            await asyncio.sleep(25)
            show("CPU for each ping", f"{(cpu_seconds(relay) - idle) / count * 1e6:.0f} µs")


async def deliveries(relay, there):
    """Measure a push to all of them."""
    pusher = await Pusher().open(relay.port)
    for member in there:
        member._writer.write(FRAME)
    await asyncio.sleep(3)
    before, rounds = cpu_seconds(relay), 20
    for number in range(rounds):
        answer = await pusher.push("everybody", DATA)
        await until(lambda number=number: all(len(each.got) > number for each in there), "the deliveries")
    show(
        "CPU for each delivery of a push to all",
        f"{(cpu_seconds(relay) - before) / rounds / answer['connections'] * 1e6:.1f} µs",
    )


async def pushes(relay, connections):
    """Measure pushes to destinations that nobody has registered."""
    pushers = [await Pusher().open(relay.port) for _ in range(connections)]
    before, disk = cpu_seconds(relay), written(relay)

    async def run(pusher, first):
        for number in range(first, PUSHES, connections):
            await pusher.push(f"user{number % 1000}", DATA)

    await asyncio.gather(*(run(each, n) for n, each in enumerate(pushers)))
    await asyncio.sleep(2)
    show("CPU for each push over kept connections", f"{(cpu_seconds(relay) - before) / PUSHES * 1e6:.0f} µs")
    show("bytes written to the disk for each push", f"{(written(relay) - disk) / PUSHES:.0f}")


def store(relay):
    size, wal, journal = store_size(relay)
    show(f"file after {PUSHES} pushes of {len(DATA)} bytes", f"{size / PUSHES:.0f} bytes for each; WAL {wal >> 20} MiB")


def main(count):
    from clients import event, frame

    global FRAME
    FRAME = frame(event("register", {"id": "everybody"}, 2))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for durability in ("process", "power"):
            with running(folder, durability=durability) as relay:
                show(
                    f"durability = {durability}: memory at the start",
                    f"{rss(relay) >> 20} MiB, {fds(relay)} open files",
                )
                asyncio.run(pushes(relay, 4))
                store(relay)
        for kind, number in ((PollingMember, count // 2), (WebSocketMember, count)):
            with running(folder) as relay:
                asyncio.run(clients(relay, kind, number))


@contextlib.contextmanager
def running(folder, **settings):
    relay = Relay(pathlib.Path(tempfile.mkdtemp(dir=folder)) / "log", max_per_address=10**6, **settings)
    try:
        yield relay
    finally:
        relay.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
