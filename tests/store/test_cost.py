"""Keeping an accepted push costs little, and no more in a large store than in an empty one.

The same at full size, by hand: FULL_SIZE=1 pytest tests/store/test_cost.py -s
"""

import http.client
import itertools
import json
import os
import statistics
import time

import pytest
from measures import FULL_SIZE, report

from pushrelay.store import Draft

pytestmark = pytest.mark.timed  # it measures time


@pytest.fixture(scope="session")
def server():
    """The relay's own server: this is about the store under it."""
    return "own"


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def test_a_large_store_costs_pushes_and_recoveries_no_more_time_than_an_empty_one(tmp_path, open_at):
    count = 1_000_000 if FULL_SIZE else 100_000
    bound = 512 << 20
    empty = open_at(tmp_path / "empty.db", history_bytes=bound)
    large = open_at(tmp_path / "large.db", history_bytes=bound)
    names = [f"user-{n}" for n in range(count // 50)]
    drafts = (Draft(name, f"message {n} " + "x" * 60) for n in range(50) for name in names)
    filled = seconds(lambda: [large.publish(batch) for batch in iter(lambda: list(itertools.islice(drafts, 1000)), [])])
    for name in names[:200]:
        empty.publish([Draft(name, n) for n in range(50)])

    def publish(broker, name):
        return lambda: broker.publish([Draft(name, "x" * 60)])

    def recover(broker, name):
        def recovery():
            since = f"{broker.epoch}:{broker._store.tip(name).offset - 20}"
            assert broker.recover(name, since, lambda publication: None, lambda: None).replayed == 20

        return recovery

    told = [f"{count} publications stored in {filled:.0f} s"]
    for work in (publish, recover):
        took = {empty: [], large: []}
        # In turn, so that whatever else the machine does meets both; and for the large store names all over it.
        for n, name in enumerate(names[:200]):
            took[empty].append(seconds(work(empty, name)))
            took[large].append(seconds(work(large, names[n * (len(names) // 200)])))
        quick, slow = statistics.median(took[empty]), statistics.median(took[large])
        told.append(f"{work.__name__}: {quick * 1e6:.0f} µs in an empty store, {slow * 1e6:.0f} µs in this one")
        assert slow < 3 * quick + 50e-6, told
    size = os.path.getsize(tmp_path / "large.db") + os.path.getsize(tmp_path / "large.db-wal")
    report("; ".join((*told, f"{size >> 20} MiB on the disk")))
    assert size < bound + (64 << 20)


def test_a_batch_of_1000_takes_a_fifth_of_the_time_of_1000_pushes_or_less(start_relay):
    relay = start_relay()
    connection = http.client.HTTPConnection("127.0.0.1", relay.port)

    def post(body, kind):
        connection.request("POST", "/push", body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()

    def singly():
        for n in range(1000):
            post(f"destination=user-{n}&data=message", "application/x-www-form-urlencoded")

    def together():
        batch = [{"destination": f"user-{n}", "data": "message"} for n in range(1000)]
        assert len(json.loads(post(json.dumps(batch), "application/json"))) == 1000

    together()
    times = [(seconds(singly), seconds(together)) for _ in range(3)]
    best = [min(each) for each in zip(*times, strict=True)]
    report(f"1000 pushes: {best[0] * 1000:.0f} ms; a batch of them: {best[1] * 1000:.0f} ms")
    assert best[1] * 5 <= best[0]
