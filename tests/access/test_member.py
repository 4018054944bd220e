"""The claim `as`: the user that a visitor is."""

import pytest

from pushrelay.access.member import MAX_INFO, Member, member_of
from pushrelay.access.tokens import Tokens, rights_of, sign
from pushrelay.errors import Refused
from pushrelay.settings import Settings

SECRET = "the-secret-of-this-relay-0123456789-0123456789"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"id": "42"}, Member("42", "{}")),
        ({"id": 42}, Member("42")),
        ({"id": 42.0}, Member("42")),
        ({"id": "ü👍 x", "info": {"name": "Änn", "age": 7}}, Member("ü👍 x", '{"name":"Änn","age":7}')),
        ({"id": "a" * 128, "info": {}}, Member("a" * 128)),
        ({"id": "42", "info": []}, Member("42")),  # PHP's empty array
        ({"id": "42", "info": None}, Member("42")),
        ({"id": "42", "info": {"a": "x" * (MAX_INFO - 8)}}, Member("42", f'{{"a":"{"x" * (MAX_INFO - 8)}"}}')),
    ],
)
def test_the_claim_names_a_user(given, expected):
    assert member_of({"as": given}) == expected


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("42", "a string"),
        (42, "a number"),
        ([], "a list"),
        (["42"], "a list"),
        ({}, "without id"),
        ({"info": {}}, "without id"),
        ({"id": None}, "null"),
        ({"id": True}, "true or false"),
        ({"id": 1.5}, "a fraction"),
        ({"id": 10**40}, "a number"),
        ({"id": ["42"]}, "a list"),
        ({"id": ""}, "1 to 128"),
        ({"id": "a" * 129}, "1 to 128"),
        ({"id": "a\nb"}, "control"),
        ({"id": "\ud800"}, "control"),
        ({"id": "42", "name": "Ann"}, "put it into info"),
        ({"id": "42", "info": "Ann"}, "an object, not a string"),
        ({"id": "42", "info": ["Ann"]}, "an object, not a list"),
        ({"id": "42", "info": {"a": "x" * (MAX_INFO - 7)}}, "1025 bytes"),
        ({"id": "42", "info": {"a": "ü" * 600}}, "at most 1024"),
        ({"id": "42", "info": {"a": "\ud800"}}, "Unicode"),
        ({"id": "42", "info": {"a": float("nan")}}, "number"),
        ({"id": "42", "info": {"a": 10**400}}, "number"),
    ],
)
def test_an_invalid_claim_is_refused_with_the_reason(given, word):
    with pytest.raises(ValueError, match=word):
        member_of({"as": given})


def test_without_the_claim_a_visitor_is_nobody():
    assert member_of({}) is None and member_of({"as": None}) is None


def test_a_token_gives_a_name_and_the_right_to_see_members():
    claims = {"ids": ["room-7"], "as": {"id": 42, "info": {"name": "Ann"}}, "presence": ["room-*"]}
    rights = Tokens(Settings(secret=(SECRET,))).read(sign(claims, SECRET))
    assert rights.member == Member("42", '{"name":"Ann"}')
    assert rights.presence.allows("room-7") and not rights.presence.allows("hall")
    plain = Tokens(Settings(secret=(SECRET,))).read(sign({"ids": ["room-7"]}, SECRET))
    assert plain.member is None and not plain.presence


def test_the_right_to_see_members_is_enough_for_a_token_but_a_name_is_not():
    tokens = Tokens(Settings(secret=(SECRET,)))
    assert tokens.read(sign({"presence": ["*"]}, SECRET)).presence.allows("room-7")
    with pytest.raises(Refused, match="it allows nothing"):
        tokens.read(sign({"as": {"id": "42"}}, SECRET))


@pytest.mark.parametrize(
    ("claims", "word"), [({"as": "42"}, "as names a user"), ({"presence": "*"}, "presence is a list")]
)
def test_a_refusal_names_the_claim(claims, word):
    with pytest.raises(ValueError, match=word):
        rights_of({"ids": ["42"], **claims}, Settings())
    with pytest.raises(Refused, match=word) as refused:
        Tokens(Settings(secret=(SECRET,))).read(sign({"ids": ["42"], **claims}, SECRET))
    assert refused.value.error == "invalid_token"
