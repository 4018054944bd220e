"""Positions, pages, and the event that a browser gets."""

import json

import pytest

from pushrelay.store.publication import Delivered, Kept, Publication, cut, offset_in, offset_of, position_of


def test_a_position_is_read_as_it_was_written():
    assert position_of("e", 12) == Delivered("e", 12, 15).position == "e:12"
    assert offset_in("e:12", "e") == offset_of("e:12") == 12


@pytest.mark.parametrize(
    "position", ["", ":", "12", "e", "e:", "x:12", "e:+1", "e: 1", "e:1_0", "e:²", "e:" + "9" * 19]
)
def test_a_text_that_is_not_a_position_of_the_epoch_has_no_offset(position):
    assert offset_in(position, "e") is None


def test_the_event_for_a_browser_has_the_data_as_it_was_pushed():
    publication = Publication('a"b', "e:1", "ä", '{"x":  [1]}', 0.0, 1.0)
    assert '{"x":  [1]}' in publication.as_event()
    assert json.loads(publication.as_event()) == ["ä", {"data": {"x": [1]}, "id": "e:1", "destination": 'a"b'}]
    assert publication.data == {"x": [1]}


def test_a_page_has_no_more_bytes_than_asked_for_but_one_publication():
    kept = [Kept(offset, "push", "x" * 10, 0.0, 1.0, False) for offset in range(1, 4)]
    assert cut(kept, None) == (kept, False)
    assert cut(kept, 30) == (kept, False)
    assert cut(kept, 29) == (kept[:2], True)
    assert cut(kept, 1) == (kept[:1], True)
    assert cut([], 1) == ([], False)
