"""PHP pushes while the relay is killed again and again: each push arrives once and in the order of its process.

    python tests/spool_chaos.py                          10 processes, 20 pushes/s each, 20 s away, 20 kills
    python tests/spool_chaos.py --away 5 --kills 100     shorter, and more often
    python tests/spool_chaos.py --redis                  the same on a Redis
    python tests/spool_chaos.py --figures                what the spool costs, and how fast it is

After that, 1,000 files are put into the spool and the relay is killed while it takes them, as often as it can be caught
(`--rounds` times). Prints what was lost, came twice or out of order, and what a push cost PHP.
"""

import argparse
import contextlib
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

from conftest import Client, Relay, wait_for
from phplab import CLIENT, Php
from redis_server import RedisServer

LONG = 300.0  # seconds after which a condition that did not come true is a failure
WRITER = """<?php require '{client}';
$relay = new Relay('{url}', ['spool' => '{spool}']);
$results = ['pushed' => [], 'spooled' => [], 'failed' => []];
for ($n = 0; !file_exists('{spool}/.stop'); $n++) {{
    $start = hrtime(true);
    $answer = $relay->push('{name}', $n);
    $result = isset($answer['spooled']) ? 'spooled' : ($answer ? 'pushed' : 'failed');
    $results[$result][] = (hrtime(true) - $start) / 1e6;
    if ($result === 'failed') fwrite(STDERR, $relay->lastError() . "\\n");
    usleep((int) max(0, 1e6 / {rate} - (hrtime(true) - $start) / 1e3));
}}
echo json_encode([$n, $results]);
"""


class Site:
    """A relay that can be killed, its spool, and PHP."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.spool = folder / "spool"
        self.spool.mkdir(mode=0o700)
        self.php = Php(folder)
        self.relay = Relay(folder / "log", history_size=100_000, spool=self.spool, **settings)

    def waiting(self):
        return sum(each.name.endswith(".json") for each in self.spool.iterdir())

    def put(self, number, destination, size=0):
        name = f"{time.time_ns() // 1000:016}-{number:06}"
        body = json.dumps({"destination": destination, "data": "x" * size or number})
        (self.spool / f".{name}.tmp").write_text(body)
        (self.spool / f".{name}.tmp").rename(self.spool / f"{name}.json")

    def history(self, destination):
        got, since = [], ""
        while True:
            path = f"/history?destination={destination}{since}"
            answer = json.loads(self.relay.request("GET", path)[2])
            page = answer["publications"]
            if not page:
                return got
            got += [each["data"] for each in page]
            since = f"&since={page[-1]['id']}"

    def writer(self, name, rate):
        script = self.folder / f"{name}.php"
        values = {"client": CLIENT, "url": self.relay.url, "spool": self.spool, "name": name, "rate": rate}
        script.write_text(WRITER.format(**values))
        return subprocess.Popen(["php", script], env=self.php.environ, stdout=subprocess.PIPE, text=True)


def faults_in(got, expected):
    """Return what is missing from a history, came twice, or came before an earlier one."""
    out_of_order = sum(later < earlier for earlier, later in zip(got, got[1:], strict=False))
    return len(set(expected) - set(got)), len(got) - len(set(got)), out_of_order


def pushing(site, chosen):
    """Kill the relay while PHP pushes, and leave it down for a long time once. Return whether all is well."""
    names = [f"p{number}" for number in range(chosen.processes)]
    writers = [site.writer(name, chosen.rate) for name in names]
    time.sleep(1)
    for kill in range(chosen.kills + 1):
        site.relay.kill()
        time.sleep(chosen.away if kill == chosen.kills // 2 else random.choice([0, 0.05, 0.3, 1]))
        print(f"kill {kill}: {site.waiting()} files wait", flush=True)
        site.relay.start()
        time.sleep(random.choice([0.05, 0.2, 0.5, 2]))
    (site.spool / ".stop").touch()
    results = [json.loads(writer.communicate(timeout=LONG)[0]) for writer in writers]
    wait_for(lambda: not site.waiting(), "an empty spool", LONG)
    faults = [faults_in(site.history(name), range(count)) for name, (count, _) in zip(names, results, strict=True)]
    lost, twice, order = (sum(each) for each in zip(*faults, strict=True))
    print(f"{sum(count for count, _ in results)} pushes: {lost} lost, {twice} twice, {order} out of order")
    for kind in ("pushed", "spooled", "failed"):
        times = sorted(ms for _, found in results for ms in found[kind])
        if times:
            at = {percent: times[min(len(times) - 1, len(times) * percent // 100)] for percent in (50, 95, 99, 100)}
            print(f"  {kind}: {len(times)}, ms: " + ", ".join(f"{percent} %: {ms:.2f}" for percent, ms in at.items()))
    return not any((lost, twice, order)) and not any(found["failed"] for _, found in results)


def taking(site, rounds):
    """Kill the relay while it takes files, in each round at another moment. Return whether all is well."""
    kills, all_well = 0, True
    for number in range(rounds):
        destination = f"t{number}"
        site.relay.kill()
        for each in range(1000):
            site.put(each, destination)
        while before := site.waiting():
            with contextlib.suppress(AssertionError):
                site.relay.start()
            end = time.monotonic() + LONG
            some = random.randrange(300)
            while site.waiting() > max(0, before - some) and time.monotonic() < end:
                time.sleep(random.random() / 1000)
            if site.waiting():
                site.relay.kill()
                kills += 1
        if site.relay.process.poll() is not None:
            site.relay.start()
        faults = faults_in(site.history(destination), range(1000))
        all_well = all_well and not any(faults)
        if any(faults):
            print(f"round {number}: lost, twice, out of order: {faults}")
    print(
        f"1,000 files in each of {rounds} rounds, {kills} kills while they were taken: {'ok' if all_well else 'FAILED'}"
    )
    return all_well


def figures(site):
    """Print how fast files are taken, the latency from a file to a client, and what a look at the folder costs."""
    for size in (0, 1000):
        site.relay.kill()
        for each in range(10_000):
            site.put(each, f"f{each % 100}", size)
        site.relay.start()
        began, before = time.monotonic(), site.waiting()
        wait_for(lambda: not site.waiting(), "an empty spool", LONG)
        seconds = time.monotonic() - began
        print(f"{before / seconds:,.0f} files/s of {size or 6} bytes of data ({before} files in {seconds:.2f} s)")
    client = Client(site.relay.url, "latency")
    for has_ring in (False, True):
        print(
            f"from the file to a client, {'with' if has_ring else 'without'} a ring: {latency(site, client, has_ring)}"
        )
    client.drop()
    with_spool = cpu(site.relay)
    site.relay.stop()
    print(f"CPU of an idle relay: {with_spool:.2f} % with a spool, {cpu_without(site):.2f} % without")


def latency(site, client, has_ring):
    times = []
    for number in range(100):
        time.sleep(random.uniform(0.3, 0.5))
        count = len(client.got)
        began = time.monotonic()
        site.put(number, "latency")
        if has_ring:
            site.relay.request("POST", "/ring", b"")
        while len(client.got) == count:
            time.sleep(0.0002)
        times.append((time.monotonic() - began) * 1000)
    times.sort()
    return f"median {statistics.median(times):.1f} ms, 95 %: {times[94]:.1f} ms, at most {times[-1]:.1f} ms"


def cpu(relay, seconds=20):
    """Return the percent of a processor that an idle relay uses."""
    time.sleep(2)

    def used():
        fields = pathlib.Path(f"/proc/{relay.process.pid}/schedstat").read_text().split()
        tasks = pathlib.Path(f"/proc/{relay.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9 if fields else 0

    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds * 100


def cpu_without(site):
    relay = Relay(site.folder / "without")
    try:
        return cpu(relay)
    finally:
        relay.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20.0, help="pushes per second of each process")
    parser.add_argument("--away", type=float, default=20.0, help="seconds for which the relay is down once")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args()
    random.seed(chosen.seed)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as started:
        folder = pathlib.Path(name)
        settings = {}
        if chosen.redis:
            settings["broker"] = started.enter_context(RedisServer(folder / "redis")).url
        site = Site(folder, **settings)
        started.callback(site.relay.kill)
        if chosen.figures:
            figures(site)
            return 0
        return 0 if pushing(site, chosen) & taking(site, chosen.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
