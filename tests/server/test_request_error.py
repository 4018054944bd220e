"""Errors for requests that no app sees."""

import json

from pushrelay.server.request_error import bad_request, draining_error, no_room_error, timeout_error


def test_an_error_has_its_code_and_its_sentence_in_json():
    error = bad_request("send a Host header")
    assert (error.status, error.error, str(error)) == ("400 Bad Request", "bad_request", "send a Host header")
    assert json.loads(error.body) == {"error": "bad_request", "message": "send a Host header"}


def test_a_timeout_names_the_setting_and_its_seconds():
    error = timeout_error("header", 2.5)
    assert error.status.startswith("408 ") and "header_timeout" in error.message and "2.5 seconds" in error.message


def test_a_client_can_tell_a_restart_from_a_lack_of_room():
    assert [each.status[:3] for each in (draining_error(), no_room_error())] == ["503", "503"]
    assert [each.error for each in (draining_error(), no_room_error())] == ["draining", "too_many_connections"]
