"""No cache keeps a response that is meant for one client."""

import contextlib
import http.client
import json

from clients import WebSocketClient
from conftest import DEADLINE, own_only

AT = "/socket.io/?EIO=4&transport="


def test_an_answer_for_one_client_alone_is_kept_by_no_cache(relay):
    form = b"destination=cached&data=x"
    opened = relay.request("GET", AT + "polling")
    sid = json.loads(opened[2][1:])["sid"]
    answers = {
        "handshake": opened,
        "post": relay.request("POST", f"{AT}polling&sid={sid}", b"40"),
        "poll": relay.request("GET", f"{AT}polling&sid={sid}"),
        "refused": relay.request("GET", AT + "polling", headers={"Origin": "https://evil.example"}),
        "unknown": relay.request("GET", f"{AT}polling&sid=unknown"),
        "old": relay.request("GET", "/socket.io/?EIO=3&transport=polling"),
        "preflight": relay.request("OPTIONS", AT + "polling"),
        "push": relay.request("POST", "/push", form),
        "the same push by the short way": relay.request("POST", "/push", form),
        "the seed's": relay.request("POST", "/", form),
        "bad push": relay.request("POST", "/push", b"data=x"),
        "batch": relay.request("POST", "/push", b"[]", {"Content-Type": "application/json"}),
        "too large": relay.request("POST", "/push", b"destination=a&data=" + b"x" * 1_100_000),
        "no key": relay.request("POST", "/push", form, {"X-Forwarded-For": "203.0.113.9"}),
        "not here": relay.request("GET", "/nothing"),
        "not so": relay.request("GET", "/push"),
        "demo": relay.request("GET", "/"),
        "no demo": relay.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.9"}),
    }
    for path in ("/history?destination=cached", "/presence?destination=cached", "/health/live", "/health/ready"):
        answers[path] = relay.request("GET", path)
    answers["/connections"] = relay.request("DELETE", "/connections?destination=cached")
    kept = {name: headers["Cache-Control"] for name, (_, headers, _) in answers.items()}
    assert set(kept.values()) == {"no-store"}, kept
    script = relay.request("GET", "/static/relay.js")[1]["Cache-Control"]
    assert "public" in script and "no-store" not in script


@own_only
def test_the_answer_that_opens_a_websocket_and_those_before_the_app_are_kept_by_no_cache(relay):
    with contextlib.closing(WebSocketClient(relay.port)) as client:
        assert b"Cache-Control: no-store\r\n" in client.headers
    for request in (
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 40000 + b"\r\n\r\n",
    ):
        connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
        connection.connect()
        with contextlib.closing(connection):
            connection.sock.sendall(request)
            assert b"Cache-Control: no-store\r\n" in connection.sock.recv(4096), request[:20]
