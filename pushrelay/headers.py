"""Headers of answers by which browsers protect people."""

from collections.abc import Callable
from typing import Any

# What an answer is is said, and a browser shall not guess.
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
DEMO_PAGE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the page's id is in its address
    "Cache-Control": "no-store",  # who may see it is asked each time
}
_VARY = ("Vary", "Origin")
_CREDENTIALS = ("Access-Control-Allow-Credentials", "true")
# What a page of another origin may send: polling needs no more. Seconds: Chromium remembers it for no longer.
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Content-Type"),
    ("Access-Control-Max-Age", "7200"),
]


def cors(environ: dict[str, Any], is_allowed: Callable[[str], bool], credentials: bool) -> list[tuple[str, str]]:
    """What lets a page of another origin read the answer, if it is allowed to (Fetch, 3.2)."""
    origin = environ.get("HTTP_ORIGIN")
    if not origin or not is_allowed(origin):
        return [_VARY]  # also without an Origin: a cache must not take one page's answer for another's
    headers = [_VARY, ("Access-Control-Allow-Origin", origin)]
    if credentials:
        headers.append(_CREDENTIALS)
    return headers + _PREFLIGHT if environ["REQUEST_METHOD"] == "OPTIONS" else headers
