"""The event that PHP gets of a request or a message of a page."""

import json

import pytest

from pushrelay.access.member import Member
from pushrelay.errors import Refused
from pushrelay.requests.asked import Page, request_event, request_of, rest_of, send_of


def test_a_request_has_a_name_and_data_that_may_be_missing():
    assert request_of({"name": "cart/add", "data": {"sku": 7}})[:2] == ("cart/add", '{"sku":7}')
    assert request_of({"name": "cart"})[:2] == ("cart", "null")


def test_a_message_may_have_an_id():
    assert send_of({"name": "seen", "id": "a-b"}).id == "a-b" and send_of({"name": "seen"}).id == ""
    for bad in (7, "", "a" * 129, "a\nb"):
        with pytest.raises(Refused, match="randomUUID"):
            send_of({"name": "seen", "id": bad})
    with pytest.raises(Refused, match="'id' is not a field"):
        request_of({"name": "seen", "id": "a-b"})


def test_php_gets_only_what_is_known_of_the_page():
    asked = request_of({"name": 'a "quoted" name', "data": [1]})
    assert json.loads(rest_of(asked, Page("sid1", None, []))) == {
        "name": 'a "quoted" name',
        "data": [1],
        "sid": "sid1",
    }
    member = Member("42", '{"name":"Eve"}')
    assert json.loads(rest_of(asked, Page("sid1", member, ["a", "b"])))["as"] == {"id": "42", "info": {"name": "Eve"}}


def test_each_request_has_an_id_of_its_own():
    asked, page = request_of({"name": "a"}), Page("sid1", None, ["a"])
    first, second = (json.loads(request_event(asked, page)) for _ in range(2))
    assert first["id"] != second["id"] and first["event"] == "request" and list(first)[:3] == ["id", "event", "at"]
