"""Clients take turns, and none of them occupies more than half of the threads."""

import random

from pushrelay.requests.turns import Turns


class Entry:
    """An entry of a share, with a name for the test."""

    def __init__(self, share, name=""):
        self.share, self.name = share, name


def added(turns, share, count):
    entries = [Entry(share, f"{share}{number}") for number in range(count)]
    for each in entries:
        turns.add(each)
    return entries


def test_a_share_has_half_of_the_threads_and_others_overtake_it():
    turns = Turns(4)
    added(turns, "a", 6), added(turns, "b", 1)
    assert [turns.pop().name for _ in range(len(turns))] == ["a0", "b0", "a1"]
    assert len(turns) == 0 and len(turns.waiting) == turns.waiting_of("a") == 4
    assert turns.done("a") and turns.pop().name == "a2"
    assert not turns.done("b")


def test_one_thread_serves_everybody():
    turns = Turns(1)
    added(turns, "a", 2), added(turns, "b", 2)
    served = []
    while len(turns):
        entry = turns.pop()
        served.append(entry.name)
        turns.done(entry.share)
    assert served == ["a0", "b0", "a1", "b1"]


def test_a_removed_entry_makes_room_for_the_next_of_its_share():
    turns = Turns(2)
    first, second, third = added(turns, "a", 3)
    assert turns.remove(first) and not turns.remove(first)
    assert turns.pop() is second and not turns.remove(second)
    assert turns.remove(third) and not turns.done("a")
    assert not turns.waiting and not turns.waiting_of("a")
    assert turns.add(Entry("a"))


def test_another_number_of_threads_applies_to_what_waits():
    turns = Turns(2)
    added(turns, "a", 8)
    assert len(turns) == 1
    turns.resize(8)
    assert [turns.pop().name for _ in range(len(turns))] == ["a0", "a1", "a2", "a3"]
    turns.resize(4)
    assert not turns.done("a") and not turns.done("a"), "two are still under way"
    assert turns.done("a") and turns.pop().name == "a4" and not len(turns)


def test_nothing_is_lost_or_counted_wrongly_whatever_happens():
    chance, turns, sent = random.Random(7), Turns(6), []
    for _ in range(5000):
        does = chance.randrange(4)
        if does == 0:
            turns.resize(chance.choice((2, 6, 8)))
            turns.add(Entry(chance.choice("abc")))
        elif does == 1 and len(turns):
            sent.append(turns.pop())
        elif does == 2 and sent:
            turns.done(sent.pop(chance.randrange(len(sent))).share)
        elif does == 3 and turns.waiting and chance.random() < 0.3:
            assert turns.remove(chance.choice(sorted(turns.waiting, key=id)))
        for share in "abc":
            under_way = sum(each.share == share for each in sent)
            assert under_way <= 4, "half of the most threads there were"
            assert turns.waiting_of(share) == sum(each.share == share for each in turns.waiting)
    while turns.waiting or sent:
        if len(turns):
            sent.append(turns.pop())
        turns.done(sent.pop().share)
    assert not turns._slots and not turns._held and not turns._waiting_of and not len(turns)
