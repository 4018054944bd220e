"""A message for many clients, which is sent in turns."""

import threading

from pushrelay.engine.packet import EncodedPacket
from pushrelay.rooms.fan_out import FanOut, Sessions


class Session:
    """A client that polls, has a WebSocket (also in the role of its connection), or fails."""

    closed = False

    def __init__(self, polls=False, fails=False):
        self.connection = None if polls else self
        self.fails = fails
        self.got = []

    def send(self, message):
        self.got.append(message.frame)

    def write(self, frame, limit):
        if self.fails:
            raise OSError
        self.got.append((frame, limit))


def test_each_client_gets_each_message_once_and_in_order_and_none_after_it_has_left():
    message, failed = EncodedPacket("4x"), []
    sessions = [Session(), Session(polls=True), Session(fails=True), Session(), Session()]
    fan_out = FanOut(message, sessions, 9, failed.append)
    assert (fan_out.connections, fan_out.left) == (5, 5) and not any(each.got for each in sessions)
    fan_out.go_on(2)
    assert fan_out.left == 3 and sessions[0].got == [(message.frame, 9)] and sessions[1].got == [message.frame]
    fan_out.go_on(0)
    assert fan_out.left == 3 and not failed
    sessions[3].closed = True
    fan_out.go_on(float("inf"))
    assert (fan_out.connections, fan_out.left) == (5, 0) and failed == [sessions[2]]
    assert not sessions[3].got and [len(each.got) for each in sessions] == [1, 1, 0, 0, 1]


def test_the_sessions_of_a_room_are_looked_up_once_until_a_client_enters_or_leaves():
    sessions, rooms = {"a": Session(), "b": Session()}, {"/": {"to:1": {"1": "a", "2": "b"}, "to:2": {"3": "c"}}}
    for each in sessions:
        sessions[each].sid = each
    known = Sessions(rooms, threading.Lock())
    found = known.of("to:1", sessions)
    assert found == list(sessions.values()) and known.of("to:1", {}) is found
    assert known.of("to:1", sessions, ["b"]) == [sessions["b"]]
    del rooms["/"]["to:1"]["2"]
    known.changed("to:1")
    assert known.of("to:1", sessions) == [sessions["a"]]
    assert known.of("to:2", sessions) == []
    sessions["c"] = Session()
    assert known.of("to:2", sessions) == [sessions["c"]]
