"""The meanings of the codes of refusals and of the reasons of disconnects."""

from pushrelay.errors import CODES
from pushrelay.status.meanings import DISCONNECTS, MOST, REFUSALS, rows


def test_the_largest_counts_come_first_and_are_explained():
    found = rows({"slow": 2, "ping timeout": 5, "an app's own": 1}, "reason", DISCONNECTS)
    assert [(each["reason"], each["count"], bool(each["meaning"])) for each in found] == [
        *(("ping timeout", 5, True), ("slow", 2, True), ("an app's own", 1, False)),
    ]
    assert len(rows({str(each): each for each in range(99)}, "code", REFUSALS)) == MOST


def test_most_codes_that_are_explained_are_codes_of_the_relay():
    of_engine = {"draining", "old_client", "session", "too_many_connections", "too_many_of_address"}
    assert set(REFUSALS) - set(CODES) <= of_engine
