"""PHP's answers, byte by byte. Those of a real PHP are in test_requests.py."""

import json
from email.message import Message

import pytest

from pushrelay import json_text
from pushrelay.client.deadline import Reply
from pushrelay.errors import Refused
from pushrelay.requests.php_answer import MOST_MESSAGE, outcome_of


def outcome(status, body, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return outcome_of(Reply(status, "", message, body), 1000)


@pytest.mark.parametrize(
    "body", [b"{}", b" [1, 2]\n", b'"a"', b"null", b"12.5", '"ß"'.encode(), '"ß"'.encode("utf-16")]
)
def test_any_json_value_is_an_answer(body):
    answer = outcome(200, body).answer
    assert json.loads(answer) == json.loads(body) and answer == answer.strip()


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_nothing_is_null(body):
    assert outcome(200, body).answer == outcome(201, body).answer == "null"


@pytest.mark.parametrize(
    "body",
    [b"NaN", b"[1e999]", b"9" * 400, b"{} <b>Warning", b"\xff\xfe\xfa", b"[" * 500 + b"]" * 500, b'"a\x1eb"'],
)
def test_a_text_that_no_browser_can_read_is_refused(body):
    found = outcome(200, body)
    assert isinstance(found.answer, Refused) and found.answer.error == "request_failed" and found.cause == "answer"


def test_the_operator_sees_the_beginning_of_such_an_answer_on_one_line():
    reason = outcome(200, b"<br />\r\n<b>Warning</b>:\x1b[31m " + b"x" * 900).reason
    assert "begins with: <br /> <b>Warning</b>:[31m xxx" in reason and len(reason) < 130 and reason.isprintable()


def test_a_message_of_php_has_a_bound():
    text = json.dumps({"message": "x" * 900}).encode()
    assert len(outcome(422, text).answer.message) == MOST_MESSAGE


def test_half_of_a_surrogate_pair_in_a_message_does_not_cost_the_page_its_answer():
    body = outcome(422, rb'{"error": "sold_out", "message": "none \ud83d left"}').answer.body()
    assert body["message"] == "none ? left" and json_text.encode(body).encode()


@pytest.mark.parametrize("error", ["Not a code", "", 7, None, "a" * 65, "1st"])
def test_an_error_that_is_not_a_code_does_not_become_one_in_the_page(error):
    assert outcome(422, json.dumps({"error": error}).encode()).answer.error == "invalid_request"


@pytest.mark.parametrize(
    ("value", "after"), [("7", 7), ("0", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
def test_a_time_to_wait_is_in_seconds(value, after):
    body = outcome(503, b"", Retry_After=value).answer.body()
    assert body.get("retry_after") == after and body["status"] == 503


@pytest.mark.parametrize("error", ["missing_signature", "wrong_signature", "old_signature"])
def test_a_signature_that_php_rejects_is_the_operators_affair(error):
    body = json.dumps({"error": error, "message": "use the text of webhook_secret"}).encode()
    found = outcome(403, body)
    assert found.answer.error == "request_failed" and "webhook_secret" not in found.answer.message
    assert "use the text of webhook_secret" in found.reason and "webhook_secret" in found.advice


def test_a_status_without_json_is_logged_with_what_to_check():
    found = outcome(404, b"<h1>Not Found</h1>")
    assert found.answer.error == "unknown_request" and "check the path in request_url" in found.advice
    assert not outcome(404, b"").cause and not outcome(404, b'{"message": "unknown"}').cause
