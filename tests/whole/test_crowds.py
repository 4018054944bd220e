"""The README's promises about many clients, tried with real ones.

The same at full size, by hand: FULL_SIZE=1 pytest tests/whole/test_crowds.py -s
"""

import asyncio
import contextlib
import ctypes
import itertools
import socket
import statistics
import struct
import threading
import time

import pytest
from clients import open_websocket
from conftest import DEADLINE, fds, wait_for
from crowd import Pusher, crowd, run, until
from gate import Gate
from measures import FULL_SIZE, p99, proc, report, rss

MEGABYTE = 1 << 20


# Only the relay's own server: stock Flask-SocketIO cannot do any of this.
pytestmark = [
    pytest.mark.parametrize("server", ["own"], indirect=True, scope="session"),
    pytest.mark.usefixtures("many_files"),
    pytest.mark.timed,  # it measures time
]


# Beside those of the setting `threads`: main, watchdog, maintenance, log and reload.
OTHER_THREADS = 5


def threads(relay):
    return len(list(proc(relay, "task").iterdir()))


def in_ms(seconds):
    ordered = sorted(seconds)
    return f"median {1000 * statistics.median(ordered):.2f} ms, p99 {1000 * p99(ordered):.2f} ms"


def is_sound(relay):
    assert "Traceback" not in relay.log.read_text(), relay.log.read_text()


# Many clients.


def test_thousands_of_clients_get_exactly_their_pushes_from_16_threads(start_relay):
    websockets, polling = (8000, 2000) if FULL_SIZE else (1600, 400)
    relay = start_relay(threads=16 - OTHER_THREADS)
    run(push_to_a_crowd(relay, websockets, polling))
    is_sound(relay)


async def push_to_a_crowd(relay, websockets, polling, rounds=3):
    before, most, start = rss(relay), [], time.monotonic()
    pushers = [await Pusher().open(relay.port) for _ in range(8)]
    async with crowd(relay.port, websockets, polling) as members:
        connected = time.monotonic() - start
        size = (rss(relay) - before) / len(members)

        async def push(pusher, its_members):
            for round_ in range(rounds):
                for member in its_members:
                    answer = await pusher.push(member.name, f"{member.name}/{round_}")
                    assert answer["connections"] == 1, answer
                most.append(threads(relay))

        start = time.monotonic()
        await asyncio.gather(*(push(pusher, members[n::8]) for n, pusher in enumerate(pushers)))
        await until(lambda: all(len(member.got) >= rounds for member in members), "all pushes", 120)
        took = time.monotonic() - start
        for member in members:
            assert member.got == [f"{member.name}/{round_}" for round_ in range(rounds)]
            assert not member.lost
    assert max(most) <= 16
    report(
        f"{len(members)} clients, {polling} of them polling: in after {connected:.1f} s, {size / 1024:.1f} KiB each, "
        f"{len(members) * rounds} pushes in {took:.1f} s, {max(most)} threads at most"
    )


@pytest.mark.parametrize("paths", [1, 30])
def test_pushes_arrive_while_30_handlers_hold_their_threads(start_relay, paths):
    relay = start_relay(program="tests/busy_relay.py", threads=13)  # the four others: main, watchdog, maintenance, log
    calm, times, most = run(push_beside_the_held(relay, [f"/hold/{n % paths}" for n in range(30)]))
    report(f"beside 30 handlers that wait, on {paths} paths: {in_ms(times)}, alone {in_ms(calm)}; {most} threads")
    assert statistics.median(times) < max(0.010, 5 * statistics.median(calm))
    assert most <= 17


async def push_beside_the_held(relay, targets):
    pusher, gate, most = await Pusher().open(relay.port), Gate(relay), 0

    async def visit(target):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"held")
        writer.close()

    async with crowd(relay.port, 1) as (member,):
        calm = Probe(pusher, member)
        for _ in range(50):
            await calm.push()
        held = asyncio.gather(*(visit(target) for target in targets))
        probe, end = Probe(pusher, member), time.monotonic() + DEADLINE
        try:
            while gate.held() < 12 or len(probe.times) < 100:
                assert time.monotonic() < end, f"{gate.held()} threads are held"
                await probe.push()
                most = max(most, threads(relay))
        finally:
            gate.open()
            await held
    return calm.times, probe.times, most


class Probe:
    """Pushes to a client every ten milliseconds, and records how long each takes to arrive.

    The time counts from when the push was due: if one is delayed, later ones are late as well.
    """

    def __init__(self, pusher, member):
        self.pusher = pusher
        self.member = member
        self.times = []
        self._heard = asyncio.Event()
        member.heard = lambda _: self._heard.set()
        self._due = time.monotonic()

    async def push(self):
        self._due += 0.01
        await asyncio.sleep(self._due - time.monotonic())
        async with asyncio.timeout(DEADLINE):
            await self.pusher.push(self.member.name, "now")
            await self._heard.wait()
        self._heard.clear()
        self.times.append(time.monotonic() - self._due)


# Clients that do not read.


@pytest.mark.parametrize("shared", [True, False], ids=["the same to all", "to each its own"])
def test_clients_that_stop_reading_cost_bounded_memory_and_delay_no_other(start_relay, shared):
    """Run 100 clients: 50 MB in all if each gets its own pushes, or 50 MB to each if they share them."""
    relay = start_relay(max_outbox=262144)
    ids = [f"deaf-{0 if shared else n}" for n in range(100)]
    with contextlib.ExitStack() as stack:
        for each in ids:
            stack.enter_context(open_websocket(relay.port, each, buffer=4096))
        quiet = witness(relay, lambda: None, seconds=1)
        before, peak = rss(relay), []

        def flood():
            for number, each in zip(range(500), itertools.cycle(dict.fromkeys(ids)), strict=False):
                relay.push(each, f"{number:5}" + "x" * 100_000)
                peak.append(rss(relay))

        times = witness(relay, flood)
    grown = max(peak) - before
    report(f"quiet: {in_ms(quiet)}; beside the deaf: {in_ms(times)}; memory grew by {grown / MEGABYTE:.1f} MiB")
    if shared:
        wait_for(lambda: relay.push("deaf-0", "x")["connections"] == 0, "their end as slow")
    # For each client with its own pushes an outbox and one push more; shared pushes exist once.
    assert grown < 20 * MEGABYTE + (0 if shared else 100 * (262144 + 100_000))
    assert statistics.median(times) < max(0.05, 5 * statistics.median(quiet))
    assert p99(times) < max(0.5, 5 * p99(quiet))
    is_sound(relay)


def witness(relay, work, seconds=0.0):
    """Return how long the pushes to a client that reads take while `work` runs on another thread."""
    worker = threading.Thread(target=work)
    worker.start()
    times = run(watch(relay, worker, time.monotonic() + seconds))
    worker.join()
    return times


async def watch(relay, worker, end):
    pusher = await Pusher().open(relay.port)
    async with crowd(relay.port, 1) as (member,):
        probe = Probe(pusher, member)
        while worker.is_alive() or time.monotonic() < end:
            await probe.push()
    return probe.times


# Clients that lose their network.


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def cut_off(sock):
    """Drop every packet for this socket before TCP sees it, as if its cable had been pulled.

    The filter is one instruction of the kernel's packet filter, "keep 0 bytes". Unlike a firewall it needs no root.
    """
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = FilterProgram(1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, 26, bytes(program))  # SO_ATTACH_FILTER


def test_clients_that_lose_their_network_time_out_and_leave_nothing(start_relay):
    interval, timeout, count = 1.0, 4.0, 50
    relay = start_relay(ping_interval=interval, ping_timeout=timeout, idle_timeout=1, threads=10 - OTHER_THREADS)
    relay.push("cut", "x")
    before = wait_for(lambda: settled(lambda: fds(relay)), "a quiet relay")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(open_websocket(relay.port, "cut", f"own-{n}")) for n in range(count)]
        start = time.monotonic()
        for sock in socks:
            cut_off(sock)
        assert relay.push("cut", "x")["connections"] == count, "they came within interval and timeout"
        wait_for(lambda: relay.push("cut", "x")["connections"] == 0, "the end of all")
        gone = time.monotonic() - start
        wait_for(lambda: fds(relay) <= before, "their descriptors' end")
        report(f"{count} clients that were cut off are gone after {gone:.2f} s")
    assert all(relay.push(f"own-{n}", "x")["connections"] == 0 for n in range(count))
    assert threads(relay) <= 10
    is_sound(relay)


def test_pollers_that_lose_their_network_time_out_and_leave_nothing(start_relay):
    relay = start_relay(ping_interval=1, ping_timeout=2, idle_timeout=1)
    relay.push("client-0", "x")
    before = wait_for(lambda: settled(lambda: fds(relay)), "a quiet relay")
    run(cut_pollers_off(relay))
    wait_for(lambda: fds(relay) <= before, "their descriptors' end")
    is_sound(relay)


async def cut_pollers_off(relay, count=20):
    pusher = await Pusher().open(relay.port)
    async with crowd(relay.port, 0, count) as members:
        for member in members:
            cut_off(member._writer.get_extra_info("socket"))
        end = time.monotonic() + DEADLINE
        names = [member.name for member in members]
        while any([(await pusher.push(name, "x"))["connections"] for name in names]):
            assert time.monotonic() < end, "they are not gone in time"


def settled(measure):
    """Return a number once it has stayed the same for a while; None if it does not."""
    seen = set()
    for _ in range(20):
        seen.add(measure())
        time.sleep(0.01)
    return seen.pop() if len(seen) == 1 else None


# Coming and going.


def test_rounds_of_clients_that_connect_and_leave_free_everything(start_relay):
    rounds, count = (50, 1000) if FULL_SIZE else (10, 300)
    relay = start_relay(threads=16 - OTHER_THREADS)
    memory = run(come_and_go(relay, rounds, count))
    middle, late = memory[rounds // 2], memory[-1]
    report(f"{rounds} rounds of {count}: {', '.join(f'{each / MEGABYTE:.1f}' for each in memory[:: rounds // 10])} MiB")
    assert late < 1.1 * middle
    is_sound(relay)


async def come_and_go(relay, rounds, count):
    """Returns the relay's memory after each round."""
    pusher, memory = await Pusher().open(relay.port), []
    await pusher.push("nobody", "so that its own connection is counted")
    before = fds(relay)
    for round_ in range(rounds):
        async with crowd(relay.port, count * 4 // 5, count // 5) as members:
            answer = await pusher.push(members[round_].name, "hello")
            assert answer["connections"] == 1
        await until(lambda: fds(relay) <= before, f"the end of round {round_}'s descriptors", 20)
        left = [(await pusher.push(member.name, "x"))["connections"] for member in members[::10]]
        assert not any(left)
        assert threads(relay) <= 16
        memory.append(rss(relay))
    return memory
