"""The site sees the browser of a socket as if that visited the site itself."""

from pushrelay.access.visitor import Visitor, visitor_of


def test_a_request_to_the_site_has_the_cookies_the_agent_and_the_address_of_the_browser():
    environ = {"HTTP_COOKIE": "PHPSESSID=1", "HTTP_USER_AGENT": "Firefox", "REMOTE_ADDR": "10.0.0.1"}
    assert visitor_of(environ, "203.0.113.9").headers() == {
        "Accept": "application/json",
        "Cookie": "PHPSESSID=1",
        "User-Agent": "Firefox",
        "X-Forwarded-For": "203.0.113.9",
    }


def test_headers_that_the_browser_did_not_send_are_left_out():
    assert visitor_of({}, None).headers() == {"Accept": "application/json"}


def test_an_agent_cannot_be_long_or_begin_a_header_of_its_own():
    agent = Visitor(agent="a\r\nX-Forwarded-For: 127.0.0.1" + "b" * 9000).headers()["User-Agent"]
    assert len(agent) <= 512 and "\n" not in agent and "\r" not in agent
