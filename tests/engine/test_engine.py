"""Engine.IO 4 and Socket.IO 5 on our engine, checked against the protocols' texts over real sockets."""

import gzip
import json
import socket
import threading
import time
import types
import zlib

import engineio
import pytest
import socketio
from clients import PATH
from conftest import DEADLINE, wait_for

from pushrelay.engine import engine, heartbeat
from pushrelay.engine.deadlines import Deadlines
from pushrelay.engine.engine import Engine
from pushrelay.engine.heartbeat import Heartbeat
from pushrelay.engine.packet import EncodedPacket
from pushrelay.engine.response import COMPRESSORS
from pushrelay.engine.session import Session
from pushrelay.rooms.manager import RoomManager
from pushrelay.server.poller import Poller

INTERVAL, TIMEOUT = 0.3, 0.2  # for the tests of the heartbeat
POLLING = "/engine.io/?EIO=4&transport=polling"
WEBSOCKET = "/engine.io/?EIO=4&transport=websocket"


class Echo:
    """An Engine.IO server that sends back what it gets, and what it has seen."""

    def __init__(self, serve, **options):
        self.eio = Engine(**{"ping_interval": 25, "ping_timeout": 20, **options})
        self.gone = []
        self.eio.on("connect", lambda sid, environ: None)
        self.eio.on("message", lambda sid, data: self.eio.send(sid, data))
        self.eio.on("disconnect", lambda sid, reason: self.gone.append((sid, reason)))
        self.client = serve(engineio.WSGIApp(self.eio))

    def get(self, sid, extra=""):
        status, _, body = self.client.request("GET", f"{POLLING}&sid={sid}{extra}")
        return status, body.decode()

    def post(self, sid, body):
        status, _, answer = self.client.request("POST", f"{POLLING}&sid={sid}", body)
        return status, answer.decode()

    def open(self):
        status, _, body = self.client.request("GET", POLLING)
        assert status == 200
        return json.loads(body[1:])["sid"]

    def open_websocket(self):
        client = self.client.websocket(WEBSOCKET)
        assert client.receive().startswith("0")
        return client

    def upgrading(self):
        """A polling session and a WebSocket that is about to take over."""
        sid = self.open()
        client = self.client.websocket(f"{WEBSOCKET}&sid={sid}")
        client.send("2probe")
        assert client.receive() == "3probe"
        return sid, client


@pytest.fixture
def echo(serve):
    return Echo(serve)


@pytest.fixture
def pinging(serve):
    """An Echo that pings soon. A test beside it has to answer within half a second, or its client is gone."""
    return Echo(serve, ping_interval=INTERVAL, ping_timeout=TIMEOUT)


def in_background(function, *args):
    """Run a request meanwhile; gives a function that waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()

    def result():
        thread.join(DEADLINE)
        return results[0]

    return result


def is_parked(echo, sid):
    return lambda: echo.eio.sockets[sid]._poll is not None


# The handshake.


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_handshake_tells_all_that_a_client_must_know(echo, transport):
    if transport == "polling":
        packet = echo.client.request("GET", POLLING)[2].decode()
    else:
        packet = echo.client.websocket(WEBSOCKET).receive()
    assert packet[0] == "0"
    opened = json.loads(packet[1:])
    assert opened.pop("sid")
    upgrades = ["websocket"] if transport == "polling" else []
    assert opened == {"upgrades": upgrades, "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1000000}


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("GET", "transport=polling", 5),
        ("GET", "EIO=abc&transport=polling", 5),
        ("GET", "EIO=3&transport=polling", 5),
        ("GET", "EIO=4", 0),
        ("GET", "EIO=4&transport=abc", 0),
        ("POST", "EIO=4&transport=polling", 2),
        ("PUT", "EIO=4&transport=polling", 2),
        ("GET", "EIO=4&transport=polling&sid=unknown", 1),
        ("GET", "EIO=4&transport=websocket", 3),
        ("GET", "EIO=4&transport=polling&j=0", 3),
    ],
)
def test_a_handshake_that_the_protocol_refuses_is_a_400_that_says_why(echo, method, query, code):
    status, headers, body = echo.client.request(method, f"/engine.io/?{query}")
    answer = json.loads(body)
    assert (status, answer["code"], headers["Content-Type"]) == (400, code, "application/json")
    assert answer["message"]


@pytest.mark.parametrize("query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=x"])
def test_a_websocket_handshake_that_the_protocol_refuses_fails(echo, query):
    assert " 400 " in echo.client.websocket(f"/engine.io/?{query}").status


def test_a_foreign_origin_is_refused_and_an_allowed_one_has_its_headers(serve):
    echo = Echo(serve, cors_allowed_origins=lambda origin, environ: origin == "http://good")
    status, headers, _ = echo.client.request("GET", POLLING, headers={"Origin": "http://good"})
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "http://good")
    status, _, body = echo.client.request("GET", POLLING, headers={"Origin": "http://bad"})
    assert (status, json.loads(body)["code"]) == (403, 4)


def test_an_app_that_refuses_a_client_answers_401(echo):
    echo.eio.on("connect", lambda sid, environ: False)
    assert echo.client.request("GET", POLLING)[0] == 401
    assert " 401 " in echo.client.websocket(WEBSOCKET).status
    assert not echo.eio.sockets and not echo.gone


# Messages.


@pytest.mark.parametrize("payload", ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA=="])
def test_polling_carries_text_and_binary_several_in_one_payload(echo, payload):
    sid = echo.open()
    assert echo.post(sid, payload) == (200, "ok")
    assert echo.get(sid) == (200, payload)


@pytest.mark.parametrize("message", ["4hello", "4ä€😀", b"\x01\x02\x03\x04", "4" + "x" * 70_000])
def test_websocket_carries_text_and_binary(echo, message):
    client = echo.open_websocket()
    client.send(message)
    assert client.receive() == message


@pytest.mark.parametrize("payload", ["abc", "", "4a\x1e", "b!!!", "2"])
def test_an_invalid_payload_closes_the_session(echo, payload):
    sid = echo.open()
    assert echo.post(sid, payload)[0] == 400
    assert echo.get(sid)[0] == 400
    assert echo.gone == [(sid, "transport error")]


@pytest.mark.parametrize("packet", ["abc", "", "2", "0"])
def test_an_invalid_packet_closes_the_websocket(echo, packet):
    client = echo.open_websocket()
    client.send(packet)
    assert client.receive() is None
    wait_for(lambda: not echo.eio.sockets)


def test_a_second_poll_closes_the_session(echo):
    sid = echo.open()
    first = in_background(echo.get, sid)
    wait_for(is_parked(echo, sid))
    assert echo.get(sid, "&t=burst")[0] == 400
    assert first() == (200, "1")
    assert echo.get(sid)[0] == 400


def test_a_message_that_is_too_large_closes_the_session(serve):
    echo = Echo(serve, max_http_buffer_size=1000)
    sid = echo.open()
    assert echo.post(sid, "4" + "x" * 1000)[0] == 413
    assert echo.get(sid)[0] == 400
    client = echo.open_websocket()
    client.send("4" + "x" * 1000)
    assert client.frame() == (8, (1009).to_bytes(2, "big") + b"a message has 1000 bytes at most")


# Heartbeat.


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


def test_a_client_is_pinged_in_time_though_an_answer_to_an_earlier_ping_is_waited_for(serve):
    patient = Echo(serve, ping_interval=INTERVAL, ping_timeout=60)
    first = patient.open_websocket()
    assert first.frame() == (1, b"2")
    first.close()
    assert patient.open_websocket().frame() == (1, b"2"), "within DEADLINE, so long before the minute is over"


@pytest.mark.alone
def test_a_polling_client_that_is_silent_is_gone_after_interval_and_timeout(pinging):
    sid = pinging.open()
    time.sleep(INTERVAL + TIMEOUT)
    wait_for(lambda: pinging.gone, "the end of the session")
    assert pinging.get(sid)[0] == 400
    assert pinging.gone == [(sid, "ping timeout")]


@pytest.mark.alone
def test_a_half_open_websocket_is_gone_after_interval_and_timeout_and_leaves_nothing(pinging):
    client = pinging.open_websocket()
    start = time.monotonic()
    wait_for(lambda: pinging.gone, "the end of the session")
    assert time.monotonic() - start < 10 * (INTERVAL + TIMEOUT), "many times as long as a quiet machine takes"
    assert not pinging.eio.sockets
    assert client.receive() is None


# Closing.


def test_a_client_that_closes_over_polling_gets_its_poll_back(echo):
    sid = echo.open()
    poll = in_background(echo.get, sid)
    wait_for(is_parked(echo, sid))
    assert echo.post(sid, "1")[0] == 200
    assert poll() == (200, "6")
    assert echo.get(sid)[0] == 400
    assert echo.gone == [(sid, "client disconnect")]


def test_a_client_that_closes_over_websocket_is_closed(echo):
    client = echo.open_websocket()
    client.send("1")
    assert client.receive() is None
    wait_for(lambda: [reason for _, reason in echo.gone] == ["client disconnect"])


def test_a_client_that_the_server_disconnects_hears_everything_first(echo):
    sid = echo.open()
    echo.eio.send(sid, "last words")
    echo.eio.disconnect(sid)
    assert echo.get(sid) == (200, "4last words\x1e1")
    assert echo.get(sid)[0] == 400
    client = echo.open_websocket()
    echo.eio.disconnect()
    assert client.frame() == (8, (1000).to_bytes(2, "big"))


def test_hanging_up_on_a_parked_poll_ends_the_session(echo):
    sid = echo.open()
    sock = echo.client.connect()
    sock.sendall(f"GET {POLLING}&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    wait_for(is_parked(echo, sid))
    sock.close()
    wait_for(lambda: echo.gone == [(sid, "transport close")])


def test_a_client_is_counted_as_gone_once_however_many_say_so(echo):
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


# The upgrade.


def test_an_upgrade_moves_the_session_and_ends_its_polls(echo):
    sid, client = echo.upgrading()
    assert echo.get(sid) == (200, "6")
    client.send("5")
    client.send("4hello")
    assert client.receive() == "4hello"
    assert echo.eio.transport(sid) == "websocket"


def test_a_parked_poll_is_sent_back_when_a_websocket_probes(echo):
    sid = echo.open()
    poll = in_background(echo.get, sid)
    wait_for(is_parked(echo, sid))
    client = echo.client.websocket(f"{WEBSOCKET}&sid={sid}")
    client.send("2probe")
    assert poll() == (200, "6")


def test_what_is_sent_during_an_upgrade_arrives_once_and_in_order(echo):
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


def test_an_upgrade_is_refused_while_a_post_is_handled_and_polling_goes_on(echo):
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


# Bounds.


def test_a_client_that_does_not_read_is_closed_as_slow_and_its_outbox_bounded(serve):
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


# Socket.IO on it.


@pytest.fixture
def sio(serve, monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    server = socketio.Server(
        client_manager=RoomManager(), async_handlers=False, ping_interval=2 * DEADLINE, ping_timeout=20
    )

    def back(sid, *args):
        server.emit("message-back", args, to=sid)

    def custom_back(sid, *args):
        server.emit("message-back", args, to=sid, namespace="/custom")

    server.on("connect", lambda sid, environ, auth: server.emit("auth", auth or {}, to=sid))
    server.on("connect", lambda sid, environ, auth: server.emit("auth", auth or {}, to=sid, namespace="/custom"),
              namespace="/custom")  # fmt: skip
    server.on("message", back)
    server.on("message", custom_back, namespace="/custom")
    server.on("message-with-ack", lambda sid, *args: args)
    server.client = serve(socketio.WSGIApp(server))
    return server


def socket_io(sio, connect="40"):
    client = sio.client.websocket("/socket.io/?EIO=4&transport=websocket")
    client.receive()
    client.send(connect)
    return client


@pytest.mark.parametrize(
    ("connect", "prefix", "auth"),
    [
        ("40", "40", '42["auth",{}]'),
        ('40{"token":"123"}', "40", '42["auth",{"token":"123"}]'),
        ("40/custom,", "40/custom,", '42/custom,["auth",{}]'),
        ('40/custom,{"token":"abc"}', "40/custom,", '42/custom,["auth",{"token":"abc"}]'),
    ],
)
def test_a_client_connects_to_a_namespace_with_or_without_auth(sio, connect, prefix, auth):
    client = socket_io(sio, connect)
    first, second = client.receive(), client.receive()
    opened, greeting = (first, second) if first.startswith(prefix) else (second, first)
    assert list(json.loads(opened.removeprefix(prefix))) == ["sid"]
    assert greeting == auth


def test_a_namespace_that_is_not_there_is_refused_by_name(sio):
    assert socket_io(sio, "40/random").receive() == '44/random,{"message":"Invalid namespace"}'


@pytest.mark.parametrize(
    "packets",
    [
        *(["4abc"], ["4"], ["49"], ['44{"message":"x"}'], [b"\x01"], [b"2[1]"]),
        *(["40[1]"], ['40"x"'], ["41{}"], ["42"], ["42{}"], ["42null"], ["42[]"], ["42[5]"], ['42"message"']),
        *(["42["], ['42abc["message"]'], ['42["disconnect"]'], ['42["connect",{}]'], ["43{}"], ["431"]),
        *(["42" + "[" * 100_000], ['450-["message"]', b"\x01"], ['451-["message"]', '42["message"]']),
        *(
            ['451-["message",{"_placeholder":true,"num":9}]', b"\x01"],
            ['451-["message",{"_placeholder":true,"num":"x"}]', b"\x01"],
        ),
        *(["451-{}", b"\x01"], ["461-{}", b"\x01"]),
    ],
    ids=lambda packets: repr(packets)[:40],
)
def test_what_is_no_socket_io_packet_closes_the_client_at_once(sio, packets, caplog):
    client = socket_io(sio)
    client.receive(), client.receive()
    for packet in packets:
        client.send(packet)
    assert client.receive() is None  # and not for a ping without an answer: there is none before receive() gives up
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("packet", ["4abc", "4", "42{}", "40[1]"])
def test_a_connection_that_does_not_begin_with_socket_io_is_closed_at_once(sio, packet):
    assert socket_io(sio, packet).receive() is None


def test_messages_acknowledgements_and_attachments_go_both_ways(sio):
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send('42["message",1,"2",{"3":[true]}]')
    assert client.receive() == '42["message-back",1,"2",{"3":[true]}]'
    client.send('42456["message-with-ack",1,"2",{"3":[false]}]')
    assert client.receive() == '43456[1,"2",{"3":[false]}]'
    client.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    client.send(b"\x01\x02\x03")
    client.send(b"\x04\x05\x06")
    back = '452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'
    assert [client.receive() for _ in range(3)] == [back, b"\x01\x02\x03", b"\x04\x05\x06"]


@pytest.mark.parametrize(("connect", "stays"), [("40", True), ("40/custom,", True), ("40/plain,", True), ("4", False)])
def test_a_client_of_an_apps_own_handlers_may_stay_without_registering(sio, connect, stays):
    sio.on("x", lambda sid: None, namespace="/plain")
    client = socket_io(sio, connect)
    sessions = list(sio.eio.sockets.values())  # none if the one that may not stay is closed by now
    if stays:
        wait_for(lambda: sessions[0].may_stay, "its right to stay")
    else:
        assert client.receive() is None and not any(session.may_stay for session in sessions)


def test_a_client_that_connects_to_no_handler_of_the_app_may_not_stay_for_that(sio):
    del sio.handlers["/"]["connect"]
    client = socket_io(sio)
    assert client.receive().startswith("40{")
    (session,) = sio.eio.sockets.values()
    assert not session.may_stay


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError])
def test_a_handler_that_raises_closes_no_client_and_the_log_says_where(sio, error, caplog):
    def fail(sid):
        raise error("by hand")

    sio.on("fail", fail)
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send('42["fail"]')
    client.send('42["message","still here"]')
    assert client.receive() == '42["message-back","still here"]'
    assert "by hand" in caplog.text and "in fail" in caplog.text


def test_leaving_one_namespace_leaves_the_others_open(sio):
    client = socket_io(sio)
    client.receive(), client.receive()
    client.send("40/custom,")
    client.receive(), client.receive()
    client.send("41/custom,")
    client.send('42["message","still here"]')
    assert client.receive() == '42["message-back","still here"]'


def test_a_publication_is_one_frame_for_all_and_a_gone_client_is_in_no_room(sio):
    clients = [socket_io(sio) for _ in range(3)]
    for client in clients:
        client.receive(), client.receive()
    manager = sio.manager
    for sid, _ in manager.get_participants("/", None):
        sio.enter_room(sid, "news")
    assert manager.deliver("push", {"data": "ä"}, "news") == 3
    assert {client.receive() for client in clients} == {'42["push",{"data":"\\u00e4"}]'}
    clients.pop().close()
    wait_for(lambda: manager.count("news") == 2)
    sid = next(iter(manager.get_participants("/", "news")))[0]
    assert manager.deliver("push", 1, ["news", sid], skip_sid=sid) == 1
    for client in clients:
        client.close()
    wait_for(lambda: not manager.rooms and not manager._sids and not manager._rooms_of and not sio.environ)


@pytest.mark.parametrize(("coding", "read"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_a_publication_is_compressed_once_for_all_that_poll(sio, monkeypatch, coding, read):
    def ask(method, sid, body=None):
        return sio.client.request(method, f"{PATH}polling&sid={sid}", body, {"Accept-Encoding": coding})

    compress, sizes, eio_sids = COMPRESSORS[coding], [], []
    monkeypatch.setitem(COMPRESSORS, coding, lambda data: sizes.append(len(data)) or compress(data))
    for _ in range(3):
        eio_sid = json.loads(sio.client.request("GET", PATH + "polling")[2][1:])["sid"]
        assert ask("POST", eio_sid, b"40")[2] == b"ok" and b"40{" in ask("GET", eio_sid)[2]
        sio.enter_room(sio.manager.sid_from_eio_sid(eio_sid, "/"), "news")
        eio_sids.append(eio_sid)
    polls = [in_background(ask, "GET", eio_sid) for eio_sid in eio_sids]
    wait_for(lambda: all(sio.eio.sockets[eio_sid]._poll is not None for eio_sid in eio_sids))
    assert sio.manager.deliver("push", "x" * 5000, "news") == 3
    for result in polls:
        status, headers, body = result()
        assert status == 200 and headers["Content-Encoding"] == coding
        assert read(body) == b'42["push","%s"]' % (b"x" * 5000)
    assert sizes == [5013], "the size of what was compressed, once"


def test_the_engine_is_found_by_socketio_after_install(monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", None)
    engine.install()
    assert isinstance(socketio.Server().eio, Engine)


@pytest.fixture
def bare_engine():
    engine = Engine()
    engine.start(None)
    yield engine
    engine.shutdown()


def test_a_large_message_does_not_close_a_polling_client_that_gets_small_ones_behind_it(bare_engine):
    session = Session(bare_engine, "large")
    session.send(EncodedPacket("4" + "x" * (session.outbox_bytes + 1)))
    for _ in range(5):
        session.send(EncodedPacket("4small"))
    assert len(session.poll(lambda: None)) == 6
    for _ in range(4):
        session.send(EncodedPacket("4" + "x" * (session.outbox_bytes // 2)))
    wait_for(lambda: session.closed)


def test_a_second_post_at_the_same_time_is_refused_and_the_first_one_ends(bare_engine):
    session = Session(bare_engine, "twice")
    assert session.begin_post()
    with pytest.raises(ValueError, match="two POSTs"):
        session.begin_post()
    session.end_post()
    assert session.begin_post(), "the next one"


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


def test_who_waits_until_a_client_has_read_all_hears_when_it_is_closed(bare_engine):
    session, heard = Session(bare_engine, "leaves"), threading.Event()
    session.send(EncodedPacket("4waits"))
    session.call_when_clear(heard.set)
    assert not heard.is_set()
    session.close(abort=True, reason="transport close")
    assert heard.wait(DEADLINE)
