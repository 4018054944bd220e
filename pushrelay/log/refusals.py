"""What the operator's log has about a refusal: who was refused, why, and the setting or the step that mends it."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pushrelay.addresses import is_upstream
from pushrelay.errors import Refused

from .limiter import LogLimiter

NOBODY = "a Unix socket"  # its peer has no address
_LONGEST = 100  # characters of what a stranger chose
# What is not understood when only the path is named. Errors that are not listed are requests and events.
_THINGS = {
    "wrong_key": "a wrong key",
    "missing_key": "a request without a key",
    "several_keys": "a request with several keys",
    "demo_not_shown": "a request for the demo page",
}
_EVENTS = {"register", "unregister", "ack", "push"}
_SILENT = {
    "draining",
    "store_not_available",
    "auth_not_available",
    "internal_server_error",
}  # the log has these from where they arise
_UPGRADING = "behind a proxy, look whether it passes WebSocket on (docs/apache.md, docs/nginx.md): the doctor checks it"
_BAD_ORIGINS = {
    "null": "pages from files and sandboxed frames have no origin; serve the page by a web server (setting origins)",
    "*": "this is no origin; have the client leave the header Origin out (setting origins)",
    "": "this is no origin; have the client leave the header Origin out (setting origins)",
}


# A path of the relay's own below another one, which the setting base_path can name.
_OURS = r"socket\.io/|static/|health/|(?:push|history|presence|connections)$"
_BELOW = re.compile(rf"((?:/[\w~-][\w.~-]*)+)/(?:{_OURS})", re.ASCII)


class Line(NamedTuple):
    """What LogLimiter.warn() takes."""

    cause: str
    subject: str
    sentence: str


def seen_as(counted: str | None, environ: dict[str, Any]) -> str:
    """Return how the log names a client; `counted` is what its address is counted as."""
    return counted or environ.get("REMOTE_ADDR") or NOBODY


class RefusalLog:
    """Notes what the app refuses. Any thread may call it; `address_of(environ)` is Access.client_address."""

    def __init__(self, log_limiter: LogLimiter, address_of: Callable[[dict[str, Any]], str | None]):
        self._log_limiter = log_limiter
        self._address_of = address_of

    def log_request(self, environ: dict[str, Any], error: Refused) -> None:
        """Note an HTTP request that is answered with an error."""
        if error.error in _SILENT or error.status >= 500 and error.error != "too_many_waiting":
            return
        address = seen_as(self._address_of(environ), environ)
        what = f"{_THINGS.get(error.error) or _asked(environ)} from {address}"
        subject, origin = address, environ.get("HTTP_ORIGIN", "")[:_LONGEST]
        if error.error == "origin_not_allowed":
            subject, what = origin, f"{what} by a page of {origin!r}"
        advice = _base_path_advice(environ) if error.status == 404 else ""
        if "Allow" in (headers := dict(error.headers)):
            advice = f" ({headers['Allow']})"
        self._log_limiter.warn(f"http {error.error}", subject, f"{what} was refused: {error.message}{advice}")

    def log_event(self, environ: dict[str, Any], event: str, error: Refused) -> None:
        """Note an event of a socket that is answered with an error; `environ` is the socket's own."""
        if error.error in _SILENT:
            return
        event = event if event in _EVENTS else "an event"
        address = seen_as(self._address_of(environ), environ)
        page = f" by a page of {origin[:_LONGEST]!r}" if (origin := environ.get("HTTP_ORIGIN")) else ""
        sentence = f"{event} from {address}{page} was refused ({error.error}): {error.message}"
        self._log_limiter.warn(f"{event} {error.error}", address, sentence)


def refused_origin(environ: dict[str, Any]) -> Line:
    """Return the line about a page whose origin may not connect."""
    origin = environ["HTTP_ORIGIN"][:_LONGEST]
    host = environ.get("HTTP_HOST", "")[:_LONGEST]
    advice = _BAD_ORIGINS.get(origin)
    if advice is None:
        advice = f"add {origin!r} to the setting origins, or have the page load relay.js from its own host name"
        if is_upstream(host):
            advice += "; if a proxy is in front, have it pass the Host header on"
    sentence = f"a page of {origin!r} may not connect to the host {host!r}: {advice}"
    return Line("origin", origin, sentence)


def refused_session(reason: str, address: str, message: str) -> Line:
    """Return the line about a client that was closed, or one of whose events was not handled."""
    return Line(f"session {reason}", address, f"a client at {address} {message}")


def refused_handshake(environ: dict[str, Any], address: str, cause: str, message: str) -> Line:
    """Return the line about a request to the Socket.IO path; `cause` is one of those below, or another word."""
    advice = _ADVICE.get(cause, "")
    sentence = f"{_asked(environ)} from {address} was refused: {message}{': ' if advice else ''}{advice}"
    return Line(f"socket.io {cause}", address, sentence)


_ADVICE = {
    "old_client": "the client is too old: use relay.js, or socket.io-client 3 or 4",
    "transport": "Socket.IO clients send transport=polling or transport=websocket, and nothing else belongs here",
    "session": (
        "this passes after a restart; if it goes on, several relays or processes answer at one address: run one, or "
        "have what is in front keep each client at the same one"
    ),
    "method": "a Socket.IO client opens a session by GET",
    "websocket": _UPGRADING,
    "too_many_of_address": (
        "if this is a proxy of yours, name it in trusted_proxies; for many people behind one address raise the setting"
    ),
    "too_large": "send less at a time, or raise the setting max_message",
}


def _base_path_advice(environ: dict[str, Any]) -> str:
    """Return what to do about a path of the relay's that has something in front of it, as proxies pass it on."""
    found = None if environ.get("SCRIPT_NAME") else _BELOW.match(environ.get("PATH_INFO", "")[:_LONGEST])
    return f"; if a proxy passes the whole path on, set base_path = {found[1]}" if found else ""


def _asked(environ: dict[str, Any]) -> str:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return f"{environ['REQUEST_METHOD'][:_LONGEST]} {path[:_LONGEST]}"
