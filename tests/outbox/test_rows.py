"""Rows are checked as pushes over HTTP are; those that cannot be pushed have a reason, and stop no others."""

import pytest

from pushrelay.outbox.rows import sort_rows
from pushrelay.settings import load

SETTINGS = load({}, {"config": "/dev/null", "max_body": "2000", "max_id_length": "10"})


def row(id_=1, destination="42", data="x", is_json="0", event=None, ttl=None, size=None):
    return (str(id_), destination, "2026-01-01 00:00:00", data, str(size or len(data)), is_json, event, ttl)


def test_rows_become_publications_in_their_order():
    rows = [row(3, data="text"), row(5, data='{"a": [1.0, "\\u00e4"]}', is_json="1", event="order", ttl="60"), row(4)]
    found = sort_rows(rows, SETTINGS)
    assert [each.text for each in found.items] == ['"text"', '{"a":[1.0,"ä"]}', '"x"']
    assert (found.items[1].event, found.items[1].ttl, found.items[0].event, found.items[0].ttl) == (
        "order",
        60,
        "push",
        None,
    )
    assert list(found.stored) == [3, 5, 4] and not found.refused


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (row(destination=""), "missing_destination: "),
        (row(destination="x" * 11), "invalid_destination: a destination must have at most 10 characters"),
        (row(destination="a\n"), "invalid_destination: "),
        (row(data="{", is_json="1"), "invalid_json: data is not JSON: "),
        (row(data="NaN", is_json="1"), "invalid_json: "),
        (row(data="[" * 200 + "]" * 200, is_json="1"), "invalid_json: data is not JSON: it is nested more than 100"),
        (row(data="1e999", is_json="1"), "invalid_data: "),
        (row(data='"' * 1500), "too_large: the data takes 3002 bytes as JSON"),
        ((*row()[:3], None, "2001", "0", None, None), "too_large: the data takes 2001 bytes, and at most 2000"),
        (row(event=""), "invalid_event: "),
        (row(event="relay_lost"), "invalid_event: "),
        (row(ttl="-1"), "invalid_ttl: "),
        ((*row()[:3], b"\xff", "1", "0", None, None), "invalid_data: the column data is binary"),
        ((*row()[:3], None, None, "0", None, None), "missing_data: data is NULL"),
        (row(ttl="soon"), "the relay cannot read this row: "),
    ],
)
def test_a_row_that_cannot_be_pushed_has_a_reason_and_stops_no_others(wrong, words):
    found = sort_rows([wrong, row(2)], SETTINGS)
    assert [each.destination for each in found.items] == ["42"] and list(found.stored) == [2]
    [(reason, ids)] = found.refused.items()
    assert ids == [1] and reason.startswith(words) and len(reason) <= 500
