"""Crowds that use all their allowance, and their effect on another publisher.

    python tests/crowds.py NAME SECONDS     one crowd, for example allowance 30
    python tests/crowds.py all 60           all of them at once
    python tests/crowds.py all 60 5         the same, with the crowds at nice 5

It prints the time that another publisher's pushes took, the relay's peak memory, and for each client of the crowd
whether it got everything that was accepted ("complete"), was informed that it did not ("told"), or neither ("lost").

Crowds run in separate processes at the lowest priority (nice 19, unless another is given), so that they do not take
the processor from the publisher that measures. They do take it from the relay, as visitors on this machine would.
"""

import asyncio
import collections
import contextlib
import http.client
import http.server
import json
import multiprocessing
import os
import pathlib
import statistics
import struct
import sys
import tempfile
import threading
import time
import urllib.parse

from clients import UPGRADE, event, frame
from conftest import Relay
from measures import work_of

NEWS = "news"  # every client holds this destination
PUSH_EVERY = 0.02  # seconds between two pushes of the publisher that measures
NEWS_EVERY = 0.2
EVENT_RATE = 100  # the default of max_event_rate
MOST_MIB = 256  # the relay's memory under all crowds at once; docs/engine.md derives it
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Client(asyncio.Protocol):
    """A Socket.IO client over WebSocket that reconnects, and knows which publications it has received."""

    def __init__(self, port, *ids, cookie="", since=None, source=None, pace=0):
        self.port, self.ids, self.cookie, self.source, self.pace = port, list(ids), cookie, source, pace
        self.had = {each: 0 for each in ids}  # the offset up to which it has received everything
        self.since = dict(since or {})
        self.answers, self.errors, self.cut, self.gaps, self.told = 0, 0, 0, 0, 0
        self.connected, self.registered = asyncio.Event(), asyncio.Event()
        self._over, self._upgraded, self._buffer, self._transport = False, False, bytearray(), None

    async def run(self):
        """Stay connected until `leave`."""
        loop = asyncio.get_running_loop()
        while not self._over:
            self._upgraded, self._closed = False, asyncio.Event()
            self._buffer.clear()
            self.connected.clear(), self.registered.clear()
            with contextlib.suppress(OSError):
                local = (self.source, 0) if self.source else None
                await loop.create_connection(lambda: self, "127.0.0.1", self.port, local_addr=local)
                await self._closed.wait()
            self.cut += not self._over
            await asyncio.sleep(0.1)

    def leave(self):
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def send(self, data):
        """Send frames unless many wait already, as a real client would."""
        is_open = self.connected.is_set() and not self._transport.is_closing()
        if is_open and self._transport.get_write_buffer_size() < 65536:
            self._transport.write(data)

    def connection_made(self, transport):
        self._transport = transport
        head = UPGRADE.replace(b"\r\n\r\n", f"\r\nCookie: {self.cookie}\r\n\r\n".encode()) if self.cookie else UPGRADE
        transport.write(head)
        if self.pace:
            transport.get_extra_info("socket").setsockopt(1, 8, 65536)  # SO_RCVBUF

    def connection_lost(self, error):
        self._closed.set()

    def data_received(self, data):
        self._buffer += data
        if self.pace:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(len(data) / self.pace, self._read_on)
        if not self._upgraded:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head[:15]:
                self._transport.abort()
                return
            self._upgraded, self._buffer = True, bytearray(rest)
            self._transport.write(frame("40"))
        self._take_frames()

    def _read_on(self):
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take_frames(self):
        buffer, start = self._buffer, 0
        while len(buffer) - start >= 2:
            size, at = buffer[start + 1], start + 2
            if size == 126:
                if len(buffer) < at + 2:
                    break
                size, at = struct.unpack_from(">H", buffer, at)[0], at + 2
            elif size == 127:
                if len(buffer) < at + 8:
                    break
                size, at = struct.unpack_from(">Q", buffer, at)[0], at + 8
            if len(buffer) < at + size:
                break
            self._take(bytes(buffer[at : at + size]))
            start = at + size
        del buffer[:start]

    def _take(self, packet):
        if packet.startswith(b'42["push"'):
            self._note(packet)
        elif packet.startswith(b"43"):
            self._take_answer(packet)
        elif packet == b"2":
            self._transport.write(frame("3"))
        elif packet.startswith(b"40"):
            message = {"id": self.ids, "since": {each: self.since.get(each) for each in self.ids}}
            self._transport.write(frame(event("register", message, 1)))
            self.connected.set()
        elif packet.startswith(b'42["relay_error"'):
            self.errors += 1

    def _take_answer(self, packet):
        self.answers += 1
        if not packet.startswith(b"431["):
            self.errors += b'"ok":false' in packet[:40]
            return
        answer = json.loads(packet[3:])[0]
        if not answer["ok"]:
            self.errors += 1
            asyncio.get_running_loop().call_later(1, self._transport.abort)  # and reconnect
            return
        for each, told in answer["ids"].items():
            offset = int(told["position"].rpartition(":")[2])
            if self.since.get(each) is not None and not told["recovered"]:
                self.told += 1
                self.had[each] = offset
            elif self.since.get(each) is None:
                self.had[each] = max(self.had[each], offset)
            elif self.had[each] < offset:
                self.gaps += 1
            self.since[each] = told["position"]
        self.registered.set()

    def _note(self, packet):
        message = json.loads(packet[2:])[1]
        each = message["destination"]
        epoch, _, offset = message["id"].rpartition(":")
        offset = int(offset)
        if each in self.had and offset > self.had[each]:
            self.gaps += bool(self.had[each]) and offset != self.had[each] + 1
            self.had[each], self.since[each] = offset, f"{epoch}:{offset}"

    def fate(self, last):
        """Return whether it has received everything up to these offsets."""
        if self.gaps or any(self.had[each] < last.get(each, 0) for each in self.had):
            return "lost"
        return "told" if self.told else "complete"


async def crowd(clients, work, seconds, finished, tips):
    """Run the clients for a time, wait until they have what was accepted, and count how that went."""
    tasks = [asyncio.create_task(each.run()) for each in clients]
    worker = asyncio.create_task(work(clients))
    await asyncio.sleep(seconds)
    worker.cancel()
    for each in clients:
        each.pace = 0
    while not finished.is_set():
        await asyncio.sleep(0.05)
    last = dict(tips)
    end = time.monotonic() + 60
    while time.monotonic() < end and any(each.fate(last) == "lost" for each in clients):
        await asyncio.sleep(0.1)
    fates = [each.fate(last) for each in clients]
    for each in clients:
        each.leave()
    await asyncio.gather(*tasks, worker, return_exceptions=True)
    counted = {fate: fates.count(fate) for fate in ("complete", "told", "lost")}
    sums = {name: sum(getattr(each, name) for each in clients) for name in ("answers", "errors", "cut")}
    return {"clients": len(clients), **counted, **sums}


def rated(rate, frames_of):
    """Have each client send its next frames `rate` times a second."""

    async def work(clients):
        count, began = 0, time.monotonic()
        while True:
            for n, each in enumerate(clients):
                each.send(frames_of(n, each, count))
            count += 1
            await asyncio.sleep(max(0, began + count / rate - time.monotonic()))

    return work


async def idle(clients):
    await asyncio.sleep(3600)


def allowance(port, seconds, *shared):
    """300 clients of one address, each at its full allowance of events."""
    batch = EVENT_RATE // 10

    def frames(n, client, count):
        return b"".join(frame(event("register", {"id": NEWS}, 7)) for _ in range(batch))

    clients = [Client(port, NEWS) for _ in range(300)]
    return crowd(clients, rated(10, frames), seconds, *shared)


def registering(port, seconds, *shared):
    """10 clients that register 100 ids with 100 publications of 1 kB each, and unregister them, 10 times a second."""
    ids = [f"full-{n}" for n in range(100)]

    def frames(n, client, count):
        epoch = (client.since.get(NEWS) or "x:0").partition(":")[0]
        since = dict.fromkeys(ids, f"{epoch}:0")
        return frame(event("register", {"id": ids[:99], "since": since}, 8)) + frame(
            event("unregister", {"id": ids[:99]}, 9)
        )

    clients = [Client(port, NEWS) for _ in range(10)]
    return crowd(clients, rated(10, frames), seconds, *shared)


def slow_readers(port, seconds, *shared):
    """4 clients that read 160 kB/s and recover 20 MB."""
    epoch = dict(shared[1])["epoch"]
    clients = [Client(port, "large", since={"large": f"{epoch}:0"}, pace=160_000) for _ in range(4)]
    return crowd(clients, idle, seconds, *shared)


async def large_push(port, seconds, finished, tips):
    """A push of 1 MB to 1,000 destinations, which is refused, and the largest one that is not, every 10 s."""
    end, took = time.monotonic() + seconds, []
    statuses = collections.Counter()
    while time.monotonic() < end:
        began = time.monotonic()
        for size in (980_000, 4_000):
            statuses[await asyncio.to_thread(push_large, port, size)] += 1
        took.append(time.monotonic() - began)
        await asyncio.sleep(min(10, max(0, end - time.monotonic())))
    return {"pushes": len(took), "statuses": dict(statuses), "slowest": round(max(took), 2)}


def push_large(port, size):
    fields = {"destination": [f"k{n}" for n in range(1000)], "data": "x" * size}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", "/push", json.dumps(fields), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


async def departed(port, seconds, finished, tips):
    """2,600 clients with their own cookies that register and leave, again and again; and a visitor now and then."""
    end, count, waited = time.monotonic() + seconds, 0, []
    visits = asyncio.create_task(visit(port, end, waited))
    while time.monotonic() < end:
        await asyncio.gather(*(depart(port, count + n) for n in range(50)), return_exceptions=True)
        count += 50
        if count % 2600 == 0:
            await asyncio.sleep(1)
    await visits
    return {"departed": count, "visitors": len(waited), "slowest_visitor": round(max(waited, default=0), 2)}


async def depart(port, n):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = UPGRADE.replace(b"\r\n\r\n", f"\r\nCookie: s=departed-{os.getpid()}-{n}\r\n\r\n".encode())
    writer.write(head + frame("40") + frame(event("register", {"id": "42"})) + frame(b"\x03\xe8", 8))
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass
    writer.close()


async def visit(port, end, waited):
    while time.monotonic() < end:
        client = Client(port, NEWS, cookie=f"s=visitor-{time.monotonic_ns()}")
        began = time.monotonic()
        task = asyncio.create_task(client.run())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.registered.wait(), 40)
        waited.append(time.monotonic() - began)
        client.leave()
        await task
        await asyncio.sleep(0.5)


CROWDS = {each.__name__: each for each in (allowance, registering, slow_readers, large_push, departed)}


def run_crowd(name, port, seconds, finished, tips, results, nice):
    """Run in its own process."""
    os.nice(nice)
    results[name] = asyncio.run(CROWDS[name](port, seconds, finished, tips))


class Publisher:
    """A publisher that pushes forms on one connection, as PHP does.

    It records how long each takes, and how much the relay works during it, both in seconds.
    """

    def __init__(self, relay):
        self.took, self.worked, self.late, self.tips, self.refused = [], [], [], {}, 0
        self._relay, self._connection = relay, http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)

    def push(self, destination, data):
        """Push, and return (seconds, the relay's work in this time)."""
        body = urllib.parse.urlencode({"destination": destination, "data": data})
        began, before = time.perf_counter(), work_of(self._relay)
        status, text = self._post(body, FORM)
        took, worked = time.perf_counter() - began, work_of(self._relay) - before
        if status == 200:
            self._note(destination, json.loads(text))
        else:
            self.refused += 1
        return took, worked

    def push_all(self, pushes):
        """Push all of these (destination, data) in one request."""
        items = [{"destination": destination, "data": data} for destination, data in pushes]
        status, text = self._post(json.dumps(items), {"Content-Type": "application/json"})
        assert status == 200, text
        for (destination, _), answer in zip(pushes, json.loads(text), strict=True):
            self._note(destination, answer)

    def _post(self, body, headers):
        self._connection.request("POST", "/push", body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _note(self, destination, answer):
        epoch, _, offset = answer["id"].rpartition(":")
        self.tips[destination], self.tips["epoch"] = int(offset), epoch

    def measure(self, seconds):
        """Push for a time: to a destination without clients, and now and then to the one that every client holds.

        `late` is the time from when a push was due until it was answered: if one takes long, those behind it are late
        as well.
        """
        due, news_at = time.monotonic(), 0.0
        end = due + seconds
        while due < end:
            took, worked = self.push("other", "x")
            self.took.append(took)
            self.worked.append(worked)
            self.late.append(time.monotonic() - due)
            if due >= news_at:
                self.push(NEWS, f"news of {due:.3f}")
                news_at = due + NEWS_EVERY
            due += PUSH_EVERY
            time.sleep(max(0.0, due - time.monotonic()))


def quantile(times, of):
    return sorted(times)[min(len(times) - 1, int(len(times) * of))]


class Site(http.server.BaseHTTPRequestHandler):
    """A site behind auth_url: every browser may register everything, and the answer takes 50 ms."""

    def do_GET(self):
        time.sleep(0.05)
        body = b'["*"]'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def memory(relay, name):
    """Return a line of the relay's /proc/PID/status, in MiB."""
    lines = pathlib.Path(f"/proc/{relay.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def fill(publisher, names):
    """Fill the history that the crowds recover."""
    if "registering" in names:
        for n in range(100):
            publisher.push_all([(f"full-{n}", "x" * 1000)] * 100)
    if "slow_readers" in names:
        for _ in range(45):
            publisher.push("large", "x" * 400_000)
    publisher.push(NEWS, "the first")


def run(names, seconds, folder, nice=19, **settings):
    """Run these crowds at once against a relay of their own, and return the measurements."""
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    site.daemon_threads = True
    threading.Thread(target=site.serve_forever, daemon=True).start()
    if "departed" in names:
        settings["auth_url"] = f"http://127.0.0.1:{site.server_port}/"
    relay = Relay(pathlib.Path(folder) / "log", server="own", **settings)
    spawn = multiprocessing.get_context("spawn")
    try:
        with spawn.Manager() as shared:
            publisher = Publisher(relay)
            fill(publisher, names)
            publisher.measure(seconds / 20)
            calm, publisher.took, publisher.worked, publisher.late = quantile(publisher.took, 0.99), [], [], []
            tips, results, finished = shared.dict(publisher.tips), shared.dict(), shared.Event()
            crowds = [
                spawn.Process(
                    target=run_crowd, args=(name, relay.port, seconds, finished, tips, results, nice), daemon=True
                )
                for name in names
            ]
            before = memory(relay, "VmRSS")
            for each in crowds:
                each.start()
            publisher.measure(seconds + 2)
            tips.update(publisher.tips)
            finished.set()
            for each in crowds:
                each.join(300)
            return {
                "pushes": len(publisher.took),
                "refused": publisher.refused,
                "calm_p99_ms": calm * 1000,
                "p50_ms": statistics.median(publisher.took) * 1000,
                "p99_ms": quantile(publisher.took, 0.99) * 1000,
                "p90_of_work_ms": quantile(publisher.worked, 0.9) * 1000,
                "p99_from_due_ms": quantile(publisher.late, 0.99) * 1000,
                "max_ms": max(publisher.took) * 1000,
                "mib_before": before,
                "mib_peak": memory(relay, "VmHWM"),
                "traceback": "Traceback" in relay.log.read_text(),
                "crowds": dict(results),
            }
    finally:
        relay.kill()
        site.shutdown()


def main(name, seconds, nice=19):
    names = list(CROWDS) if name == "all" else [name]
    with tempfile.TemporaryDirectory() as folder:
        seen = run(names, seconds, folder, nice)
    for key, value in seen.items():
        if key == "crowds":
            for each, told in value.items():
                print(f"  {each}: {told}")
        else:
            print(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:]))
