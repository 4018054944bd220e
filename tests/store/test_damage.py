"""The files of a store that are missing, truncated, damaged or older than they were.

Either nothing is lost, or clients that come back learn that something is, and no offset stands for two publications.
"""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import sqlite3
import time

import pytest
from conftest import need
from stores import NEW, SUFFIXES, copy, data, recover, sound

from pushrelay.errors import StoreError
from pushrelay.store import Draft, open_broker, sqlite_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def push(broker, *values, destination="42"):
    """Publish these, and return their positions."""
    return [receipt.position for receipt in broker.publish([Draft(destination, value) for value in values])]


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


# After kill -9.


def remove(suffix):
    return lambda path: os.unlink(f"{path}{suffix}")


def cut(suffix, share):
    """Cut a file to this share of its contents."""

    def do(path):
        file = pathlib.Path(f"{path}{suffix}")
        os.truncate(file, int(len(file.read_bytes().rstrip(b"\0")) * share))

    return do


def change(suffix, share):
    """Change the byte after this share of a file's contents."""

    def do(path):
        file = pathlib.Path(f"{path}{suffix}")
        flip(file, int(len(file.read_bytes().rstrip(b"\0")) * share))

    return do


DAMAGES = {
    "the journal is missing": remove("-recent"),
    "the journal is empty": cut("-recent", 0),
    "the journal has its header only": lambda path: os.truncate(f"{path}-recent", 64),
    "the journal has half its length": cut("-recent", 0.5),
    "the journal lacks its last bytes": cut("-recent", 0.97),
    "the journal's first byte is another one": change("-recent", 0),
    "the journal's generation is another one": lambda path: flip(pathlib.Path(f"{path}-recent"), 8),
    "the journal's epoch is another one": lambda path: flip(pathlib.Path(f"{path}-recent"), 20),
    "the journal's token is another one": lambda path: flip(pathlib.Path(f"{path}-recent"), 45),
    "the journal's first record has another byte": lambda path: flip(pathlib.Path(f"{path}-recent"), 80),
    "a byte in the middle of the journal is another one": change("-recent", 0.6),
    "a byte at the end of the journal is another one": change("-recent", 0.93),
    "the journal is zeros": lambda path: pathlib.Path(f"{path}-recent").write_bytes(bytes(256 * 1024)),
    "the WAL is missing": remove("-wal"),
    "the WAL is empty": cut("-wal", 0),
    "the WAL has half its length": cut("-wal", 0.5),
    "the WAL's last commit has another byte": change("-wal", 0.98),
    "the WAL and the journal are missing": lambda path: (remove("-wal")(path), remove("-recent")(path)),
}


def before_the_damage(path, open_at, durability="process"):
    """Return a killed store with publications in database, WAL and journal, and the position that clients saw."""
    broker = open_at(path.with_name("original.db"), durability=durability)
    push(broker, "in the database")
    broker.ack("read", push(broker, "all that there was", destination="read")[0])
    broker.flush()
    broker._store._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(3):
        push(broker, f"in the WAL {number}")
        broker.flush()
    seen = push(broker, *(f"in the journal {number}" for number in range(5)))[-1]
    push(broker, "x", destination="new")
    push(broker, "x", destination="read")
    return copy(path.with_name("original.db"), path), seen


@pytest.mark.parametrize("what", DAMAGES)
def test_files_that_are_missing_or_damaged_after_a_kill_are_never_taken_for_recovered(path, open_at, caplog, what):
    path, seen = before_the_damage(path, open_at)
    DAMAGES[what](path)
    broker = open_at(path)
    assert broker.epoch != seen.partition(":")[0], "offsets of before are given out again"
    assert "new epoch" in caplog.text and str(path) in caplog.text
    push(broker, *(f"later {number}" for number in range(12)))
    assert recover(broker, seen) == (False, [])
    for destination in ("42", "new", "read"):
        assert recover(broker, "acked", destination) == (False, []), "nobody knows what came before this"
    assert data(broker)[-12:] == [f"later {number}" for number in range(12)]
    position = broker.position("42")
    broker.ack("42", position)
    push(broker, "last")
    assert recover(broker, position) == recover(broker, "acked") == (True, ["last"])  # and from here on all is well
    broker.close()
    assert open_at(path).epoch == broker.epoch


def test_records_before_the_damage_of_a_journal_are_kept_and_the_file_is_set_aside(path, open_at):
    path, _ = before_the_damage(path, open_at)
    change("-recent", 0.93)(path)
    damaged = path.with_name(f"{path.name}-recent").read_bytes()
    broker = open_at(path)
    assert data(broker)[-5:] == [f"in the journal {number}" for number in range(5)]  # it was behind them
    assert path.with_name(f"{path.name}-recent.bad").read_bytes() == damaged


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("wal", [True, False])
def test_nothing_is_lost_by_a_kill_that_damaged_nothing(path, open_at, durability, wal):
    path, seen = before_the_damage(path, open_at, durability)
    if not wal:  # another program opened the database, closed it, and so brought the WAL into it
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM publications").fetchone()
        assert not os.path.exists(f"{path}-wal")
    broker = open_at(path, durability=durability)
    push(broker, "later")
    assert recover(broker, seen) == (True, ["later"])
    assert recover(broker, "acked") == (True, data(broker)) and len(data(broker)) == 10


@pytest.mark.parametrize("what", ["the WAL is missing", "the WAL has half its length", "the journal is missing"])
def test_with_durability_power_a_wal_that_is_missing_or_cut_is_noticed_as_well(path, open_at, what):
    path, seen = before_the_damage(path, open_at, "power")
    DAMAGES[what](path)
    broker = open_at(path, durability="power")
    push(broker, *range(12))
    assert recover(broker, seen)[0] is False


def states_of_a_start(path, to):
    """Return copies of the store's files as a kill at each step of a start leaves them, at TO0, TO1, …"""
    states = []

    def note(*_):
        states.append(copy(path, path.with_name(f"{to}{len(states)}.db"), (*SUFFIXES, NEW)))

    broker = open_broker(f"sqlite:{path}", lambda *_: 1)
    connect, replace = sqlite_file.connect, os.replace

    def connect_and_trace(*args):
        connection = connect(*args)
        connection.set_trace_callback(note)
        return connection

    def replace_and_note(*args):
        note()
        replace(*args)
        note()

    sqlite_file.connect, os.replace = connect_and_trace, replace_and_note
    try:
        broker.start()
    finally:
        sqlite_file.connect, os.replace = connect, replace
    broker.close()
    assert len(states) > 10
    return states


def check_that_nothing_is_lost(open_at, path, seen):
    again = open_at(path)
    assert recover(again, seen) == (True, []), path
    assert len(data(again)) == 9 and data(again, "new") == ["x"]
    again.close()


def test_a_start_that_is_killed_at_any_step_loses_nothing_and_takes_nothing_for_lost(path, open_at):
    """Each state of the files that a start goes through is as good as the one that it began with."""
    path, seen = before_the_damage(path, open_at)
    for state in states_of_a_start(path, "state"):
        check_that_nothing_is_lost(open_at, state, seen)


def test_two_starts_that_are_killed_one_after_the_other_lose_nothing_and_take_nothing_for_lost(path, open_at):
    path, seen = before_the_damage(path, open_at)
    committed = [state for state in states_of_a_start(path, "first") if os.path.exists(f"{state}{NEW}")][-1]
    for state in states_of_a_start(committed, "second"):
        check_that_nothing_is_lost(open_at, state, seen)


def fails(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_the_store_is_reopened_loses_nothing_and_takes_nothing_for_lost(path, open_at, monkeypatch):
    need(hasattr(os, "posix_fallocate"), "posix_fallocate")
    broker = open_at(path)
    broker._store._files.is_broken = True
    seen = push(broker, "x")[0]
    for function in ("replace", "posix_fallocate"):
        broker._store._files.is_broken = True
        with monkeypatch.context() as patch, pytest.raises(StoreError, match="free some space"):
            patch.setattr(os, function, fails, raising=False)
            push(broker, "refused")
    again = open_at(copy(path, path.with_name("killed.db"), (*SUFFIXES, NEW)))
    assert recover(again, seen) == (True, []) and data(again) == ["x"]


# Copies.


def test_an_older_copy_of_a_database_in_its_place_is_noticed(path, open_at, tmp_path, caplog):
    broker = open_at(path)
    push(broker, "old")
    broker.flush()
    while_open = copy(path, tmp_path / "while-open.db")
    broker.close()
    closed = copy(path, tmp_path / "closed.db")
    broker = open_at(path)
    seen = push(broker, *range(8))[-1]
    broker.close()
    for backup, suffixes in ((while_open, SUFFIXES[:3]), (while_open, ("", "-wal")), (closed, ("",))):
        place = copy(path, tmp_path / "place.db")
        for suffix in suffixes:
            if os.path.exists(f"{backup}{suffix}"):
                shutil.copy(f"{backup}{suffix}", f"{place}{suffix}")
        again = open_at(place)
        assert "older" in caplog.text
        push(again, *range(20))
        assert recover(again, seen)[0] is False
        assert data(again)[0] == "old"
        again.close()
        caplog.clear()


def test_an_older_copy_without_its_journal_is_noticed_if_it_was_made_while_the_relay_worked(path, open_at, tmp_path):
    broker = open_at(path)
    push(broker, "old")
    broker.flush()
    backup = copy(path, tmp_path / "backup.db", ("", "-wal"))
    seen = push(broker, *range(8))[-1]
    again = open_at(backup)
    push(again, *range(20))
    assert recover(again, seen)[0] is False


def test_a_store_that_was_closed_can_be_moved_without_the_files_next_to_it(path, open_at, tmp_path):
    broker = open_at(path)
    seen = push(broker, "old")[0]
    broker.close()
    again = open_at(copy(path, tmp_path / "moved.db", ("",)))
    push(again, "new")
    assert recover(again, seen) == (True, ["new"])


def test_the_journal_of_another_store_is_not_taken_and_not_thrown_away(path, open_at, tmp_path):
    mine, other = open_at(tmp_path / "mine.db"), open_at(tmp_path / "other.db")
    seen = push(mine, "mine", "mine too")[-1]
    push(other, "theirs")
    copy(tmp_path / "mine.db", path)
    shutil.copy(tmp_path / "other.db-recent", f"{path}-recent")
    broker = open_at(path)
    push(broker, *range(5))
    assert data(broker) == list(range(5))
    assert recover(broker, seen)[0] is False
    assert b"theirs" in path.with_name(f"{path.name}-recent.bad").read_bytes()


def test_a_twin_of_a_store_does_not_take_its_journal(path, open_at, tmp_path):
    """One is a copy of the other, so both have one epoch. Their offsets stand for different publications since."""
    broker = open_at(path)
    push(broker, "common")
    broker.close()
    one, other = (open_at(copy(path, tmp_path / name, ("",))) for name in ("one.db", "other.db"))
    push(one, "one")
    seen = push(other, "other", "other")[-1]
    mixed = copy(tmp_path / "other.db", tmp_path / "mixed.db")
    shutil.copy(tmp_path / "one.db-recent", f"{mixed}-recent")
    again = open_at(mixed)
    push(again, *range(5))
    assert data(again) == ["common", *range(5)]
    assert recover(again, seen)[0] is False


# While it runs.


@pytest.mark.parametrize("size", [0, 1, 64, 5000, 200_000])
def test_a_journal_that_is_cut_while_the_relay_works_costs_nothing_that_was_accepted(path, open_at, size):
    broker = open_at(path)
    push(broker, "before")
    os.truncate(f"{path}-recent", size)
    push(broker, "after", "x" * 10_000)
    killed = open_at(copy(path, path.with_name("killed.db")))
    whole = len(data(killed)) == 3
    assert whole or killed.epoch != broker.epoch
    broker.flush()  # as once a second
    push(broker, "later")
    assert os.path.getsize(f"{path}-recent") > 200_000
    assert len(data(broker)) == 4
    again = open_at(copy(path, path.with_name("later.db")))
    assert len(data(again)) == 4 and again.epoch == broker.epoch


@pytest.mark.parametrize("suffix", ["-recent", "-wal", "-shm", "-lock"])
def test_a_file_that_is_removed_while_the_relay_works_costs_nothing_that_was_accepted(path, open_at, suffix):
    broker = open_at(path)
    push(broker, 0)
    broker.flush()
    push(broker, 1)
    os.unlink(f"{path}{suffix}")
    push(broker, 2)
    broker.flush()  # as once a second
    push(broker, 3)
    assert suffix == "-shm" or os.path.exists(f"{path}{suffix}")
    again = open_at(copy(path, path.with_name("killed.db"), ("", "-wal", "-recent")))
    assert data(again) == [0, 1, 2, 3] and again.epoch == broker.epoch


def test_an_older_copy_that_is_moved_into_place_while_the_relay_works_is_noticed(path, open_at, tmp_path):
    broker = open_at(path)
    push(broker, "old")
    broker.flush()
    backup = copy(path, tmp_path / "backup.db", ("", "-wal"))
    with contextlib.closing(sqlite3.connect(backup)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    seen = push(broker, *range(8))[-1]
    os.replace(backup, path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    broker.flush()  # as once a second
    push(broker, *range(20))
    assert broker.epoch != seen.partition(":")[0]
    assert recover(broker, seen)[0] is False
    assert data(broker)[:9] == ["old", *range(8)], "what was not committed yet is in memory, and goes to the new file"


def test_a_transaction_that_fails_with_a_cut_journal_is_repeated_from_memory(path, open_at):
    broker = open_at(path)
    broker._store._writer.connection.execute("PRAGMA max_page_count=20")
    push(broker, *range(3))
    os.truncate(f"{path}-recent", 0)
    with pytest.raises(StoreError, match="full"):
        push(broker, "y" * 300_000)
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    push(broker, "after")
    broker.flush()
    assert data(broker) == [0, 1, 2, "after"]


def test_a_push_that_the_journal_does_not_take_is_refused_and_leaves_no_trace(path, open_at):
    broker = open_at(path)
    push(broker, "before")
    put = broker._store._files.journal.put
    broker._store._files.journal.put = lambda _: (_ for _ in ()).throw(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="full"):
        push(broker, "refused")
    assert data(broker) == ["before"] and broker.position("42").endswith(":1")
    broker._store._files.journal.put = put
    assert push(broker, "after")[0].endswith(":2")
    broker.flush()
    assert data(broker) == ["before", "after"]


# Bytes that changed.


def set_clock(broker, clock):
    """Give a broker another clock."""
    broker._clock = broker._archive.clock = broker._store._writer._clock = clock


def use(broker, epoch, stored):
    """Do everything that a relay does with a store. Only StoreError may come of it, and no loss goes unnoticed."""
    for name, publications in stored.items():
        with contextlib.suppress(StoreError):
            got = []
            recovery = broker.recover(name, f"{epoch}:0", got.append, lambda: None)
            assert not recovery.recovered or got == publications
            history = broker.history(name)
            assert history.publications == publications or broker.epoch != epoch or not history.recovered
        with contextlib.suppress(StoreError):
            broker.recover(name, "acked", got.append, lambda: None)
        with contextlib.suppress(StoreError):
            broker.publish([Draft(name, "again", key="3")])
            [receipt] = broker.publish([Draft(name, "next")])
            assert receipt.position not in {each.position for each in publications}
        with contextlib.suppress(StoreError, ValueError):
            broker.ack(name, f"{epoch}:3")
    for later in (0, 7200, 200_000):
        set_clock(broker, lambda later=later: time.time() + later)
        with contextlib.suppress(StoreError):
            broker.sweep()
        with contextlib.suppress(StoreError):
            broker.flush()


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_byte_is_refused_or_reported_as_lost_and_never_a_traceback(path, open_at, caplog, seed):
    epoch, stored = sound(path, open_at)
    content, chance = path.read_bytes(), random.Random(seed)
    used = [at for at in range(len(content)) if content[at] or at % 4096 < 100]
    refused = 0
    for at in chance.sample(used, 15):
        damaged = bytearray(content)
        damaged[at] ^= 1 << chance.randrange(8)
        for suffix in ("-wal", "-shm", "-recent"):
            pathlib.Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(damaged)
        try:
            broker = open_at(path)
        except StoreError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        use(broker, epoch, stored)
        broker.close()
        assert not [record for record in caplog.records if record.exc_info], at
    assert refused < 15


STRUCTURES = {
    "no epoch": "DELETE FROM meta WHERE name = 'epoch'",
    "an epoch that is a number": "UPDATE meta SET value = 5 WHERE name = 'epoch'",
    "an epoch with a colon": "UPDATE meta SET value = 'a:b' WHERE name = 'epoch'",
    "no floor": "DELETE FROM meta WHERE name = 'floor'",
    "a floor that is a text": "UPDATE meta SET value = 'x' WHERE name = 'floor'",
    "a floor below zero": "UPDATE meta SET value = -5 WHERE name = 'floor'",
    "a floor beyond all": "UPDATE meta SET value = 9223372036854775807 WHERE name = 'floor'",
    "a number of commits that is not a number": "UPDATE meta SET value = x'00' WHERE name = 'generation'",
    "an offset that is a text": "UPDATE destinations SET offset = 'x'",
    "an offset beyond all": "UPDATE destinations SET offset = 9223372036854775807",
    "an offset of a publication beyond all": "UPDATE publications SET offset = 9223372036854775807 WHERE offset = 5",
    "a due that is a text": "UPDATE destinations SET due = 'x'",
    "more acknowledged than pushed": "UPDATE destinations SET acked = 1000",
    "a name that is not text": "UPDATE destinations SET name = x'ff' || id",
    "a name that is not UTF-8": "UPDATE destinations SET name = cast(x'ff' as text) || id",
    "a key's offset that is a text": "UPDATE keys SET offset = 'x'",
    "no publications": "DROP TABLE publications",
    "another column": "ALTER TABLE destinations RENAME COLUMN acked TO packed",
    "version -1": "PRAGMA user_version = -1",
    "version 1 of a newer file": "PRAGMA user_version = 1",
    "version 0": "PRAGMA user_version = 0",
    "version 99": "PRAGMA user_version = 99",
}


@pytest.mark.parametrize("what", STRUCTURES)
def test_a_store_that_no_relay_wrote_is_refused_with_a_sentence_and_never_a_traceback(path, open_at, caplog, what):
    epoch, stored = sound(path, open_at)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(STRUCTURES[what])
    sentences = []
    try:
        broker = open_at(path)
        broker.publish([Draft("user1", "again", key="3")])
    except StoreError as error:
        sentences.append(error)
    else:
        for step in (broker.sweep, broker.flush, lambda: push(broker, "x", destination="user2")):
            set_clock(broker, lambda: time.time() + 7200)
            try:
                step()
            except StoreError as error:
                sentences.append(error)
    assert sentences, "nothing was said"
    assert "damaged" in str(sentences[0]) or "version" in what and "another" in str(sentences[0]) + sentences[0].public
    assert "move it away" in str(sentences[0]) or "version" in what
    assert not [record for record in caplog.records if record.exc_info]
