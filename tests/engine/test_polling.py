"""Long polling: payloads, parked polls and POSTs."""

import gzip
import json
import zlib

import pytest
import socketio
from clients import PATH
from conftest import DEADLINE, wait_for
from echo import POLLING, Echo, in_background

from pushrelay.engine.engine import Engine
from pushrelay.engine.response import COMPRESSORS
from pushrelay.rooms.manager import RoomManager


@pytest.fixture
def echo(serve):
    return Echo(serve)


@pytest.mark.parametrize("payload", ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA=="])
def test_a_payload_carries_text_and_binary_and_several_packets(echo, payload):
    sid = echo.open()
    assert echo.post(sid, payload) == (200, "ok")
    assert echo.get(sid) == (200, payload)


@pytest.mark.parametrize("payload", ["abc", "", "4a\x1e", "b!!!", "2"])
def test_an_invalid_payload_closes_the_session(echo, payload):
    sid = echo.open()
    assert echo.post(sid, payload)[0] == 400
    assert echo.get(sid)[0] == 400
    assert echo.gone == [(sid, "transport error")]


def test_headers_that_a_middleware_adds_are_not_kept_for_the_next_answer(serve):
    echo = Echo(serve, cors_allowed_origins=[])
    app, answers = echo.client.server.app, []

    def add_one(environ, start_response):
        def start(status, headers, *more):
            headers.append(("X-Mine", "1"))
            answers.append(len(headers))
            return start_response(status, headers, *more)

        return app(environ, start)

    echo.client.server.app = add_one
    sid = echo.open()
    for _ in range(3):
        assert echo.post(sid, "4hello") == (200, "ok")
    assert len(set(answers[1:])) == 1


def test_a_second_poll_closes_the_session(echo):
    sid = echo.open()
    first = in_background(echo.get, sid)
    wait_for(echo.is_parked(sid))
    assert echo.get(sid, "&t=burst")[0] == 400
    assert first() == (200, "1")
    assert echo.get(sid)[0] == 400


def test_a_get_that_the_browser_repeats_closes_the_session_because_the_first_response_is_lost(echo):
    sid = echo.open()
    echo.post(sid, "4one", "&t=a")
    assert echo.get(sid, "&t=b") == (200, "4one")
    echo.post(sid, "4two", "&t=c")
    assert echo.get(sid, "&t=b")[0] == 400, "its client would go on after the second, without the first"
    assert echo.gone == [(sid, "transport error")]


def test_a_post_that_the_browser_repeats_is_handled_once(echo):
    sid = echo.open()
    for mark in "aab":
        assert echo.post(sid, "4hello", f"&t={mark}") == (200, "ok")
    assert echo.get(sid) == (200, "4hello\x1e4hello")


def test_hanging_up_on_a_parked_poll_ends_the_session(echo):
    sid = echo.open()
    sock = echo.client.connect()
    sock.sendall(f"GET {POLLING}&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    wait_for(echo.is_parked(sid))
    sock.close()
    wait_for(lambda: echo.gone == [(sid, "transport close")])


def test_a_payload_that_is_too_large_closes_the_session(serve):
    echo = Echo(serve, max_http_buffer_size=1000)
    sid = echo.open()
    assert echo.post(sid, "4" + "x" * 1000)[0] == 413
    assert echo.get(sid)[0] == 400


@pytest.fixture
def sio(serve, monkeypatch):
    monkeypatch.setattr(socketio.Server, "_engineio_server_class", lambda _: Engine)
    server = socketio.Server(client_manager=RoomManager(), async_handlers=False, ping_interval=2 * DEADLINE)
    server.on("connect", lambda sid, environ, auth: None)
    server.client = serve(socketio.WSGIApp(server))
    return server


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
