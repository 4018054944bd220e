"""Handlers of the relay's own events: the acknowledgement is what they return, or why they refuse."""

import json

import pytest

from pushrelay.errors import Refused, StoreError
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.rooms.answering import answering


class Server:
    """A socketio.Server as far as handlers need one: it keeps them, and the events that are emitted."""

    def __init__(self):
        self.manager, self.handlers, self.emitted, self.answers = self, {}, [], []
        self.not_handled = object()

    def on(self, event, handler):
        self.handlers[event] = handler

    def get_environ(self, sid):
        return None if sid == "gone" else {"REMOTE_ADDR": "192.0.2.1"}

    def emit(self, event, data, namespace, room):
        self.emitted.append((event, data, namespace, room))

    def send_answer(self, text, sid, ack):
        self.answers.append((json.loads(text), sid, ack))


@pytest.fixture
def server():
    server = Server()
    event = answering(server, RefusalLog(LogLimiter(), lambda environ: "192.0.2.1"))

    @event("register", "nothing was registered")
    def register(message, sid, environ):
        if isinstance(message, Exception):
            raise message
        return {"got": [message, sid, environ["REMOTE_ADDR"]]}

    @event.late("presence")
    def presence(message, sid, environ, reply):
        if isinstance(message, Exception):
            raise message
        server.reply = reply

    return server


def test_the_answer_is_what_the_handler_returns(server):
    answer = server.handlers["register"]("a", "hello", 7)
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
    answer = server.handlers["register"]("a", error, 0)
    assert (answer["ok"], answer["error"]) == (False, code) and text in answer["message"]
    assert not server.emitted
    assert server.handlers["register"]("a", error, None) == answer
    assert server.emitted == [("relay_error", answer, "/", "a")]


def test_a_client_that_has_left_gets_no_answer(server):
    assert server.handlers["register"]("gone", "hello", 7) is None


def test_a_late_handler_answers_when_it_likes(server):
    assert server.handlers["presence"]("a", "hello", 0) is server.not_handled and not server.answers
    server.reply.send('{"ok":true}')
    assert server.answers == [({"ok": True}, "a", 0)] and not server.emitted
    server.handlers["presence"]("a", "hello", None)
    server.reply.send('{"ok":true}')
    assert len(server.answers) == 1, "nobody asked for an answer"


def test_a_late_handler_refuses_at_once_or_later(server):
    error = Refused(403, "not_allowed", "not you")
    answer = {"ok": False, "error": "not_allowed", "message": "not you"}
    assert server.handlers["presence"]("a", error, 7) == answer
    server.handlers["presence"]("a", "hello", 8)
    server.reply.refuse(error)
    assert server.answers == [(answer, "a", 8)] and not server.emitted
    server.handlers["presence"]("a", "hello", None)
    server.reply.refuse(error)
    assert server.emitted == [("relay_error", answer, "/", "a")] and len(server.answers) == 1
    server.handlers["presence"]("a", "hello", 9)
    server.reply._sid = "gone"
    server.reply.refuse(error)
    assert len(server.answers) == 1
