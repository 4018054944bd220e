"""The clients of a node, as a broker that several relays share sees them: over real sockets."""

import json

import pytest
import socketio
from conftest import DEADLINE, wait_for

from pushrelay.engine.engine import Engine
from pushrelay.push.waiters import Waiters
from pushrelay.register.node_clients import NodeClients
from pushrelay.register.registrations import Registrations
from pushrelay.register.subscription import delivery
from pushrelay.rooms.manager import RoomManager
from pushrelay.settings import Settings
from pushrelay.store import Draft, open_broker


class Site:
    """A relay without Flask, and its NodeClients."""

    def __init__(self, serve):
        settings = Settings()
        rooms = RoomManager()
        self.server = socketio.Server(client_manager=rooms, async_handlers=False, ping_interval=25, ping_timeout=20)
        self.broker = open_broker("memory:", delivery(rooms, settings))
        self.broker.start()
        self.waiters = Waiters(10)
        registrations = Registrations(self.broker, rooms, settings, self.waiters.note, lambda environ: "")
        self.clients = NodeClients(rooms, registrations, self.waiters, spread=0.0)
        self.changes = []
        self.clients.report_changes(lambda destination, is_empty: self.changes.append((destination, is_empty)))
        for event in ("register", "unregister"):
            handle = getattr(registrations, event)
            self.server.on(
                event, lambda sid, message, handle=handle: handle(message, sid, self.server.get_environ(sid))
            )
        self.server.on("connect", lambda sid, environ, auth: None)
        self.client = serve(socketio.WSGIApp(self.server))

    def connect(self, *ids):
        """Return a WebSocket that is registered for these ids."""
        socket = self.client.websocket("/socket.io/?EIO=4&transport=websocket")
        socket.receive()
        socket.send("40")
        socket.sid = json.loads(socket.receive()[2:])["sid"]
        if ids:
            socket.send("421" + json.dumps(["register", {"id": list(ids)}]))
            assert '"position"' in socket.receive()
        return socket

    def push(self, destination, data):
        return self.broker.publish([Draft(destination, data)])[0].connections


@pytest.fixture
def site(serve, monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    site = Site(serve)
    yield site
    site.broker.close()


def test_every_socket_of_a_destination_counts_once(site):
    first, _ = site.connect("42", "7"), site.connect("42")
    assert site.clients.holders("42")[0] == 2 and site.clients.holders("7")[0] == 1
    assert site.clients.holders("nobody") == (0, 0.0)
    assert 1_600_000_000 < site.clients.holders("42")[1] < 5_000_000_000
    first.send('42["unregister",{"id":"42"}]')
    wait_for(lambda: site.clients.holders("42")[0] == 1, "the end of a registration")


def test_changes_name_the_destination_and_tell_when_the_last_one_left(site):
    first, second = site.connect("ä:b"), site.connect("ä:b", "7")
    assert site.changes == [("ä:b", False), ("ä:b", False), ("7", False)]
    site.changes.clear()
    first.send("42" + json.dumps(["unregister", {"id": "ä:b"}]))
    wait_for(lambda: site.changes == [("ä:b", False)], "one that left")
    site.changes.clear()
    second.close()
    wait_for(lambda: set(site.changes) == {("ä:b", True), ("7", True)}, "the last one that left")


def test_rooms_of_the_app_are_no_destinations(site):
    socket = site.connect("42")
    site.changes.clear()
    for room in ("a room", "chat:1", ""):
        site.server.enter_room(socket.sid, room)
        site.server.leave_room(socket.sid, room)
    assert site.changes == []


def test_sockets_of_some_destinations_are_disconnected_and_counted(site):
    first, second, third = site.connect("42"), site.connect("7"), site.connect("9", "42")
    assert site.clients.close(["42", "nobody"]) == 2
    for socket in (first, third):
        assert socket.receive() == "41"  # the end of the namespace: the page does not come back by itself
    assert site.push("42", "x") == site.push("9", "x") == 0 and site.push("7", "x") == 1
    assert '"x"' in second.receive()
    assert site.clients.close(["42"]) == 0


def test_sockets_that_must_reconnect_get_nothing_more_and_lose_their_connection(site):
    first, second = site.connect("42", "9"), site.connect("7")
    site.clients.send_back(["42"])
    assert site.push("42", "x") == site.push("9", "x") == 0
    first.sock.settimeout(DEADLINE)
    assert first.receive() is None  # its transport ended, so it comes back by itself
    assert site.push("7", "y") == 1 and '"y"' in second.receive()
    site.clients.send_back(["nobody"])


def test_acknowledgements_reach_the_pushes_that_wait_here(site):
    waiter = site.waiters.enter(["42"])
    receipts = site.broker.publish([Draft("42", "x")])
    answers = []
    assert site.clients.waiting() == ["42"]
    waiter.expect(receipts, answers.append)
    site.clients.acknowledged("42", 1, "sid")
    assert answers == [{"42": 1}]
