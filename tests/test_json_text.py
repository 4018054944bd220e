"""JSON within bounds."""

import json
import math

import pytest

from pushrelay import json_text


def nested(levels):
    return "[" * levels + "]" * levels


def test_the_depth_is_bounded_whatever_the_brackets_are_in():
    assert json_text.read(nested(100)) == json.loads(nested(100))
    with pytest.raises(json_text.TooDeep, match="100 levels"):
        json_text.read(nested(101))
    assert json_text.read(nested(101), around=1)
    in_strings = json.dumps(["[" * 500, '\\"[', "]"])
    assert json_text.read(in_strings) == json.loads(in_strings)


def test_numbers_that_exceed_a_double_are_infinite_and_take_no_time():
    assert json_text.read("1" * 309) == int("1" * 309)
    assert json_text.read("-" + "1" * 1_000_000) == math.inf
    with pytest.raises(ValueError, match="no double can hold"):
        json_text.check_numbers("[" + "9" * 310 + "]")
    json_text.check_numbers(json.dumps("9" * 310))


def test_what_is_javascript_but_not_json_is_refused():
    for text in ("NaN", "[Infinity]", "{'a': 1}", "[1,]", ""):
        with pytest.raises(json_text.NotJSON):
            json_text.read(text)


def test_an_array_is_taken_apart_without_reading_its_elements():
    assert json_text.elements('[1, {"a": [2]}, "],["]') == ["1", ' {"a": [2]}', ' "],["']
    for text in ("[1", "1]", "{}x", "[1] 2"):
        with pytest.raises(json_text.NotJSON, match="brackets"):
            json_text.elements(text)


def test_duplicate_names_are_found():
    assert json_text.names_that_come_twice('[{"a": 1, "a": 2}, {"a": 1}]') == [frozenset("a"), frozenset()]


def test_both_ways_to_write_json_agree():
    for value in ("text", "ü€😀\x00\u2028", [1, 1.5, None, True, {"a": []}], {}, -0.0):
        assert json_text.encode_decoded(value) == json_text.encode(value)
        assert json_text.decode(json_text.encode(value)) == value
