"""Helpers for tests of brokers and stores, and of the files of SQLite's store."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from conftest import DEADLINE, ROOT, wait_for

from pushrelay.errors import StoreError
from pushrelay.store import Draft, open_broker
from pushrelay.store.journal import read

PUBLISHER = """
import sys, threading
from pushrelay.store import open_broker
from pushrelay.store import Draft

broker = open_broker("sqlite:" + sys.argv[1], lambda p, s: 0, durability=sys.argv[2], history_size=10**6)
broker.start()
print("started", flush=True)

def publish(n):
    i = 0
    while True:
        receipts = broker.publish([Draft(f"user{(n + i) % 5}", i), Draft("all", f"{n}:{i}")])
        sys.stdout.write("".join(f"{r.position} {i}\\n" for r in receipts))
        sys.stdout.flush()
        i += 1

threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
"""


@contextlib.contextmanager
def publisher(path, durability="process"):
    """A process that publishes until it is killed, and the file of its lines."""
    log = path.parent / f"accepted-{time.monotonic_ns()}"
    with log.open("wb") as out:
        command = [sys.executable, "-c", PUBLISHER, str(path), durability]
        process = subprocess.Popen(command, stdout=out, cwd=ROOT)
    try:
        wait_for(lambda: log.read_bytes().count(b"\n") > 200 or process.poll() is not None, "200 accepted pushes")
        assert process.poll() is None
        yield process, log
    finally:
        process.kill()
        process.wait(DEADLINE)


def accepted(log):
    """Return the positions in a publisher's complete lines: a push with half a line was not answered."""
    lines = log.read_bytes().split(b"\n")[1:-1]
    return {line.split()[0].decode() + f" {line.split()[1].decode()}" for line in lines}


def stored(broker):
    found = set()
    for name in ("all", *(f"user{i}" for i in range(5))):
        for each in broker.history(name).publications:
            found.add(f"{each.position} {str(each.data).rpartition(':')[2]}")
    return found


def push(broker, *values, destination="42"):
    return broker.publish([Draft(destination, value) for value in values])


def data(broker, destination="42"):
    return [each.data for each in broker.history(destination).publications]


def fill(broker):
    """Publish until the store refuses; return how many it accepted, and the error."""
    for count in range(10_000):
        try:
            push(broker, f"{count} " + "x" * 50_000)
        except StoreError as error:
            return count, error
    raise AssertionError("the disk is never full")


def refusal(path, **options):
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 0, **options)
    broker._store._files.busy_seconds = 0.1
    with pytest.raises(StoreError) as error:
        broker.start()
    broker.close()
    assert str(path) in str(error.value)
    return str(error.value)


def recover(broker, since, destination="42"):
    """Return whether everything was recovered, and the data that came."""
    got = []
    recovery = broker.recover(destination, since, lambda each: got.append(each.data), lambda: None)
    return recovery.recovered, got


SUFFIXES = ("", "-wal", "-shm", "-recent")


NEW = "-recent.new"  # a journal that is not in place yet


def copy(path, to, suffixes=SUFFIXES):
    """Copy the store's files as they are now, like kill -9 or a backup. Other files at `to` are removed."""
    for suffix in (*SUFFIXES, NEW):
        source, target = pathlib.Path(f"{path}{suffix}"), pathlib.Path(f"{to}{suffix}")
        target.unlink(missing_ok=True)
        if suffix in suffixes and source.exists():
            shutil.copy(source, target)
    return to


def sound(path, open_at):
    """Create and close a store; return its epoch, and the publications of each destination."""
    broker = open_at(path)
    for number in range(4):
        broker.publish([Draft(f"user{number}", {"text": "ä" * number, "n": n}, key=f"{n}") for n in range(5)])
    broker.ack("user1", f"{broker.epoch}:2")
    stored = {f"user{number}": broker.history(f"user{number}").publications for number in range(4)}
    broker.close()
    return broker.epoch, stored


def left_in(path):
    """Return what a journal holds for a reader now, and whether it is whole."""
    left = read(str(path))
    return left.payloads, left.fault is None


def killed(path, copy):
    """Copy a store as kill -9 leaves it now; return the copy."""
    for suffix in ("", "-wal", "-recent"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def history(broker, destination="42"):
    publications = broker.history(destination).publications
    return [(each.position, each.event, each.data, each.created, each.expires) for each in publications]


def committed(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM publications").fetchone()[0]
