"""Cookies in a request: their names, and the value of one as PHP reads it."""

import re
from urllib.parse import unquote_to_bytes

from pushrelay.errors import bad

_MOST_NAMES = 5  # in one message
_SHOWN_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)


def cookie_names(header: str) -> list[str]:
    """Return the names of the first cookies, for an error message. Values are never shown."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    # Without "=" it may be a value.
    return [name for name, equals, _ in pairs if equals and _SHOWN_NAME.fullmatch(name)][:_MOST_NAMES]


def cookie_value(header: str, name: str) -> str:
    """Return the value of a cookie as PHP reads it: the first with this name, percent-decoded; "" if there is none.

    Raises Refused (400) if the value is not UTF-8.
    """
    for pair in header.split(";"):
        key, _, value = pair.lstrip().partition("=")
        if key == name:
            try:
                return unquote_to_bytes(value.encode("latin-1")).decode()
            except UnicodeError:
                bad("invalid_cookie", f"the value of the cookie {name} is not Unicode text (UTF-8)")
    return ""
