"""Publications that SQLite was not given yet are neither lost nor looked up again."""

import sqlite3
import threading

import pytest
from stores import committed, history, killed

from pushrelay.errors import StoreError
from pushrelay.store import Draft, sqlite_rows, sqlite_writer
from pushrelay.store.journal import SIZE
from pushrelay.store.publication import Mark


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_the_state_of_a_destination_is_known_without_a_commit_however_many_there_are(tmp_path, open_at, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "MAX_CURSORS", 10)
    broker = open_at(tmp_path / "relay.db")
    for n in range(50):
        broker.publish([Draft(str(n), "x"), Draft("always", n)])
        if n % 7 == 0:
            broker.flush()
    broker.flush()
    broker.publish([Draft("3", "y"), Draft("new", "z")])
    before = committed(tmp_path / "relay.db")
    for n in range(50):
        assert broker.position(str(n)) == f"{broker.epoch}:{2 if n == 3 else 1}"
    assert broker.position("always") == f"{broker.epoch}:50"
    assert (broker.position("new"), broker.position("newer")) == (f"{broker.epoch}:1", f"{broker.epoch}:0")
    assert committed(tmp_path / "relay.db") == before


def test_the_offsets_that_are_kept_at_hand_have_a_bound(tmp_path, open_at, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "MAX_CURSORS", 10)
    broker = open_at(tmp_path / "relay.db")
    for n in range(100):
        broker.publish([Draft(str(n), "x")])
    broker.flush()
    assert len(broker._store._writer.cursors) <= 10
    assert {broker.position(str(n)) for n in range(100)} == {f"{broker.epoch}:1"}


def test_a_transaction_that_does_not_fit_the_journal_is_committed_at_once(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "small")])
    assert committed(tmp_path / "relay.db") == 0
    broker.publish([Draft("42", "x" * SIZE)])
    assert committed(tmp_path / "relay.db") == 2


def test_a_transaction_that_fails_takes_nothing_with_it_that_was_accepted(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "before"), Draft("new", "x")])
    broker._store._writer.connection.execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match="full"):
        broker.publish([Draft("42", "y" * SIZE)])
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert broker.position("new") == f"{broker.epoch}:1"
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("new", "after")])[0].position == f"{broker.epoch}:2"
    broker.flush()
    assert [each.data for each in broker.history("42").publications] == ["before"]
    assert [each.data for each in broker.history("new").publications] == ["x", "after"]


def test_after_a_transaction_that_failed_new_destinations_are_soon_stored_without_a_look_into_the_file(
    tmp_path, open_at, monkeypatch
):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("committed", "x")])
    broker.flush()
    broker.publish([Draft("recent", "x")])
    with pytest.raises(StoreError):
        broker._group_commit.run(lambda: 1 / 0)
    for name in ("first", "second"):  # as once a second
        broker.publish([Draft(name, "x")])
        broker.flush()
    looks = []
    find = sqlite_rows.find_cursor
    monkeypatch.setattr(
        sqlite_rows, "find_cursor", lambda connection, name: looks.append(name) or find(connection, name)
    )
    names = ["committed", "recent", "first", "second", "third"]
    for number in (1, 2):
        assert {broker.position(name) for name in names[:-1]} == {f"{broker.epoch}:{number}"}
        broker.publish([Draft(name, "y") for name in names])
    assert broker.position("third") == f"{broker.epoch}:2" and not looks


def test_accepted_pushes_that_cannot_be_committed_stay_and_are_committed_later(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker._store._writer.connection.execute("PRAGMA max_page_count=20")
    broker.publish([Draft("42", n) for n in range(3)] + [Draft("42", "y" * 200_000)])
    for _ in range(3):
        with pytest.raises(StoreError, match="full"):
            broker.flush()
        with pytest.raises(StoreError, match="full"):
            broker.publish([Draft("42", "refused")] * 100)
            broker.flush()
        assert [len(str(each.data)) for each in broker.history("42").publications] == [1, 1, 1, 200_000]
        assert broker.position("42") == f"{broker.epoch}:4"
    again = open_at(killed(tmp_path / "relay.db", tmp_path / "copy.db"))
    assert history(again) == history(broker)
    broker._store._writer.connection.execute("PRAGMA max_page_count=100000")
    assert broker.publish([Draft("42", "after")])[0].position == f"{broker.epoch}:5"
    broker.flush()
    assert committed(tmp_path / "relay.db") == 5


def test_no_reader_misses_an_accepted_push_while_a_failed_transaction_is_repeated(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", "in the file")])
    broker.flush()
    broker.publish([Draft("42", "in the journal")])
    with pytest.raises(StoreError):
        broker._group_commit.run(lambda: 1 / 0)
    pushes = []

    class Cursors(dict):
        """A push is stored after the first look at the cursors."""

        def get(self, name):
            found = super().get(name)
            if not pushes:
                pushes.append(threading.Thread(target=broker.publish, args=([Draft("41", "x")],)))
                pushes[0].start()
                pushes[0].join()
            return found

    broker._store._writer.cursors = Cursors(broker._store._writer.cursors)
    assert broker.position("42") == f"{broker.epoch}:2"
    broker.flush()
    assert broker.position("42") == f"{broker.epoch}:2"


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_mark_is_on_the_disk_with_its_publications_when_it_is_set(path, tmp_path, open_at, durability):
    broker = open_at(path, durability=durability)
    broker.publish([Draft("42", "in the journal")])
    broker.publish_marked([Draft("42", "marked"), Draft("7", "kept not", ttl=0)], Mark("table", "", "1"))
    assert committed(path) == 2
    broker.publish([Draft("42", "later")])
    again = open_at(killed(path, tmp_path / "copy.db"), durability=durability)
    assert again.mark("table") == "1" and again.epoch == broker.epoch
    assert [each.data for each in again.history("42").publications] == ["in the journal", "marked", "later"]
    assert again.position("7") == broker.position("7")


def test_a_mark_stays_as_it_was_if_its_publications_cannot_be_stored(path, open_at, monkeypatch):
    broker = open_at(path)
    broker.publish_marked([], Mark("table", "", "1"))

    def fails(*args):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(broker._store._files, "commit", fails)
        with pytest.raises(StoreError):
            broker.publish_marked([Draft("42", "x")], Mark("table", "1", "2"))
    assert broker.mark("table") == "1"
    broker.publish_marked([Draft("42", "x")], Mark("table", "1", "2"))
    assert broker.mark("table") == "2" and len(broker.history("42").publications) == 1
