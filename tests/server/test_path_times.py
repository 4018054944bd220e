"""Which paths count as quick or slow."""

from conftest import wait_for

from pushrelay.server import path_times
from pushrelay.server.path_times import KNOWN_PATHS, LONGEST_PATH, QUICK_SECONDS, PathTimes


def test_known_paths_are_short_and_few_and_strangers_cannot_keep_others_out():
    paths = PathTimes()
    for number in range(KNOWN_PATHS + 10):
        paths.record(f"/{number}", 0.0)
        paths.mark_slow(f"/{number}")
    paths.record("/" + "x" * LONGEST_PATH, 0.0)
    paths.mark_slow("/" + "x" * LONGEST_PATH)
    paths.record("/push", 0.0)
    assert paths.is_quick("/push")
    for known in (paths._quick, paths._slow):
        assert len(known) <= KNOWN_PATHS and max(map(len, known)) <= LONGEST_PATH


def test_a_path_is_quick_after_a_quick_answer_only():
    paths = PathTimes()
    paths.record("/slow", QUICK_SECONDS)
    paths.record("/quick", QUICK_SECONDS / 2)
    assert not paths.is_quick("/slow") and paths.is_quick("/quick")


def test_a_path_that_blocked_a_thread_counts_as_slow_for_a_while(monkeypatch):
    paths = PathTimes()
    monkeypatch.setattr(path_times, "SLOW_SECONDS", 0.3)
    paths.mark_slow("/slow")
    assert paths.is_slow("/slow") and not paths.is_slow("/other")
    wait_for(lambda: not paths.is_slow("/slow"), "the end of SLOW_SECONDS")
