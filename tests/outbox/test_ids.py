"""The ids of the rows that are still to be taken."""

from pushrelay.outbox.ids import Ids


def test_ids_are_taken_in_order_and_may_be_put_back():
    ids = Ids.of([1, 2, 3, 7, 9, 10])
    assert ids.first_ranges(10) == [(1, 3), (7, 7), (9, 10)] and len(ids) == 6
    assert ids.take(2) == [1, 2] and ids.take(3) == [3, 7, 9]
    ids.put_back([7, 9])
    assert ids.first_ranges(2) == [(7, 7), (9, 9)]
    assert ids.take(10) == [7, 9, 10]
    assert not ids and ids.take(1) == [] and not Ids.of([])


def test_a_large_backlog_takes_little_memory():
    ids = Ids([(1, 10**9), (10**9 + 2, 2 * 10**9)])
    assert ids.take(3) == [1, 2, 3] and len(ids) == 2 * 10**9 - 4


def test_higher_ids_can_be_added():
    ids = Ids()
    for each in ([1, 2], [], [3, 5], [9]):
        ids.add(each)
    assert ids.first_ranges(9) == [(1, 3), (5, 5), (9, 9)] and len(ids) == 5
