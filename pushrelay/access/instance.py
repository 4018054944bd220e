"""A random word for this process, by which the doctor recognizes it even through its public address.

A caller that may push, such as a program on this machine, is shown the word if its request has the header. The doctor
sends the word with a handshake through the public address, where /health cannot be reached. The relay that owns the
word reports how that request arrived; every other relay reports that the word is not its own.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any

from pushrelay.errors import Refused

from .callers import Access

WORD = secrets.token_hex(16)  # nobody can guess it
HEADER = "Relay-Doctor"  # in the request, with the word or SHOW_WORD; and in the response, with the report in JSON
ENVIRON_KEY = "HTTP_RELAY_DOCTOR"
SHOW_WORD = "?"  # sent instead of the word, to ask for it
MOST_REPORTED = 200  # characters of each header
_REPORTED = {
    "host": "HTTP_HOST",
    "origin": "HTTP_ORIGIN",
    "peer": "REMOTE_ADDR",
    "forwarded": "HTTP_X_FORWARDED_FOR",
    "upgrade": "HTTP_UPGRADE",
    "cookie": "HTTP_COOKIE",
    "query": "QUERY_STRING",
}


def reporting(environ: dict[str, Any], start_response: Callable[..., Any], access: Access) -> Callable[..., Any]:
    """Return a `start_response` that adds the report on this request as a header."""
    report = json.dumps(_report(environ, access))  # ASCII without line breaks

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        return start_response(status, [*headers, (HEADER, report)], *more)

    return start


def _report(environ: dict[str, Any], access: Access) -> dict[str, Any]:
    value = environ[ENVIRON_KEY]
    if value == SHOW_WORD:
        return {"word": WORD} if _may_see_word(environ, access) else {}
    if not hmac.compare_digest(value.encode("utf-8", "replace"), WORD.encode()):
        return {"same": False}
    arrived = {name: environ[key][:MOST_REPORTED] for name, key in _REPORTED.items() if environ.get(key)}
    return {"same": True, "trusted": access.is_trusted_proxy(environ), **arrived}


def _may_see_word(environ: dict[str, Any], access: Access) -> bool:
    try:
        access.may_push(environ)
    except Refused:
        return False
    return True
