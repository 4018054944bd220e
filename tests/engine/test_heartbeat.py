"""Pings, and the end of clients that do not answer them."""

import time
import types

import pytest
from conftest import wait_for
from echo import Echo

from pushrelay.engine import heartbeat
from pushrelay.engine.deadlines import Deadlines
from pushrelay.engine.heartbeat import Heartbeat
from pushrelay.server.poller import Poller

INTERVAL, TIMEOUT = 0.3, 0.2


@pytest.fixture
def pinging(serve):
    """An Echo that pings soon. A test that runs alongside must answer within half a second, or its client is gone."""
    return Echo(serve, ping_interval=INTERVAL, ping_timeout=TIMEOUT)


def test_a_client_that_answers_pings_over_polling_stays(serve):
    echo = Echo(serve, ping_interval=INTERVAL)
    sid = echo.open()
    for _ in range(3):
        assert echo.get(sid) == (200, "2")
        assert echo.post(sid, "3") == (200, "ok")
    assert not echo.gone


def test_a_client_that_answers_pings_over_a_websocket_stays(serve):
    echo = Echo(serve, ping_interval=INTERVAL)
    client = echo.open_websocket()
    for _ in range(3):
        assert client.frame() == (1, b"2")
        client.send("3")
    assert not echo.gone


def test_a_client_is_pinged_in_time_while_another_ping_waits_for_its_answer(serve):
    patient = Echo(serve, ping_interval=INTERVAL, ping_timeout=60)
    first = patient.open_websocket()
    assert first.frame() == (1, b"2")
    first.close()
    assert patient.open_websocket().frame() == (1, b"2"), "within DEADLINE, which is much less than the minute"


def test_a_polling_client_that_is_silent_is_gone_after_interval_and_timeout(pinging):
    sid = pinging.open()
    time.sleep(INTERVAL + TIMEOUT)
    wait_for(lambda: pinging.gone, "the end of the session")
    assert pinging.get(sid)[0] == 400
    assert pinging.gone == [(sid, "ping timeout")]


@pytest.mark.timed  # it measures time
def test_a_half_open_websocket_is_gone_after_interval_and_timeout_and_leaves_nothing(pinging):
    client = pinging.open_websocket()
    start = time.monotonic()
    wait_for(lambda: pinging.gone, "the end of the session")
    assert time.monotonic() - start < 10 * (INTERVAL + TIMEOUT), "many times as long as a quiet machine takes"
    assert not pinging.eio.sockets
    assert client.receive() is None


def test_a_client_that_answered_the_last_ping_has_the_whole_time_for_the_next_one(monkeypatch):
    """ping_timeout is the longer one here, so the deadline of a ping that was answered lies behind the next ping."""
    now = 100.0
    monkeypatch.setattr(heartbeat, "time", types.SimpleNamespace(monotonic=lambda: now))
    sent, missed, poller = [], [], Poller()
    monkeypatch.setattr(poller, "call_later", lambda seconds, callback, *args: seconds or callback(*args))
    deadlines = Deadlines(poller)
    monkeypatch.setattr(deadlines, "_set_timer", lambda deadline: None)
    pings = Heartbeat(deadlines, interval=1, timeout=5)
    session = types.SimpleNamespace(pong_due=0.0, has_more_time=False, closed=False, sid="a client")
    session.send, session.miss_ping = sent.append, lambda: missed.append(now)
    pings.begin(session)
    for now in (101.0, 102.0):
        deadlines.meet(now)
        if now == 101.0:
            pings.begin(session)
    assert len(sent) == 2
    deadlines.meet(106.5)
    assert not missed, "the first ping was answered"
    now = 107.0
    deadlines.meet(now)
    assert missed == [107.0] and len(sent) == 2


def test_a_pong_that_nobody_asked_for_does_not_end_its_client_if_it_comes_with_the_ping():
    class Early:
        closed, has_more_time, sid = False, False, "a client"

        @property
        def pong_due(self):
            return 0.0  # another thread has just handled a pong

        @pong_due.setter
        def pong_due(self, deadline):
            pass

        def send(self, packet):
            pass

    poller = Poller()
    deadlines, session = Deadlines(poller), Early()
    Heartbeat(deadlines, 1.0, 4.0).begin(session)
    missed = []
    session.miss_ping = lambda: missed.append(session)
    now = time.monotonic()
    for seconds in (1.1, 2.0, 6.0):
        deadlines.meet(now + seconds)
    while poller._timers:
        poller._timers.pop()[2].run()
    assert not missed


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


def test_a_client_whose_pong_is_not_read_yet_does_not_count_as_dead(serve):
    echo = Echo(serve, ping_interval=0.3, ping_timeout=1.0)
    client = echo.open_websocket()
    ((sid, session),) = echo.eio.sockets.items()
    wait_for(lambda: session.pong_due, "the ping")
    connection = session.connection
    connection.set_reading(False)  # other sources have their turn
    client.send("3")
    wait_for(connection.has_unread)
    wait_for(lambda: session.has_more_time, "the time to be over")
    connection.set_reading(True)
    wait_for(lambda: not session.has_more_time, "the answer to be read")
    assert not session.closed and sid in echo.eio.sockets
    connection.set_reading(False)
    client.send("4x")
    wait_for(lambda: session.closed, "the end of a client that sends, and never answers")
