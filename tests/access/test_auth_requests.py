"""Requests to auth_url: each has one result, which all who wait get."""

import threading

import pytest

from pushrelay.access.auth_requests import AuthRequest, not_available
from pushrelay.access.tokens import Patterns, Rights
from pushrelay.access.visitor import Visitor
from pushrelay.errors import Refused

RIGHTS = Rights(Patterns(["42"]), Patterns([]))


def request_of(share=None):
    return AuthRequest(Visitor(), share)


def test_the_first_result_is_the_one_that_counts():
    request = request_of()
    request.finish(RIGHTS)
    request.finish(not_available("too late"))
    assert request.is_done and request.result() is RIGHTS


def test_each_client_gets_a_new_exception_for_a_refusal():
    request = request_of()
    request.finish(not_available("no answer"))
    raised = []
    for _ in range(2):
        with pytest.raises(Refused, match="no answer") as error:
            request.result()
        raised.append(error.value)
    assert raised[0] is not raised[1], "an exception that is raised twice would grow its traceback"
    assert (raised[0].status, raised[0].error) == (503, "auth_not_available")


def test_callbacks_are_called_once_and_at_once_if_there_is_a_result():
    request, called = request_of(), []
    request.call_when_done(lambda: called.append("early"))
    assert called == []
    request.finish(RIGHTS)
    request.finish(RIGHTS)
    request.call_when_done(lambda: called.append("late"))
    assert called == ["early", "late"]


def test_a_waiting_thread_continues_with_the_result():
    request = request_of()
    waiting = threading.Thread(target=request.wait, daemon=True)
    waiting.start()
    request.finish(RIGHTS)
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_request_without_a_result_is_refused():
    with pytest.raises(Refused, match="takes too long"):
        request_of().result()
