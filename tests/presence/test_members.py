"""The users at destinations: each counts once, is admitted up to a limit, and leaves after a time of grace."""

import threading
import time

import pytest

from pushrelay.access.member import Member
from pushrelay.errors import Refused
from pushrelay.presence.members import Members
from pushrelay.presence.person import member_text

ANN, BOB, CAT = Member("ann", '{"name":"Änn"}'), Member("bob"), Member("cat")


class Desk:
    """Members, and what they report. It stands for the rooms too: `rooms` has those of each socket."""

    def __init__(self, grace=0.0, most=100, **options):
        self.rooms, self.told, self.wakes = {}, [], []
        self.members = Members(self, threading.RLock(), lambda: grace, most, self.changed, self.wakes.append, **options)

    def get_rooms(self, sid, namespace):
        return self.rooms.get(sid, [])

    def changed(self, kind, destination, person):
        self.told.append((kind, destination, person.id))

    def register(self, sid, destinations, member):
        """Have a socket register, as Registration does."""
        admission = self.members.admit(sid, destinations, member)
        self.rooms.setdefault(sid, []).extend(f"to:{each}" for each in destinations)
        if admission is not None:
            admission.settle()

    def leave(self, sid, destination):
        self.rooms[sid].remove(f"to:{destination}")
        self.members.left(destination, sid)

    def ids(self, destination):
        return [id_ for id_, _, _ in self.members.at(destination)]


def test_a_user_comes_with_the_first_socket_and_leaves_with_the_last():
    desk = Desk()
    for sid in ("a", "b"):
        desk.register(sid, ["room"], ANN)
    desk.leave("a", "room")
    assert desk.ids("room") == ["ann"] and desk.members.count == 1
    desk.leave("b", "room")
    assert desk.told == [("join", "room", "ann"), ("leave", "room", "ann")]
    assert desk.ids("room") == [] and not list(desk.members.destinations()) and desk.members.count == 0


def test_a_socket_without_a_user_costs_nothing_and_ends_the_name_that_it_had():
    desk = Desk()
    assert desk.members.admit("a", ["room"], None) is None
    desk.register("a", ["room", "hall"], ANN)
    assert desk.members.admit("b", ["room"], None) is None
    desk.register("a", ["room"], None)
    assert desk.told[2:] == [("leave", "room", "ann")] and desk.ids("hall") == ["ann"]


def test_a_socket_that_becomes_another_user_leaves_as_the_first():
    desk = Desk()
    desk.register("a", ["room"], ANN)
    desk.register("a", ["room"], BOB)
    assert desk.told == [("join", "room", "ann"), ("leave", "room", "ann"), ("join", "room", "bob")]
    desk.leave("a", "room")
    assert desk.ids("room") == []


def test_the_last_register_decides_about_the_info_of_a_user():
    desk = Desk()
    desk.register("a", ["room"], ANN)
    desk.register("b", ["room"], ANN)
    desk.register("b", ["room"], Member("ann", '{"name":"Anne"}'))
    assert [(id_, info) for id_, info, _ in desk.members.at("room")] == [("ann", '{"name":"Anne"}')]
    assert desk.told == [("join", "room", "ann"), ("update", "room", "ann")]


def test_within_the_grace_a_user_comes_back_without_having_left():
    desk = Desk(grace=5.0)
    desk.register("a", ["room"], ANN)
    desk.leave("a", "room")
    now = time.monotonic()
    assert now + 4 < desk.members.end_due(now + 4) < now + 6 and desk.wakes == [5.0]
    desk.register("b", ["room"], ANN)
    assert desk.members.end_due(now + 60) is None and desk.told == [("join", "room", "ann")]
    desk.leave("b", "room")
    assert desk.ids("room") == ["ann"], "until the grace is over"
    assert desk.members.end_due(now + 60) is None
    assert desk.told == [("join", "room", "ann"), ("leave", "room", "ann")] and desk.ids("room") == []


def test_a_register_in_progress_keeps_a_user_even_without_grace():
    """The socket leaves the room for its replay, and enters it again."""
    desk = Desk()
    desk.register("a", ["room"], ANN)
    admission = desk.members.admit("a", ["room"], ANN)
    desk.leave("a", "room")
    desk.rooms["a"].append("to:room")
    admission.settle()
    assert desk.told == [("join", "room", "ann")] and desk.ids("room") == ["ann"]
    admission = desk.members.admit("a", ["room"], ANN)
    desk.leave("a", "room")
    admission.withdraw()
    assert desk.told == [("join", "room", "ann"), ("leave", "room", "ann")]


def test_a_register_that_fails_leaves_nothing_behind():
    desk = Desk()
    desk.members.admit("a", ["room", "hall"], ANN).withdraw()
    assert not desk.told and not list(desk.members.destinations()) and desk.members.count == 0


def test_a_socket_that_disconnects_while_it_registers_does_not_stay_a_member():
    desk = Desk()
    admission = desk.members.admit("a", ["room"], ANN)
    desk.members.left("room", "a")  # before it is one
    admission.settle()
    assert desk.ids("room") == [] and [kind for kind, *_ in desk.told] == ["join", "leave"]


def test_the_member_beyond_the_limit_is_refused_at_all_destinations():
    desk = Desk(most=2, grace=5.0)
    desk.register("a", ["room"], ANN)
    desk.register("b", ["room"], BOB)
    with pytest.raises(Refused, match="max_members") as refused:
        desk.members.admit("c", ["hall", "room"], CAT)
    assert refused.value.error == "too_many_members" and "room" in refused.value.message
    assert list(desk.members.destinations()) == ["room"], "no place is taken"
    desk.register("d", ["room"], ANN)
    desk.leave("a", "room")
    desk.leave("d", "room")
    desk.register("e", ["room"], ANN)  # one who is about to leave is a member still
    desk.register("f", ["room"], None)
    desk.leave("b", "room")
    desk.members.end_due(time.monotonic() + 6)
    desk.register("c", ["hall", "room"], CAT)
    assert desk.ids("room") == ["ann", "cat"]


def test_the_limit_holds_for_registers_at_the_same_time():
    desk = Desk(most=10)
    admitted, barrier = [], threading.Barrier(8)

    def register_many(worker):
        barrier.wait()
        for number in range(20):
            try:
                admitted.append(desk.members.admit(f"{worker}-{number}", ["room"], Member(f"{worker}-{number}")))
            except Refused:
                continue

    threads = [threading.Thread(target=register_many, args=(worker,)) for worker in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(admitted) == 10
    for each in admitted:
        each.withdraw()
    assert not list(desk.members.destinations())


def test_members_by_other_nodes_count_and_may_come_here():
    desk = Desk(most=3, total=lambda destination: 3, is_elsewhere=lambda destination, id_: id_ == "ann")
    desk.register("a", ["room"], ANN)
    with pytest.raises(Refused, match="3 members"):
        desk.register("b", ["room"], BOB)
    assert desk.ids("room") == ["ann"]


def test_a_member_is_sent_as_json():
    assert member_text('a"b', '{"x":1}', 1790000000.12345) == '{"id":"a\\"b","info":{"x":1},"since":1790000000.123}'
