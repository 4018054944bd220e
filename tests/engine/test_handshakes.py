"""New sessions, and WebSockets that take over from polling."""

import json
import threading

import pytest
from conftest import DEADLINE, wait_for
from echo import POLLING, WEBSOCKET, Echo, in_background

from pushrelay.engine import handshakes, link
from pushrelay.server.conversation import Conversation
from pushrelay.server.limiter import ConnectionLimiter


@pytest.fixture
def echo(serve):
    return Echo(serve)


# The handshake.


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_open_packet_has_everything_that_a_client_must_know(echo, transport):
    if transport == "polling":
        packet = echo.client.request("GET", POLLING)[2].decode()
    else:
        packet = echo.client.websocket(WEBSOCKET).receive()
    assert packet[0] == "0"
    opened = json.loads(packet[1:])
    assert opened.pop("sid")
    upgrades = ["websocket"] if transport == "polling" else []
    assert opened == {"upgrades": upgrades, "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1000000}


def test_a_client_that_the_app_refuses_gets_a_401(echo):
    echo.eio.on("connect", lambda sid, environ: False)
    assert echo.client.request("GET", POLLING)[0] == 401
    assert " 401 " in echo.client.websocket(WEBSOCKET).status
    assert not echo.eio.sockets and not echo.gone


def test_a_session_that_is_closed_before_its_websocket_begins_ends_the_websocket(echo, monkeypatch):
    echo.open()  # which makes the heartbeat
    begin = echo.eio.heartbeat.begin

    def begin_and_close(session):
        begin(session)
        session.close()

    monkeypatch.setattr(echo.eio.heartbeat, "begin", begin_and_close)
    client = echo.client.websocket(WEBSOCKET)
    client.sock.settimeout(DEADLINE)
    assert "101" in client.status and client.receive() is None, "the close frame"
    assert [reason for _, reason in echo.gone] == ["server disconnect"]


@pytest.mark.parametrize("is_probe", [False, True])
def test_a_session_that_is_closed_while_its_websocket_begins_sends_nothing_before_the_handshake(
    echo, monkeypatch, is_probe
):
    sid, upgrade, counts = echo.open(), Conversation.upgrade, []
    draining = threading.Thread(target=lambda: counts.append(echo.eio.drain(lambda sid: None, 0.0)))

    def upgrade_while_draining(self, receiver, head):
        draining.start()
        draining.join(0.5)
        return upgrade(self, receiver, head)

    monkeypatch.setattr(Conversation, "upgrade", upgrade_while_draining)
    client = echo.client.websocket(f"{WEBSOCKET}&sid={sid}" if is_probe else WEBSOCKET)
    client.sock.settimeout(DEADLINE)
    assert "101" in client.status
    assert is_probe or client.receive()[0] == "0"
    assert client.receive() is None, "the close frame"
    draining.join(DEADLINE)
    assert counts == [1 if is_probe else 2]


# The move from polling to a WebSocket.


def test_an_upgrade_moves_the_session_and_ends_its_polls(echo):
    sid, client = echo.upgrading()
    assert echo.get(sid) == (200, "6")
    client.send("5")
    client.send("4hello")
    assert client.receive() == "4hello"
    assert echo.eio.transport(sid) == "websocket"


def test_a_parked_poll_is_answered_when_a_websocket_probes(echo):
    sid = echo.open()
    poll = in_background(echo.get, sid)
    wait_for(echo.is_parked(sid))
    client = echo.client.websocket(f"{WEBSOCKET}&sid={sid}")
    client.send("2probe")
    assert poll() == (200, "6")


def test_packets_sent_during_an_upgrade_arrive_once_and_in_order(echo):
    sid, client = echo.upgrading()
    for number in range(3):
        echo.eio.send(sid, f"a{number}")
    client.send("5")
    wait_for(lambda: echo.eio.sockets[sid].upgraded)
    echo.eio.send(sid, "b")
    assert [client.receive() for _ in range(4)] == ["4a0", "4a1", "4a2", "4b"]


def test_after_the_upgrade_polls_and_other_websockets_are_refused(echo):
    sid, client = echo.upgrading()
    client.send("5")
    wait_for(lambda: echo.eio.sockets[sid].upgraded)
    assert echo.get(sid)[0] == 400
    assert echo.client.websocket(f"{WEBSOCKET}&sid={sid}").receive() is None
    client.send("4hello")
    assert client.receive() == "4hello"


def test_an_upgrade_is_refused_while_a_post_is_handled_and_polling_continues(echo):
    sid, client = echo.upgrading()
    handling, go_on, together = threading.Event(), threading.Event(), []

    def handle(sid, data):
        if data == "slow":
            handling.set()
            together.append(not go_on.wait(DEADLINE))
        else:
            together.append(not go_on.is_set())
            echo.eio.send(sid, data)

    echo.eio.on("message", handle)
    answer = in_background(echo.post, sid, "4slow")
    assert handling.wait(DEADLINE)
    try:
        client.send("5")
        client.send("4beside it")
        assert client.receive() is None
    finally:
        go_on.set()
    assert answer() == (200, "ok") and not echo.eio.sockets[sid].upgraded
    assert echo.post(sid, "4behind it") == (200, "ok")
    wait_for(lambda: not echo.eio.sockets[sid].upgrading)
    assert echo.get(sid) == (200, "4behind it") and together == [False, False]


def test_a_post_that_was_read_while_a_websocket_took_over_is_refused(echo):
    sid, client = echo.upgrading()
    session = echo.eio.sockets[sid]
    client.send("5")
    wait_for(lambda: session.upgraded)
    assert not session.begin_post()
    client.send("4hello")
    assert client.receive() == "4hello"


def test_a_probe_that_breaks_off_leaves_the_session_polling(echo):
    sid, client = echo.upgrading()
    client.close()
    wait_for(lambda: echo.eio.sockets[sid]._probe is None)
    assert echo.post(sid, "4still here") == (200, "ok")
    assert echo.get(sid) == (200, "4still here")


def test_after_a_probe_that_broke_off_polls_wait_again(echo):
    sid, probe = echo.upgrading()
    probe.close()
    wait_for(lambda: echo.eio.sockets[sid]._probe is None, "its end")
    poll = in_background(echo.get, sid)
    wait_for(echo.is_parked(sid), "a poll that waits")
    echo.eio.send(sid, "hello")
    assert poll() == (200, "4hello")


@pytest.mark.parametrize("probes", [False, True])
def test_a_websocket_that_never_takes_over_is_closed(echo, monkeypatch, probes):
    monkeypatch.setattr(handshakes, "UPGRADE_SECONDS", 1 if probes else 0.2)
    monkeypatch.setattr(link, "CLOSE_SECONDS", 0.2)
    sid = echo.open()
    for _ in range(2):
        client = echo.websocket_of(sid)
        if probes:
            client.send("2probe")
            assert client.receive() == "3probe"
        assert client.receive() is None
        wait_for(lambda: echo.eio.sockets[sid]._probe is None, "room for another")


def test_no_client_upgrades_while_the_relay_goes_down(echo):
    sid = echo.open()
    echo.eio.stop_accepting()
    assert " 503 " in echo.websocket_of(sid).status


def test_no_client_upgrades_on_a_connection_for_one_request(serve):
    limiter = ConnectionLimiter(connections=2, spare=4, lingering=2)
    echo = Echo(serve, limiter)
    sid = echo.open()
    usual = [echo.client.connect() for _ in range(2)]
    wait_for(lambda: limiter.count == 2, "the unrestricted slots to be used")
    assert " 503 " in echo.client.websocket(f"{WEBSOCKET}&sid={sid}").status
    for each in usual:
        each.close()
