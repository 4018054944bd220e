"""The way of requests, and the refusal of those that the protocol does not allow."""

import json
import re

import pytest
from echo import POLLING, WEBSOCKET, Echo

from pushrelay.engine.engine import Engine


@pytest.fixture
def echo(serve):
    return Echo(serve)


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
def test_a_request_that_the_protocol_does_not_allow_gets_a_400_with_its_code_and_a_message(echo, method, query, code):
    status, headers, body = echo.client.request(method, f"/engine.io/?{query}")
    answer = json.loads(body)
    assert (status, answer["code"], headers["Content-Type"]) == (400, code, "application/json")
    assert answer["message"]


@pytest.mark.parametrize("query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=x"])
def test_a_websocket_handshake_that_the_protocol_does_not_allow_fails(echo, query):
    assert " 400 " in echo.client.websocket(f"/engine.io/?{query}").status


def test_pages_of_allowed_origins_alone_may_connect(serve):
    echo = Echo(serve, cors_allowed_origins=lambda origin, environ: origin == "http://good")
    status, headers, _ = echo.client.request("GET", POLLING, headers={"Origin": "http://good"})
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "http://good")
    status, _, body = echo.client.request("GET", POLLING, headers={"Origin": "http://bad"})
    assert (status, json.loads(body)["code"]) == (403, 4)


def test_a_sid_ends_with_the_node_and_is_as_random_as_without(serve):
    named, unnamed = Echo(serve, node="web-1"), Echo(serve)
    sids = [named.open() for _ in range(20)]
    assert all(re.fullmatch(r"[\w-]{24}\.web-1", sid) for sid in sids) and len(set(sids)) == 20
    assert re.fullmatch(r"[\w-]{24}", unnamed.open())
    assert named.post(sids[0], "4hello") == (200, "ok") and named.get(sids[0]) == (200, "4hello")


def test_a_request_that_reaches_the_wrong_node_is_refused_and_logged_once(serve, caplog):
    echo = Echo(serve, node="a")
    sid = Echo(serve, node="b").open()
    for _ in range(3):
        status, body = echo.get(sid)
        assert (status, json.loads(body)["code"], json.loads(body)["error"]) == (400, 1, "wrong_node")
    assert echo.post(sid, "4x")[0] == 400
    assert " 400 " in echo.client.websocket(f"{WEBSOCKET}&sid={sid}").status
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "belongs to node b" in lines[0] and "the proxy is not sticky" in lines[0]


def test_a_client_of_websocket_alone_needs_one_request(serve):
    echo = Echo(serve, node="a")
    client = echo.open_websocket()
    client.send("4hello")
    assert client.receive() == "4hello"


def test_an_engine_that_was_shut_down_refuses_the_requests_of_other_servers():
    engine, answered = Engine(), []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/engine.io/", "QUERY_STRING": POLLING.partition("?")[2]}
    for _ in range(2):
        list(engine.handle_request(dict(environ), lambda status, headers: answered.append(status)))
        engine.shutdown()
    assert [status[:3] for status in answered] == ["200", "503"]
