"""The mark of the outbox is read as it was written."""

import pytest

from pushrelay.errors import StoreError
from pushrelay.outbox.mark import Noted, fingerprint, read, write


def test_a_mark_is_read_as_it_was_written():
    noted = Noted({1: fingerprint("42", "2026-01-01", "x"), 2**64 - 1: 0}, [(3, 9), (12, 12)])
    assert read(write(noted)) == noted
    assert read("") == read(write(Noted({}, []))) == Noted({}, [])


def test_rows_with_other_contents_have_other_fingerprints():
    rows = [("42", "2026", "x"), ("4", "22026", "x"), ("42", "2026", "y"), ("42", "2026", "\udc00")]
    assert len({fingerprint(*row) for row in rows}) == len(rows)


@pytest.mark.parametrize("text", ["x", "[2,[],[]]", "[1,[[1]],[]]", "[1]", '{"a":1}', "[1,null,[]]"])
def test_a_mark_of_a_later_relay_is_not_guessed(text):
    with pytest.raises(StoreError, match="install the later relay again"):
        read(text)
