"""The log lines about refusals: who was refused, why, and the setting or the step that fixes it.

The fix is in the log too, because the operator who can apply it does not see the response.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pushrelay.addresses import is_upstream
from pushrelay.counters import Counters, Family, Values, refusals
from pushrelay.errors import CODES, Refused
from pushrelay.paths import FOLDERS, PATHS

from .access_log import note
from .formats import Fields
from .limiter import LogLimiter

NOBODY = "a Unix socket"  # stands for the address of its peer, which has none
_LONGEST = 100  # characters of a text that a stranger chose
# Errors for which the method and the path would explain nothing.
_THINGS = {
    "wrong_key": "a wrong key",
    "missing_key": "a request without a key",
    "several_keys": "a request with several keys",
    "demo_not_shown": "a request for the demo page",
}
_EVENTS = {"register", "unregister", "ack", "push", "request", "send"}
# Errors that other parts of the program log.
_SILENT = {
    *("draining", "store_not_available", "auth_not_available", "internal_server_error"),
    *("answer_too_large", "queue_full", "request_failed", "request_not_available", "request_timeout"),
}
_UPGRADING = "if there is a proxy, it must pass WebSocket on (docs/apache.md, docs/nginx.md): the doctor checks it"
_BAD_ORIGINS = {
    "null": "pages from files and sandboxed frames have no origin; serve the page from a web server (setting origins)",
    "*": "this is not an origin; have the client omit the header Origin (setting origins)",
    "": "this is not an origin; have the client omit the header Origin (setting origins)",
}
# A path of the relay below another path, which then belongs in the setting base_path.
_PATH = "|".join([*map(re.escape, FOLDERS), *(re.escape(path) + "$" for path in PATHS if path != "/")])
BELOW = re.compile(rf"((?:/[\w~-][\w.~-]*)+)(?:{_PATH})", re.ASCII)


class Line(NamedTuple):
    """The arguments of LogLimiter.warn()."""

    cause: str
    subject: str
    sentence: str
    fields: Fields


def seen_as(counted: str | None, environ: dict[str, Any]) -> str:
    """Return the log's name for a client. `counted` is the address by which it is counted, if there is one."""
    return counted or environ.get("REMOTE_ADDR") or NOBODY


class RefusalLog:
    """Logs and counts the requests and events that the app refuses. Any thread may call it.

    `address_of(environ)` returns the address by which a client is counted, as Access.client_address does.
    """

    def __init__(self, log_limiter: LogLimiter, address_of: Callable[[dict[str, Any]], str | None]):
        self._log_limiter = log_limiter
        self._address_of = address_of
        self._counters = Counters(CODES)
        self._pushes = Counters(["refused"])  # pushes of sockets

    def metrics(self) -> list[Family]:
        """Return the number of refusals."""
        pushes: Values = {("socket", "refused"): self._pushes.total()}
        help_ = "Pushes, by their source and their result."
        return [refusals(self._counters), Family("relay_pushes_total", "counter", help_, pushes, ("source", "result"))]

    def log_request(self, environ: dict[str, Any], error: Refused) -> None:
        """Count an HTTP request that is answered with this error, and log it. The access log gets the error's name."""
        note(environ, error=error.error)
        self._counters.add(error.error)
        if error.error in _SILENT or error.status >= 500 and error.error != "too_many_waiting":
            return
        address = seen_as(self._address_of(environ), environ)
        what = f"{_THINGS.get(error.error) or _asked(environ)} from {address}"
        subject, origin = address, environ.get("HTTP_ORIGIN", "")[:_LONGEST]
        fields = {**_fields(environ, address, error.error), "status": error.status}
        if error.error == "origin_not_allowed":
            subject, what = origin, f"{what} by a page of {origin!r}"
        advice = _base_path_advice(environ) if error.status == 404 else ""
        if "Allow" in (headers := dict(error.headers)):
            advice = f" ({headers['Allow']})"
        sentence = f"{what} was refused: {error.message}{advice}"
        self._log_limiter.warn(f"http {error.error}", subject, sentence, fields)

    def log_event(self, environ: dict[str, Any], event: str, error: Refused, sid: str | None = None) -> None:
        """Count an event that is answered with this error, and log it.

        `environ` is that of the socket's handshake.
        """
        self._counters.add(error.error)
        if event == "push":
            self._pushes.add("refused")
        if error.error in _SILENT or not error.is_logged:
            return
        event = event if event in _EVENTS else "an event"
        address = seen_as(self._address_of(environ), environ)
        page = f" by a page of {origin[:_LONGEST]!r}" if (origin := environ.get("HTTP_ORIGIN")) else ""
        sentence = f"{event} from {address}{page} was refused ({error.error}): {error.message}"
        fields: Fields = {"address": address, "sid": sid, "event": event, "reason": error.error}
        fields["origin"] = origin[:_LONGEST] if origin else None
        self._log_limiter.warn(f"{event} {error.error}", address, sentence, fields)


def refused_origin(environ: dict[str, Any]) -> Line:
    """Return the line about a page whose origin may not connect."""
    origin = environ["HTTP_ORIGIN"][:_LONGEST]
    host = environ.get("HTTP_HOST", "")[:_LONGEST]
    advice = _BAD_ORIGINS.get(origin)
    if advice is None:
        advice = f"add {origin!r} to the setting origins, or let the page load relay.js from its own host name"
        if is_upstream(host):
            advice += "; if there is a proxy, let it pass the Host header on"
    sentence = f"a page of {origin!r} may not connect to the host {host!r}: {advice}"
    return Line("origin", origin, sentence, {"origin": origin, "host": host, "reason": "origin_not_allowed"})


def refused_session(reason: str, address: str, message: str) -> Line:
    """Return the line about a client that was disconnected, or whose event was not handled."""
    fields: Fields = {"address": address, "reason": reason}
    return Line(f"session {reason}", address, f"a client at {address} {message}", fields)


def refused_handshake(environ: dict[str, Any], address: str, cause: str, message: str) -> Line:
    """Return the line about a request to the Socket.IO path. `cause` is a key of _ADVICE, or another word."""
    advice = _ADVICE.get(cause, "")
    sentence = f"{_asked(environ)} from {address} was refused: {message}{': ' if advice else ''}{advice}"
    return Line(f"socket.io {cause}", address, sentence, _fields(environ, address, cause))


_ADVICE = {
    "old_client": "the client is too old; use relay.js, or socket.io-client 3 or 4",
    "transport": "use a Socket.IO client, which sends transport=polling or transport=websocket",
    "session": (
        "this is normal after a restart; if it continues, several relays or processes answer at one address: run one, "
        "or give each a name (setting node) and have the proxy send each session to its relay (docs/load-balancing.md)"
    ),
    "node": (
        "this is normal while that node is down, and its clients connect again; if it continues, the proxy is not "
        "sticky: route by the end of the parameter sid, as deploy/ does for nginx, Apache and HAProxy"
    ),
    "method": "use a Socket.IO client, which opens a session by GET",
    "websocket": _UPGRADING,
    "too_many_of_address": (
        "if this is your proxy, add it to trusted_proxies; if many people share this address, raise the setting"
    ),
    "too_large": "send less at a time, or raise the setting max_message",
}


def _base_path_advice(environ: dict[str, Any]) -> str:
    """Return what to do if the path is one of the relay's paths below another one, as some proxies forward it."""
    found = None if environ.get("SCRIPT_NAME") else BELOW.match(environ.get("PATH_INFO", "")[:_LONGEST])
    return f"; if a proxy forwards the whole path, set base_path = {found[1]}" if found else ""


def _fields(environ: dict[str, Any], address: str, reason: str) -> Fields:
    """Return the fields of a line about an HTTP request. No query: it may hold a token."""
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    origin = environ.get("HTTP_ORIGIN", "")[:_LONGEST] or None
    method = environ["REQUEST_METHOD"][:_LONGEST]
    return {"address": address, "method": method, "path": path[:_LONGEST], "origin": origin, "reason": reason}


def _asked(environ: dict[str, Any]) -> str:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return f"{environ['REQUEST_METHOD'][:_LONGEST]} {path[:_LONGEST]}"
