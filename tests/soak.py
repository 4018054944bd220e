"""The relay under every kind of load at once, for a long time: python tests/soak.py [MINUTES [CLIENTS]]

The defaults are 30 minutes and 2,000 clients. Clients come, stay for seconds or minutes, and leave in every possible
way; tokens expire; programs push with and without keys, correctly and not; some clients attack; another program locks
the store now and then. Each minute a line shows what the relay's process holds. The exit code is 1 if that has grown,
or if a client received something twice, out of order, or not at all.
"""

import asyncio
import base64
import collections
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time

from clients import UPGRADE, event, frame
from conftest import Relay
from crowd import PollingMember, Pusher, WebSocketMember

SECRET = "a-secret-that-only-this-soak-knows-and-nobody-else"
KEY = "a-key-for-the-soak-alone"
PUSHES = 200  # maximum per second of each of two pushers, which wait for each answer
SETTINGS = {
    "secret": SECRET,
    "push_keys": f"soak:{KEY}",
    "ping_interval": 5,
    "ping_timeout": 5,
    "header_timeout": 3,
    "body_timeout": 3,
    "register_timeout": 5,
    "max_header": 8192,
    "max_outbox": 262144,
    "history_ttl": 60,
    "history_size": 50,
}


def token(name, seconds):
    """Return a token that lets its bearer register one id for `seconds`."""
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")  # noqa: E731
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"ids": [name], "exp": time.time() + seconds})
    signature = hmac.digest(SECRET.encode(), signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class Tally:
    """The events so far."""

    def __init__(self):
        self.counts = collections.Counter()
        self.wrong = []  # failures, in words

    def count(self, what, number=1):
        self.counts[what] += number

    def blame(self, what):
        self.counts["WRONG"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)


class Guest:
    """A client: it connects, registers, listens, leaves, and returns with the last position that it saw."""

    def __init__(self, port, name, tally, polls):
        self.port, self.name, self.tally, self.polls = port, name, tally, polls
        self.last = None  # the position of the last publication that it received
        self.offset = 0  # the number in it

    async def live(self, until):
        while time.monotonic() < until:
            with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                await self._stay(min(until, time.monotonic() + random.expovariate(1 / 40)))
            await asyncio.sleep(random.uniform(0, 0.5))

    async def _stay(self, end):
        member = (PollingMember if self.polls else WebSocketMember)(self.port, self.name)
        member.take, member.noted = self._take, self._note
        seconds = random.choice([5, 300])  # some tokens expire while their client is there
        member.register = {"id": self.name, "since": self.last, "token": token(self.name, seconds)}
        try:
            async with asyncio.timeout(20):
                await member.open()
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(max(0.1, end - time.monotonic())):
                    await member.listen()
        finally:
            await self._go(member)

    async def _go(self, member):
        if member._writer is None:
            return
        how = random.randrange(4)
        with contextlib.suppress(OSError):
            if how == 0 and not self.polls:
                member._writer.write(frame(b"\x03\xe8", opcode=8))
            elif how == 1:
                member._writer.write(b"\x81\xfe\xff")  # half a frame, or no valid HTTP
            elif how == 2:
                member._writer.close()
                return
        member.drop()

    def _note(self, answer):
        """Handle the answer to a registration; if it did not recover, counting begins again."""
        self.tally.count("visits")
        answer = answer["ids"][self.name]
        if not answer["recovered"]:
            self.tally.count("told of a loss" if self.last else "first visits")
            self.last, self.offset = answer["position"], int(answer["position"].rpartition(":")[2])

    def _take(self, packet):
        if packet.startswith('42["relay_error",'):
            error = json.loads(packet[2:])[1]["error"]
            self.tally.count(error)
            if error == "token_expired":
                raise EOFError
        if not packet.startswith('42["push",'):
            return
        position = json.loads(packet[2:])[1]["id"]
        offset = int(position.rpartition(":")[2])
        if offset != self.offset + 1:
            self.tally.blame(f"{self.name} was sent {offset} after {self.offset}")
        self.last, self.offset = position, offset
        self.tally.count("delivered")


class Talkative:
    """Programs that push, on kept connections and new ones, correctly and not."""

    def __init__(self, port, names, tally):
        self.port, self.names, self.tally = port, names, tally

    async def push(self, until, kept):
        pusher = None
        while time.monotonic() < until:
            await asyncio.sleep(random.expovariate(PUSHES))
            try:
                if pusher is None or not kept:
                    if pusher is not None:
                        pusher._writer.close()
                    pusher = await Pusher().open(self.port)
                await pusher.push(random.choice(self.names), "x" * int(random.expovariate(1 / 200)))
                self.tally.count("pushed")
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                self.tally.count("503" if "store_not_available" in str(error) else "push failed")
                pusher = None

    async def misbehave(self, until):
        """Requests that are refused, one after another."""
        push = "POST /push HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n"
        form = "Content-Length: 20\r\n\r\ndestination=a&data=b"
        bad = [
            push + form,
            push + "Authorization: Bearer wrong-key-wrong-key\r\n" + form,
            push + f"Authorization: Bearer {KEY}\r\nContent-Length: 3\r\n\r\nx=1",
            f"GET /socket.io/?EIO=4&transport=polling&x={'y' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n",
            "\x00\x01\x02 garbage\r\n\r\n",
            "GET /history?destination=nobody HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ]
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.write(random.choice(bad).encode())
                    head = await reader.readuntil(b"\r\n")
                    self.tally.count(f"answered {head[9:12].decode()}")
                    writer.close()


async def loris(port, until, tally):
    """A connection that sends a byte a second, of a header, a body or a frame, and never comes to an end."""
    beginnings = [b"GET / HTTP/1.1\r\nX: ", b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"]
    beginnings += [UPGRADE + b"\x81\xfe\x10\x00\0\0\0\0", UPGRADE]
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(random.choice(beginnings))
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(60):
                    while not reader.at_eof():
                        writer.write(b"4")
                        with contextlib.suppress(asyncio.TimeoutError):
                            await asyncio.wait_for(reader.read(65536), 1)
            tally.count("loris seen off")
            writer.close()


async def deaf(port, until, name, tally):
    """A client that registers and reads nothing: it is closed as slow, or when its ping is overdue."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            register = event("register", {"id": name, "token": token(name, 300)}, 1)
            writer.write(UPGRADE + frame("40") + frame(register))
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            pusher = await Pusher().open(port)
            for _ in range(40):
                with contextlib.suppress(ConnectionError):
                    await pusher.push(name, "x" * 50_000)
            pusher._writer.close()
            for _ in range(2000):  # unknown events, far beyond the allowed rate
                writer.write(frame('42["nonsense",1]'))
            await asyncio.sleep(15)
            tally.count("deaf clients")
            writer.transport.abort()


async def lock_the_store(file, until, tally):
    """Every other minute another program holds the database for three seconds."""
    while time.monotonic() < until - 30:
        await asyncio.sleep(min(120, max(1, until - time.monotonic() - 30)))
        database = sqlite3.connect(file, isolation_level=None, timeout=5)
        try:
            database.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(3)
            database.execute("ROLLBACK")
            tally.count("locks")
        except sqlite3.OperationalError:
            tally.count("locks not had")
        finally:
            database.close()


def sample(pid):
    """Return the MiB of memory, the file descriptors and the threads of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return (
        int(fields["VmRSS"].split()[0]) / 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(fields["Threads"]),
    )


async def watch(pid, until, tally):
    """Write a line each minute, and give all samples, one every five seconds."""
    samples, start = [], time.monotonic()
    say("minute     MiB     fds threads  what happened")
    while time.monotonic() < until:
        await asyncio.sleep(5)
        samples.append(sample(pid))
        if len(samples) % 12 == 0:
            mib, fds, threads = samples[-1]
            say(f"{(time.monotonic() - start) / 60:6.1f} {mib:7.1f} {fds:7d} {threads:7d}  {dict(tally.counts)}")
    return samples


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def soak(relay, file, minutes, clients):
    tally, until = Tally(), time.monotonic() + minutes * 60
    names = [f"guest-{n}" for n in range(clients)]
    guests = [Guest(relay.port, name, tally, polls=n % 7 == 0) for n, name in enumerate(names)]
    talk = Talkative(relay.port, names, tally)
    async with asyncio.TaskGroup() as group:
        for number, guest in enumerate(guests):
            group.create_task(guest.live(until))
            if number % 50 == 0:
                await asyncio.sleep(0.05)
        group.create_task(talk.push(until, kept=True))
        group.create_task(talk.push(until, kept=False))
        group.create_task(talk.misbehave(until))
        group.create_task(lock_the_store(file, until, tally))
        for _ in range(20):
            group.create_task(loris(relay.port, until, tally))
        for number in range(5):
            group.create_task(deaf(relay.port, until, f"deaf-{number}", tally))
        watching = group.create_task(watch(relay.process.pid, until, tally))
    return tally, watching.result()


def verdict(samples, before, after):
    """Return what has grown from the second third of the time to the last, in words; nothing if all is flat."""
    third = len(samples) // 3
    grown = []
    for number, (what, factor, more) in enumerate(
        (("memory", 1.05, 5), ("descriptors", 1.05, 20), ("threads", 1.0, 2))
    ):
        early = statistics.median(each[number] for each in samples[third : 2 * third])
        late = statistics.median(each[number] for each in samples[2 * third :])
        say(f"{what}: {early:.1f} in the second third, {late:.1f} in the last")
        if late > early * factor + more:
            grown.append(what)
    say(f"before anybody came: {before}; after everybody left: {after}")
    if after[1] > before[1] + 20:
        grown.append("descriptors after everybody left")
    return grown


def main(minutes=30.0, clients=2000):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="relay-soak-") as folder:
        log, file = pathlib.Path(folder, "log"), pathlib.Path(folder, "relay.db")
        relay = Relay(log, broker=f"sqlite:{file}", **SETTINGS)
        try:
            before = sample(relay.process.pid)
            tally, samples = asyncio.run(soak(relay, file, minutes, clients))
            time.sleep(15)  # two pings, after which everything that hung has ended
            grown = verdict(samples, before, sample(relay.process.pid))
            code = relay.stop()
        finally:
            relay.kill()
        text = log.read_text()
        say(f"{dict(tally.counts)}; exit code {code}")
        faults = [*tally.wrong, *grown, *(["a traceback in the log"] if "Traceback" in text else [])]
        if faults or code:
            say("\n".join(["NOT WELL:", *faults, text[-3000:]]))
            return 1
    say("all flat, nobody was sent anything twice or out of order")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
