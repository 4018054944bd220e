"""Measures requests of pages: the round trip, 1,000 pages that ask at once, and pushes in the meantime.

    python tests/requests_load.py                 all of it
    python tests/requests_load.py --pages 200     fewer pages

The site is Apache with 8 PHP workers, each of which takes 5 ms (--php) for a request. The pusher and its
listener run in a process of their own. They push 100 times a second, and print how long a push takes until the listener
has it: first alone, as usual, and then while all pages ask. Use it on a machine that does nothing else.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import pathlib
import statistics
import tempfile
import threading
import time

from clients import Wire, event, frame, handshake
from conftest import Relay
from php_site import SECRET, Site

EVERY = 0.01  # seconds between two pushes


def percentiles(values):
    """Return the median, the 99th percentile and the maximum of seconds, in milliseconds."""
    ordered = sorted(values)
    shown = (statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1])
    return "p50 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms".format(*(1000 * each for each in shown))


def push_and_listen(port, stop, out):
    """Push until `stop` is set; put (when it was pushed, seconds until it arrived) of each push into `out`."""
    listener, arrived = Wire(port), {}
    listener.call("register", {"id": "pushed"})

    def listen():
        with contextlib.suppress(Exception):
            while True:
                number = listener.events(1)[0]["data"]
                arrived[number] = time.monotonic()

    threading.Thread(target=listen, daemon=True).start()
    pushed, connection = [], http.client.HTTPConnection("127.0.0.1", port)
    while not stop.is_set():
        began = time.monotonic()
        body = json.dumps({"destination": "pushed", "data": len(pushed)})
        connection.request("POST", "/push", body, {"Content-Type": "application/json"})
        assert connection.getresponse().read()
        pushed.append(began)
        time.sleep(max(0.0, EVERY - (time.monotonic() - began)))
    time.sleep(0.5)
    out.put([(began, arrived[number] - began) for number, began in enumerate(pushed)])


@contextlib.contextmanager
def pushing(port):
    """Push in another process; yields a function that ends it and returns what it measured."""
    stop, out = multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=push_and_listen, args=(port, stop, out), daemon=True)
    process.start()
    time.sleep(1)

    def end():
        stop.set()
        return out.get(timeout=60)

    yield end
    process.join(10)


class Page:
    """A page that asks."""

    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        self.writer.write(handshake())
        await self.reader.readuntil(b"\r\n\r\n")
        self.writer.write(frame("40"))
        while not (await self.packet()).startswith("40"):
            pass

    async def packet(self):
        head = await self.reader.readexactly(2)
        size = head[1]
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return (await self.reader.readexactly(size)).decode()

    async def ask(self, name):
        """Return the seconds until the answer, and the answer."""
        began = time.monotonic()
        self.writer.write(frame(event("request", {"name": name, "data": {"sku": 7}}, 1)))
        while not (packet := await self.packet()).startswith("431["):
            if packet == "2":
                self.writer.write(frame("3"))
        return time.monotonic() - began, json.loads(packet[3:])[0]


async def measure(port, name, count, end_pushing):
    pages = [Page() for _ in range(count)]
    for begin in range(0, count, 50):
        await asyncio.gather(*(page.open(port) for page in pages[begin : begin + 50]))
    await pages[0].ask(name)
    one = [(await pages[0].ask(name))[0] for _ in range(300)]
    print(f"one page, one request after another: {percentiles(one)}")
    began = time.monotonic()
    answers = await asyncio.gather(*(page.ask(name) for page in pages))
    ended = time.monotonic()
    assert all(answer == {"ok": True, "answer": {"sku": 7}} for _, answer in answers), answers[:3]
    print(f"{count} pages at once: all answered in {ended - began:.2f} s; {percentiles([s for s, _ in answers])}")
    await asyncio.sleep(1)
    pushes = end_pushing()
    during = [seconds for at, seconds in pushes if began <= at <= ended]
    return during


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--php", type=float, default=0.005, help="seconds that PHP takes for a request")
    options = parser.parse_args()
    with contextlib.closing(Site(workers=8)) as site, tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        relay = Relay(log, request_url=site.url, webhook_secret=SECRET, max_requests=2000, request_timeout=60)
        try:
            with pushing(relay.port) as end:
                time.sleep(5)  # of pushes
                usual = [seconds for _, seconds in end()]
            print(f"pushes as usual ({len(usual)}): {percentiles(usual)}")
            with pushing(relay.port) as end:
                during = asyncio.run(measure(relay.port, f"sleep:{options.php}", options.pages, end))
            print(f"pushes while all pages ask ({len(during)}): {percentiles(during)}")
        finally:
            relay.stop()


if __name__ == "__main__":
    main()
