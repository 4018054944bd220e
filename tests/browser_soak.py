"""Pages of relay.js in Chromium for a long time: python tests/browser_soak.py [--minutes 30] [--rate 20]

Four tabs receive every push: a page with plain handlers and the console, each once in front, in a window of its own,
and once hidden. Each minute a line for each tab shows its heap after a garbage collection, the CPU time of its process,
its DOM nodes and event listeners. The verdict is "flat" if the heap and the counts do not grow; the exit code is 1 if
they do.
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from typing import NamedTuple

from chromium import Chromium
from conftest import Relay
from pages import Server, Site

PAGE = """<!doctype html><title>plain</title><script src="{url}/static/relay.js"></script><script>
let count = 0, wrong = 0, last;
const relay = Relay.connect().on("push", (data) => {{
  count++;
  if (last !== undefined && +data !== last + 1) wrong++;
  last = +data;
}});
const registered = relay.register("soak");
</script>"""
WARM = 5  # minutes that are not counted: the console has filled its list by then, and the compiler has finished
FLAT = 256 * 1024  # bytes that the heap may grow in 30 minutes, by the slope of its line: less than 10 bytes a push


class Sample(NamedTuple):
    minute: float
    pushes: int
    heap: int  # bytes in use after a garbage collection
    cpu: float  # seconds of CPU time of the process
    nodes: int
    listeners: int


class Watched:
    """A tab, and what it used each minute."""

    def __init__(self, name, tab):
        self.name = name
        self.tab = tab
        self.samples = []
        tab.call("Performance.enable", timeDomain="timeTicks")

    def measure(self, minute, pushes):
        for _ in range(2):  # the second collects what finalizers of the first let go
            self.tab.call("HeapProfiler.collectGarbage")
        heap = self.tab.call("Runtime.getHeapUsage")["usedSize"]
        metrics = {each["name"]: each["value"] for each in self.tab.call("Performance.getMetrics")["metrics"]}
        counts = int(metrics["Nodes"]), int(metrics["JSEventListeners"])
        self.samples.append(Sample(minute, pushes, int(heap), metrics["ProcessTime"], *counts))

    def line(self):
        now, before = self.samples[-1], self.samples[-2]
        cpu, seconds = now.cpu - before.cpu, 60 * (now.minute - before.minute)
        return (
            f"{now.minute:6.1f}  {self.name:16} {now.heap / 1024:8.0f} KiB {100 * cpu / seconds:6.2f} %"
            f" {1000 * cpu / max(1, now.pushes - before.pushes):7.2f} ms {now.nodes:6} {now.listeners:6}"
        )

    def growth(self, field):
        """Return by how much a field grows in 30 minutes, by the slope of a line through the samples after WARM."""
        warm = [each for each in self.samples if each.minute >= min(WARM, self.samples[-1].minute / 3)]
        slope, _ = statistics.linear_regression([each.minute for each in warm], [getattr(each, field) for each in warm])
        return 30 * slope

    def verdict(self):
        heap, nodes, listeners = (self.growth(field) for field in ("heap", "nodes", "listeners"))
        first, last = self.samples[0], self.samples[-1]
        is_flat = heap < FLAT and nodes < 50 and listeners < 10
        cpu, seconds = last.cpu - first.cpu, 60 * (last.minute - first.minute)
        return is_flat, (
            f"{self.name:16} {'flat' if is_flat else 'GROWS'}: in 30 minutes heap {heap / 1024:+.0f} KiB,"
            f" nodes {nodes:+.0f}, listeners {listeners:+.0f}; CPU {100 * cpu / seconds:.2f} %,"
            f" {1000 * cpu / (last.pushes - first.pushes):.2f} ms for each push"
        )


class Stream:
    """Push numbers at this rate until close()."""

    def __init__(self, relay, rate):
        self.relay = relay
        self.rate = rate
        self.count = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        began = time.monotonic()
        while not self._end.wait(max(0, began + self.count / self.rate - time.monotonic())):
            self.relay.push("soak", self.count)
            self.count += 1

    def close(self):
        self._end.set()
        self._thread.join()


def open_tabs(chromium, relay, site):
    """Open each page once hidden, and once in front of a window of its own."""
    urls = {"plain": site.url, "console": f"{relay.url}/?id=soak"}
    tabs = []
    for name, url in urls.items():
        tabs.append((f"{name}, hidden", chromium.open(), url))
    chromium.open()  # in front of them
    for name, url in urls.items():
        tabs.append((f"{name}, visible", chromium.open(window=True), url))
    for name, tab, url in tabs:
        tab.goto(url)
        tab.wait_for_function("typeof relay === 'object' ? registered.then(() => true) : document.body.innerText")
        assert tab.evaluate("document.hidden") == name.endswith("hidden"), name
    return [Watched(name, tab) for name, tab, _ in tabs]


def soak(folder, minutes, rate, interval=1.0):
    """Print a line for each tab and minute, and return whether all are flat and no push is missing."""
    with contextlib.ExitStack() as stack:
        relay = Relay(folder / "log")
        stack.callback(relay.kill)
        site = stack.enter_context(Server(("127.0.0.1", 0), Site))
        site.html = PAGE.format(url=relay.url).encode()
        chromium = stack.enter_context(contextlib.closing(Chromium(folder / "profile")))
        tabs = open_tabs(chromium, relay, site)
        stream = stack.enter_context(contextlib.closing(Stream(relay, rate)))
        print("minute  tab                   heap      CPU  a push  nodes  listeners", flush=True)
        began = time.monotonic()
        for number in range(int(minutes / interval) + 1):
            time.sleep(max(0, began + 60 * interval * number - time.monotonic()))
            for each in tabs:
                each.measure((time.monotonic() - began) / 60, stream.count)
                if number:
                    print(each.line(), flush=True)
        return report(tabs, stream)


def report(tabs, stream):
    stream.close()
    verdicts = [each.verdict() for each in tabs]
    plain = [each for each in tabs if each.name.startswith("plain")]
    for each in plain:
        each.tab.wait_for_function(f"last === {stream.count - 1}")
    wrong = sum(each.tab.evaluate("wrong") for each in plain)
    for _, line in verdicts:
        print(line)
    print(f"{stream.count:,} pushes; {wrong} out of order, missing or twice in the plain pages")
    return all(is_flat for is_flat, _ in verdicts) and not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=20, help="pushes per second")
    parser.add_argument("--interval", type=float, default=1, help="minutes between two measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        sys.exit(not soak(pathlib.Path(folder), options.minutes, options.rate, options.interval))


if __name__ == "__main__":
    main()
