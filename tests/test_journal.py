"""What was accepted and not committed yet, in a file beside the database."""

import contextlib
import os
import shutil
import sqlite3

import pytest
from conftest import need

from pushrelay import broker_sqlite, sqlite_file
from pushrelay.journal import SIZE, Journal
from pushrelay.publication import Draft, StoreError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recent"


def test_what_was_put_in_is_there_for_who_opens_the_file(path):
    journal = Journal(path)
    assert journal.read("epoch") == []
    journal.begin("epoch")
    for payload in (b"a", b"bb" * 500, b"c"):
        journal.put(payload)
    assert Journal(path).read("epoch") == [b"a", b"bb" * 500, b"c"]  # it was not closed: as after kill -9


def test_after_a_commit_nothing_of_before_is_read_again(path):
    journal = Journal(path)
    journal.begin("epoch")
    for _ in range(5):
        journal.put(b"before")
    journal.begin("epoch")
    assert Journal(path).read("epoch") == []
    journal.put(b"now..!")  # as long as what stood there, and behind it the old ones begin
    assert Journal(path).read("epoch") == [b"now..!"]


def test_what_belongs_to_another_store_is_not_read(path):
    journal = Journal(path)
    journal.begin("one")
    journal.put(b"x")
    assert Journal(path).read("another") == []


def test_a_record_that_was_cut_off_ends_the_reading(path):
    journal = Journal(path)
    journal.begin("epoch")
    journal.put(b"whole")
    end = journal._end
    journal.put(b"cut off")
    whole = path.read_bytes()
    for cut in range(end, journal._end):
        path.write_bytes(whole[:cut] + bytes(SIZE - cut))
        assert Journal(path).read("epoch") == [b"whole"]
    for at in range(end, journal._end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert Journal(path).read("epoch") == [b"whole"]


def test_reading_goes_on_where_it_ended(path):
    journal = Journal(path)
    journal.begin("epoch")
    journal.put(b"a")
    again = Journal(path)
    again.read("epoch")
    again.put(b"b")
    assert Journal(path).read("epoch") == [b"a", b"b"]


def test_garbage_is_no_journal(path):
    for garbage in (b"", b"x" * 10, os.urandom(SIZE), bytes(SIZE)):
        path.write_bytes(garbage)
        journal = Journal(path)
        assert journal.read("epoch") == []
        journal.begin("epoch")
        journal.put(b"x")
        assert Journal(path).read("epoch") == [b"x"]


def test_it_says_when_it_is_full(path):
    journal = Journal(path)
    journal.begin("epoch")
    count = 0
    while journal.has_room(1000):
        journal.put(b"x" * 1000)
        count += 1
    assert SIZE - 2000 < count * 1008 < SIZE
    assert Journal(path).read("epoch") == [b"x" * 1000] * count


def test_its_file_is_for_its_owner_alone_and_goes_when_it_is_told_to(path):
    journal = Journal(path)
    assert path.stat().st_mode & 0o777 == 0o600
    journal.close(remove=True)
    assert not path.exists()


def test_a_place_where_it_cannot_be_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        Journal(tmp_path / "nowhere" / "recent")


# With the database.


def killed(path, copy):
    """A copy of a store as kill -9 leaves it now."""
    for suffix in ("", "-wal", "-recent"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def history(broker, destination="42"):
    return [(each.position, each.event, each.data, each.created) for each in broker.history(destination).publications]


def committed(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM publications").fetchone()[0]


def test_a_kill_between_two_commits_loses_nothing(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db", history_size=8)
    broker.publish([Draft("42", "settled")])
    broker.settle()
    broker.publish([Draft("42", {"ä": [1, None, "\n"]}, "order"), Draft("new", "x", key="once")])
    broker.publish([Draft("42", n) for n in range(40)])
    broker.publish([Draft("fleeting", "not kept", ttl=0), Draft("fleeting", "kept", ttl=100)])
    broker.ack("42", f"{broker.epoch}:7")
    assert committed(tmp_path / "relay.db") == 1
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"), history_size=8)
    for destination in ("42", "new", "fleeting"):
        assert history(again, destination) == history(broker, destination)
        assert again.position(destination) == broker.position(destination)
    assert again.acked("42") == f"{broker.epoch}:7"
    [receipt] = again.publish([Draft("new", "x", key="once")])
    assert (receipt.position, receipt.connections, receipt.repeated) == (f"{broker.epoch}:1", 1, True)
    assert again.publish([Draft("42", "next")])[0].position == f"{broker.epoch}:43"


def test_a_kill_after_the_commit_and_before_the_journal_is_empty_brings_nothing_twice(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", n) for n in range(20)] + [Draft("42", "k", key="key"), Draft("0", "x", ttl=0)])
    broker.ack("42", f"{broker.epoch}:3")
    before = (tmp_path / "relay.db-recent").read_bytes()
    broker.settle()
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    (tmp_path / "copy.db-recent").write_bytes(before)
    again = open_at(copy)
    assert history(again) == history(broker)
    assert again.position("0") == broker.position("0")
    assert again.acked("42") == f"{broker.epoch}:3"


def test_what_is_not_committed_is_read_by_everybody(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db", history_size=5)
    broker.publish([Draft("42", n) for n in range(3)])
    broker.settle()
    broker.publish([Draft("42", n) for n in range(3, 5)] + [Draft("other", "x")])
    got = []
    recovery = broker.recover("42", f"{broker.epoch}:2", got.append, lambda: None)
    assert [each.data for each in got] == [2, 3, 4] and recovery.recovered
    assert [each.data for each in broker.history("42").publications] == [0, 1, 2, 3, 4]
    assert broker.history("42", f"{broker.epoch}:5").recovered
    assert not broker.history("42", f"{broker.epoch}:6").recovered
    assert committed(tmp_path / "relay.db") == 3


def test_where_a_destination_stands_is_known_without_a_commit_however_many_there_are(tmp_path, open_at, monkeypatch):
    monkeypatch.setattr(broker_sqlite, "SPOTS", 10)
    broker = open_at(tmp_path / "relay.db")
    for n in range(50):
        broker.publish([Draft(str(n), "x"), Draft("always", n)])
        if n % 7 == 0:
            broker.settle()
    broker.settle()
    broker.publish([Draft("3", "y"), Draft("new", "z")])
    before = committed(tmp_path / "relay.db")
    for n in range(50):
        assert broker.position(str(n)) == f"{broker.epoch}:{2 if n == 3 else 1}"
    assert broker.position("always") == f"{broker.epoch}:50"
    assert (broker.position("new"), broker.position("newer")) == (f"{broker.epoch}:1", f"{broker.epoch}:0")
    assert committed(tmp_path / "relay.db") == before


def test_what_does_not_fit_is_committed_at_once(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "small")])
    assert committed(tmp_path / "relay.db") == 0
    broker.publish([Draft("42", "x" * SIZE)])
    assert committed(tmp_path / "relay.db") == 2


def test_a_transaction_that_fails_takes_nothing_with_it_that_was_accepted(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "before"), Draft("new", "x")])
    broker._writer.execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match="full"):
        broker.publish([Draft("42", "y" * SIZE)])
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert broker.position("new") == f"{broker.epoch}:1"
    broker._writer.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("new", "after")])[0].position == f"{broker.epoch}:2"
    broker.settle()
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert [each.data for each in broker.history("new").publications] == ["x", "after"]


def test_what_was_accepted_and_cannot_be_committed_stays_and_is_committed_later(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker._writer.execute("PRAGMA max_page_count=20")
    broker.publish([Draft("42", n) for n in range(3)] + [Draft("42", "y" * 200_000)])
    for _ in range(3):
        with pytest.raises(StoreError, match="full"):
            broker.settle()
        with pytest.raises(StoreError, match="full"):
            broker.publish([Draft("42", "refused")] * 100)
            broker.settle()
        assert [len(str(each.data)) for each in broker.history("42").publications] == [1, 1, 1, 200_000]
        assert broker.position("42") == f"{broker.epoch}:4"
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert history(again) == history(broker)
    broker._writer.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:5"
    broker.settle()
    assert committed(tmp_path / "relay.db") == 5


def forgetting(open_at, path, now):
    """A broker that would forget destination 42, of five publications, at its next sweep."""
    broker = open_at(path, clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", n) for n in range(5)])
    broker.settle()
    now[0] += 1000
    broker.sweep()
    now[0] += 2 * broker.FORGET_AFTER
    return broker


def test_what_is_new_and_not_committed_is_read_while_another_is_forgotten(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("new", "x")])
    seen, update = [], broker._commit

    def look_and_commit():
        seen.append(broker.history("new", f"{broker.epoch}:0"))
        update()

    broker._commit = look_and_commit
    broker.sweep()
    seen.append(broker.history("new", f"{broker.epoch}:0"))
    assert [([each.data for each in one.publications], one.recovered) for one in seen] == [(["x"], True)] * 2


def test_who_was_told_where_a_new_destination_begins_can_rely_on_it_after_a_kill(tmp_path, open_at):
    now = [1_000_000.0]
    broker = forgetting(open_at, tmp_path / "relay.db", now)
    broker.publish([Draft("another", "x")])
    broker.sweep()  # forgets 42
    told = broker.position("new")
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"), clock=lambda: now[0], history_ttl=10)
    again.publish([Draft("new", n) for n in range(7)])
    history = again.history("new", told)
    assert history.recovered and [each.data for each in history.publications] == list(range(7))


def test_what_was_to_be_forgotten_is_there_when_that_fails(tmp_path, open_at):
    now = [1_000_000.0]
    broker = open_at(tmp_path / "relay.db", clock=lambda: now[0], history_ttl=10)
    broker.publish([Draft("42", "x")])
    broker.settle()
    now[0] += 1000
    broker.sweep()
    commit, broker._settle = broker._settle, lambda: 1 / 0
    now[0] += 2 * broker.FORGET_AFTER
    with pytest.raises(StoreError):
        broker.sweep()  # it would have been forgotten by this
    broker._settle = commit
    assert broker.publish([Draft("42", "y")])[0].position == f"{broker.epoch}:2"
    broker.settle()
    assert [each.data for each in broker.history("42").publications] == ["y"]


def test_a_start_that_fails_leaves_the_journal_for_the_next_one(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft(f"{n}", "x" * 100) for n in range(1000)] + [Draft("fleeting", "x", ttl=0)])
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
    assert again.position("fleeting") == f"{broker.epoch}:1"


def test_what_was_accepted_is_there_when_the_file_is_opened_anew_before_a_commit(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "settled")])
    broker.settle()
    broker.publish([Draft("42", "recent")])
    broker._readers.close()
    with pytest.raises(StoreError), broker._snapshot():
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:3"
    assert [each.data for each in broker.history("42").publications] == ["settled", "recent", "after"]


def test_a_position_is_never_a_lower_one_while_the_file_is_opened_anew(tmp_path, open_at, monkeypatch):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("41", "x"), Draft("42", "x")])
    broker.settle()
    told, find = [], broker._find_in

    def ask():
        with contextlib.suppress(StoreError):  # it may say that it does not know yet
            told.append(broker.position("42"))

    def find_and_ask(connection, name):
        if connection is broker._writer:
            ask()
        return find(connection, name)

    monkeypatch.setattr(broker, "_find_in", find_and_ask)
    broker._broken = True
    broker.publish([Draft("43", "x")])
    ask()
    assert set(told) == {f"{broker.epoch}:1"}


def test_with_durability_power_there_is_none_and_what_one_left_is_taken_over(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "left")])
    copy = killed(tmp_path / "relay.db", tmp_path / "copy.db")
    again = open_at(copy, durability="power")
    assert [each.data for each in again.history("42").publications] == ["left"]
    again.publish([Draft("42", "more")])
    assert committed(copy) == 2
    assert not os.path.exists(f"{copy}-recent")


def test_a_store_that_was_closed_leaves_no_journal(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "x")])
    broker.close()
    assert committed(tmp_path / "relay.db") == 1
    assert not (tmp_path / "relay.db-recent").exists()


def test_a_journal_that_was_removed_is_noticed(tmp_path, open_at):
    need(os.name == "posix", "a system that removes files in use")
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", 0)])
    (tmp_path / "relay.db-recent").unlink()
    broker.publish([Draft("42", 1)])
    broker.settle()  # as once a second
    broker.publish([Draft("42", 2)])
    assert (tmp_path / "relay.db-recent").exists()
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert [each.data for each in again.history("42").publications] == [0, 1, 2]
