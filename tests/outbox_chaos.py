"""The outbox under every kind of failure: python tests/outbox_chaos.py --workers 50 --seconds 60

PHP processes insert rows within transactions, of which a third is rolled back. While they do so, the relay and MariaDB
are killed, and rows and the table are locked. In the end, each committed row must have been pushed, once, and no other
one; and for each destination in the order in which each PHP process committed. The exit code is 1 if it was not so.

`--redis` runs two relays on one Redis, of which one at a time takes rows. That one is killed, and later hangs. It
prints how long it took until the other one continued.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from cluster import Cluster, Node
from conftest import ROOT, wait_for
from mariadb import MariaDB
from redis_server import RedisServer

DESTINATIONS = 24
HANDOVER_SECONDS = 15.0  # within which another relay must continue


class Workers:
    """PHP processes that insert rows."""

    def __init__(self, site, url, count, seconds):
        php = [
            "php",
            "-d",
            "error_reporting=-1",
            str(ROOT / "tests/outbox_worker.php"),
            str(site.server.socket),
            site.name,
        ]
        self.processes = [
            subprocess.Popen(
                [*php, str(n + 1), str(seconds), str(DESTINATIONS), url], stdout=subprocess.PIPE, text=True
            )
            for n in range(count)
        ]

    def are_running(self):
        return any(each.poll() is None for each in self.processes)

    def results(self):
        """Wait for all; return the sums of what they did."""
        sums = collections.Counter()
        for each in self.processes:
            said, _ = each.communicate(timeout=120)
            assert each.returncode == 0, said
            sums.update(json.loads(said))
        return dict(sums)

    def kill(self):
        for each in self.processes:
            each.kill()
            each.communicate()


def history(relay, destination):
    """Return the data of all publications of a destination."""
    found, since = [], ""
    while True:
        query = urllib.parse.urlencode({"destination": destination, **({"since": since} if since else {})})
        status, _, body = relay.request("GET", f"/history?{query}")
        assert status == 200, body
        answer = json.loads(body)
        found += [each["data"] for each in answer["publications"]]
        if not answer["more"]:
            return found
        since = answer["publications"][-1]["id"]


def violations(site, relay):
    """Return what is wrong, as sentences, and the number of rows that were pushed."""
    wrong = []
    wanted = {(by, n, row) for by, n, rows in site.ask("SELECT * FROM committed") for row in range(rows)}
    pushed = collections.Counter()
    for destination in (f"d{n + 1}" for n in range(DESTINATIONS)):
        last = {}
        for data in history(relay, destination):
            key = data["by"], data["n"], data["row"]
            pushed[key] += 1
            if last.get(key[0], (0, 0)) >= key[1:]:
                wrong.append(f"{destination}: {key} came after {last[key[0]]}")
            last[key[0]] = key[1:]
    wrong += [f"{key} was committed and not pushed" for key in sorted(wanted - set(pushed))]
    wrong += [f"{key} was pushed and not committed" for key in sorted(set(pushed) - wanted)]
    wrong += [f"{key} was pushed {times} times" for key, times in sorted(pushed.items()) if times > 1]
    return wrong, sum(pushed.values())


def new_site(server):
    site = server.site()
    site.ask("CREATE TABLE committed (worker INT, n INT, row_count INT, PRIMARY KEY (worker, n))")
    return site


def lock(site, what, seconds):
    """Lock all rows that are there, or the table, for some seconds."""
    transaction = site.transaction()
    with contextlib.suppress(Exception):  # the database may be killed
        if what == "rows":
            transaction.run("SET SESSION innodb_lock_wait_timeout = 1")
            transaction.run("SELECT id FROM relay_outbox FOR UPDATE SKIP LOCKED")
        else:
            transaction.run("LOCK TABLES relay_outbox WRITE")
        time.sleep(seconds)
        transaction.roll_back()


def incidents(options):
    """Return the failures in the order in which they come."""
    found = ["relay"] * options.relay_kills + ["database"] * options.database_kills
    random.Random(options.seed).shuffle(found)
    for what in ("rows", "table") if options.lock else ():
        found.insert(len(found) // 2, what)
    return found


def chaos(folder, options):
    with MariaDB(folder / "mariadb") as server:
        site = new_site(server)
        settings = {"outbox": site.url, "history_size": 100_000, "history_bytes": "1G"}
        relay = Node("a", folder / "relay.log", broker=f"sqlite:{folder}/relay.db", **settings)
        workers = Workers(site, relay.url, options.workers, options.seconds)
        try:
            planned = incidents(options)
            pause = options.seconds / (len(planned) + 1)
            for what in planned:
                time.sleep(max(pause - (options.lock if what in ("rows", "table") else 0), 0.2))
                if what == "relay":
                    relay.kill()
                    relay.restart()
                elif what == "database":
                    server.kill()
                    server.start()
                else:
                    lock(site, what, options.lock)
            done = workers.results()
            began = time.monotonic()
            wait_for(lambda: site.waiting() == 0, "an empty table", 60)
            wrong, pushed = violations(site, relay)
            tracebacks = relay.text().count("Traceback")
            print(f"{done}, {pushed} rows pushed; incidents: {planned}; caught up in {time.monotonic() - began:.1f} s")
            refused = site.ask("SELECT COUNT(*) FROM relay_outbox")[0][0]
            wrong += [f"{tracebacks} tracebacks in the log"] * bool(tracebacks) + [f"{refused} rows"] * bool(refused)
            return wrong
        finally:
            workers.kill()
            relay.kill()


def state(node):
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads(node.request("GET", "/status.json")[2])["backend"]["outbox"]["state"]


def handover(folder, options):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(MariaDB(folder / "mariadb"))
        redis = stack.enter_context(RedisServer(folder / "redis", appendonly="yes"))
        site = new_site(server)
        settings = {"outbox": site.url, "history_size": 100_000}
        nodes = stack.enter_context(Cluster(folder, redis.url, 2, **settings))
        nodes.wait_until_ready()
        workers = Workers(site, nodes[0].url, options.workers, options.seconds)
        stack.callback(workers.kill)
        wrong = []
        for how in options.how.split(","):
            sender = wait_for(lambda: next((each for each in nodes if state(each) == "sending"), None), "a sender")
            other = next(each for each in nodes if each is not sender)
            wait_for(lambda other=other: state(other) == "standby", "the other to stand by")
            began = time.monotonic()
            sender.kill() if how == "kill" else sender.freeze()
            wait_for(lambda other=other: state(other) == "sending", "the other to continue", 2 * HANDOVER_SECONDS)
            seconds = time.monotonic() - began
            print(f"{how}: another relay continued after {seconds:.1f} s")
            if seconds > HANDOVER_SECONDS:
                wrong.append(f"{how}: that is too long")
            sender.restart() if how == "kill" else sender.thaw()
            sender.wait_until_ready()
        print(workers.results())
        wait_for(lambda: site.waiting() == 0, "an empty table", 60)
        found, pushed = violations(site, nodes[0])
        print(f"{pushed} rows pushed")
        return wrong + found + nodes.tracebacks()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50, help="PHP processes")
    parser.add_argument("--seconds", type=float, default=60, help="for which they insert rows")
    parser.add_argument("--relay-kills", type=int, default=10)
    parser.add_argument("--database-kills", type=int, default=2)
    parser.add_argument("--lock", type=float, default=10, help="seconds for which rows, and then the table, are locked")
    parser.add_argument("--redis", action="store_true", help="two relays on one Redis instead")
    parser.add_argument("--how", default="kill,hang", help="with --redis: what happens to the relay that takes rows")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = (handover if options.redis else chaos)(pathlib.Path(folder), options)
    for each in wrong[:20]:
        print(each)
    print("ok" if not wrong else f"{len(wrong)} violations")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
