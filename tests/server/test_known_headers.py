"""Headers that a server remembers."""

import threading

from pushrelay.server.known_headers import REMEMBERED_HEADERS, KnownHeader, KnownHeaders


def known():
    return KnownHeader({}, "1.1", True, 0)


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
