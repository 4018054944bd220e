"""Quick readers for usual pushes: those in the most frequent and shortest forms.

Such a push has `destination`, `data` and perhaps `event`, in this order. Anything else needs the complete reader
(body.py). The readers return the data as JSON. It may be written in another way than by the complete reader, but
browsers read the same value.
"""

import re
from codecs import escape_decode
from typing import Any
from urllib.parse import unquote_to_bytes

from pushrelay.json_text import (
    LONG_TEXT,
    MAX_DEPTH,
    check_depth,
    encode_decoded,
    has_long_number,
    may_be_deep,
    quote,
    quote_long,
    read_at,
)
from pushrelay.names import LONE_SURROGATE, MAX_PUSHES, USUAL_EVENT

Usual = tuple[str, str, str]  # destination, data as JSON, event; destination and event are not checked yet

AROUND_DATA = 2  # levels of nesting around the data of a push: its object, and the batch

# A single match finds the fields.
_USUAL_FORM = re.compile(r"destination=([^&]+)&data=")
_USUAL_EVENT = re.compile(r', ?"event": ?"([^"\\\x00-\x1f]+)"\}')
# The destination has no escapes and no control characters; a number is a whole one that JavaScript does not round.
_USUAL_JSON = re.compile(r'\{"destination": ?(?:"([^"\\\x00-\x1f]+)"|(0|[1-9][0-9]{0,14})), ?"data": ?')
_SPACE = " \t\r\n"  # JSON's


def usual_form(body: bytes) -> Usual | None:
    """Return the push in a form; None if it needs the complete reader. Raises ValueError if it is not UTF-8."""
    text = body.decode()
    usual = _USUAL_FORM.match(text)
    if usual is None:
        return None
    destination, data, event = usual[1], text[usual.end() :], USUAL_EVENT
    if "&" in data:
        data, _, event = data.partition("&event=")
        if not event or "&" in event or "&" in data:
            return None
    if "%" in text or "+" in text:
        destination, data, event = unescaped(destination), unescaped(data), unescaped(event)
    return destination, quote(data) if len(data) < LONG_TEXT else quote_long(data), event


def unescaped(text: str) -> str:
    """Return a name or value of a form without its encoding. Raises UnicodeDecodeError if it is not UTF-8."""
    text = text.replace("+", " ")
    if "%" not in text:
        return text
    try:
        # Python's decoder of string escapes is in C, and takes a third of the time.
        plain = escape_decode(text.replace("\\", "\\\\").replace("%", "\\x"))[0]
    except ValueError:  # a percent sign that is not part of an escape
        plain = unquote_to_bytes(text)
    return plain.decode()


def usual_json(body: bytes) -> Usual | None:
    """Return the push in a JSON body, as usual_push() does. Raises ValueError if it is not JSON in UTF-8."""
    return usual_push(body.decode())


def usual_push(text: str) -> Usual | None:
    """Return the push in a JSON text, which may be a line of a batch; None if it needs the complete reader.

    Raises ValueError if the text is not JSON.
    """
    # Deep nesting and numbers of hundreds of digits need the complete reader. A short text has neither.
    if len(text) > 2 * MAX_DEPTH and (may_be_deep(text) or has_long_number(text)):
        return None
    usual, end = _usual_at(text, 0)
    return usual if text[end:] in ("", "\r") else None


def _usual_at(text: str, start: int) -> tuple[Usual | None, int]:
    """Return the push at an index of a JSON text, or None as usual_push() does, and the index after it."""
    usual = _USUAL_JSON.match(text, start)
    if usual is None:
        return None, start
    begin = usual.end()
    value, end = read_at(text, begin)
    data = _text_of(value, text[begin:end])
    if data is None:
        return None, end
    if text[end : end + 1] == "}":
        return (usual[1] or usual[2], data, USUAL_EVENT), end + 1
    more = _USUAL_EVENT.match(text, end)
    return (None, end) if more is None else ((usual[1] or usual[2], data, more[1]), more.end())


def _text_of(value: Any, text: str) -> str | None:
    """Return data as JSON: the `text` that it was read from, unless that has spaces or escapes that it does not need.

    Returns None for data that must be refused.
    """
    if "\\" not in text and '": ' not in text and "\n" not in text:
        return text
    text = encode_decoded(value)
    return text if text.isascii() or not LONE_SURROGATE.search(text) else None


def usual_list(text: str) -> list[Usual] | None:
    """Return the pushes in a JSON array, or None unless all are usual ones. Raises ValueError if it is not JSON."""
    check_depth(text, MAX_DEPTH + AROUND_DATA)
    if has_long_number(text):
        return None
    found: list[Usual] = []
    end = 1
    while len(found) < MAX_PUSHES:
        usual, end = _usual_at(text, end)
        if usual is None:
            return None
        found.append(usual)
        if text[end : end + 1] != ",":
            return found if text[end:].rstrip(_SPACE) == "]" else None
        end += 2 if text[end + 1 : end + 2] == " " else 1
    return None
