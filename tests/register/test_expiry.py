"""The times at which sockets lose their ids and their right to push."""

from conftest import wait_for

from pushrelay.access.tokens import Patterns, Rights
from pushrelay.register.expiry import SWEEP_AT, Expiries
from pushrelay.register.socket_state import SocketState
from pushrelay.store import open_broker
from pushrelay.store.maintenance import Maintenance

LATER = 4_000_000_000


def rights_of(expires, push=("a",)):
    return Rights(Patterns(["a"]), Patterns(push), expires)


def expiries_of(left=None):
    """Expiries whose sockets are all connected; `left` gets (sid, rooms) of those that have to leave."""
    left = [] if left is None else left
    return Expiries(lambda state, rooms: left.append((state.sid, rooms)), lambda sid: True)


def test_each_room_is_left_when_its_own_time_is_up():
    left, state = [], SocketState("s")
    expiries = expiries_of(left)
    expiries.set_expiry(state, ["to:a"], 10.0)
    expiries.set_expiry(state, ["to:b"], 20.0)
    assert expiries.end_due(9.9) == [] and left == []
    assert expiries.end_due(10.0) == [(state, ["to:a"])] and left == [("s", ["to:a"])]
    assert expiries.end_due(25.0) == [(state, ["to:b"])] and state.expiry == {}


def test_a_later_time_replaces_an_earlier_one_and_none_has_no_end():
    state, expiries = SocketState("s"), expiries_of()
    expiries.set_expiry(state, ["to:a", "to:b"], 10.0)
    expiries.set_expiry(state, ["to:a"], 20.0)
    expiries.set_expiry(state, ["to:b"], None)
    assert expiries.end_due(15.0) == []
    assert expiries.end_due(20.0) == [(state, ["to:a"])]


def test_earlier_times_can_be_restored():
    state, expiries = SocketState("s"), expiries_of()
    expiries.set_expiry(state, ["to:a"], 10.0)
    before = expiries.set_expiry(state, ["to:a", "to:b"], 20.0)
    assert before == {"to:a": 10.0, "to:b": None}
    expiries.restore(state, before)
    assert state.expiry == {"to:a": 10.0} and expiries.end_due(10.0) == [(state, ["to:a"])]


def test_the_right_to_push_ends_and_only_a_socket_that_had_one_is_returned():
    pushes, reads, expiries = SocketState("pushes"), SocketState("reads"), expiries_of()
    expiries.grant(pushes, rights_of(10.0))
    expiries.grant(reads, rights_of(10.0, push=()))
    assert expiries.end_due(10.0) == [(pushes, [])]
    assert pushes.rights is None and reads.rights is None


def test_a_room_that_was_left_does_not_expire():
    state, expiries = SocketState("s"), expiries_of()
    expiries.set_expiry(state, ["to:a"], 10.0)
    expiries.forget(state, "to:a")
    assert expiries.end_due(10.0) == []


def test_registering_in_a_loop_grows_nothing():
    gone = set()
    expiries = Expiries(lambda state, rooms: None, lambda sid: sid not in gone)
    state = SocketState("s")
    for n in range(5000):
        expiries.set_expiry(state, ["to:a"], LATER + n % 7)
        expiries.grant(state, Rights(Patterns(["a"]), Patterns([]), LATER + n % 5))
        expiries.forget(state, "to:a")
    assert len(expiries) < 3
    for n in range(5000):  # and the entries of those that left do not pile up until their time
        expiries.set_expiry(SocketState(f"s{n}"), ["to:a"], LATER)
        gone.add(f"s{n}")
    assert len(expiries) <= SWEEP_AT + 1


def test_a_failure_neither_ends_the_maintenance_nor_loses_an_expiry(caplog):
    failures = [KeyError("/")]

    def is_connected(sid):
        if failures:
            raise failures.pop()
        return True

    left = []
    expiries = Expiries(lambda state, rooms: left.extend(rooms), is_connected)
    expiries.set_expiry(SocketState("s"), ["to:a"], 1.0)
    maintenance = Maintenance(open_broker("memory:", lambda *_: 0), lambda: expiries.end_due(2.0))
    maintenance.start()
    wait_for(lambda: left == ["to:a"], "the end of it")
    maintenance.close()
    assert "maintenance failed" in caplog.text
