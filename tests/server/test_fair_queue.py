"""The queue in which shares take turns."""

import pytest

from pushrelay.server.fair_queue import FairQueue


class Entry:
    """An entry of the queue with a name for the test."""

    def __init__(self, share, name=""):
        self.share, self.name = share, name


def test_a_share_with_many_entries_has_as_many_turns_as_a_share_with_one():
    queue = FairQueue()
    crowd, other = [Entry("a", "crowd") for _ in range(100)], Entry("b", "other")
    for each in (*crowd, other):
        queue.add(each)
        queue.add(each)  # it is queued already
    turns = []
    for _ in range(20):
        entry = queue.pop()
        turns.append(entry.name)
        queue.add(entry)
    assert turns.count("other") == 10
    assert queue.count == len(queue) == 101


def test_a_share_keeps_the_order_of_its_entries():
    queue = FairQueue()
    first, second, third, other = Entry("a"), Entry("a"), Entry("a"), Entry("b")
    for each in (first, second, third, other):
        queue.add(each)
    assert [queue.pop() for _ in range(4)] == [first, other, second, third]
    with pytest.raises(IndexError):
        queue.pop()


def test_a_removed_entry_leaves_the_turns_of_others_as_they_were():
    first, second, third = Entry("a"), Entry("b"), Entry("a")
    queue = FairQueue()
    for each in (first, second, third):
        queue.add(each)
    assert queue.remove(first) and queue.remove(third) and not queue.remove(third)
    assert (len(queue), queue.pop()) == (1, second)
    queue.add(first)
    assert (len(queue), queue.pop()) == (1, first)


def test_many_removed_entries_leave_the_turns_of_others_as_they_were():
    entries = [Entry(share, f"{share}{n}") for n in range(3) for share in "abc"]
    queue = FairQueue()
    for each in entries:
        queue.add(each)
    queue.remove_all(
        [each for each in entries if each.name in ("a0", "a2", "b0", "b1", "b2")] + [Entry("a"), Entry("d")]
    )
    queue.remove_all([])
    assert len(queue) == 4
    assert [queue.pop().name for _ in range(4)] == ["a1", "c0", "c1", "c2"]
    queue.add(entries[1])
    assert (len(queue), queue.pop().name) == (1, "b0")


def test_an_entry_whose_share_changes_while_it_waits_is_queued_once():
    queue = FairQueue()
    entry = Entry("a")
    queue.add(entry)
    entry.share = "b"
    queue.add(entry)
    assert (len(queue), queue.pop(), len(queue)) == (1, entry, 0)
