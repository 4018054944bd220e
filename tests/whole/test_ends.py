"""Ends: whatever way clients leave, everything of theirs is freed at once, and whatever ends, ends in time."""

import contextlib
import gc
import json
import threading
import time

import engineio
import pytest
from clients import PATH
from conftest import DEADLINE, wait_for

from pushrelay.engine import handshakes
from pushrelay.engine import link as link_module
from pushrelay.engine.deadlines import Deadlines
from pushrelay.engine.engine import Engine
from pushrelay.engine.heartbeat import Heartbeat
from pushrelay.server.conversation import Conversation
from pushrelay.server.limiter import ConnectionLimiter

POLLING, WEBSOCKET = PATH + "polling", PATH + "websocket"


@pytest.fixture
def engine(serve):
    """Return an Engine on our server, a session over polling, and the reasons for which sessions end."""

    def start(limiter=None, **options):
        eio, reasons = Engine(**{"ping_interval": 25, "ping_timeout": 20, **options}), []
        eio.on("connect", lambda sid, environ: None)
        eio.on("message", lambda sid, data: None)
        eio.on("disconnect", lambda sid, reason: reasons.append(reason))
        client = serve(engineio.WSGIApp(eio, engineio_path="socket.io"), **({"limiter": limiter} if limiter else {}))
        sid = json.loads(client.request("GET", POLLING)[2][1:])["sid"]
        return eio, client, sid, reasons

    return start


class Parked:
    """A GET that waits, and the packets in its response."""

    def __init__(self):
        self.got = None

    def answer(self, messages):
        self.got = [each.part for each in messages]


# Sessions.


def test_after_a_probe_that_broke_off_polls_wait_again(engine):
    eio, client, sid, _ = engine()
    probe = client.websocket(f"{WEBSOCKET}&sid={sid}")
    probe.send("2probe")
    assert probe.receive() == "3probe"
    probe.close()
    wait_for(lambda: eio.sockets[sid]._probe is None, "its end")
    answers = []
    poll = threading.Thread(target=lambda: answers.append(client.request("GET", f"{POLLING}&sid={sid}")[2]))
    poll.start()
    wait_for(lambda: eio.sockets[sid]._poll is not None or answers, "a poll that waits")
    eio.send(sid, "hello")
    poll.join(DEADLINE)
    assert answers == [b"4hello"]


def test_a_slow_poller_never_gets_packets_behind_a_gap(engine, monkeypatch):
    eio, _, sid, _ = engine(outbox_bytes=10_000)
    monkeypatch.setattr(eio, "close_soon", lambda session, reason: None)  # it is still open
    for _ in range(4):
        eio.send(sid, "x" * 6000)
    poll = Parked()
    messages = eio.sockets[sid].poll(lambda: poll)
    eio.send(sid, "behind the gap")
    assert messages is None and not poll.got


def test_the_loss_of_an_old_poll_does_not_end_a_session_that_polls_again(engine):
    eio, _, sid, reasons = engine()
    session, old, new = eio.sockets[sid], Parked(), Parked()
    assert session.poll(lambda: old) is None
    eio.send(sid, "hello")
    assert old.got == ["4hello"] and session.poll(lambda: new) is None
    session.poll_lost(old)
    assert not session.closed and reasons == []
    session.poll_lost(new)
    assert session.closed and reasons == ["transport close"]


def test_a_session_that_is_closed_before_its_websocket_begins_ends_the_websocket(engine, monkeypatch):
    eio, client, _, reasons = engine()
    begin = eio.heartbeat.begin

    def begin_and_close(session):
        begin(session)
        session.close()

    monkeypatch.setattr(eio.heartbeat, "begin", begin_and_close)
    link = client.websocket(WEBSOCKET)
    link.sock.settimeout(DEADLINE)
    assert "101" in link.status and link.receive() is None, "the close frame"
    assert reasons == ["server disconnect"]


@pytest.mark.parametrize("is_probe", [False, True])
def test_a_session_that_is_closed_while_its_websocket_begins_sends_nothing_before_the_handshake(
    engine, monkeypatch, is_probe
):
    eio, client, sid, _ = engine()
    upgrade, counts = Conversation.upgrade, []
    draining = threading.Thread(target=lambda: counts.append(eio.drain(lambda sid: None, 0.0)))

    def upgrade_while_draining(self, receiver, head):
        draining.start()
        draining.join(0.5)
        return upgrade(self, receiver, head)

    monkeypatch.setattr(Conversation, "upgrade", upgrade_while_draining)
    link = client.websocket(f"{WEBSOCKET}&sid={sid}" if is_probe else WEBSOCKET)
    link.sock.settimeout(DEADLINE)
    assert "101" in link.status
    assert is_probe or link.receive()[0] == "0"
    assert link.receive() is None, "the close frame"
    draining.join(DEADLINE)
    assert counts == [1 if is_probe else 2]


def test_a_client_that_does_not_answer_a_close_frame_is_cut(engine, monkeypatch):
    monkeypatch.setattr(link_module, "CLOSE_SECONDS", 0.2)
    eio, client, _, _ = engine()
    link = client.websocket(WEBSOCKET)
    sid = json.loads(link.receive()[1:])["sid"]
    eio.disconnect(sid)
    link.sock.settimeout(DEADLINE)
    assert link.receive() is None, "the close frame"
    assert link.sock.recv(100) == b"", "and then the end"


def test_a_websocket_that_never_takes_over_is_closed(engine, monkeypatch):
    monkeypatch.setattr(handshakes, "UPGRADE_SECONDS", 0.2)
    eio, client, sid, _ = engine()
    for words in ((), ("2probe",)):
        probe = client.websocket(f"{WEBSOCKET}&sid={sid}")
        probe.sock.settimeout(DEADLINE)
        for each in words:
            probe.send(each)
            assert probe.receive() == "3probe"
        assert probe.receive() is None
        wait_for(lambda: eio.sockets[sid]._probe is None, "room for another")
        probe.close()


def test_clients_that_leave_in_the_middle_of_a_message_or_an_upgrade_free_their_memory(engine):
    eio, client, sid, _ = engine()
    for n in range(40):
        link = client.websocket(WEBSOCKET if n % 2 else f"{WEBSOCKET}&sid={sid}")
        assert " 101 " in link.status
        link.sock.sendall(b"\x81\xff")  # the beginning of a frame
        link.close()
        if n % 2 == 0:
            wait_for(lambda: eio.sockets[sid]._probe is None, "its end")
    wait_for(lambda: len(eio.sockets) == 1, "their end")

    def links():
        gc.collect()
        return sum(type(each) is link_module.Link for each in gc.get_objects())

    wait_for(lambda: links() == 0, "their memory")


def test_no_client_upgrades_while_the_relay_goes_down(engine):
    eio, client, sid, _ = engine()
    eio.stop_accepting()
    assert " 503 " in client.websocket(f"{WEBSOCKET}&sid={sid}").status


def test_no_client_upgrades_on_a_connection_for_one_request(engine):
    limiter = ConnectionLimiter(connections=2, spare=4, lingering=2)
    _, client, sid, _ = engine(limiter)
    usual = [client.connect() for _ in range(2)]
    wait_for(lambda: limiter.count == 2, "the unrestricted slots to be used")
    assert " 503 " in client.websocket(f"{WEBSOCKET}&sid={sid}").status
    for each in usual:
        each.close()


def test_a_rejected_connection_releases_its_slot(engine):
    limiter = ConnectionLimiter(connections=1, spare=0, lingering=2)
    eio, client, _, _ = engine(limiter)
    wait_for(lambda: limiter.count == 0, "the first to end")
    taken = client.connect()
    wait_for(lambda: limiter.count == 1, "the slot to be used")
    for _ in range(5):  # more than may linger at a time
        refused = client.connect()
        with contextlib.suppress(ConnectionError):
            assert b" 503 " in refused.recv(1000)
        refused.close()
        wait_for(lambda: limiter._lingering.used == 0, "the slot of a rejected connection")
    taken.close()


# The heartbeat.


def test_after_a_pause_of_the_process_clients_still_have_their_time_to_answer():
    class Timers:
        deadline = float("inf")

        def call_later(self, *args):
            return self

        def cancel(self):
            pass

    class Pinged:
        pong_due, closed, has_more_time, sid, pings = 0.0, False, False, "a client", 0

        def send(self, packet):
            self.pings += 1

    deadlines, session = Deadlines(Timers()), Pinged()
    Heartbeat(deadlines, 1.0, 4.0).begin(session)
    late = time.monotonic() + 31.0  # the process was suspended for half a minute
    deadlines.meet(late)
    assert session.pings == 1
    assert session.pong_due == late + 4.0


def test_a_client_whose_pong_is_not_read_yet_does_not_count_as_dead(engine):
    eio, client, _, reasons = engine(ping_interval=0.3, ping_timeout=1.0)
    link = client.websocket(WEBSOCKET)
    sid = json.loads(link.receive()[1:])["sid"]
    session = eio.sockets[sid]
    wait_for(lambda: session.pong_due, "the ping")
    link_connection = session.connection
    link_connection.set_reading(False)  # other sources have their turn
    link.send("3")
    wait_for(link_connection.has_unread)
    wait_for(lambda: session.has_more_time, "the time to be over")
    link_connection.set_reading(True)
    wait_for(lambda: not session.has_more_time, "the answer to be read")
    assert not session.closed and sid in eio.sockets
    link_connection.set_reading(False)
    link.send("4x")
    wait_for(lambda: session.closed, "the end of a client that sends, and never answers")
