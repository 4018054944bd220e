"""Values in a file are what the relay wrote, or Damaged is raised."""

import math
import sqlite3

import pytest

from pushrelay.store import Draft, sqlite_rows
from pushrelay.store.sqlite_file import Damaged

ROW = ("push", '"x"', 1.0, 2.0, 0, 3)


def row(offset, event, data, created, expires, own, trimmed, name="42"):
    total = sqlite_rows.data_sum(data, created, expires, bool(own))
    return (
        offset,
        event,
        data,
        created,
        expires,
        own,
        trimmed,
        sqlite_rows.checksum_of(name, offset, trimmed, event, total),
    )


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (sqlite_rows.whole, (0, 5, (1 << 62) - 1), (-1, 1 << 62, 1.0, "1", None, True, b"")),
        (sqlite_rows.seconds, (0, 1.5, -1.0), (math.inf, math.nan, "1", None, True)),
        (sqlite_rows.text, ("", "ä"), (b"", 1, None)),
        (sqlite_rows.only, ((3,),), (None, (None,), ("x",))),
    ],
)
def test_a_value_of_another_type_or_size_is_damage(check, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(Damaged):
            check(value)


def test_every_field_of_a_publication_is_under_its_checksum():
    good = row(7, *ROW)
    assert sqlite_rows.kept_of("42", good) == (7, "push", '"x"', 1.0, 2.0, False)
    for number, other in enumerate((8, "other", '"y"', 1.5, 2.5, 1, 4, 0)):
        with pytest.raises(Damaged):
            sqlite_rows.kept_of("42", (*good[:number], other, *good[number + 1 :]))
    with pytest.raises(Damaged):
        sqlite_rows.kept_of("43", good)


def test_a_row_of_an_older_relay_has_no_checksum_and_must_be_json():
    assert sqlite_rows.kept_of("42", (7, *ROW, None)).text == '"x"'
    with pytest.raises(Damaged):
        sqlite_rows.kept_of("42", (7, "push", "{broken", 1.0, 2.0, 0, 3, None))


def test_a_cursor_is_brought_up_to_date_by_the_newest_publication():
    assert sqlite_rows.cursor_of((1, 5, 2, 3, 9.0), None) == (1, 5, 2, 3, 9.0)
    assert sqlite_rows.cursor_of((1, 5, 2, 3, 9.0), (8, 4)) == (1, 8, 4, 3, 9.0)
    for impossible in ((1, 5, 6, 3, 9.0), (1, 5, 2, 6, 9.0)):
        with pytest.raises(Damaged):
            sqlite_rows.cursor_of(impossible, None)


def test_a_destination_is_found_with_its_newest_publication(open_at, tmp_path):
    broker = open_at(tmp_path / "relay.db")
    broker.publish([Draft("42", n) for n in range(3)])
    broker.flush()
    connection = sqlite3.connect(tmp_path / "relay.db")
    assert sqlite_rows.find_cursor(connection, "42")[1:4] == (3, 0, 0)
    assert sqlite_rows.find_cursor(connection, "other") is None
    connection.close()
