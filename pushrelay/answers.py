"""Responses that are complete, refusals as JSON, and the headers by which browsers protect people."""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from pushrelay.errors import Refused, StoreError
from pushrelay.json_text import encode

# Every response declares its type; browsers must not guess it.
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
# An answer for one client alone: a cache in front could store a 200 that does not say so (RFC 9111, 3), and hand one
# visitor the session of another.
NO_STORE = ("Cache-Control", "no-store")
PRIVATE = (NO_SNIFFING, NO_STORE)
JSON_HEADERS = (("Content-Type", "application/json"), *PRIVATE)
DEMO_PAGE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the page's id is in its address
    "Cache-Control": "no-store",
}
_VARY = ("Vary", "Origin")
_VARY_PREFLIGHT = ("Vary", "Access-Control-Request-Headers, Access-Control-Request-Private-Network")
_CREDENTIALS = ("Access-Control-Allow-Credentials", "true")
_METHODS = ("Access-Control-Allow-Methods", "GET, POST")  # polling needs no more
_MAX_AGE = ("Access-Control-Max-Age", "7200")  # seconds: Chromium remembers it for no longer
_PRIVATE_NETWORK = ("Access-Control-Allow-Private-Network", "true")
_NAME = r"[\w!#$%&'*+.^`|~-]+"  # RFC 9110, 5.6.2
_NAMES = re.compile(rf"{_NAME}(?:[ \t]*,[ \t]*{_NAME})*", re.ASCII)


def cors(environ: dict[str, Any], is_allowed: Callable[[str], bool], credentials: bool) -> list[tuple[str, str]]:
    """Return the headers that let a page of another origin read the answer, if it is allowed to (Fetch, 3.2)."""
    origin = environ.get("HTTP_ORIGIN")
    if not origin or not is_allowed(origin):
        return [_VARY]  # also without an Origin: a cache must not take one page's answer for another's
    headers = [_VARY, ("Access-Control-Allow-Origin", origin)]
    if credentials:
        headers.append(_CREDENTIALS)
    return headers + _preflight(environ) if environ["REQUEST_METHOD"] == "OPTIONS" else headers


def _preflight(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what answers a browser that asks before it sends (Fetch, 4.8).

    The page may connect, so it may send any header with it: the relay reads none of them, and tracing tools add theirs.
    """
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    headers = [_VARY_PREFLIGHT, _METHODS, _MAX_AGE]
    headers.append(("Access-Control-Allow-Headers", asked if _NAMES.fullmatch(asked) else "Content-Type"))
    # A page of the internet that connects to a relay in a private network (WICG Private Network Access, 3.2).
    if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
        headers.append(_PRIVATE_NETWORK)
    return headers


class Answer(NamedTuple):
    """A whole response."""

    status: str
    headers: Sequence[tuple[str, str]]  # without Content-Length
    body: bytes


def store_away(error: StoreError, not_done: str, is_local: bool = False) -> Refused:
    """Return the refusal for a store in trouble: what was not done, and why, with the file's path for local callers."""
    reason = str(error) if is_local else error.public
    return Refused(503, "store_not_available", f"{not_done}: {reason}")


def refusal(error: Refused) -> Answer:
    status, headers, body = json_answer(encode(error.body()), f"{error.status} {HTTPStatus(error.status).phrase}")
    return Answer(status, (*headers, *error.headers), body)


def json_answer(text: str, status: str = "200 OK") -> Answer:
    return Answer(status, JSON_HEADERS, text.encode())
