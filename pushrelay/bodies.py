"""The body of a push: read, bounded, and taken apart into fields, whichever way it was written."""

import io
import re
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from . import json_text
from .errors import Refused, bad

MAX_PUSHES = 1000  # in a batch, and destinations in one push: more is better sent as a topic, or in several batches
_MOST_FIELDS = MAX_PUSHES + 100
_FORM, _MULTIPART, _JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
_LINES = "application/x-ndjson"

# What most pushes are, nothing of it encoded: read at one go.
USUAL_FORM = re.compile(rb"destination=([^&%+]+)&data=([^&%+]*)")

Fields = dict[str, Any]

_USUAL_TYPE = 200  # characters of a Content-Type that is remembered
_AROUND_DATA = 2  # levels of a body around the data of a push: the object, and the batch


def read_body(environ: dict[str, Any], max_body: int, seed: bool = False) -> Fields | list[Fields | Refused]:
    """The fields of a push, or those of each push in a batch; one that cannot be read stands as the Refused it gets.

    `max_body` is in bytes. `seed` is for the server's root, whose first clients sent forms without saying so: there a
    body of any other type is read as a form. Raises Refused (400, 413, 415) where the body as a whole cannot be read.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    kind = (_kind_of if len(content_type) <= _USUAL_TYPE else _find_kind)(content_type)
    if kind == _JSON:
        return _json_body(_text(_body(environ, max_body), "invalid_json"))
    if kind == _LINES:
        return _lines(_text(_body(environ, max_body), "invalid_json"))
    if kind == _MULTIPART:
        return _form_fields(_multipart_pairs(_body(environ, max_body), environ["CONTENT_TYPE"]), seed)
    if kind in (_FORM, "") or seed:
        return _form_fields(_form_pairs(_text(_body(environ, max_body), "invalid_form")), seed)
    message = f"send the push as a form ({_FORM}), as JSON ({_JSON}) or as {_LINES}, not as {kind}"
    raise Refused(415, "unsupported_media_type", message)


def read_query(environ: dict[str, Any]) -> Fields:
    """The fields of a query string, which is written as a form is. Raises Refused (400)."""
    # WSGI has its bytes as Latin-1 (PEP 3333).
    return _form_fields(_form_pairs(_text(environ.get("QUERY_STRING", "").encode("latin-1"), "invalid_form")))


def is_form(environ: dict[str, Any]) -> bool:
    """Whether the body is a form, encoded as usual."""
    return environ.get("CONTENT_TYPE", "") in (_FORM, "")


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", float: "a fraction"}
    return names.get(type(value), "a number" if isinstance(value, int) else "a string")


def _find_kind(content_type: str) -> str:
    kind, _, parameters = content_type.lower().partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise Refused(415, "unsupported_media_type", f"send the push in UTF-8, not in {charset[1][:40]}")
    return kind.strip()


_kind_of = lru_cache(maxsize=256)(_find_kind)


def _body(environ: dict[str, Any], limit: int) -> bytes:
    """The whole body, at most `limit` bytes of it: a larger one is refused before it is read."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            bad("invalid_length", "Content-Length is a number of bytes")
        if len(length) > 18 or int(length) > limit:
            _too_large(limit)
        body = _read(environ, int(length))
        if len(body) < int(length):
            bad("incomplete_body", f"the body ended after {len(body)} of {length} bytes: send all of it")
        return body
    if not environ.get("wsgi.input_terminated"):
        if "HTTP_TRANSFER_ENCODING" in environ:
            raise Refused(411, "length_required", "this server does not read a body in chunks: send Content-Length")
        return b""
    body = _read(environ, limit + 1)
    return body if len(body) <= limit else _too_large(limit)


def _read(environ: dict[str, Any], size: int) -> bytes:
    try:
        return environ["wsgi.input"].read(size)
    except Exception as error:  # each WSGI server has a class of its own for a body that breaks off or is badly chunked
        bad("incomplete_body", f"the body cannot be read to its end: {str(error)[:100] or 'it broke off'}")


def _too_large(limit: int) -> NoReturn:
    message = f"the body of a push has {limit} bytes at most (setting max_body): send less, or raise the setting"
    raise Refused(413, "too_large", message)


def _text(body: bytes, error: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as wrong:
        bad(error, f"the body is not UTF-8: byte {wrong.start} cannot be there")


def _json_body(text: str) -> Fields | list[Fields | Refused]:
    try:
        value = json_text.read(text, _AROUND_DATA)
    except json_text.TooDeep as error:
        if not text.lstrip().startswith("["):
            raise _not_json(error) from None
        value = _read_apart(text)
    except json_text.NotJSON as error:
        raise _not_json(error) from None
    if isinstance(value, list):
        _check_size(len(value))
        return [each if isinstance(each, dict | Refused) else _no_object(each) for each in value]
    if not isinstance(value, dict):
        raise _no_object(value)
    return value


def _read_apart(text: str) -> list[Any]:
    """Read each push of a batch by itself, so that one that is nested too deeply fails alone."""
    try:
        elements = json_text.elements(text)
    except json_text.NotJSON as error:
        raise _not_json(error) from None
    _check_size(len(elements))
    return [_read_alone(each) for each in elements]


def _read_alone(text: str) -> Any:
    try:
        return json_text.read(text, _AROUND_DATA)
    except json_text.NotJSON as error:
        return _not_json(error)


def _lines(text: str) -> list[Fields | Refused]:
    """A push a line (newline-delimited JSON); empty lines are passed over, and a bad one fails alone."""
    lines = [line for line in text.split("\n") if line.strip()]
    _check_size(len(lines))
    values = map(_read_alone, lines)
    return [each if isinstance(each, dict | Refused) else _no_object(each) for each in values]


def _check_size(count: int) -> None:
    if count > MAX_PUSHES:
        bad("too_many_pushes", f"{count} pushes in one batch are too many: {MAX_PUSHES} at most")


def _no_object(value: Any) -> Refused:
    return Refused(400, "invalid_json", f"a push is a JSON object with destination and data, not {kind_of(value)}")


def _not_json(error: json_text.NotJSON) -> Refused:
    if isinstance(error, json_text.TooDeep):
        return Refused(400, "invalid_json", f"the JSON cannot be taken: {error}")
    return Refused(400, "invalid_json", f"the body is not JSON: {error}")


def _form_pairs(text: str) -> list[tuple[str, str]]:
    """The fields of a form (WHATWG URL, "application/x-www-form-urlencoded parsing"), decoded strictly."""
    if text.count("&") > _MOST_FIELDS:
        bad("invalid_form", f"the form has too many fields: {_MOST_FIELDS} at most")
    pairs = []
    try:
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:
                name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            if pair:
                pairs.append((name, value))
    except UnicodeDecodeError:
        bad("invalid_form", "a %-sequence in the form is not UTF-8")
    return pairs


def _multipart_pairs(body: bytes, content_type: str) -> list[tuple[str, str]]:
    # Werkzeug replaces what is not UTF-8 without a word, so the body is checked as a whole first.
    _text(body, "invalid_form")
    kind, options = parse_options_header(content_type)
    parser = FormDataParser(silent=False, max_form_parts=_MOST_FIELDS)
    try:
        _, fields, files = parser.parse(io.BytesIO(body), kind, len(body), options)
    except (ValueError, HTTPException):
        bad(
            "invalid_form",
            f"the multipart form cannot be read: check its boundary, and send {_MOST_FIELDS} fields at most",
        )
    if files:
        bad("invalid_form", "files cannot be pushed: send text, and where to fetch the file")
    pairs = list(fields.items(multi=True))
    if any(name is None for name, _ in pairs):
        bad("invalid_form", "a part of the multipart form has no name")
    return pairs


def _form_fields(pairs: list[tuple[str, str]], seed: bool = False) -> Fields:
    """Return the fields of a form. PHP writes a list as destination[], as destination[0] or by repeating the name.

    At the server's root (`seed`) all fields but destination and data are ignored, also those that come twice.
    """
    fields: Fields = {}
    destinations = []
    several = False
    for name, value in pairs:
        if name == "destination" or name.startswith("destination["):
            several = several or name != "destination" or bool(destinations)
            destinations.append(value)
        elif seed and name != "data":
            continue
        elif name in fields:
            bad("invalid_form", f"the field {name[:50]!r} is there twice: send it once")
        else:
            fields[name] = value
    if destinations:
        fields["destination"] = destinations if several else destinations[0]
    return fields
