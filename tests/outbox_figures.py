"""How fast the outbox is, and what it costs: python tests/outbox_figures.py

Prints the rows that a relay takes per second out of a backlog of 100,000, and its CPU time for them; the time from a
commit until a client has the push, with a ring and without; and the statements per second that an idle database gets.
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from conftest import Client, Relay, wait_for
from mariadb import MariaDB

DATA = '{"text":"%s","n":%d}'


def fill(site, count):
    """Insert rows to 5,000 destinations, with some 100 bytes of data each."""
    with site.transaction() as transaction:
        for begin in range(0, count, 1000):
            rows = (f"('user-{n % 5000}', '{DATA % ('x' * 80, n)}', 1)" for n in range(begin, begin + 1000))
            transaction.run(f"INSERT INTO relay_outbox (destination, data, is_json) VALUES {','.join(rows)}")  # noqa: S608


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def backlog(site, folder, count):
    fill(site, count)
    relay = Relay(folder / "log", outbox=site.url)
    cpu = cpu_seconds(relay.process.pid)
    left = wait_for(lambda: next((n for n in [site.waiting()] if n < count), None), "the first rows", 60)
    began, database = time.monotonic(), cpu_seconds(site.server.process.pid)
    wait_for(lambda: time.sleep(0.05) or site.waiting() == 0, "an empty table", 120)
    rate = left / (time.monotonic() - began)
    used = (cpu_seconds(relay.process.pid) - cpu, cpu_seconds(site.server.process.pid) - database)
    print(f"backlog of {count}: {rate:.0f} rows/s; CPU per row: relay {used[0] / count * 1e6:.0f} µs, ", end="")
    print(f"MariaDB with the counting {used[1] / count * 1e6:.0f} µs")
    return relay


def latencies(site, relay, count, rings):
    """Return the sorted seconds from each commit until a client has the push."""
    client = Client(relay.url, "latency")
    arrived, event, found = [0.0], threading.Event(), []
    client.socket.on("*", lambda *_: (arrived.__setitem__(0, time.perf_counter()), event.set()))
    connection = site.server.connect(site.name)
    request = urllib.request.Request(f"{relay.url}/ring", b"", method="POST")
    for n in range(count):
        time.sleep(random.uniform(0.005, 0.03) if rings else random.uniform(0.2, 0.5))
        event.clear()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO relay_outbox (destination, data) VALUES ('latency', %s)", (str(n),))
        began = time.perf_counter()
        if rings:
            urllib.request.urlopen(request, timeout=10).close()
        assert event.wait(10)
        found.append(arrived[0] - began)
    client.drop()
    connection.close()
    return sorted(found)


def shown(seconds):
    p99 = seconds[int(len(seconds) * 0.99)]
    return f"p50 {statistics.median(seconds) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


def statements(site):
    return int(site.server.ask("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="of the backlog, in thousands")
    parser.add_argument("--pushes", type=int, default=300, help="whose latency is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, MariaDB(f"{name}/mariadb", innodb_buffer_pool_size="256M") as server:
        site = server.site()
        relay = backlog(site, pathlib.Path(name), options.rows)
        try:
            time.sleep(2)
            with_ring = latencies(site, relay, options.pushes, rings=True)
            print(f"commit to client with a ring:    {shown(with_ring)}")
            print(f"commit to client without a ring: {shown(latencies(site, relay, options.pushes // 3, rings=False))}")
            before, cpu, database = statements(site), cpu_seconds(relay.process.pid), cpu_seconds(server.process.pid)
            time.sleep(20)
            used = (cpu_seconds(relay.process.pid) - cpu, cpu_seconds(server.process.pid) - database)
            asked = (statements(site) - before - 6) / 20  # six are those of the counting
            shares = f"relay {used[0] * 5:.1f} %, MariaDB {used[1] * 5:.1f} %"
            print(f"idle: {asked:.1f} statements/s; CPU of one core: {shares}")
        finally:
            relay.kill()


if __name__ == "__main__":
    main()
