"""The responses of a relay are distinguished from those of other programs."""

import email.message
import json

import pytest

from pushrelay.client.deadline import Reply
from pushrelay.client.errors import ClientError
from pushrelay.client.replies import engineio_message, read_object, receipt, refusal_message

WHERE = "http://relay.example/"


def reply(body, status=200, **headers):
    found = email.message.Message()
    for name, value in headers.items():
        found[name] = value
    return Reply(status, "Reason", found, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_a_json_object_counts_as_an_empty_one(body):
    assert read_object(reply(body)) == {}


def test_a_refusal_is_the_relays_only_with_an_error_code_and_a_message():
    assert refusal_message(reply({"error": "missing_key", "message": "send a key"}, 401)) == "send a key"
    for other in ({"error": "Not Found", "message": "x"}, {"error": "missing_key"}, {"message": "x"}, {"error": 1}):
        assert refusal_message(reply(other, 404)) == ""
    assert refusal_message(reply({"error": "missing_key", "message": "send a key"}, 200)) == ""


def test_a_refusal_of_engineio_has_a_number_as_its_code():
    assert engineio_message(reply({"code": 1, "message": "Session ID unknown"}, 400)) == "Session ID unknown"
    assert engineio_message(reply({"code": True, "message": "x"}, 400)) == ""


def test_a_receipt_is_for_the_destination_that_was_pushed_to():
    answer = {"destination": "a", "id": "e:1", "connections": 2}
    assert receipt(reply(answer), "a", WHERE) == answer
    for other in ({**answer, "destination": "b"}, {**answer, "id": 1}, [answer]):
        with pytest.raises(ClientError, match=f"something other than a relay answered at {WHERE}") as raised:
            receipt(reply(other), "a", WHERE)
        assert raised.value.reply is not None and "check the address" in str(raised.value)


def test_a_redirect_in_place_of_a_receipt_is_reported_with_its_target():
    with pytest.raises(ClientError, match="redirects to https://b.example/: give the relay's own address"):
        receipt(reply(b"", 301, Location="https://b.example/"), "a", WHERE)
