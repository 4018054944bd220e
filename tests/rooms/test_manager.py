"""The manager of rooms, without a network: clients, their rooms, and the events that it sends them."""

from types import SimpleNamespace

import pytest
import socketio
from conftest import wait_for

from pushrelay.engine.engine import Engine
from pushrelay.rooms.fan_out import FEW
from pushrelay.rooms.manager import RoomManager


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    return socketio.Server(client_manager=RoomManager(), async_handlers=False).manager


def connect(manager, eio_sid, *rooms, namespace="/"):
    manager.server.environ[eio_sid] = {}
    sid = manager.enter_namespace(eio_sid, namespace)
    for room in rooms:
        manager.basic_enter_room(sid, namespace, room)
    return sid


def test_a_client_is_in_its_own_room_and_in_those_that_it_entered(manager):
    sid = connect(manager, "a", "to:1", "to:2")
    assert set(manager.get_rooms(sid, "/")) == {sid, "to:1", "to:2"}
    assert manager.sids_in(["to:1", sid, "to:none"]) == {sid}
    assert manager.sid_from_eio_sid("a", "/") == sid and manager.eio_sid_from_sid(sid, "/") == "a"


def test_a_client_enters_a_namespace_once_and_only_while_it_is_connected(manager):
    assert connect(manager, "a") and connect(manager, "a") is None
    assert manager.enter_namespace("gone", "/") is None


def test_no_client_can_enter_the_room_of_another_client(manager):
    first, second = connect(manager, "a"), connect(manager, "b")
    with pytest.raises(ValueError):
        manager.basic_enter_room(first, "/", second)
    with pytest.raises(ValueError):
        manager.basic_enter_room("gone", "/", "to:1")


def test_the_root_namespace_comes_first(manager):
    connect(manager, "a", namespace="/chat")
    connect(manager, "a")
    assert manager.namespaces_of("a") == ["/", "/chat"] and manager.namespaces_of("b") == []


def test_a_client_that_left_leaves_nothing_behind(manager):
    before = dict(manager.rooms)
    sid = connect(manager, "a", "to:1", "to:2")
    manager.basic_disconnect(sid, "/")
    assert manager.rooms == before and not manager._sids and not manager._rooms_of
    assert manager.presence(["to:1"]) == {"connections": 0}


def test_an_event_is_written_once_for_all_clients_of_a_room_and_not_for_none(manager):
    written = []

    def write():
        written.append(1)
        return '["push",{}]'

    first, _ = connect(manager, "a", "to:1"), connect(manager, "b", "to:1")
    assert manager.deliver_text(write, "to:2") == 0 and not written
    assert manager.deliver_text(write, "to:1", skip_sid=first) == 1
    assert manager.deliver_text(write, "to:1") == 2 and len(written) == 2


def test_clients_that_are_just_leaving_do_not_make_others_wait_for_a_large_room(manager):
    """Their sessions are gone, and the app's handler of the disconnect is still at work."""
    for number in range(FEW + 2):
        connect(manager, str(number), "to:1")
        if number:
            manager.server.eio.sockets[str(number)] = SimpleNamespace(closed=True)
    fan_out = manager.deliver_in_turns(lambda: '["e"]', "to:1")
    assert (fan_out.connections, fan_out.left) == (FEW + 2, FEW + 1)


def test_a_client_without_a_session_has_room_for_everything(manager):
    sid = connect(manager, "a")
    assert manager.has_room(sid, 10**9) and not manager.has_outbox(sid)
    assert manager.send_if_clear('["push",{}]', sid) and manager.overdraft(sid) == 0
    called = []
    manager.call_when_clear(sid, lambda: called.append(1))
    wait_for(lambda: called == [1], "the call")


def test_the_destinations_with_the_most_clients_are_found(manager):
    for each in range(3):
        connect(manager, f"eio{each}", "to:busy", f"to:own{each}", "an app's room")
    connect(manager, "eio9", "to:two", "me:two")
    connect(manager, "eio8", "to:two")
    assert manager.largest(2) == [("to:busy", 3), ("to:two", 2)]
    assert sorted(manager.largest(9)[2:]) == [("me:two", 1), *((f"to:own{each}", 1) for each in range(3))]
