"""Headers that a server remembers."""

import threading
import time

from pushrelay.server.known_headers import REMEMBERED_HEADERS, KnownHeader, KnownHeaders
from pushrelay.server.response import whole_head


def known():
    return KnownHeader({"REQUEST_METHOD": "POST"}, "1.1", True, 0)


def test_the_number_of_remembered_headers_has_a_bound():
    headers = KnownHeaders()
    for number in range(3 * REMEMBERED_HEADERS):
        headers.add(b"%d" % number, known())
    assert len(headers.by_bytes) == REMEMBERED_HEADERS


def test_a_shortcut_that_was_being_made_is_forgotten_too():
    making, go_on = threading.Event(), threading.Event()

    def shortcut(environ):
        making.set()
        go_on.wait(20)

    headers = KnownHeaders(shortcut)
    adding = threading.Thread(target=headers.add, args=(b"x", known()))
    adding.start()
    making.wait(20)
    forgetting = threading.Thread(target=headers.forget)
    forgetting.start()
    go_on.set()
    adding.join()
    forgetting.join()
    assert not headers.by_bytes


def test_each_response_to_a_known_header_has_its_own_status_headers_length_and_date(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr("pushrelay.server.known_headers.time.monotonic", lambda: now)
    header, text, json = known(), (("Content-Type", "text/plain"),), (("Content-Type", "application/json"),)
    cases = [("200 OK", json, 5), ("200 OK", json, 6), ("200 OK", text, 5), ("503 Service Unavailable", text, 5)]
    for status, headers, length in cases * 2:
        head = whole_head(header, status, headers, length).decode()
        assert head.startswith(f"HTTP/1.1 {status}\r\nContent-Type: {headers[0][1]}\r\n")
        assert f"Content-Length: {length}\r\n" in head
    heads = header.heads
    assert heads.are_for("503 Service Unavailable", text)
    now += 1.1
    assert not heads.are_for("503 Service Unavailable", text)


def test_headers_that_the_app_may_change_are_not_remembered():
    header, headers = known(), [("X-Number", "1")]
    assert b"X-Number: 1" in whole_head(header, "200 OK", headers, 0)
    headers[0] = ("X-Number", "2")
    assert b"X-Number: 2" in whole_head(header, "200 OK", headers, 0)
