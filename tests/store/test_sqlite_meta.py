"""Whether a file is as the last relay left it."""

import contextlib
import sqlite3

import pytest

from pushrelay.store import Draft
from pushrelay.store.journal import Contents
from pushrelay.store.sqlite_meta import Meta, declare_loss, find_loss, this_boot


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def test_a_journal_two_commits_behind_the_database_is_an_older_copy():
    meta = Meta("e", this_boot(), "t", is_open=True, generation=5)
    assert find_loss(meta, Contents("e", "t", 4, []), "x-recent") is None, "killed between the commit and the journal's"
    assert "older" in find_loss(meta, Contents("e", "t", 3, []), "x-recent")


@pytest.mark.parametrize(
    ("meta", "contents", "loss"),
    [
        (Meta("e", "", "", False), None, None),
        (Meta("e", "", "t", True, 5), None, "missing"),
        (Meta("e", "", "t", False, 5), None, None),
        (Meta("e", "another boot", "t", True, 5), Contents("e", "t", 5, []), "machine went down"),
        (Meta("e", "", "t", True, 5), Contents("e", "t", 5, [], "record 3 cannot be read"), "record 3"),
        (Meta("e", "", "t", True, 5), Contents("e", "other", 5, []), "another database"),
        (Meta("e", "", "t", True, 5), Contents("other", "t", 5, []), "another database"),
        (Meta("e", "", "t", True, 5), Contents("e", "t", 6, []), "older than"),
        (Meta("e", "", "t", True, 5), Contents("e", "t", 5, [b"[]"]), None),
    ],
)
def test_a_loss_is_noticed_by_comparing_the_files(meta, contents, loss):
    found = find_loss(meta, contents, "x-recent")
    assert found is None if loss is None else loss in found


def test_a_loss_takes_the_newest_publication_of_every_destination(open_at, path):
    broker = open_at(path)
    broker.publish([Draft("42", n) for n in range(3)])
    broker.ack("42", f"{broker.epoch}:3")
    broker.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        declare_loss(connection, 0.0)
        assert connection.execute("SELECT offset, trimmed, acked FROM destinations").fetchall() == [(3, 3, 2)]
        assert connection.execute("SELECT value FROM meta WHERE name = 'floor'").fetchone() == (1,)
