"""The names that are counted most often, in a fixed amount of memory."""

import random

from pushrelay.top_names import LONGEST, MOST, TopNames


def test_few_names_are_counted_exactly():
    names = TopNames()
    for name in "abcab":
        names.add(name)
    names.add("c", 5)
    assert names.largest(2) == [("c", 6), ("a", 2)]


def test_a_frequent_name_is_found_among_thousands_and_never_counted_too_often():
    chance, names, counts = random.Random(1), TopNames(), {}
    for _ in range(20_000):
        name = f"hot{chance.randrange(5)}" if chance.random() < 0.3 else f"cold{chance.randrange(5000)}"
        counts[name] = counts.get(name, 0) + 1
        names.add(name)
    found = names.largest(5)
    assert {name for name, _ in found} == {f"hot{each}" for each in range(5)}
    assert all(0.7 * counts[name] < count <= counts[name] for name, count in found)
    assert len(names.largest(100_000)) <= MOST


def test_old_counts_go_when_they_are_renewed_twice():
    names = TopNames()
    names.add("old", 9)
    names.renew()
    names.add("new")
    assert names.largest(9) == [("old", 9), ("new", 1)]
    names.renew()
    assert names.largest(9) == [("new", 1)]


def test_long_names_are_cut():
    names = TopNames()
    names.add("x" * 9999)
    assert names.largest(1) == [("x" * LONGEST, 1)]
