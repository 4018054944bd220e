"""Requests to the site: what is posted, and why a request has no response. See also access/test_auth_site.py."""

import base64
import socket

import pytest
from one_answer import OK, answering

from pushrelay.client.site import Site, SiteError


def error_of(*pieces, seconds=5.0, **options):
    """Return the SiteError of a POST to a server that sends these pieces."""
    with answering(*pieces, **options) as (url, _), pytest.raises(SiteError) as caught:
        Site(url.geturl(), "request_url").post(b"{}", {}, seconds, 100)
    return caught.value


def test_a_body_is_posted_with_its_length_and_the_password_of_the_url():
    with answering(OK + b"hello") as (url, received):
        site = Site(f"http://me:pass%20word@{url.netloc}/ask?a=1", "request_url")
        assert site.post(b'{"a":1}', {"Content-Type": "application/json"}, 5, 100).body == b"hello"
    head, _, body = received[0].decode().partition("\r\n\r\n")
    password = base64.b64encode(b"me:pass word").decode()
    assert head.startswith("POST /ask?a=1 HTTP/1.1\r\n")
    assert {"Content-Length: 7", "Content-Type: application/json", f"Authorization: Basic {password}"} <= set(
        head.split("\r\n")
    )
    assert body == '{"a":1}'


def test_a_redirect_is_not_followed():
    with answering(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n") as (url, _):
        assert Site(url.geturl(), "request_url").post(b"{}", {}, 5, 100).status == 302


def test_no_more_than_the_limit_is_read():
    with answering(OK + b"hello") as (url, _):
        assert Site(url.geturl(), "request_url").get({}, 5, 3).body == b"hel"


def test_a_site_where_nothing_listens_has_not_got_the_request():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SiteError) as caught:
        Site(f"http://127.0.0.1:{port}/", "request_url").post(b"{}", {}, 5, 100)
    assert caught.value.cause == "connection" and not caught.value.was_sent
    assert "Connection refused" in caught.value.reason and "request_url" in caught.value.advice


def test_a_site_that_fails_later_may_have_got_the_request():
    timeout, cut, other = error_of(hold=True, seconds=0.3), error_of(OK + b"hel"), error_of(b"SSH-2.0-OpenSSH\r\n")
    assert [each.cause for each in (timeout, cut, other)] == ["timeout", "cut", "http"]
    assert timeout.was_sent and cut.was_sent and other.was_sent
    assert timeout.reason == "it did not answer within 0.3 s"


def test_a_file_with_a_ca_that_is_missing_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        Site("https://shop.test/", "request_url", "/no/such/ca.pem")
