"""The answers to requests that the Engine refuses."""

import json

import pytest

from pushrelay.engine.errors import BAD_REQUEST, Rejected, limit_answer, origin_message
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
