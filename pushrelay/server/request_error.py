"""Requests that the server itself rejects, before any app sees them."""

import json

from .quota import NO_ROOM

CODES = (
    "bad_request",
    "draining",
    "expectation",
    "header_too_large",
    "http_version",
    "request_timeout",
    "too_large",
    "too_many_connections",
    "transfer_encoding",
)


class RequestError(Exception):
    """A request that cannot be served: it gets an error in JSON as its response, and its connection is closed.

    `status` is the HTTP status with its phrase, `error` the code for programs, `message` the sentence for people.
    """

    def __init__(self, status: str, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.body = json.dumps({"error": error, "message": message}).encode()


def bad_request(message: str) -> RequestError:
    """Return an error with status 400."""
    return RequestError("400 Bad Request", "bad_request", message)


def timeout_error(phase: str, seconds: float) -> RequestError:
    """Return the error for a request whose `phase`, header or body, was not complete within `seconds`."""
    setting = f"{phase}_timeout"
    message = f"the request must be complete within {seconds:g} seconds (setting {setting})"
    return RequestError("408 Request Timeout", "request_timeout", message)


def draining_error() -> RequestError:
    """Return the error for a request that is not complete when the server ends."""
    message = "the relay is going down, and this request was not carried out: send it again later"
    return RequestError("503 Service Unavailable", "draining", message)


def no_room_error() -> RequestError:
    """Return the error for a connection that may not stay and whose request does not come."""
    return RequestError("503 Service Unavailable", "too_many_connections", NO_ROOM)


def late_error(phase: str, limits: object, is_ending: bool, has_no_room: bool) -> RequestError:
    """Return the error for a request that is not complete when its connection ends: see the functions above."""
    if is_ending:
        return draining_error()
    return no_room_error() if has_no_room else timeout_error(phase, getattr(limits, f"{phase}_timeout"))
