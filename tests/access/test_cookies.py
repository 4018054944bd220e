"""Cookies in a request: the value as PHP reads it, and the names for messages."""

import pytest

from pushrelay.access.cookies import cookie_names, cookie_value
from pushrelay.errors import Refused


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("PHPSESSID=a", "a"),
        ("x=1; PHPSESSID=a;y=2", "a"),
        ("PHPSESSID=a; PHPSESSID=b", "a"),
        ("XPHPSESSID=b; phpsessid=c; PHPSESSID=a", "a"),
        ("PHPSESSID=a=b", "a=b"),
        ("PHPSESSID=a%20%C3%BC+b", "a ü+b"),
        ("PHPSESSID=a%zz", "a%zz"),
        ("PHPSESSID=\xc3\xbc", "ü"),
        ("PHPSESSID=", ""),
        ("PHPSESSID", ""),
        ("x=PHPSESSID=a", ""),
        ("", ""),
    ],
)
def test_the_cookie_is_read_as_php_reads_it(header, value):
    assert cookie_value(header, "PHPSESSID") == value


def test_a_cookie_that_is_not_text_is_refused():
    with pytest.raises(Refused) as error:
        cookie_value("PHPSESSID=%ff", "PHPSESSID")
    assert (error.value.status, error.value.error) == (400, "invalid_cookie")


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("", []),
        ("a=1; B.c-d=2", ["a", "B.c-d"]),
        ("s3cr3t; a=1", ["a"]),
        ("a=s3cr3t=x", ["a"]),
        ("<b>=1; ü=2; a=3", ["a"]),
        ("x" * 41 + "=1; a=2", ["a"]),
        ("; ".join(f"c{n}=v" for n in range(9)), ["c0", "c1", "c2", "c3", "c4"]),
    ],
)
def test_a_message_names_a_few_cookies_and_shows_no_value(header, names):
    assert cookie_names(header) == names
