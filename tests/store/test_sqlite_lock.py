"""Two relays never use one database at a time."""

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, need, own_only
from stores import (
    data,
    publisher,
    push,
    recover,
    refusal,
)

from pushrelay.errors import StoreError, StoreInUse
from pushrelay.store import open_broker, sqlite_lock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_a_second_relay_on_the_same_file_is_refused(path, open_at):
    with publisher(path):
        assert "another relay uses this file" in refusal(path)
        link = path.with_name("link.db")
        link.symlink_to(path)
        broker = open_broker(f"sqlite:{link}", lambda publication, skip_sid: 0)
        broker._store._files.busy_seconds = 0.1
        with pytest.raises(StoreError, match="another relay"):
            broker.start()
    open_at(path).close()  # it was killed, and its lock with it
    open_at(path)
    assert "another relay" in refusal(path)


def test_a_lock_file_of_an_earlier_release_that_others_can_read_is_closed_to_them(path, open_at):
    lock = path.parent / "relay.db-lock"
    lock.touch(0o644)
    lock.chmod(0o644)
    open_at(path)
    assert lock.stat().st_mode & 0o777 == 0o600


def refused_start(path):
    broker = open_broker(f"sqlite:{path}", lambda *_: 1)
    broker._store._files.busy_seconds = 0.1
    with pytest.raises(StoreInUse, match="another relay uses this file"):
        broker.start()


def other_path(path, way, tmp_path):
    """Return another path to the same database."""
    other = tmp_path / "other" / "relay.db"
    other.parent.mkdir()
    if way == "hard link":
        os.link(path, other)
    elif way == "symbolic link":
        other.symlink_to(path)
    elif way == "folder":
        other.parent.rmdir()
        other.parent.symlink_to(path.parent)
    elif way == "mount":
        other.touch()
        mounted = shutil.which("mount") and not subprocess.call(["mount", "--bind", path, other])
        need(mounted, "the right to mount")
    elif way == "lock removed":
        os.unlink(f"{path}-lock")
        return path
    elif way == "lock replaced":
        os.unlink(f"{path}-lock")
        pathlib.Path(f"{path}-lock").touch()
        return path
    return other


@own_only
@pytest.mark.parametrize("way", ["hard link", "symbolic link", "folder", "mount", "lock removed", "lock replaced"])
def test_a_second_relay_does_not_serve_one_database_whatever_path_it_takes(path, start_relay, tmp_path, way):
    need(sys.platform == "linux" or "link" in way or way == "folder", "locks of open file descriptions")
    relay = start_relay(broker=f"sqlite:{path}")
    ids = [relay.push("42", "x")["id"]]
    other = other_path(path, way, tmp_path)
    try:
        refused_start(other)
        ids += [relay.push("42", "x")["id"] for _ in range(3)]
        assert [int(each.rpartition(":")[2]) for each in ids] == [1, 2, 3, 4]
        relay.kill()
        broker = open_broker(f"sqlite:{path}", lambda *_: 1)  # its locks went with it
        broker.start()
        assert len(data(broker)) == 4
        broker.close()
    finally:
        if way == "mount":
            subprocess.run(["umount", "-l", str(other)], check=True)


def test_two_brokers_of_one_process_cannot_share_a_database_by_a_hard_link(path, open_at, tmp_path):
    need(sys.platform == "linux", "locks of open file descriptions")
    broker = open_at(path)
    push(broker, "x")
    refused_start(other_path(path, "hard link", tmp_path))
    with contextlib.closing(sqlite3.connect(path)) as connection:  # closing it would remove the WAL if nobody used it
        connection.execute("SELECT count(*) FROM publications").fetchall()
    assert os.path.exists(f"{path}-wal"), "SQLite's own locks went"
    push(broker, "y")
    broker.close()
    open_at(path)


def test_a_lock_file_that_was_removed_is_there_and_locked_again(path, open_at, caplog):
    broker = open_at(path)
    os.unlink(f"{path}-lock")
    for _ in range(2):  # as once a second
        broker.flush()
    assert "relay.db-lock was removed or replaced" in caplog.text
    connection = sqlite3.connect(f"{path}-lock", timeout=0)
    with contextlib.closing(connection), pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("BEGIN EXCLUSIVE")
    broker.close()
    open_at(path)


def test_nothing_is_written_to_a_store_that_another_relay_has_locked(path, open_at, monkeypatch, caplog):
    """On a system without locks of inodes, only PATH-lock keeps two relays apart."""
    monkeypatch.setattr(sqlite_lock, "fcntl", None)
    broker = open_at(path)
    before = push(broker, "before")[0].position
    os.unlink(f"{path}-lock")
    other = sqlite_lock.StoreLock(str(path), 0.1)
    with contextlib.closing(other):
        broker._store._files.until_check = 0  # as once a second
        for _ in range(3):
            with pytest.raises(StoreError, match="another relay"):
                push(broker, "refused")
    assert push(broker, "after")
    assert data(broker) == ["before", "after"] and recover(broker, before) == (True, ["after"])
    assert "new epoch" not in caplog.text


def test_a_child_that_was_forked_does_not_keep_the_store_after_its_parent(path, tmp_path):
    need(hasattr(os, "fork"), "fork")
    code = """
import os, sys, time
from pushrelay.store import open_broker
broker = open_broker("sqlite:" + sys.argv[1], lambda *_: 1)
broker.start()
if os.fork():
    os._exit(0)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, start_new_session=True)
    try:
        assert parent.wait(DEADLINE) == 0
        broker = open_broker(f"sqlite:{path}", lambda *_: 1)
        broker.start()
        broker.close()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
