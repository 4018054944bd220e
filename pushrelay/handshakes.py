"""What the Engine reads of a request's query, and what it keeps of a handshake's environ."""

import io
import sys
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from .http1 import KEY
from .serving import SOCKET_KEY

# Of the environ, what no handler needs once the session is open; it is kept as long as the session.
_DROPPED = {
    KEY,
    "wsgi.input",
    "RAW_URI",
    "REQUEST_URI",
    "HTTP_CONNECTION",
    "HTTP_UPGRADE",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_CACHE_CONTROL",
    "HTTP_PRAGMA",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
    "HTTP_SEC_WEBSOCKET_EXTENSIONS",
    "werkzeug.socket",
    "werkzeug.request",
    "gunicorn.socket",
    "wsgi.early_hints",  # holds the whole request
    "waitress.client_disconnected",  # likewise
}
_NO_INPUT = io.BytesIO()


def kept_of(environ: dict[str, Any], sid: str) -> dict[str, Any]:
    """The environ as it is kept for the session. Equal strings of different clients become one."""
    kept = {
        key: sys.intern(value) if type(value) is str else value for key, value in environ.items() if key not in _DROPPED
    }
    kept["wsgi.input"] = _NO_INPUT
    kept[SOCKET_KEY] = sid
    return kept


def read_query(text: str) -> dict[str, str]:
    """The first value of each parameter."""
    if "sid=" not in text and len(text) < 64:
        return _read_short_query(text)
    return _parse_query(text)


def _parse_query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


# All WebSocket clients connect with the same few words.
_read_short_query = lru_cache(maxsize=64)(_parse_query)
