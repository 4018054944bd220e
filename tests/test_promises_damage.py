"""What the store promises when its files are missing, cut, damaged or older than they were: either nothing is lost, or
clients that come back learn that something is, and no offset stands for two publications."""

import contextlib
import os
import pathlib
import shutil
import sqlite3

import pytest

from pushrelay import sqlite_file
from pushrelay.broker import open_broker
from pushrelay.publication import Draft, StoreError

SUFFIXES = ("", "-wal", "-shm", "-recent")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def push(broker, *values, destination="42"):
    return [receipt.position for receipt in broker.publish([Draft(destination, value) for value in values])]


def data(broker, destination="42"):
    return [each.data for each in broker.history(destination).publications]


def recover(broker, since, destination="42"):
    """Whether all was recovered, and what came."""
    got = []
    recovery = broker.recover(destination, since, lambda each: got.append(each.data), lambda: None)
    return recovery.recovered, got


def copy(path, to, suffixes=SUFFIXES):
    """The store's files as they are now: as kill -9 leaves them, or a backup has them. Others at `to` are removed."""
    for suffix in SUFFIXES:
        source, target = pathlib.Path(f"{path}{suffix}"), pathlib.Path(f"{to}{suffix}")
        target.unlink(missing_ok=True)
        if suffix in suffixes and source.exists():
            shutil.copy(source, target)
    return to


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


# After kill -9.


def remove(suffix):
    return lambda path: os.unlink(f"{path}{suffix}")


def cut(suffix, share):
    """Keep this share of what the file holds."""

    def do(path):
        file = pathlib.Path(f"{path}{suffix}")
        os.truncate(file, int(len(file.read_bytes().rstrip(b"\0")) * share))

    return do


def change(suffix, share):
    """Change the byte that has this share of what the file holds before it."""

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
    """A store that was killed, with publications in the database, in the WAL and in the journal; what clients saw."""
    broker = open_at(path.with_name("original.db"), durability=durability)
    push(broker, "in the database")
    broker.settle()
    broker._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(3):
        push(broker, f"in the WAL {number}")
        broker.settle()
    seen = push(broker, *(f"in the journal {number}" for number in range(5)))[-1]
    push(broker, "x", destination="new")
    return copy(path.with_name("original.db"), path), seen


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_missing_or_damaged_after_a_kill_is_never_taken_for_recovered(path, open_at, caplog, what):
    path, seen = before_the_damage(path, open_at)
    DAMAGES[what](path)
    broker = open_at(path)
    assert broker.epoch != seen.partition(":")[0], "offsets of before are given out again"
    assert "new epoch" in caplog.text and str(path) in caplog.text
    push(broker, *(f"later {number}" for number in range(12)))
    assert recover(broker, seen) == (False, [])
    for destination in ("42", "new"):
        assert recover(broker, "acked", destination) == (False, []), "nobody knows what came before this"
    assert data(broker)[-12:] == [f"later {number}" for number in range(12)]
    position = broker.position("42")
    broker.ack("42", position)
    push(broker, "last")
    assert recover(broker, position) == recover(broker, "acked") == (True, ["last"])  # and from here on all is well
    broker.close()
    assert open_at(path).epoch == broker.epoch


def test_what_a_damaged_journal_holds_before_its_damage_is_kept_and_the_file_is_set_aside(path, open_at):
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


def test_a_start_that_is_killed_at_any_step_loses_nothing_and_takes_nothing_for_lost(path, open_at, tmp_path):
    """Each state of the files that a start goes through is as good as the one that it began with."""
    path, seen = before_the_damage(path, open_at)
    states = []

    def note(*_):
        states.append(copy(path, tmp_path / f"state{len(states)}.db"))
        new = pathlib.Path(f"{path}-recent.new")
        if new.exists():
            shutil.copy(new, f"{states[-1]}-recent.new")

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
    for state in states:
        again = open_at(state)
        assert recover(again, seen) == (True, []), state
        assert len(data(again)) == 9 and data(again, "new") == ["x"]
        again.close()


# Copies.


def test_an_older_copy_of_a_database_in_its_place_is_noticed(path, open_at, tmp_path, caplog):
    broker = open_at(path)
    push(broker, "old")
    broker.settle()
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
    broker.settle()
    backup = copy(path, tmp_path / "backup.db", ("", "-wal"))
    seen = push(broker, *range(8))[-1]
    again = open_at(backup)
    push(again, *range(20))
    assert recover(again, seen)[0] is False


def test_a_store_that_was_closed_can_be_moved_without_the_files_beside_it(path, open_at, tmp_path):
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
    """Both have one epoch, as one is a copy of the other; their offsets stand for different publications since."""
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
    broker.settle()  # as once a second
    push(broker, "later")
    assert os.path.getsize(f"{path}-recent") > 200_000
    assert len(data(broker)) == 4
    again = open_at(copy(path, path.with_name("later.db")))
    assert len(data(again)) == 4 and again.epoch == broker.epoch


@pytest.mark.parametrize("suffix", ["-recent", "-wal", "-shm", "-lock"])
def test_a_file_that_is_removed_while_the_relay_works_costs_nothing_that_was_accepted(path, open_at, suffix):
    broker = open_at(path)
    push(broker, 0)
    broker.settle()
    push(broker, 1)
    os.unlink(f"{path}{suffix}")
    push(broker, 2)
    broker.settle()  # as once a second
    push(broker, 3)
    assert suffix == "-shm" or os.path.exists(f"{path}{suffix}")
    again = open_at(copy(path, path.with_name("killed.db"), ("", "-wal", "-recent")))
    assert data(again) == [0, 1, 2, 3] and again.epoch == broker.epoch


def test_an_older_copy_that_is_moved_into_place_while_the_relay_works_is_noticed(path, open_at, tmp_path):
    broker = open_at(path)
    push(broker, "old")
    broker.settle()
    backup = copy(path, tmp_path / "backup.db", ("", "-wal"))
    with contextlib.closing(sqlite3.connect(backup)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    seen = push(broker, *range(8))[-1]
    os.replace(backup, path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    broker.settle()  # as once a second
    push(broker, *range(20))
    assert broker.epoch != seen.partition(":")[0]
    assert recover(broker, seen)[0] is False
    assert data(broker)[:9] == ["old", *range(8)], "what was not committed yet is in memory, and goes to the new file"


def test_what_fails_with_a_journal_that_was_cut_is_done_again_from_memory(path, open_at):
    broker = open_at(path)
    broker._writer.execute("PRAGMA max_page_count=20")
    push(broker, *range(3))
    os.truncate(f"{path}-recent", 0)
    with pytest.raises(StoreError, match="full"):
        push(broker, "y" * 300_000)
    broker._writer.execute("PRAGMA max_page_count=100000")
    push(broker, "after")
    broker.settle()
    assert data(broker) == [0, 1, 2, "after"]


def test_a_push_that_the_journal_does_not_take_is_refused_and_leaves_no_trace(path, open_at):
    broker = open_at(path)
    push(broker, "before")
    put = broker._journal.put
    broker._journal.put = lambda _: (_ for _ in ()).throw(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="full"):
        push(broker, "refused")
    assert data(broker) == ["before"] and broker.position("42").endswith(":1")
    broker._journal.put = put
    assert push(broker, "after")[0].endswith(":2")
    broker.settle()
    assert data(broker) == ["before", "after"]
