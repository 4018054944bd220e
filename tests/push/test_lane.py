"""A push takes one of three ways: Flask's, the front's, or the lane. The answers are equal to the byte."""

import contextlib
import http.client
import json
import re
import socket
from types import SimpleNamespace

import pytest
from conftest import wait_for
from loading import load_relay
from werkzeug.test import Client, EnvironBuilder

from pushrelay.push.lane import lane_for
from pushrelay.server.server import Server
from tests.push.test_push import FORM, JSON, REFUSED, TEXTS, multipart

TAKEN = [(name, FORM, f"destination=a&data={name}".encode()) for name in TEXTS if name.isalpha()]
TAKEN += [
    ("a list", FORM, b"destination[]=a&destination[]=b&data=x"),
    ("JSON", JSON, json.dumps({"destination": ["ä", '"', 7], "data": {"x": None}, "event": "order"}).encode()),
    ("multipart", *reversed(multipart(destination="a", data="ü"))),
]
CASES = [(name, headers, body) for name, headers, body, *_ in REFUSED] + TAKEN


KEY = "a-key-that-is-long-enough"


def loaded(**settings):
    """Return a relay whose store is open and has a fixed epoch."""
    module = load_relay(**settings)
    module.relay.maintenance.start()
    module.relay.broker._store.epoch = "epoch"
    return module


@pytest.fixture
def own(request):
    """relay.py of this test's own. With the fixture `rated`, a key may push three times a second."""
    settings = {"push_keys": f"web:{KEY}", "push_rate": 3} if "rated" in request.fixturenames else {}
    module = loaded(**settings)
    yield module
    module.relay.maintenance.close()


def push(own, headers, body, remote="127.0.0.1", path="/push"):
    """Return the app's whole answer."""
    builder = EnvironBuilder(path, method="POST", data=body, headers=headers, environ_base={"REMOTE_ADDR": remote})
    answer = Client(own.app).open(builder)
    return answer.status, sorted(answer.headers), answer.data


def hook(app):
    """Hook a function into Flask, so that pushes go through it. Return a list that gets an element for each call."""
    calls = []
    app.before_request(lambda: calls.append(1))
    return calls


@pytest.fixture
def flasks_way(own):
    calls = hook(own.app)
    yield
    assert calls


@pytest.fixture
def lanes_way(own, monkeypatch):
    def fail(*_):
        raise AssertionError("Flask was asked")

    monkeypatch.setattr(own.app, "full_dispatch_request", fail)


@pytest.mark.parametrize(("name", "headers", "body"), CASES, ids=[case[0] for case in CASES])
def test_the_lane_answers_without_flask(own, lanes_way, name, headers, body):
    assert push(own, headers, body)[0][:3] in ("200", "400", "413", "415")


@pytest.mark.parametrize(("name", "headers", "body"), CASES, ids=[case[0] for case in CASES])
def test_flasks_way_answers_the_same_to_the_byte(own, flasks_way, name, headers, body):
    other = loaded()
    assert push(own, headers, body) == push(other, headers, body)
    other.relay.maintenance.close()


def test_both_refuse_a_caller_that_is_not_local(own):
    quick = push(own, FORM, b"destination=a&data=x", remote="192.0.2.7")
    assert hook(own.app) == []
    assert push(own, FORM, b"destination=a&data=x", remote="192.0.2.7") == quick
    assert quick[0].startswith("401")


def test_both_answer_the_same_when_the_relay_fails(own, monkeypatch):
    monkeypatch.setattr(own.relay.broker, "publish_pending", None)
    quick = push(own, FORM, b"destination=a&data=x")
    hook(own.app)
    assert push(own, FORM, b"destination=a&data=x") == quick
    assert quick[0].startswith("500") and json.loads(quick[2])["error"] == "internal_server_error"


# The lane: the header is known from an earlier request, and the push is taken without an environ.


@pytest.fixture
def asked(own, monkeypatch):
    """A list that gets an element for each push that came as an environ."""
    calls = []
    answer = own.relay.publisher.answer
    monkeypatch.setattr(own.relay.publisher, "answer", lambda *args: calls.append(1) or answer(*args))
    return calls


@contextlib.contextmanager
def serving(module):
    """Serve a relay on our own server, and give a function that sends a request to it, for post().

    A request that comes while a thread of the server is still busy with the answer before it, or when no thread is
    free, takes the app's way although its header is known. So the function waits for that thread, and there are more.
    """
    server = Server(module.app, port=0, threads=4, shortcut=module.relay.front.lane)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:

        def send(data):
            wait_for(lambda: not any(each.is_owed() for each in server._conversations()), "the end of an answer")
            sock.sendall(data)
            return sock

        yield send
    server.close()


@pytest.fixture
def served(own):
    with serving(own) as send:
        yield send


def post(send, headers, body, path="/push"):
    """Return the answer without its date and the number of the publication."""
    lines = [f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": len(body)}.items()]
    answer = http.client.HTTPResponse(
        send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(lines)}\r\n".encode() + body)
    )
    answer.begin()
    headers = sorted(
        (name, re.sub(r"epoch:\d+", "epoch:N", value)) for name, value in answer.getheaders() if name != "Date"
    )
    return answer.status, headers, re.sub(rb"epoch:\d+", b"epoch:N", answer.read())


@pytest.mark.parametrize(("name", "headers", "body"), CASES, ids=[case[0] for case in CASES])
def test_a_push_whose_header_is_known_is_answered_the_same(served, name, headers, body):
    first = post(served, headers, body)
    assert [post(served, headers, body) for _ in range(3)] == [first] * 3


PLAIN = b"destination=a&data=x"
ODD = {
    "encoded": b"destination=a&data=%41",
    "a space": b"destination=a&data=+",
    "an encoded destination": b"destination=user%3A7&data=%26%3D",
    "no encoding": b"destination=a&data=%zz%",
    "an encoded control character": b"destination=%0A&data=x",
    "encoded control characters": b"destination=a&data=%00%0A",
    "not UTF-8": b"destination=a&data=\xff",
    "not UTF-8 when decoded": b"destination=a&data=%C3",
    "half a character encoded": b"destination=a&data=%C3\xa9",
    "half a character not encoded": b"destination=a&data=\xc3%A9",
    "a control character": b"destination=\x7f&data=x",
    "too long": b"destination=" + b"a" * 300 + b"&data=x",
    "no destination": b"destination=&data=x",
    "another order": b"data=x&destination=a",
    "another field": b"destination=a&data=x&event=b",
    "a list": b"destination=a&destination=b&data=x",
    "twice": b"destination=a&data=x&data=y",
    "not a line": b"destination=a\n&data=x",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_a_form_that_is_not_plain_is_answered_the_same_though_its_header_is_known(served, asked, body):
    """Each has the same header as a plain push before. Only refusals need an environ."""
    plain = PLAIN + b"x" * (len(body) - len(PLAIN))
    first = post(served, FORM, body)
    assert post(served, FORM, plain)[0] == post(served, FORM, plain)[0] == 200
    asked.clear()
    assert post(served, FORM, plain)[0] == 200 and not asked
    assert post(served, FORM, body) == first and bool(asked) == (first[0] != 200)


LINES = {"Content-Type": "application/x-ndjson"}
ANY = {
    "JSON": ("/push", JSON, b'{"destination": "a", "data": {"x": [1.5, null, "\xc3\xbc"]}}'),
    "JSON with options": ("/push", JSON, b'{"destination": 7, "data": 1, "event": "e", "ttl": 5, "except": "s"}'),
    "JSON to several": ("/push", JSON, b'{"destination": ["a", "b"], "data": ""}'),
    "JSON with a charset": (
        "/push",
        {"Content-Type": "Application/JSON; charset=utf-8"},
        b'{"destination":1,"data":1}',
    ),
    "a batch": ("/push", JSON, b'[{"destination": "a", "data": 1}, {"destination": "", "data": 1}, 7]'),
    "lines": ("/push", LINES, b'{"destination": "a", "data": 1}\n\nnot JSON\n{"destination": "b", "data": 2}\n'),
    "multipart": ("/push", *reversed(multipart(destination="a", data="\xfc"))),
    "a form with a charset": ("/push", {"Content-Type": f"{FORM['Content-Type']}; charset=UTF-8"}, PLAIN),
    "a form without a type": ("/push", {}, b"destination[]=a&data=%C3%BC+%26"),
    "a form at the root": ("/", FORM, PLAIN),
    "any form at the root": ("/", {"Content-Type": "text/plain"}, b"destination=a&data=x&id=\xff&wait=7"),
    "JSON at the root": ("/", JSON, b'{"destination": ["a", "b"], "data": {}}'),
}


@pytest.mark.parametrize(("path", "headers", "body"), ANY.values(), ids=ANY)
def test_a_body_of_any_kind_is_taken_without_an_environ_and_answered_the_same(served, asked, path, headers, body):
    first = [post(served, headers, body, path) for _ in range(2)]
    assert len(asked) == 1 and first[0] == first[1] and first[0][0] == 200
    asked.clear()
    assert post(served, headers, body, path) == first[0] and not asked


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/push", b'{"destination": "a", "data": 1, "wait": 0.01}', 200),
        ("/push", b'[{"destination": "", "data": 1}, 7]', 200),
        ("/push", b"[]", 200),
        ("/push", b'{"destination": "a", "data": 1, "data": 2}', 400),
        ("/push", b'\xef\xbb\xbf{"destination": "a", "data": 1}', 400),
        ("/push", b'{"destination": "a", "data": ' + b"[" * 101 + b"]" * 101 + b"}", 400),
        ("/push", b'{"destination": "a", "data": 1' + b"0" * 400 + b"}", 400),
        ("/push", b'{"destination": "a", "data": "\\ud800"}', 400),
        ("/", b'[{"destination": "a", "data": 1}]', 400),
    ],
)
def test_a_push_that_waits_or_is_refused_is_answered_by_the_app_though_its_header_is_known(
    served, asked, path, body, status
):
    answers = [post(served, JSON, body, path) for _ in range(3)]
    assert answers == answers[:1] * 3 and answers[0][0] == status and len(asked) == 3


def test_a_key_in_the_body_means_the_same_though_its_header_is_known(own, served, asked):
    bodies = [b'{"destination": "a", "data": %d, "id": "order"}' % number for number in (1, 1, 2)]
    first, again, reused = (post(served, JSON, body) for body in bodies)
    assert first == again and len(asked) == 1
    assert reused[0] == 422 and json.loads(reused[2])["error"] == "id_reused" and len(asked) == 1
    assert post(served, {**JSON, "X-Other": "header"}, bodies[2]) == reused and len(asked) == 2
    assert own.relay.broker.position("a") == "epoch:1"


def test_a_body_that_grows_beyond_max_body_as_json_is_refused_though_its_header_is_known():
    small = loaded(max_body=2000)
    with serving(small) as send:
        for body in (b"destination=a&data=" + b"\x01" * 400, b"destination=a&data=+" + b"\x01" * 399):
            plain = b"destination=a&data=" + b"x" * 400
            assert [post(send, FORM, plain)[0], post(send, FORM, body)[0]] == [200, 413]
    small.relay.maintenance.close()


def test_a_failure_of_the_relay_is_a_500_though_the_header_is_known(served, monkeypatch):
    body = b'{"destination": "a", "data": 1, "ttl": 5}'
    assert [post(served, JSON, body)[0] for _ in range(2)] == [200] * 2
    monkeypatch.setattr("pushrelay.push.fields.push_of", None)
    assert [post(served, JSON, body)[0] for _ in range(2)] == [500] * 2


def test_a_caller_that_was_refused_is_refused_though_its_header_is_known(served):
    for _ in range(3):
        assert post(served, {**FORM, "X-Forwarded-For": "127.0.0.1"}, PLAIN)[0] == 401
        assert post(served, {**FORM, "Origin": "https://elsewhere.example"}, PLAIN)[0] == 403


def test_a_repeated_key_is_one_push_though_its_header_is_known(own, served):
    for _ in range(3):
        assert post(served, {**FORM, "Idempotency-Key": "once"}, PLAIN)[0] == 200
    assert own.relay.broker.position("a") == "epoch:1"


def test_functions_that_are_hooked_into_flask_are_called_though_the_header_is_known(own, served, monkeypatch):
    assert post(served, FORM, PLAIN)[0] == post(served, FORM, PLAIN)[0] == 200
    calls = hook(own.app)
    assert post(served, FORM, PLAIN)[0] == 200 and calls


def test_a_function_that_wraps_the_app_sees_every_push_though_its_header_is_known(own, served, monkeypatch):
    assert post(served, FORM, PLAIN)[0] == post(served, FORM, PLAIN)[0] == 200
    calls, inner = [], own.app.wsgi_app
    wrapper = lambda environ, start_response: calls.append(1) or inner(environ, start_response)  # noqa: E731
    monkeypatch.setattr(own.app, "wsgi_app", wrapper)
    assert [post(served, FORM, PLAIN)[0] for _ in range(3)] == [200] * 3 and len(calls) == 3


@pytest.mark.parametrize("hooks", ["before_request_funcs", "after_request_funcs", "teardown_request_funcs"])
def test_hooks_of_a_blueprints_own_routes_leave_pushes_in_the_lane(own, lanes_way, monkeypatch, hooks):
    monkeypatch.setitem(getattr(own.app, hooks), "shop", [lambda *_: pytest.fail("it is called")])
    assert push(own, FORM, PLAIN)[0].startswith("200")


# Keys and their rates, on all ways.

KEYED = {**FORM, "X-Relay-Key": KEY, "Via": "1.1 proxy"}


@pytest.fixture
def rated(own, monkeypatch):
    """The clock by which the rates of keys are measured, in a list: see `own`."""
    now = [1000.0]
    monkeypatch.setattr("pushrelay.token_bucket.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("path", ["/push", "/"])
@pytest.mark.parametrize("way", ["lanes_way", "flasks_way"])
def test_a_key_that_pushes_too_much_gets_429_with_retry_after(own, request, rated, way, path):
    request.getfixturevalue(way)
    assert [push(own, KEYED, PLAIN, path=path)[0] for _ in range(3)] == ["200 OK"] * 3
    status, headers, body = push(own, KEYED, PLAIN, path=path)
    assert (status.lower(), dict(headers)["Retry-After"]) == ("429 too many requests", "1")
    assert json.loads(body)["error"] == "too_fast" and "web" in json.loads(body)["message"]
    rated[0] += 0.34
    assert [push(own, KEYED, PLAIN, path=path)[0][:3] for _ in range(2)] == ["200", "429"]
    assert own.relay.broker.position("a") == "epoch:4"


def test_each_publication_counts_and_a_refused_push_is_not_published(own, rated):
    batch = json.dumps([{"destination": ["a", "b"], "data": 1}, {"destination": 7.5, "data": 1}]).encode()
    headers = {**KEYED, **JSON}
    assert push(own, headers, batch)[0] == "200 OK"
    assert push(own, headers, batch)[0][:3] == "429"
    assert push(own, KEYED, b"destination=a&data=x&evnet=x")[0][:3] == "400"
    assert push(own, KEYED, PLAIN)[0] == "200 OK"
    assert push(own, KEYED, PLAIN)[0][:3] == "429"
    assert own.relay.broker.position("b") == "epoch:1"


def test_pushes_whose_header_is_known_count_as_well(own, served, rated, asked):
    assert [post(served, KEYED, PLAIN)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    rated[0] += 1
    asked.clear()
    assert [post(served, KEYED, PLAIN)[0] for _ in range(3)] == [200] * 3 and not asked
    status, headers, body = post(served, KEYED, PLAIN)
    assert (status, dict(headers)["Retry-After"], json.loads(body)["error"]) == (429, "1", "too_fast")
    assert own.relay.broker.position("a") == "epoch:6"


def test_a_known_header_with_a_wrong_key_stays_wrong(served, rated):
    for _ in range(3):
        assert post(served, {**KEYED, "X-Relay-Key": KEY[:-1]}, PLAIN)[0] == 403


def test_each_publication_counts_and_a_refused_one_does_not_though_the_header_is_known(own, served, rated, asked):
    body = b'{"destination": ["a", "b"], "data": 1}'
    headers = {**KEYED, **JSON}
    assert [post(served, headers, body)[0] for _ in range(3)] == [200, 429, 429]
    assert own.relay.broker.position("b") == "epoch:1"
    rated[0] += 10
    asked.clear()
    assert [post(served, headers, body)[0] for _ in range(2)] == [200, 429] and len(asked) == 1


def test_pushes_from_this_machine_have_no_rate_limit(served, rated):
    assert {post(served, FORM, PLAIN)[0] for _ in range(50)} == {200}


def test_a_header_that_is_known_keeps_no_more_than_64_addresses(own, monkeypatch):
    """Programs with the same header may have any number of addresses; from the 65th on, each push is checked."""
    batcher = SimpleNamespace(is_full=lambda: False, add=lambda *_: None)
    monkeypatch.setattr(own.relay.publisher, "batcher", batcher)
    asked, may_push = [], own.relay.publisher.access.may_push
    monkeypatch.setattr(
        own.relay.publisher.access, "may_push", lambda env: asked.append(env["REMOTE_ADDR"]) or may_push(env)
    )
    form = {"CONTENT_TYPE": "application/x-www-form-urlencoded", "CONTENT_LENGTH": str(len(PLAIN))}
    take = lane_for(own.relay.publisher, {"REQUEST_METHOD": "POST", "HTTP_HOST": "localhost", **form})
    addresses = [f"127.0.0.{number}" for number in range(1, 101)]
    for _ in range(2):
        for address in addresses:
            connection = SimpleNamespace(peer=(address, 1), poller=None)
            assert take(PLAIN, SimpleNamespace(connection=connection, park=lambda: None))
    assert asked == addresses + addresses[64:]
