"""PHP gets to know the user and the destinations of the page behind a socket."""

import time

import pytest

from pushrelay.access.member import Member
from pushrelay.access.tokens import Patterns, Rights
from pushrelay.errors import Refused
from pushrelay.register.pages import Pages
from pushrelay.register.socket_state import state_of


class Rooms:
    """The rooms of one socket."""

    def __init__(self, *rooms):
        self._rooms = rooms

    def get_rooms(self, sid, namespace):
        return [sid, *self._rooms]


def pages(*rooms, allowed=True):
    return Pages(Rooms(*rooms), lambda environ: "203.0.113.9", lambda origin, environ: allowed)


def test_the_destinations_of_a_page_have_the_names_that_it_uses():
    assert pages("to:b", "me:secret-session", "to:a", "watch:x").ids("sid1") == ["me", "a", "b"]
    assert pages().ids("sid1") == []


@pytest.mark.parametrize(("seconds", "is_known"), [(None, True), (60, True), (-1, False)])
def test_the_user_of_a_page_is_known_as_long_as_its_rights_last(seconds, is_known):
    environ = {}
    assert pages().member("sid1", environ) is None
    expires = None if seconds is None else time.time() + seconds
    rights = Rights(Patterns(["a"]), Patterns([]), expires=expires, member=Member("42"))
    state_of("sid1", environ).rights = rights
    assert (pages().member("sid1", environ) == Member("42")) is is_known


def test_a_page_whose_origin_was_removed_is_refused():
    pages().check_origin({"HTTP_ORIGIN": "https://a.test"})
    with pytest.raises(Refused, match="origins"):
        pages(allowed=False).check_origin({"HTTP_ORIGIN": "https://a.test"})
