"""Sessions: what waits for a client, and how they end."""

import socket
import threading

import pytest
from conftest import DEADLINE, wait_for
from echo import Echo, Parked, in_background

from pushrelay.engine.engine import Engine
from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.session import Session


@pytest.fixture
def echo(serve):
    return Echo(serve)


@pytest.fixture
def bare_engine():
    engine = Engine()
    engine.start(None)
    yield engine
    engine.shutdown()


def test_a_client_that_closes_over_polling_gets_its_poll_back(echo):
    sid = echo.open()
    poll = in_background(echo.get, sid)
    wait_for(echo.is_parked(sid))
    assert echo.post(sid, "1")[0] == 200
    assert poll() == (200, "6")
    assert echo.get(sid)[0] == 400
    assert echo.gone == [(sid, "client disconnect")]


def test_a_client_that_closes_over_websocket_is_closed(echo):
    client = echo.open_websocket()
    client.send("1")
    assert client.receive() is None
    wait_for(lambda: [reason for _, reason in echo.gone] == ["client disconnect"])


def test_a_client_that_the_server_disconnects_first_gets_everything_that_waited(echo):
    sid = echo.open()
    echo.eio.send(sid, "last words")
    echo.eio.disconnect(sid)
    assert echo.get(sid) == (200, "4last words\x1e1")
    assert echo.get(sid)[0] == 400
    client = echo.open_websocket()
    echo.eio.disconnect()
    assert client.frame() == (8, (1000).to_bytes(2, "big"))


def test_a_session_ends_once_however_many_threads_close_it(echo):
    client = echo.open_websocket()
    session = next(iter(echo.eio.sockets.values()))
    threads = [threading.Thread(target=session.close) for _ in range(8)]
    client.sock.close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: echo.gone)
    assert len(echo.gone) == 1


def test_a_client_that_does_not_read_is_closed_as_slow_and_its_outbox_is_bounded(serve):
    echo = Echo(serve, outbox_bytes=100_000)
    client = echo.open_websocket()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sid, session = next(iter(echo.eio.sockets.items()))
    connection = session.connection

    def push():
        for _ in range(50):
            echo.eio.send(sid, "x" * 50_000)
            assert connection.backlog <= 100_000 + 50_010
        return echo.gone

    wait_for(push, "the end of the slow client")
    assert echo.gone == [(sid, "slow")]


def test_a_poller_that_does_not_come_back_is_closed_as_slow(serve):
    echo = Echo(serve, outbox_bytes=10_000)
    sid = echo.open()
    for _ in range(20):
        echo.eio.send(sid, "x" * 1000)
    wait_for(lambda: echo.gone == [(sid, "slow")])


def test_a_large_message_does_not_close_a_polling_client_that_gets_small_ones_after_it(bare_engine):
    session = Session(bare_engine, "large")
    session.send(EncodedPacket("4" + "x" * (session.outbox_bytes + 1)))
    for _ in range(5):
        session.send(EncodedPacket("4small"))
    assert len(session.poll(lambda: None)) == 6
    for _ in range(4):
        session.send(EncodedPacket("4" + "x" * (session.outbox_bytes // 2)))
    wait_for(lambda: session.closed)


def test_a_second_post_at_the_same_time_is_refused(bare_engine):
    session = Session(bare_engine, "twice")
    assert session.begin_post()
    with pytest.raises(ValueError, match="two POSTs"):
        session.begin_post()
    session.end_post()
    assert session.begin_post(), "the next one"


def test_a_callback_for_an_empty_outbox_is_called_when_the_session_is_closed(bare_engine):
    session, heard = Session(bare_engine, "leaves"), threading.Event()
    session.send(EncodedPacket("4waits"))
    session.call_when_clear(heard.set)
    assert not heard.is_set()
    session.close(abort=True, reason="transport close")
    assert heard.wait(DEADLINE)


def test_a_slow_poller_never_gets_packets_after_a_gap(serve, monkeypatch):
    echo = Echo(serve, outbox_bytes=10_000)
    sid = echo.open()
    monkeypatch.setattr(echo.eio, "close_soon", lambda session, reason: None)  # it is still open
    for _ in range(4):
        echo.eio.send(sid, "x" * 6000)
    poll = Parked()
    packets = echo.eio.sockets[sid].poll(lambda: poll)
    echo.eio.send(sid, "behind the gap")
    assert packets is None and not poll.got


def test_the_loss_of_an_old_poll_does_not_end_a_session_that_polls_again(echo):
    sid = echo.open()
    session, old, new = echo.eio.sockets[sid], Parked(), Parked()
    assert session.poll(lambda: old) is None
    echo.eio.send(sid, "hello")
    assert old.got == ["4hello"] and session.poll(lambda: new) is None
    session.poll_lost(old)
    assert not session.closed and echo.gone == []
    session.poll_lost(new)
    assert session.closed and echo.gone == [(sid, "transport close")]


def test_a_client_that_floods_is_refused_first_and_then_closed():
    engine, refused = Engine(event_rate=10), []
    engine.start(None)
    engine.refuse_event = lambda session, packet: refused.append(packet)
    session = Session(engine, "floods")
    for _ in range(100):
        session.receive("4x")
    assert not refused, "ten seconds of its rate at once"
    for _ in range(1200):
        session.receive("4x")
    engine.shutdown()
    assert refused and session.closed


def test_a_client_that_floods_with_packets_that_ask_for_nothing_is_closed():
    engine = Engine(event_rate=10)
    engine.start(None)
    session = Session(engine, "strays")
    for _ in range(1900):
        session.receive("6")
    assert not session.closed, "twenty seconds of its rate, at a tenth of an event each"
    for _ in range(2000):  # far more than it may send again while this runs
        session.receive("6")
    engine.shutdown()
    assert session.closed


def test_work_beyond_an_events_own_is_a_debt_with_a_bound():
    engine = Engine(event_rate=10)
    session = Session(engine, "works")
    session.charge(50)
    assert session.overdraft() == 0.0
    session.charge(100)
    assert 4.0 < session.overdraft() <= 5.0
    session.charge(1_000_000)
    assert 29.0 < session.overdraft() <= 30.0
