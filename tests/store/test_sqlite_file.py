"""Files that the relay opens, upgrades, or rejects with a sentence."""

import contextlib
import os
import sqlite3
import subprocess

import pytest
from stores import (
    data,
    push,
    refusal,
)

from pushrelay.store import sqlite_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_a_newer_relays_file_is_refused(path, open_at):
    open_at(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    assert "newer relay" in refusal(path)
    assert path.read_bytes() == before


def test_an_older_relays_file_is_brought_to_the_newest_version_with_all_that_is_in_it(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "kept")
    position = broker.position("42")
    broker.close()
    steps = (*sqlite_file.MIGRATIONS, "ALTER TABLE keys ADD COLUMN note TEXT;\nCREATE TABLE more (id INTEGER);\n")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", steps)
    broker = open_at(path)
    assert (data(broker), broker.position("42")) == (["kept"], position)
    assert broker._store._writer.connection.execute("PRAGMA user_version").fetchone() == (len(steps),)
    assert broker._store._writer.connection.execute("SELECT count(*) FROM more").fetchone() == (0,)
    push(broker, "new")


def test_a_file_of_the_first_relays_without_rowids_keeps_its_publications_and_takes_more(path, open_at, monkeypatch):
    first, *others = sqlite_file.MIGRATIONS
    key = "PRIMARY KEY (destination, offset)\n    )"
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (first.replace(key, f"{key} WITHOUT ROWID"), *others))
    broker = open_at(path, history_size=3)
    table = "SELECT sql FROM sqlite_master WHERE name = 'publications'"
    assert "WITHOUT ROWID" in broker._store._writer.connection.execute(table).fetchone()[0]
    push(broker, *range(40))
    broker.close()
    monkeypatch.undo()
    broker = open_at(path, history_size=3)
    assert data(broker)[-3:] == [37, 38, 39]
    push(broker, *range(40, 80))
    broker.flush()
    assert data(broker)[-3:] == [77, 78, 79]
    assert len(data(broker)) < 40


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "kept")
    broker.close()
    steps = sqlite_file.MIGRATIONS
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*steps, "CREATE TABLE more (id INTEGER);\nDROP TABLE nothing;\n"))
    assert "nothing" in refusal(path)
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", steps)
    broker = open_at(path)
    assert data(broker) == ["kept"]
    assert broker._store._writer.connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'more'"
    ).fetchone() == (0,)


def test_another_programs_file_is_refused_and_left_alone(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    assert "another program's" in refusal(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_a_file_that_is_not_a_database_is_refused_and_left_alone(path):
    path.write_bytes(b"Dear diary, " * 1000)
    assert "not an SQLite database" in refusal(path)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_a_folder_that_is_not_there_is_named(path):
    assert "there is no folder" in refusal(path.parent / "nowhere" / "relay.db")
    assert "this is a folder" in refusal(path.parent)


def test_a_folder_that_cannot_be_written_is_named(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "cannot be written" in refusal(disk / "relay.db")


def test_a_disk_that_is_full_at_the_start_is_named(disk):
    with contextlib.suppress(OSError), (disk / "big").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert "full" in refusal(disk / "relay.db")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_every_file_of_the_store_is_its_owners_alone_whatever_the_umask(path, open_at, umask, durability):
    before = os.umask(umask)
    try:
        broker = open_at(path, durability=durability)
        push(broker, "secret")
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("relay.db*")}
    finally:
        os.umask(before)
    assert {"relay.db", "relay.db-wal", "relay.db-shm", "relay.db-lock", "relay.db-recent"} <= set(files)
    assert set(files.values()) == {0o600}, files
