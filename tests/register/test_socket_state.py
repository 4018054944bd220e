"""The state of a socket: since which offset it has been sent everything in a room."""

from pushrelay.register.socket_state import STATE_KEY, SocketState, state_of


def test_a_socket_has_one_state_and_a_client_that_comes_back_has_another():
    environ = {}
    state = state_of("a", environ)
    assert state_of("a", environ) is state is environ[STATE_KEY]
    assert state_of("b", environ) is not state and state_of("b", environ).sid == "b"


def test_each_room_has_its_own_offset():
    state = SocketState("s")
    for number in range(3):
        state.entered(f"to:{number}", "epoch", number)
    assert [state.delivered_since(f"to:{number}", "epoch") for number in range(4)] == [0, 1, 2, None]
    state.left("to:0")
    assert state.delivered_since("to:0", "epoch") is None and state.delivered_since("to:1", "epoch") == 1


def test_a_room_that_was_entered_twice_and_left_leaves_nothing_behind():
    state = SocketState("s")
    for n in range(100):
        state.entered("first", "epoch", 0)
        state.entered(f"to:{n}", "epoch", 5)
        state.left("first")
        state.entered(f"to:{n}", "epoch", 3)
        assert state.delivered_since(f"to:{n}", "epoch") == 3
        state.left(f"to:{n}")
        assert state.delivered_since(f"to:{n}", "epoch") is None
    assert not state._others


def test_deliveries_of_an_earlier_epoch_do_not_count_in_a_later_one():
    state = SocketState("sid")
    state.entered("42", "before", 5)
    assert (state.delivered_since("42", "before"), state.delivered_since("42", "after")) == (5, None)
    state.entered("43", "after", 1)
    assert (state.delivered_since("42", "after"), state.delivered_since("43", "after")) == (None, 1)
