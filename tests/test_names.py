"""Names of destinations and events: what they may be, and what the errors say."""

import pytest

from pushrelay.errors import Refused
from pushrelay.names import check_exact, destinations_of, event_of, is_clean, kind_of
from pushrelay.settings import Settings


def error_of(function, *arguments):
    with pytest.raises(Refused) as refused:
        function(*arguments)
    return refused.value.error


@pytest.mark.parametrize(
    ("value", "names"),
    [("a", ["a"]), (42, ["42"]), (42.0, ["42"]), (["b", "a", "b", 1], ["b", "a", "1"]), ("ü ", ["ü "])],
)
def test_ids_become_strings_in_their_order_and_once(value, names):
    assert destinations_of(value, Settings()) == names


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", "missing_destination"),
        ([], "missing_destination"),
        (["a", ""], "missing_destination"),
        ("x" * 257, "invalid_destination"),
        ("a\n", "invalid_destination"),
        ("\ud800", "invalid_destination"),
        (1.5, "invalid_destination"),
        (True, "invalid_destination"),
        (None, "invalid_destination"),
        ({"id": 1}, "invalid_destination"),
        (10**40, "invalid_destination"),
        (["a"] * 1001, "too_many_destinations"),
    ],
)
def test_other_values_are_refused(value, error):
    assert error_of(destinations_of, value, Settings()) == error


def test_a_number_that_javascript_may_have_rounded_is_refused():
    check_exact([2**53 - 1, "90071992547409930"])
    assert error_of(check_exact, 2**53) == "invalid_id"


@pytest.mark.parametrize("name", ["", "x" * 101, "a\x7f", 1, "connect", "disconnecting", "relay_error"])
def test_an_event_has_a_short_clean_name_that_is_not_reserved(name):
    assert event_of("order") == "order"
    assert error_of(event_of, name) == "invalid_event"


def test_spaces_are_clean_and_control_characters_are_not():
    assert is_clean("a b") and is_clean("\u00a0") and not is_clean("\u0085") and not is_clean("\t")


def test_json_values_have_names():
    values = [{}, [], True, None, 1.5, 1, "a"]
    names = ["an object", "a list", "true or false", "null", "a fraction", "a number", "a string"]
    assert [kind_of(value) for value in values] == names
