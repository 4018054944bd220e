"""The query of a request, and the part of a handshake's environ that is kept."""

import io
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from pushrelay.log.access_log import NOTES
from pushrelay.server.host import KEY

# Entries of an environ that no handler needs once the session is open; the rest is kept as long as the session.
_DROPPED = {
    KEY,
    NOTES,
    "wsgi.input",
    "wsgi.input_terminated",
    "wsgi.file_wrapper",
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
# Browsers send the same few values for these, so sessions share them. The table is our own: sys.intern() never frees
# strings in Python 3.12.0 to 3.12.6, and clients choose these strings.
_SHARED = {
    "REQUEST_METHOD",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "PATH_INFO",
    "QUERY_STRING",
    "HTTP_HOST",
    "HTTP_ORIGIN",
    "HTTP_USER_AGENT",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
}
MOST_SHARED = 1024  # values in the table; it is cleared before it grows beyond that
LONGEST_SHARED = 256  # characters of a value
_NO_INPUT = io.BytesIO()


class _Values(dict[str, str]):
    """The values that sessions share, each by itself."""

    def __missing__(self, value: str) -> str:
        if len(value) > LONGEST_SHARED:
            return value
        if len(self) >= MOST_SHARED:
            self.clear()
        return self.setdefault(value, value)


_values = _Values()


def trimmed(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an environ that is kept for the session. Equal values of the usual kind are one object."""
    kept = {
        key: _values[value] if key in _SHARED and type(value) is str else value
        for key, value in environ.items()
        if key not in _DROPPED
    }
    kept["wsgi.input"] = _NO_INPUT
    return kept


def read_query(text: str) -> dict[str, str]:
    """Return the first value of each parameter of a query string. The result is shared: do not change it."""
    if "sid=" not in text and len(text) < 64:
        return _read_short_query(text)
    return _parse_query(text)


def _parse_query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


# All WebSocket clients connect with the same few queries.
_read_short_query = lru_cache(maxsize=64)(_parse_query)
