"""The last warnings and errors are kept by kind, whatever becomes of the log."""

import logging

import pytest

from pushrelay.log.limiter import LogLimiter
from pushrelay.log.problems import LONGEST, MOST, Problems


@pytest.fixture
def problems():
    return Problems()


@pytest.fixture
def log(problems):
    log = logging.Logger("pushrelay.test", logging.INFO)
    log.addHandler(problems)
    return log


def test_the_same_kind_is_counted_and_has_the_text_of_the_last_time(log, problems):
    for each in range(3):
        log.error("pushes are refused: disk %d", each)
    log.warning("something else")
    log.info("nothing of interest")
    found = problems.latest()
    assert [(each.text, each.times, each.is_error) for each in found] == [
        *(("something else", 1, False), ("pushes are refused: disk 2", 3, True)),
    ]
    assert found[1].first <= found[1].last


def test_lines_that_the_log_leaves_out_are_counted(log, problems):
    limiter = LogLimiter(log, problems.again)
    for each in ("https://a.example", "https://b.example", "https://a.example", "https://a.example"):
        limiter.warn("origin", each, f"a page of {each} may not connect")
    [found] = problems.latest()
    assert (found.times, found.text) == (4, "a page of https://b.example may not connect")
    limiter._silences["origin"]["https://a.example"].until = 0.0  # a minute later
    limiter.warn("origin", "https://a.example", "a page of https://a.example may not connect")
    [found] = problems.latest()
    assert (found.times, found.text) == (5, "a page of https://a.example may not connect"), "not the lines left out"


def test_a_flood_of_warnings_leaves_the_errors(log, problems):
    log.error("the store is damaged")
    for each in range(5 * MOST):
        log.warning(f"kind {each}")
    found = problems.latest()
    assert len(found) == MOST and found[-1].text == "the store is damaged"
    for each in range(MOST):
        log.error(f"error {each}")
    assert len(problems.latest()) == MOST


def test_a_traceback_stays_in_the_log(log, problems):
    try:
        raise ValueError("what was pushed")
    except ValueError:
        log.exception("the handler of %s failed", "on_chat")
    [found] = problems.latest()
    assert found.text == "the handler of on_chat failed: the log has the traceback"


def test_a_text_is_bounded_and_has_no_control_characters(log, problems):
    log.warning("a\nb\x1b" + "c" * 9999)
    [found] = problems.latest()
    assert found.text.startswith("a\\nb\\x1bccc") and len(found.text) < LONGEST + 20
    log.warning("%d is not a number", "this")  # logging's own handlers do not raise either
    assert problems.latest()[0].text == "%d is not a number"


def test_the_end_of_a_problem_is_none(log, problems):
    log.error("the store is back: pushes are accepted again")
    assert problems.latest() == []
