"""Readers of an SQLite store get what was stored, or learn that something is lost."""

import contextlib
import sqlite3

import pytest
from stores import (
    committed,
    data,
    push,
    recover,
    sound,
)

from pushrelay.errors import StoreError
from pushrelay.store import Draft, sqlite_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


ROWS = {
    "data that is not JSON": "data = '{broken'",
    "other data": "data = '\"other\"'",
    "data nested too deep": "data = '" + "[" * 100_000 + "'",
    "data that is not text": "data = x'ff00'",
    "data that is not UTF-8": "data = cast(x'22ff22' as text)",
    "a number for data": "data = 5",
    "another event": "event = 'other'",
    "an event that is not UTF-8": "event = cast(x'ff' as text)",
    "an expiry that is a text": "expires = 'later'",
    "an expiry without end": "expires = 9e999",
    "a later expiry": "expires = expires + 1",
    "an earlier start": "created = -1e300",
    "another own": "own = 1",
    "an own that is a text": "own = 'x'",
    "no longer trimmed": "trimmed = 1",
    "another sum": "sum = 1",
    "a sum that is a text": "sum = 'x'",
    "no sum and no JSON": "sum = NULL, data = '{broken'",
    "no sum and nested too deep": "sum = NULL, data = '" + "[" * 100_000 + "'",
}


@pytest.mark.parametrize("what", ROWS)
def test_a_publication_that_is_not_what_was_stored_is_left_out_and_reported_as_lost(path, open_at, caplog, what):
    epoch, _ = sound(path, open_at)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            f"UPDATE publications SET {ROWS[what]} "  # noqa: S608
            "WHERE offset = 3 AND destination = (SELECT id FROM destinations WHERE name = 'user2')"
        )
    broker = open_at(path)
    assert recover(broker, f"{epoch}:2", "user2") == (False, [])
    history = broker.history("user2")
    assert [each.data["n"] for each in history.publications] == [0, 1, 3, 4]
    assert not history.recovered and not broker.history("user2", f"{epoch}:1").recovered
    assert recover(broker, f"{epoch}:3", "user2") == (True, [{"text": "ää", "n": n} for n in (3, 4)])
    assert recover(broker, f"{epoch}:0", "user1")[0], "others lose nothing"
    assert push(broker, "next", destination="user2")[0].position == f"{epoch}:6"
    assert caplog.text.count("is damaged") == 1 and not [record for record in caplog.records if record.exc_info]


ENDS = {
    "an expiry in the past": ("expires = 1.5", 1),
    "the offset 0": ("offset = 0", 1),
    "an expiry in the past of the last one": ("expires = 1.5", 5),
    "a destination that does not exist": ("destination = 77", 5),
}


@pytest.mark.parametrize("what", ENDS)
def test_the_first_and_the_last_publication_cannot_vanish_by_a_changed_row(path, open_at, what):
    epoch, stored = sound(path, open_at)
    change, offset = ENDS[what]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        newest = "(SELECT max(destination) FROM publications)"
        connection.execute(f"UPDATE publications SET {change} WHERE offset = {offset} AND destination = {newest}")  # noqa: S608
    if "destination" in what:
        with pytest.raises(StoreError, match="belongs to no destination"):
            open_at(path)
        return
    broker = open_at(path)
    history = broker.history("user3")
    assert len(history.publications) == 4 and not history.recovered
    assert '"recovered":false' in "".join(broker.listing("user3").answer())
    assert not recover(broker, f"{epoch}:0", "user3")[0] and not broker.history("user3", f"{epoch}:0").recovered
    assert recover(broker, f"{epoch}:{offset % 5}", "user3")[0] == (offset == 1), "clients that need nothing of it"


def test_a_publication_that_was_moved_to_another_destination_is_not_read_there(path, open_at):
    broker = open_at(path)
    push(broker, "for Ann", destination="ann")
    push(broker, "for Ben", destination="ben")
    broker.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE publications SET destination = -destination")
        connection.execute(
            "UPDATE publications SET destination = (SELECT id FROM destinations WHERE id <> -publications.destination)"
        )
    broker = open_at(path)
    assert data(broker, "ann") == data(broker, "ben") == []
    assert recover(broker, f"{broker.epoch}:0", "ann") == (False, [])


def test_damage_deep_in_a_long_history_is_reported_as_lost(path, open_at):
    broker = open_at(path)
    push(broker, *(f"{number} {'x' * 20_000}" for number in range(30)))
    epoch = broker.epoch
    broker.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE publications SET data = 'x' WHERE offset = 20")
    broker = open_at(path)
    recovered, got = recover(broker, f"{epoch}:0")
    assert not recovered and [each.split()[0] for each in got] == [str(n) for n in range(len(got))] and len(got) < 20
    found, losses, since, more = [], 0, None, True
    while more:
        listing = broker.listing("42", since)
        found += [each for page in listing.pages() for each in page]
        losses, more, since = losses + (not listing.recovered), listing.more, found[-1].position
    assert losses and [int(each.data.split()[0]) for each in found] == [n for n in range(30) if n != 19]


def test_a_damaged_page_that_a_client_asks_for_again_and_again_does_not_delay_pushes_each_time(path, open_at, caplog):
    caplog.set_level("INFO", "pushrelay.store")
    broker = open_at(path)
    reopenings = []
    for number in range(5):
        with pytest.raises(StoreError, match="damaged"), broker._store._reader.snapshot():
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        push(broker, number)
        reopenings.append(caplog.text.count(f"opening {path} again"))
    assert reopenings == [1] * 5 and data(broker) == list(range(5))


def test_damage_is_logged_once_however_often_the_file_is_opened_again(path, open_at, caplog):
    epoch, _ = sound(path, open_at)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE publications SET data = 'x' WHERE offset = 3")
    broker = open_at(path)
    for _ in range(3):
        assert not broker.history("user2", f"{epoch}:1").recovered
        broker._store._files.is_broken = True
        broker.flush()
    assert caplog.text.count("is damaged") == 1


def test_pushes_are_accepted_although_readers_find_no_file_descriptor_left(path, open_at, monkeypatch):
    broker = open_at(path)
    push(broker, "before")

    def cannot(*_):
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "connect", cannot)
        with pytest.raises(StoreError, match="opened"):
            broker.history("42")
        push(broker, "meanwhile")
    assert data(broker) == ["before", "meanwhile"]


def test_pushes_are_read_before_their_commit(tmp_path, open_at):
    broker = open_at(tmp_path / "relay.db", history_size=5)
    broker.publish([Draft("42", n) for n in range(3)])
    broker.flush()
    broker.publish([Draft("42", n) for n in range(3, 5)] + [Draft("other", "x")])
    got = []
    recovery = broker.recover("42", f"{broker.epoch}:2", got.append, lambda: None)
    assert [each.data for each in got] == [2, 3, 4] and recovery.recovered
    assert [each.data for each in broker.history("42").publications] == [0, 1, 2, 3, 4]
    assert broker.history("42", f"{broker.epoch}:5").recovered
    assert not broker.history("42", f"{broker.epoch}:6").recovered
    assert committed(tmp_path / "relay.db") == 3
