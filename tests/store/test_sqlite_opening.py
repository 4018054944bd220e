"""The files of an SQLite store are opened, looked after, and opened again without losing anything."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from conftest import DEADLINE, need, wait_for
from stores import (
    committed,
    data,
    history,
    killed,
    left_in,
    push,
)

from pushrelay.errors import StoreError
from pushrelay.store import Draft, sqlite_file, sqlite_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_a_start_that_fails_leaves_the_journal_for_the_next_one(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft(f"{n}", "x" * 100) for n in range(1000)] + [Draft("ephemeral", "x", ttl=0)])
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    connect = sqlite_file.connect

    def connect_to_a_full_disk(*args):
        connection = connect(*args)
        connection.execute("PRAGMA max_page_count=20")
        return connection

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="full"):
        patch.setattr(sqlite_file, "connect", connect_to_a_full_disk)
        open_at(copy)
    again = open_at(copy)
    assert [len(history(again, f"{n}")) for n in range(1000)] == [1] * 1000
    assert again.position("ephemeral") == f"{broker.epoch}:1"


def test_accepted_pushes_are_there_when_the_file_is_opened_again_before_a_commit(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "committed")])
    broker.flush()
    broker.publish([Draft("42", "recent")])
    broker._store._files.readers.close()
    with pytest.raises(StoreError), broker._store._reader.snapshot():
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:3"
    assert [each.data for each in broker.history("42").publications] == ["committed", "recent", "after"]


def test_a_position_never_goes_back_while_the_file_is_opened_again(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("41", "x"), Draft("42", "x")])
    broker.flush()
    told, find = [], sqlite_rows.find_cursor

    def ask():
        with contextlib.suppress(StoreError):  # it may say that it does not know yet
            told.append(broker.position("42"))

    def find_and_ask(connection, name):
        if connection is broker._store._writer.connection:
            ask()
        return find(connection, name)

    monkeypatch.setattr(sqlite_rows, "find_cursor", find_and_ask)
    broker._store._files.is_broken = True
    broker.publish([Draft("43", "x")])
    ask()
    assert set(told) == {f"{broker.epoch}:1"}


def test_no_reader_misses_an_accepted_push_at_any_step_of_a_reopening(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "in the file")])
    broker.flush()
    broker.publish([Draft("42", "in the journal")])
    told, refused = [], set()

    def ask_before_each_line(frame, event, argument):
        if "pushrelay" not in frame.f_code.co_filename:
            return None
        if event == "line":
            try:
                told.append(broker.position("42"))
            except StoreError as error:
                refused.add(str(error))
        return ask_before_each_line

    broker._store._files.is_broken = True
    tracer = sys.gettrace()
    sys.settrace(ask_before_each_line)
    try:
        broker.flush()
    finally:
        sys.settrace(tracer)
    assert set(told) == {f"{broker.epoch}:2"}
    assert refused == {"the store is being opened again. Try again in a moment"}


def test_with_durability_power_the_journal_is_empty_and_an_earlier_one_is_taken_over(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "left")])
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    again = open_at(copy, durability="power")
    assert [each.data for each in again.history("42").publications] == ["left"]
    again.publish([Draft("42", "more")])
    assert committed(copy) == 2
    assert left_in(f"{copy}-recent") == ([], True)


def test_a_store_that_was_closed_leaves_an_empty_journal(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "x")])
    broker.close()
    assert committed(tmp_path / "relay.db") == 1
    assert left_in(tmp_path / "relay.db-recent") == ([], True)


def test_a_journal_that_was_removed_is_noticed(tmp_path, open_at):
    need(os.name == "posix", "a system that removes files in use")
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", 0)])
    (tmp_path / "relay.db-recent").unlink()
    broker.publish([Draft("42", 1)])
    broker.flush()  # as once a second
    broker.publish([Draft("42", 2)])
    assert (tmp_path / "relay.db-recent").exists()
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert [each.data for each in again.history("42").publications] == [0, 1, 2]


def test_sqlite_is_set_to_sync_each_commit_with_durability_power_and_not_with_process(path, open_at):
    for durability, synchronous in (("power", 2), ("process", 1)):
        broker = open_at(path.with_name(durability), durability=durability)
        assert broker._store._writer.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)


def test_a_disk_that_becomes_read_only_is_named_and_the_store_recovers_afterwards(disk, open_at):
    broker = open_at(disk / "relay.db")
    push(broker, "before")
    # The kernel makes no file system read-only that has files open for writing, so the file is made immutable.
    changed = (
        shutil.which("chattr")
        and not subprocess.run(
            ["chattr", "+i", str(disk / "relay.db"), str(disk / "relay.db-wal")], capture_output=True
        ).returncode
    )
    need(changed, "a disk that knows chattr +i")
    try:
        with pytest.raises(StoreError):
            push(broker, "x")
            broker._store._files.is_broken = True
            push(broker, "x")
    finally:
        subprocess.run(["chattr", "-i", str(disk / "relay.db"), str(disk / "relay.db-wal")], check=True)
    push(broker, "after")
    assert data(broker)[-1] == "after"


def test_a_damaged_file_is_named_and_a_new_one_is_used_once_it_is_moved_away(path, open_at):
    broker = open_at(path)
    push(broker, *range(1000))
    broker.flush()
    broker._store._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    epoch = broker.epoch
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    with pytest.raises(StoreError, match="damaged|not an SQLite database"):
        for i in range(50):
            push(broker, i, destination=f"user{i}")
            broker.history("42")
    with pytest.raises(StoreError):
        push(broker, "x")
    for each in path.parent.glob("relay.db*"):
        if not each.name.endswith("-lock"):
            each.rename(each.with_suffix(".away" + each.suffix))
    push(broker, "new")
    assert broker.epoch != epoch
    assert data(broker) == ["new"]
    assert broker.recover("42", f"{epoch}:1", pytest.fail, lambda: None).recovered is False


def test_a_file_that_was_removed_is_noticed(path, open_at):
    broker = open_at(path)
    epoch = push(broker, "x")[0].position.partition(":")[0]
    for each in path.parent.glob("relay.db*"):
        each.unlink()
    broker._store._files.until_check = 3  # transactions
    wait_for(lambda: push(broker, "y")[0].position.partition(":")[0] != epoch, "a new store")
    assert path.exists()


def test_a_file_that_cannot_be_opened_again_is_logged_once_however_many_pushes_try(path, open_at, monkeypatch, caplog):
    caplog.set_level("INFO", "pushrelay.store")

    def refuse(path):
        raise StoreError("the disk is full")

    broker = open_at(path)
    push(broker, "before")
    broker._store._files.is_broken = True
    with monkeypatch.context() as full:
        full.setattr(sqlite_file, "create", refuse)
        for _ in range(3):
            with pytest.raises(StoreError):
                push(broker, "not stored")
    push(broker, "after")
    assert caplog.text.count(f"opening {path} again") == 1 and data(broker) == ["before", "after"]


def test_the_file_and_its_wal_stay_small_whatever_is_pushed_and_read(path, open_at):
    broker = open_at(path, history_bytes=2 << 20)
    broker._store._files.wal_bytes = 4 << 20
    broker._store._writer.connection.execute("PRAGMA wal_autocheckpoint=200")
    done = threading.Event()

    def read():
        while not done.is_set():
            with broker._store._reader.snapshot() as connection:
                connection.execute("SELECT count(*) FROM destinations").fetchall()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    sizes = []
    try:
        for i in range(1500):
            push(broker, "x" * 5000, destination=f"user{i % 500}")
            sizes.append(os.path.getsize(f"{path}-wal"))
    finally:
        done.set()
        for reader in readers:
            reader.join(DEADLINE)
    assert path.stat().st_size < 4 << 20
    assert max(sizes) < 8 << 20


def test_a_lock_that_lasts_is_waited_for_once_and_not_by_every_push(path, open_at):
    broker = open_at(path)
    waits = []  # milliseconds that SQLite waits for a lock from then on
    broker._store._writer.connection.set_trace_callback(
        lambda sql: waits.append(int(sql.partition("=")[2])) if sql.startswith("PRAGMA busy_timeout=") else None
    )
    broker._store._files.busy_seconds = 0.2
    broker._store._files.set_lock_wait(0.2)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        for number in range(11):
            with pytest.raises(StoreError, match="another program holds a lock"):
                push(broker, number)
        assert time.monotonic() - begun >= 0.2
        assert waits[0] == 200 and 0 <= waits[1] <= 20 and set(waits[2:]) <= {waits[1]}, waits
        broker._store._files.busy_seconds = DEADLINE
        other.execute("ROLLBACK")
        push(broker, "y")
        broker.flush()  # it has a lock of its own until then
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ["ROLLBACK"]).start()
        push(broker, "z")  # a lock that is short is waited for again
    assert data(broker) == ["y", "z"]
