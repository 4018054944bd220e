"""Numbers, durations and sizes as people read them."""

import pytest

from pushrelay.status.words import counted, duration, number, percent, sentence, size, split_advice


def test_numbers_have_their_thousands_separated_and_their_noun():
    assert [number(each) for each in (0, 999, 1284, 1e6)] == ["0", "999", "1,284", "1,000,000"]
    assert [counted(each, "browser") for each in (0, 1, 2)] == ["0 browsers", "1 browser", "2 browsers"]
    assert counted(2, "push", "pushes") == "2 pushes"


def test_percent_is_100_or_0_only_if_it_is_exactly_that():
    cases = [(0, 9), (1, 9000), (1, 2), (8999, 9000), (9, 9), (0, 0)]
    assert [percent(*each) for each in cases] == [0, 1, 50, 99, 100, None]


def test_sizes_and_durations_have_their_unit():
    assert [size(each) for each in (0, 512, 1536, 12 << 20, 41 << 30)] == [
        *("0 bytes", "512 bytes", "1.5 KiB", "12 MiB", "41 GiB"),
    ]
    assert [duration(each) for each in (0.04, 1.23, 42, 60, 90, 3600, 7200, 200_000)] == [
        *("0 s", "1.2 s", "42 s", "60 s", "2 minutes", "60 minutes", "2 hours", "2 days"),
    ]


@pytest.mark.parametrize(
    ("message", "what", "todo"),
    [
        ("/srv/relay.db: the disk is full: free some space, and the relay continues by itself",)
        + ("/srv/relay.db: the disk is full", "Free some space, and the relay continues by itself"),
        ("a key was wrong", "a key was wrong", ""),
        ("cannot accept connections: Too many open files; raise the limit on open files (ulimit -n)",)
        + ("cannot accept connections: Too many open files", "Raise the limit on open files (ulimit -n)"),
    ],
)
def test_what_a_message_says_to_do_is_set_apart(message, what, todo):
    assert split_advice(message) == (what, todo)


def test_half_a_sentence_becomes_a_whole_one():
    assert [sentence(each) for each in ("free some space", "Done.", "")] == ["Free some space.", "Done.", ""]
