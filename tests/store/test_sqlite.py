"""The promises of SQLite's store beyond the contract: it survives crashes, and refuses what it cannot store."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from conftest import DEADLINE, need
from stores import (
    accepted,
    data,
    fill,
    publisher,
    push,
    stored,
)

from pushrelay.errors import StoreError
from pushrelay.store import Draft, open_broker

# Four threads publish without end, and a line is printed for each publication that was accepted.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


# Crashes and power failures.


def test_accepted_pushes_survive_kill_9(path, open_at):
    everything = set()
    for _ in range(5):
        with publisher(path) as (process, log):
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
        everything |= accepted(log)
        broker = open_at(path, history_size=10**6)
        assert everything <= stored(broker)
        for name in ("all", "user0"):
            offsets = [int(each.position.rpartition(":")[2]) for each in broker.history(name).publications]
            assert offsets == list(range(1, len(offsets) + 1))
        broker.close()
    assert len(everything) > 500


@pytest.fixture
def cut(tmp_path):
    """A disk whose power can be cut: cut() returns what is left on it.

    It is an image with a file system in it. Only synced data has reached the image, because the mounted file system has
    a cache of its own. So a copy of the image is the disk as a power failure would leave it.
    """
    image, folder, left = tmp_path / "image", tmp_path / "mounted", tmp_path / "left"
    folder.mkdir()
    left.mkdir()
    need(os.geteuid() == 0 and shutil.which("mkfs.ext4") and shutil.which("mount"), "root with mkfs.ext4 and mount")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = not subprocess.run(["mount", "-o", "loop,commit=300", str(image), str(folder)]).returncode
    need(mounted, "a loop device")
    os.sync()

    def cut():
        shutil.copy(image, tmp_path / "copy")
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "copy"), str(left)], check=True)
        return left

    yield folder, cut
    for each in (left, folder):
        subprocess.run(["umount", "-l", str(each)], capture_output=True)


def test_with_durability_power_accepted_pushes_survive_a_power_failure(cut, open_at, tmp_path):
    folder, cut = cut
    log = tmp_path / "accepted"
    with publisher(folder / "relay.db", "power") as (_, written):
        shutil.copy(written, log)
        left = cut()
    on_disk = accepted(tmp_path / "accepted")
    assert len(on_disk) > 100
    broker = open_at(left / "relay.db", history_size=10**6)
    assert on_disk <= stored(broker)
    broker.close()


def end_of_the_machine(path, copy):
    """Leave the files as they are when the machine comes up again: written by a relay of another boot."""
    for suffix in ("", "-wal", "-recent"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = 'an earlier boot' WHERE name = 'open' AND value != ''")


def test_positions_from_before_a_power_failure_are_not_taken_for_new_ones(path, open_at, tmp_path):
    before = open_at(path)
    push(before, "seen")
    copy = tmp_path / "after.db"
    end_of_the_machine(path, copy)
    seen = push(before, "seen, and lost with the machine")[0].position
    after = open_at(copy)
    push(after, "the same offset", "and one more")
    assert after.position("42").endswith(":3") and seen.endswith(":2")
    recovery = after.recover("42", seen, pytest.fail, lambda: None)
    assert recovery.recovered is False and recovery.position == after.position("42")
    assert data(after)[0] == "seen"


@pytest.mark.parametrize("how", ["closed", "killed", "power"])
def test_positions_stay_valid_if_nothing_can_have_been_lost(path, open_at, tmp_path, how):
    if how == "killed":
        with publisher(path) as (_, log):
            pass
        epoch = open_at(path).epoch
        assert {line.partition(":")[0] for line in accepted(log)} == {epoch}
        return
    broker = open_at(path, durability="power" if how == "power" else "process")
    position = push(broker, "x")[0].position
    if how == "closed":
        broker.close()
    copy = tmp_path / "copy.db"
    end_of_the_machine(path, copy)
    assert open_at(copy).position("42") == position


# The start.


def test_a_history_that_could_hold_nothing_is_refused():
    with pytest.raises(ValueError, match="history_bytes"):
        open_broker("sqlite:relay.db", lambda publication, skip_sid: 0, history_bytes=1000)


# Trouble that passes.


def test_on_a_full_disk_nothing_is_accepted_that_is_not_stored(disk, open_at):
    broker = open_at(disk / "relay.db", history_size=10**6)
    count, error = fill(broker)
    assert count > 10
    assert "disk is full" in str(error) or "disk refuses" in str(error)
    with pytest.raises(StoreError):
        push(broker, "x" * 50_000, destination="new")
    assert len(data(broker)) == count
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert push(broker, "after")[0].position == f"{broker.epoch}:{count + 1}"
    broker.close()
    again = open_at(disk / "relay.db", history_size=10**6)
    assert len(data(again)) == count + 1


def test_when_the_database_may_not_grow_nothing_is_accepted_that_is_not_stored(path, open_at):
    broker = open_at(path, history_size=10**6)
    broker._store._writer.connection.execute("PRAGMA max_page_count=300")
    count, error = fill(broker)
    assert "disk is full" in str(error)
    with pytest.raises(StoreError):
        broker.publish([Draft("other", 1), Draft("42", "x" * 50_000), Draft("42", 2, key="k")])
    assert broker.position("other") == f"{broker.epoch}:0"
    assert len(data(broker)) == count
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    receipts = broker.publish([Draft("other", 1), Draft("42", 2, key="k")])
    assert [receipt.position for receipt in receipts] == [f"{broker.epoch}:1", f"{broker.epoch}:{count + 1}"]
    assert not receipts[1].repeated


def test_nothing_is_delivered_that_could_not_be_stored(path):
    delivered = []
    broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: delivered.append(publication) or 1)
    broker._store._files.busy_seconds = 0.05
    broker.start()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            push(broker, "x")
    assert delivered == []
    broker.close()


def test_another_program_that_locks_the_file_is_waited_for_and_named(path, open_at):
    broker = open_at(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(StoreError, match="another program holds a lock"):
            push(broker, "x")
        assert time.monotonic() - begun >= 0.1
        assert broker.recover("42", f"{broker.epoch}:0", pytest.fail, lambda: None).recovered
        other.execute("ROLLBACK")
    assert push(broker, "y")[0].position == f"{broker.epoch}:1"
    assert data(broker) == ["y"]


# Sizes.
