"""The verdict of a chaos run finds what is wrong, and nothing else."""

import pytest
from browser_verdict import Kind, Ledger, Verdict

PLAIN = {("page", "feed"): Kind()}


def verdict_of(*records, kinds=PLAIN, count=6):
    """Return the violations. A record is a number, or a tuple of what happened and its value."""
    ledger, life = Ledger(), 0
    for serial, record in enumerate([("start", None), ("registered", -1), *records]):
        what, value = record if isinstance(record, tuple) else ("push", record)
        life += what == "start"
        id_ = "feed" if what in ("push", "registered", "lost") else ""
        ledger.note(serial, "page", str(life), what, id_, value)
    return Verdict(ledger, kinds, count).violations


START, CRASH, LOST, ONLINE = ("start", None), ("crash", None), ("lost", None), ("status", ["online"])


@pytest.mark.parametrize(
    "records",
    [
        [0, 1, 2, 3, 4, 5],
        [0, 1, START, 2, 3, 4, 5],
        [0, 1, LOST, 4, 5],
        [0, 1, 4, LOST, 5],
        [0, 1, 2, CRASH, START, 1, 2, 3, 4, 5],
        [ONLINE, 0, 1, 2, 3, 4, 5, ONLINE, ("status", ["recovered"])],
        [("error", "token_failed"), 0, 1, 2, 3, 4, 5],
    ],
)
def test_a_page_that_received_everything_or_was_told_is_right(records):
    assert verdict_of(*records) == []


@pytest.mark.parametrize(
    "records, sentence",
    [
        ([0, 1, 3, 4, 5], "lost 2 to 2 unannounced"),
        ([1, 2, 3, 4, 5], "lost 0 to 0 unannounced"),
        ([0, 1, START, 3, 4, 5], "lost 2 to 2 unannounced"),
        ([0, 2, 4, LOST, 5], "lost 1 to 1 unannounced"),
        ([0, 1, 1, 2, 3, 4, 5], "1 came after 1"),
        ([0, 2, 1, LOST, 3, 4, 5], "1 came after 2"),
        ([0, 1, START, 1, 2, 3, 4, 5], "1 came after 1"),
        ([0, 1, LOST, 2, 3, 4, 5], "nothing was missing"),
        ([0, 1, 2, 3, 4], "ends with 4"),
        ([ONLINE, 0, 1, 2, ONLINE, 3, 4, 5], "neither recovered nor lost"),
        ([("error", "not_registered"), 0, 1, 2, 3, 4, 5], "error not_registered"),
    ],
)
def test_everything_that_is_wrong_is_a_violation(records, sentence):
    violations = verdict_of(*records)
    assert any(sentence in each for each in violations), violations


def test_only_an_inbox_may_get_something_again_and_only_in_the_next_page():
    inbox = {("page", "feed"): Kind(repeats=True)}
    assert verdict_of(0, 1, 2, START, 1, 2, 3, 4, 5, kinds=inbox) == []
    assert verdict_of(0, 1, 2, 1, 2, 3, 4, 5, kinds=inbox) != []


def test_a_frame_begins_where_it_registers():
    frame = {("page", "feed"): Kind(keeps=False)}
    assert verdict_of(0, 1, START, ("registered", 3), 4, 5, kinds=frame) == []
    assert verdict_of(0, 1, START, ("registered", 3), 5, kinds=frame) == ["page feed: lost 4 to 4 unannounced"]


def test_records_that_arrive_late_or_twice_have_their_place():
    ledger = Ledger()
    for serial, what, value in [(0, "start", None), (1, "push", 0), (3, "push", 2), (2, "push", 1), (3, "push", 2)]:
        ledger.note(serial, "page", "life", what, "feed" if value is not None else "", value)
    assert Verdict(ledger, PLAIN, 3).violations == []
