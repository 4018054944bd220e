"""The answers to requests that the Engine refuses."""

import json

import pytest

from pushrelay.engine.errors import BAD_REQUEST, WRONG_NODE, Rejected, limit_answer, origin_message, session_unknown
from pushrelay.engine.limits import LimitReached


def test_a_refusal_has_the_protocols_number_and_the_relays_code_for_it():
    status, headers, body = Rejected((4, "no"), "403 Forbidden", "origin_not_allowed").answer()
    assert status == "403 Forbidden" and ("Content-Type", "application/json") in headers
    assert json.loads(body) == {"code": 4, "message": "no", "error": "origin_not_allowed"}
    assert "error" not in json.loads(Rejected(BAD_REQUEST).answer().body)


@pytest.mark.parametrize(("status", "passes"), [("429 Too Many Requests", True), ("503 x", True), ("400 x", False)])
def test_a_refusal_that_passes_has_the_time_to_try_again(status, passes):
    headers = dict(limit_answer(LimitReached(status, "too_many_connections", "full")).headers)
    assert ("Retry-After" in headers) == passes == ("Access-Control-Expose-Headers" in headers)


@pytest.mark.parametrize(
    ("origin", "host", "advice"),
    [
        ("https://shop.example", "relay.example", "add this origin to the relay's setting origins"),
        ("https://shop.example", "127.0.0.1:8080", "pass the Host header on"),
        ("null", "relay.example", "open it from a web server"),
    ],
)
def test_the_message_for_a_refused_page_contains_what_to_do(origin, host, advice):
    assert advice in origin_message(origin, host)


def test_a_session_of_another_node_is_refused_with_both_names():
    refusal = session_unknown("2Xy_-z.b", "a")
    assert (refusal.code, refusal.status[:3], refusal.word) == (1, "400", WRONG_NODE)
    assert "belongs to node b, and this is node a" in refusal.message and "load-balancing.md" in refusal.message


@pytest.mark.parametrize("sid", ["2Xy", "2Xy.a", "2Xy.", "2Xy.<b>", "2Xy." + "b" * 33, ".", ""])
def test_a_session_of_this_node_or_without_a_node_is_merely_unknown(sid):
    assert (session_unknown(sid, "a").message, session_unknown(sid, "a").word) == ("Session ID unknown", "")


def test_a_relay_without_a_name_names_no_node():
    assert session_unknown("2Xy.b", "").message == "Session ID unknown"
