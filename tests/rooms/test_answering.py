"""Handlers of the relay's own events: the acknowledgement is what they return, or why they refuse."""

import pytest

from pushrelay.errors import Refused, StoreError
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.rooms.answering import answering


class Server:
    """A socketio.Server as far as handlers need one: it keeps them, and the events that are emitted."""

    def __init__(self):
        self.manager, self.handlers, self.emitted = self, {}, []

    def on(self, event, handler):
        self.handlers[event] = handler

    def get_environ(self, sid):
        return None if sid == "gone" else {"REMOTE_ADDR": "192.0.2.1"}

    def emit(self, event, data, namespace, room):
        self.emitted.append((event, data, namespace, room))


@pytest.fixture
def server():
    server = Server()
    event = answering(server, RefusalLog(LogLimiter(), lambda environ: "192.0.2.1"))

    @event("register", "nothing was registered")
    def register(message, sid, environ):
        if isinstance(message, Exception):
            raise message
        return {"got": [message, sid, environ["REMOTE_ADDR"]]}

    return server


def test_the_answer_is_what_the_handler_returns(server):
    answer = server.handlers["register"]("a", "hello", True)
    assert answer == {"ok": True, "got": ["hello", "a", "192.0.2.1"]} and not server.emitted


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Refused(403, "not_allowed", "not you"), "not_allowed", "not you"),
        (StoreError("/secret/path is locked", "locked"), "store_not_available", "nothing was registered: locked"),
        (ZeroDivisionError(), "internal_server_error", "log"),
    ],
)
def test_an_error_is_the_answer_and_an_event_if_no_answer_was_asked_for(server, error, code, text):
    answer = server.handlers["register"]("a", error, True)
    assert (answer["ok"], answer["error"]) == (False, code) and text in answer["message"]
    assert not server.emitted
    assert server.handlers["register"]("a", error, False) == answer
    assert server.emitted == [("relay_error", answer, "/", "a")]


def test_a_client_that_has_left_gets_no_answer(server):
    assert server.handlers["register"]("gone", "hello", True) is None
