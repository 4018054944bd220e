"""The word by which the doctor recognizes a relay: shown to callers that may push, and to no others."""

import json
import os

from pushrelay.access.callers import Access
from pushrelay.access.instance import ENVIRON_KEY, HEADER, MOST_REPORTED, SHOW_WORD, WORD, reporting
from pushrelay.settings import load

LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8080"}
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7", "HTTP_HOST": "example.com"}


def report(environ, asked, **settings):
    """The report in the response to a request with this environ and this header."""
    sent = []

    def start_response(status, headers, *more):
        sent.append((status, headers))

    access = Access(load({"RELAY_CONFIG": os.devnull}, settings))
    reporting({**environ, ENVIRON_KEY: asked}, start_response, access)("200 OK", [("X-Other", "kept")])
    ((status, headers),) = sent
    assert status == "200 OK" and headers[0] == ("X-Other", "kept") and headers[1][0] == HEADER
    assert headers[1][1].isascii() and "\n" not in headers[1][1]
    return json.loads(headers[1][1])


def test_the_word_is_shown_to_callers_that_may_push_and_to_no_others():
    assert report(LOCAL, SHOW_WORD) == {"word": WORD}
    assert report(ELSEWHERE, SHOW_WORD) == {}
    key = {"HTTP_X_RELAY_KEY": "the-key-of-the-website"}
    assert report({**ELSEWHERE, **key}, SHOW_WORD, push_keys="web:the-key-of-the-website") == {"word": WORD}


def test_another_word_learns_only_that_it_is_another_relay():
    for asked in ("", "x", WORD[:-1], WORD + "0", "ü"):
        assert report(ELSEWHERE, asked) == {"same": False}, asked


def test_with_the_word_a_request_is_reported_as_it_arrived():
    environ = {**ELSEWHERE, "HTTP_X_FORWARDED_FOR": "203.0.113.5", "QUERY_STRING": "EIO=4", "HTTP_COOKIE": "a=1"}
    arrived = {
        "host": "example.com",
        "peer": "192.0.2.7",
        "forwarded": "203.0.113.5",
        "query": "EIO=4",
        "cookie": "a=1",
    }
    assert report(environ, WORD) == {"same": True, "trusted": False, **arrived}
    assert report(environ, WORD, trusted_proxies="192.0.2.7")["trusted"]


def test_a_long_header_is_reported_in_part():
    assert len(report({**LOCAL, "HTTP_COOKIE": "x" * 5000}, WORD)["cookie"]) == MOST_REPORTED
