"""Complete responses, errors as JSON, and the headers with which browsers protect people."""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from werkzeug.exceptions import HTTPException

from pushrelay.errors import HELP, OTHER_ERROR, NotKnown, Refused, StoreError
from pushrelay.json_text import encode

# Every response declares its type; browsers must not guess it.
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
# The answer is for one client. Without this header a cache in front may store a 200 (RFC 9111, 3) and give one visitor
# the session of another.
NO_STORE = ("Cache-Control", "no-store")
PRIVATE = (NO_SNIFFING, NO_STORE)
JSON_HEADERS = (("Content-Type", "application/json"), *PRIVATE)
_VARY = ("Vary", "Origin")
_VARY_PREFLIGHT = ("Vary", "Access-Control-Request-Headers, Access-Control-Request-Private-Network")
_CREDENTIALS = ("Access-Control-Allow-Credentials", "true")
_METHODS = ("Access-Control-Allow-Methods", "GET, POST")  # polling needs no other methods
_MAX_AGE = ("Access-Control-Max-Age", "7200")  # seconds: Chromium's upper limit
_PRIVATE_NETWORK = ("Access-Control-Allow-Private-Network", "true")
_NAME = r"[\w!#$%&'*+.^`|~-]+"  # RFC 9110, 5.6.2
_NAMES = re.compile(rf"{_NAME}(?:[ \t]*,[ \t]*{_NAME})*", re.ASCII)


def cors(environ: dict[str, Any], is_allowed: Callable[[str], bool], credentials: bool) -> list[tuple[str, str]]:
    """Return the headers with which a page of another origin may read the answer, if it is allowed to (Fetch, 3.2)."""
    origin = environ.get("HTTP_ORIGIN")
    if not origin or not is_allowed(origin):
        return [_VARY]  # even without an Origin: a cache must not give one page the answer for another
    headers = [_VARY, ("Access-Control-Allow-Origin", origin)]
    if credentials:
        headers.append(_CREDENTIALS)
    return headers + _preflight(environ) if environ["REQUEST_METHOD"] == "OPTIONS" else headers


def _preflight(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the headers that answer a preflight request (Fetch, 4.8).

    A page that may connect may send any header: the relay reads none of them, and tracing tools add their own.
    """
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    headers = [_VARY_PREFLIGHT, _METHODS, _MAX_AGE]
    headers.append(("Access-Control-Allow-Headers", asked if _NAMES.fullmatch(asked) else "Content-Type"))
    # For a page from the internet that connects to a relay in a private network (WICG Private Network Access, 3.2).
    if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
        headers.append(_PRIVATE_NETWORK)
    return headers


class Answer(NamedTuple):
    """A complete response."""

    status: str  # with the reason phrase: "200 OK"
    headers: Sequence[tuple[str, str]]  # without Content-Length
    body: bytes


def send(answer: Answer, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Send an answer as a WSGI app does: call `start_response` and return the body, which HEAD does not get."""
    start_response(answer.status, [*answer.headers, ("Content-Length", str(len(answer.body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]


def json_answer(text: str, status: str = "200 OK") -> Answer:
    """Return an answer whose body is this JSON text."""
    return Answer(status, JSON_HEADERS, text.encode())


def refusal(error: Refused) -> Answer:
    """Return the answer for a refusal: its error and message as JSON."""
    status, headers, body = json_answer(encode(error.body()), f"{error.status} {HTTPStatus(error.status).phrase}")
    return Answer(status, (*headers, *error.headers), body)


def store_refusal(error: StoreError, not_done: str, is_local: bool = False) -> Refused:
    """Return the refusal for a store that failed: what was not done, and why; or that this is not known.

    Only callers on this machine (`is_local`) get the path of the store's file.
    """
    reason = str(error) if is_local else error.public
    message = reason if isinstance(error, NotKnown) else f"{not_done}: {reason}"
    return Refused(503, "store_not_available", message)


def failure() -> Refused:
    """Return the refusal for an error of the relay itself. Its traceback is in the log."""
    return Refused(500, "internal_server_error", HELP[500])


def http_error(code: int, name: str = "", headers: Sequence[tuple[str, str]] = ()) -> Refused:
    """Return the refusal for one of HTTP's own errors, such as 404, in the relay's words. `name`: its reason phrase."""
    phrase = name or HTTPStatus(code).phrase
    return Refused(code, phrase.lower().replace(" ", "_"), HELP.get(code, OTHER_ERROR), headers)


def werkzeug_error(error: HTTPException) -> Refused:
    """Return the refusal for an HTTP error that Werkzeug or Flask raised. It keeps headers such as Allow."""
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    return http_error(error.code or 500, error.name, headers)
