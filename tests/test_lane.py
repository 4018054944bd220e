"""The two ways of a push, Flask's and the shorter one: what they answer is the same to the byte."""

import json

import pytest
from test_http import FORM, JSON, REFUSED, TEXTS, multipart
from werkzeug.test import Client, EnvironBuilder

import relay as relay_app
from pushrelay.broker import open_broker

TAKEN = [(name, FORM, f"destination=a&data={name}".encode()) for name in TEXTS if name.isalpha()]
TAKEN += [
    ("a list", FORM, b"destination[]=a&destination[]=b&data=x"),
    ("JSON", JSON, json.dumps({"destination": ["ä", '"', 7], "data": {"x": None}, "event": "order"}).encode()),
    ("multipart", *reversed(multipart(destination="a", data="ü"))),
]
CASES = [(name, headers, body) for name, headers, body, *_ in REFUSED] + TAKEN


def push(headers, body, remote="127.0.0.1"):
    """The app's whole answer."""
    builder = EnvironBuilder("/push", method="POST", data=body, headers=headers, environ_base={"REMOTE_ADDR": remote})
    answer = Client(relay_app.app).open(builder)
    return answer.status, sorted(answer.headers), answer.data


@pytest.fixture(autouse=True)
def nothing_pushed_before(monkeypatch):
    """A broker of its own for each test, so that the answers to a push sent twice can be the same."""
    broker = open_broker("memory:", relay_app.deliver)
    broker.start()
    broker.epoch = "epoch"
    monkeypatch.setattr(relay_app.publisher, "_broker", broker)
    monkeypatch.setattr(relay_app.upkeep, "start", lambda: None)


@pytest.fixture
def flasks_way(monkeypatch):
    """Whoever hooks a function into Flask's way has it called, so the push takes that way."""
    calls = []
    monkeypatch.setitem(relay_app.app.before_request_funcs, None, [lambda: calls.append(1)])
    yield
    assert calls


@pytest.fixture
def lanes_way(monkeypatch):
    def fail(*_):
        raise AssertionError("Flask was asked")

    monkeypatch.setattr(relay_app.app, "full_dispatch_request", fail)


@pytest.fixture(scope="module")
def answers():
    """What the lane answered, for Flask's way to be compared with; the lane's tests come first."""
    return {}


@pytest.mark.parametrize(("name", "headers", "body"), CASES, ids=[case[0] for case in CASES])
def test_the_lane_answers_without_flask(lanes_way, answers, name, headers, body):
    answers[name] = push(headers, body)
    assert answers[name][0][:3] in ("200", "400", "413", "415")


@pytest.mark.parametrize(("name", "headers", "body"), CASES, ids=[case[0] for case in CASES])
def test_flasks_way_answers_the_same_to_the_byte(flasks_way, answers, name, headers, body):
    assert push(headers, body) == answers[name]


def test_both_refuse_who_is_not_local(flasks_way, monkeypatch):
    slow = push(FORM, b"destination=a&data=x", remote="192.0.2.7")
    monkeypatch.setattr(relay_app.app, "before_request_funcs", {})
    assert push(FORM, b"destination=a&data=x", remote="192.0.2.7") == slow
    assert slow[0].startswith("401")


def test_both_say_the_same_when_the_relay_fails(monkeypatch):
    monkeypatch.setattr(relay_app.publisher, "_broker", None)
    quick = push(FORM, b"destination=a&data=x")
    monkeypatch.setitem(relay_app.app.before_request_funcs, None, [lambda: None])
    assert push(FORM, b"destination=a&data=x") == quick
    assert quick[0].startswith("500") and json.loads(quick[2])["error"] == "internal_server_error"
