"""A copy of a store has everything that was accepted before it began, and never hands out an offset as the same."""

import contextlib
import shutil
import sqlite3

import pytest
from stores import NEW, accepted, copy, data, history, publisher, push, recover, stored

from pushrelay.errors import StoreError
from pushrelay.store import Draft, journal
from pushrelay.store.publication import Mark
from pushrelay.store.sqlite_copy import copy_store, made_at

LONG = {"history_size": 10**6}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "copy.db"


def numbers(lines):
    """Return the lines of a publisher without their epoch: offset and data."""
    return {line.partition(":")[2] for line in lines}


def refused(path, target):
    with pytest.raises(StoreError) as error:
        copy_store(str(path), str(target))
    return str(error.value)


def test_a_copy_of_a_store_in_use_has_what_is_only_in_the_journal(path, target, open_at):
    broker = open_at(path)
    push(broker, "committed")
    broker.flush()
    push(broker, "recent", "ä" * 1000)
    broker.ack("42", f"{broker.epoch}:2")
    copied = copy_store(str(path), str(target))
    assert (copied.publications, copied.destinations, copied.damaged) == (3, 1, 0)
    assert copied.size == target.stat().st_size
    assert data(open_at(target)) == ["committed", "recent", "ä" * 1000]
    push(broker, "after")
    assert data(broker)[-1] == "after"


def test_a_copy_is_one_file_that_can_be_read_without_writing(path, target, open_at):
    push(open_at(path), *range(100))
    copy_store(str(path), str(target))
    assert sorted(each.name for each in target.parent.glob("copy.db*")) == ["copy.db"]
    with contextlib.closing(sqlite3.connect(f"file:{target}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM publications").fetchone() == (100,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_every_push_that_was_answered_before_a_copy_began_is_in_it(path, tmp_path, open_at, durability):
    copies = []
    with publisher(path, durability) as (process, log):
        for number in range(5):
            copies.append((tmp_path / f"copy{number}.db", accepted(log)))
            copy_store(str(path), str(copies[-1][0]))
        process.kill()
    for target, before in copies:
        broker = open_at(target, **LONG)
        assert numbers(before) <= numbers(stored(broker))
        assert broker.epoch not in {line.partition(":")[0] for line in before}


def test_a_copy_of_a_killed_store_has_what_the_next_start_would_have(path, target, open_at):
    with publisher(path) as (process, log):
        process.kill()
        process.wait()
        before = accepted(log)
    copy_store(str(path), str(target))
    assert numbers(before) <= numbers(stored(open_at(target, **LONG)))
    assert before <= stored(open_at(path, **LONG)), "the original is as it was"


def test_a_copy_has_what_is_in_a_journal_that_is_not_in_place_yet(path, target, open_at, tmp_path):
    broker = open_at(path)
    push(broker, "kept")
    killed = copy(path, tmp_path / "killed.db")
    shutil.move(f"{killed}-recent", f"{killed}{NEW}")
    copy_store(str(killed), str(target))
    assert data(open_at(target)) == ["kept"]


def test_a_copy_has_the_idempotency_keys_and_the_connections_of_the_journal(path, target, open_at):
    broker = open_at(path)
    [first] = broker.publish([Draft("42", "once", key="k")])
    copy_store(str(path), str(target))
    [again] = open_at(target).publish([Draft("42", "once", key="k")])
    assert again.position.partition(":")[2] == first.position.partition(":")[2]
    assert again.connections == first.connections == 1


def test_a_store_that_was_closed_is_copied_with_and_without_its_journal(path, target, open_at):
    broker = open_at(path)
    push(broker, "kept")
    broker.close()
    copy_store(str(path), str(target))
    path.with_name("relay.db-recent").unlink()
    other = target.with_name("other.db")
    copy_store(str(path), str(other))
    assert data(open_at(target)) == data(open_at(other)) == ["kept"]


def test_a_killed_store_without_its_journal_is_not_copied_as_if_it_were_whole(path, target, open_at, monkeypatch):
    monkeypatch.setattr("pushrelay.store.sqlite_copy.MATCH_SECONDS", 0.05)
    broker = open_at(path)
    push(broker, "lost")
    killed = copy(path, path.with_name("killed.db"), ("", "-wal"))
    said = refused(killed, target)
    assert "is missing" in said and "Start the relay" in said
    with path.with_name("killed.db-recent").open("wb") as file:
        file.write(b"\0" * 1000)
    assert "damaged" in refused(killed, target)


def test_a_commit_between_the_reads_of_database_and_journal_is_noticed(path, target, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "first")
    read, commits = journal.read, []

    def commit_and_read(name):
        if len(commits) < 3:
            commits.append(name)
            push(broker, len(commits))
            broker.flush()
        return read(name)

    monkeypatch.setattr(journal, "read", commit_and_read)
    copy_store(str(path), str(target))
    assert data(open_at(target)) == ["first", 1, 2, 3]


def test_no_position_of_the_original_is_recovered_from_a_copy(path, target, open_at):
    broker = open_at(path)
    before = push(broker, "a", "b")[0].position
    copy_store(str(path), str(target))
    after = push(broker, "c")[0].position
    copied = open_at(target)
    push(copied, *range(10))
    for position in (before, after, "acked"):
        assert recover(copied, position)[0] is False
    again = push(copied, "new")[0].position
    assert recover(copied, again) == (True, [])


def test_each_relay_that_opens_a_copy_of_the_same_copy_begins_an_epoch_of_its_own(path, target, open_at, tmp_path):
    push(open_at(path), "a")
    copy_store(str(path), str(target))
    shutil.copy(target, tmp_path / "twin.db")
    one, other = open_at(target), open_at(tmp_path / "twin.db")
    assert one.epoch != other.epoch
    epoch = one.epoch
    one.close()
    assert open_at(target).epoch == epoch, "only the first start begins a new one"
    assert not made_at(str(target))


def test_a_damaged_publication_is_left_out_and_counted(path, target, open_at):
    broker = open_at(path)
    push(broker, *(f"text {n}" for n in range(10)))
    broker.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE publications SET data = '\"text 3!\"' WHERE offset = 4")
        connection.execute("UPDATE publications SET data = CAST(x'ff22' AS TEXT) WHERE offset = 6")
        connection.commit()
    assert copy_store(str(path), str(target)).damaged == 2
    assert data(open_at(target)) == [f"text {n}" for n in (0, 1, 2, 4, 6, 7, 8, 9)]


def test_a_store_of_an_older_relay_is_brought_up_to_date_in_the_copy_only(path, target, open_at):
    from pushrelay.store.sqlite_file import MIGRATIONS

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute("PRAGMA user_version=1")
        connection.execute("INSERT INTO destinations VALUES (1, '42', 3, 0, 0, 9e9, NULL)")
        connection.execute("INSERT INTO publications VALUES (1, 3, 1, 9e9, 0, 0, 'push', '\"old\"')")
        connection.commit()
    copy_store(str(path), str(target))
    broker = open_at(target)
    broker.publish_marked([], Mark("table", "", "1"))
    assert [each[2] for each in history(broker)] == ["old"] and broker.mark("table") == "1"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_another_file_is_refused_with_a_sentence(path, target):
    assert "no such file" in refused(path, target)
    path.write_text("hello" * 1000)
    assert "not an SQLite database" in refused(path, target)
    path.write_bytes(b"")
    assert "not a store of the relay" in refused(path, target)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")
    assert "not a store of the relay" in refused(path, target)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    assert "a newer relay wrote this (version 99" in refused(path, target)
    assert "this is a folder" in refused(path.parent, target)


def test_a_name_with_any_characters_is_copied(open_at, target, tmp_path):
    odd = tmp_path / "a?mode=memory#b%20 c.db"
    push(open_at(odd), "kept")
    copy_store(str(odd), str(target))
    assert data(open_at(target)) == ["kept"]
