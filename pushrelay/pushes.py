"""What a POST to /push says: its body read, bounded and checked, before anything is done about it."""

import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from .errors import Refused
from .settings import Settings

FIELDS = frozenset(("destination", "data", "event", "except"))
LATER = ("ttl", "id", "wait")
MAX_DESTINATIONS = 1000  # one push to more is better sent as a topic that all of them register
MAX_EVENT_LENGTH = 100
_MOST_FIELDS = MAX_DESTINATIONS + 100
# Socket.IO keeps these names to itself: its clients would take such an event for their own.
RESERVED_EVENTS = {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_FORM, _MULTIPART, _JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"


@dataclass(slots=True)
class Push:
    """One request to push: the same data to each of its destinations."""

    destinations: list[str]
    several: bool  # the destinations came as a list, so the answer is one
    event: str
    data: Any
    skip_sid: str | None


def read_push(environ: dict[str, Any], settings: Settings, seed: bool = False) -> Push:
    """Read the push out of a WSGI request. Raises Refused: 400, 413 or 415, with what is wrong in which field.

    `seed` is for the server's root, whose first clients sent forms without saying so: there a body of any other
    type is read as a form, and fields that the relay does not know are passed over.
    """
    kind = _kind_of(environ.get("CONTENT_TYPE", ""))
    if kind == _JSON:
        fields, several = _json_fields(_text(_body(environ, settings.max_body), "invalid_json"))
    elif kind == _MULTIPART:
        fields, several = _form_fields(_multipart_pairs(_body(environ, settings.max_body), environ["CONTENT_TYPE"]))
    elif kind in (_FORM, "") or seed:
        fields, several = _form_fields(_form_pairs(_text(_body(environ, settings.max_body), "invalid_form")))
    else:
        message = f"send the push as a form ({_FORM}) or as JSON ({_JSON}), not as {kind}"
        raise Refused(415, "unsupported_media_type", message)
    return checked(fields, several, settings, known_only=not seed)


def checked(fields: dict[str, Any], several: bool, settings: Settings, known_only: bool = True) -> Push:
    """The push that these fields ask for. Raises Refused (400) with the first field that cannot be taken."""
    if known_only and not fields.keys() <= FIELDS:
        _refuse_names(fields.keys() - FIELDS)
    if "destination" not in fields:
        _bad("missing_destination", "say who is to get this: a field destination, with the id that the page registered")
    if "data" not in fields:
        _bad("missing_data", "say what to deliver: a field data (an empty string is fine)")
    _check_data(fields["data"])
    skip_sid = fields.get("except")
    if skip_sid is not None and not isinstance(skip_sid, str):
        _bad("invalid_except", "except is a socket's sid, a string")
    return Push(
        destinations_of(fields["destination"], settings),
        several,
        event_of(fields["event"]) if "event" in fields else "push",
        fields["data"],
        skip_sid or None,
    )


def destinations_of(value: Any, settings: Settings, most: int = MAX_DESTINATIONS) -> list[str]:
    """One id, or a list of at most `most`, as strings, each once and in their order. Raises Refused (400)."""
    if not isinstance(value, list):
        return [_destination(value, settings.max_id_length)]
    if not value:
        _bad("missing_destination", "the list of destinations is empty: name at least one")
    if len(value) > most:
        _bad("too_many_destinations", f"{len(value)} destinations at once are too many: {most} at most")
    return list(dict.fromkeys(_destination(each, settings.max_id_length) for each in value))


def event_of(value: Any) -> str:
    """The name of an event that may be emitted to a page. Raises Refused (400)."""
    if not isinstance(value, str) or not value or len(value) > MAX_EVENT_LENGTH or not _is_clean(value):
        _bad("invalid_event", f"event is a name of 1 to {MAX_EVENT_LENGTH} characters, without control characters")
    if value in RESERVED_EVENTS or value.startswith("relay_"):
        _bad("invalid_event", f"the event name {value} is kept for Socket.IO and the relay themselves: choose another")
    return value


def _destination(value: Any, longest: int) -> str:
    if not isinstance(value, str):
        value = _decimal(value)
    if not value:
        _bad("missing_destination", "the destination is empty: name the id that the page registered")
    if len(value) > longest:
        _bad("invalid_destination", f"a destination has {longest} characters at most (setting max_id_length)")
    if not _is_clean(value):
        _bad("invalid_destination", "a destination is Unicode text without control characters")
    return value


def _decimal(value: Any) -> str:
    # JavaScript has one kind of number: 42 and 42.0 are the same id there, and so they are here.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        _bad("invalid_destination", f"a destination is a string or a whole number, not {_kind(value)}")
    # Python itself refuses to write out integers of more than some 4,300 digits.
    if abs(value) >= 10**40:
        _bad("invalid_destination", "this number is too long for a destination")
    return str(value)


def _is_clean(text: str) -> bool:
    # What is printable is clean, and that is asked fastest; spaces other than the plain one, say, are clean as well.
    return text.isprintable() or not (_CONTROL.search(text) or _LONE_SURROGATE.search(text))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", float: "a fraction"}
    return names.get(type(value), f"a {type(value).__name__}")


def _bad(error: str, message: str) -> NoReturn:
    raise Refused(400, error, message)


def _refuse_names(names: set[str]) -> NoReturn:
    name = min(names)
    if name in LATER:
        _bad("unsupported_field", f"this version of the relay cannot do {name} yet: leave the field out")
    if name.startswith("data["):
        _bad("invalid_data", "data came as an array of form fields: send json_encode($data), or the whole push as JSON")
    _bad("unknown_field", f"there is no field {name[:50]!r}; the fields are destination, data, event and except")


@lru_cache(maxsize=256)
def _kind_of(content_type: str) -> str:
    kind, _, parameters = content_type.lower().partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise Refused(415, "unsupported_media_type", f"send the push in UTF-8, not in {charset[1][:40]}")
    return kind.strip()


def _body(environ: dict[str, Any], limit: int) -> bytes:
    """The whole body, at most `limit` bytes of it: a larger one is refused before it is read."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            _bad("invalid_length", "Content-Length is a number of bytes")
        if len(length) > 18 or int(length) > limit:
            _too_large(limit)
        body = environ["wsgi.input"].read(int(length))
        if len(body) < int(length):
            _bad("incomplete_body", f"the body ended after {len(body)} of {length} bytes: send all of it")
        return body
    if not environ.get("wsgi.input_terminated"):
        return b""
    body = environ["wsgi.input"].read(limit + 1)
    return body if len(body) <= limit else _too_large(limit)


def _too_large(limit: int) -> NoReturn:
    message = f"the body of a push has {limit} bytes at most (setting max_body): send less, or raise the setting"
    raise Refused(413, "too_large", message)


def _text(body: bytes, error: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as wrong:
        _bad(error, f"the body is not UTF-8: byte {wrong.start} cannot be there")


def _json_fields(text: str) -> tuple[dict[str, Any], bool]:
    try:
        fields = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        _bad("invalid_json", "the JSON is nested too deeply")
    except ValueError as wrong:
        _bad("invalid_json", f"the body is not JSON: {wrong}")
    if not isinstance(fields, dict):
        _bad("invalid_json", f"the body is one JSON object with destination and data, not {_kind(fields)}")
    return fields, isinstance(fields.get("destination"), list)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is JavaScript, not JSON")


def _check_data(data: Any) -> None:
    """Refuse what Python reads but no browser could: 1e999, half a surrogate pair, nesting without end."""
    if isinstance(data, str) and (data.isascii() or not _LONE_SURROGATE.search(data)):
        return
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        _bad("invalid_data", "data holds half of a surrogate pair, which is no character: send whole Unicode text")
    except RecursionError:
        _bad("invalid_data", "data is nested too deeply")
    except ValueError:
        _bad("invalid_data", "data holds a number that is out of range")


def _form_pairs(text: str) -> list[tuple[str, str]]:
    """The fields of a form (WHATWG URL, "application/x-www-form-urlencoded parsing"), decoded strictly."""
    if text.count("&") > _MOST_FIELDS:
        _bad("invalid_form", f"the form has too many fields: {_MOST_FIELDS} at most")
    pairs = []
    try:
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:
                name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            if pair:
                pairs.append((name, value))
    except UnicodeDecodeError:
        _bad("invalid_form", "a %-sequence in the form is not UTF-8")
    return pairs


def _multipart_pairs(body: bytes, content_type: str) -> list[tuple[str, str]]:
    # Werkzeug replaces what is not UTF-8 without a word, so the body is checked as a whole first.
    _text(body, "invalid_form")
    kind, options = parse_options_header(content_type)
    parser = FormDataParser(silent=False, max_form_parts=_MOST_FIELDS)
    try:
        _, fields, files = parser.parse(io.BytesIO(body), kind, len(body), options)
    except (ValueError, HTTPException):
        _bad(
            "invalid_form",
            f"the multipart form cannot be read: check its boundary, and send {_MOST_FIELDS} fields at most",
        )
    if files:
        _bad("invalid_form", "files cannot be pushed: send text, and where to fetch the file")
    pairs = list(fields.items(multi=True))
    if any(name is None for name, _ in pairs):
        _bad("invalid_form", "a part of the multipart form has no name")
    return pairs


def _form_fields(pairs: list[tuple[str, str]]) -> tuple[dict[str, Any], bool]:
    """The fields of a form. PHP writes a list as destination[], as destination[0] or by repeating the name."""
    fields: dict[str, Any] = {}
    destinations = []
    several = False
    for name, value in pairs:
        if name == "destination" or name.startswith("destination["):
            several = several or name != "destination" or bool(destinations)
            destinations.append(value)
        elif name in fields:
            _bad("invalid_form", f"the field {name[:50]!r} is there twice: send it once")
        else:
            fields[name] = value
    if destinations:
        fields["destination"] = destinations if several else destinations[0]
    return fields, several
