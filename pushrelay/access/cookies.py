"""Cookies in a request: their names, and the value of one as PHP reads it."""

import re
from urllib.parse import unquote_to_bytes

from pushrelay.errors import bad

# Of the cookies that came instead, a sentence names a few.
_MOST_NAMES = 5
_SHOWN_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)


def cookie_names(header: str) -> list[str]:
    """Return the names of a few cookies, fit for a sentence."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    # What has no "=" may be a value.
    return [name for name, equals, _ in pairs if equals and _SHOWN_NAME.fullmatch(name)][:_MOST_NAMES]


def cookie_value(header: str, name: str) -> str:
    """The value of a cookie as PHP has it: the first of its name, percent-decoded; "" where there is none."""
    for pair in header.split(";"):
        key, _, value = pair.lstrip().partition("=")
        if key == name:
            try:
                return unquote_to_bytes(value.encode("latin-1")).decode()
            except UnicodeError:
                bad("invalid_cookie", f"the value of the cookie {name} is not Unicode text (UTF-8)")
    return ""
