"""The body of a push, taken apart into fields: a form, a multipart form, JSON, or lines of JSON.

Text is decoded strictly. A push that is not UTF-8 is refused, and never delivered with question marks in it.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

from pushrelay import json_text
from pushrelay.errors import Refused, bad
from pushrelay.names import MAX_PUSHES, kind_of

from .usual import AROUND_DATA, Usual, unescaped, usual_form, usual_json, usual_list, usual_push

FIELDS = frozenset(("destination", "data", "event", "except", "ttl", "id", "wait"))
ROOT_FIELDS = ("destination", "data")
_MOST_FIELDS = MAX_PUSHES + 100
_FORM, _MULTIPART, _JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
_LINES = "application/x-ndjson"
_GZIP = b"\x1f\x8b"

Fields = dict[str, Any]
# A push or a batch. In a batch, an unreadable push is its Refused.
Body = Fields | Usual | list[Fields | Usual | Refused]

_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
# Charsets that libraries declare for parts of a multipart form. ASCII text is the same in all of them.
_BASED_ON_ASCII = re.compile(r"iso-8859-\d+|latin-?\d+|windows-125\d")
_CHARSET = re.compile(r";\s*charset(?:\*\d*\*?)?\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_ESCAPED_LETTER = re.compile(r"\\u00[67]")
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")  # of a part: RFC 2046, 6.2
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,30}", re.ASCII)
_LISTED = re.compile(r"destination\[[^\[\]]*\]")  # how PHP writes the elements of a list

_USUAL_TYPE = 200  # longest Content-Type, in characters, whose reader is cached


def read_body(environ: dict[str, Any], max_body: int, at_root: bool = False) -> Body:
    """Return the fields of the body of a WSGI request.

    `max_body` is in bytes. Raises Refused (400, 413, 415) if the body as a whole cannot be read.
    """
    if "HTTP_CONTENT_ENCODING" in environ:
        _check_coding(environ["HTTP_CONTENT_ENCODING"])
    read = reader_of(environ.get("CONTENT_TYPE", ""), at_root)
    return read(_body(environ, max_body))


def reader_of(content_type: str, at_root: bool = False) -> Callable[[bytes], Body]:
    """Return the function that reads a whole body of this type. It raises Refused (400, 415).

    `at_root` is true for the server's root, whose first clients sent forms without a Content-Type: a body of an unknown
    type is read as a form there. Raises Refused (415) for a type or charset that the relay does not read.
    """
    return (_reader_of if len(content_type) <= _USUAL_TYPE else _find_reader)(content_type, at_root)


def read_query(environ: dict[str, Any]) -> Fields:
    """Return the fields of a query string, which is encoded like a form. Raises Refused (400)."""
    # WSGI has its bytes as Latin-1 (PEP 3333).
    return _form_fields(_form_pairs(_text(environ.get("QUERY_STRING", "").encode("latin-1"), "invalid_form")))


def usual_reader_of(content_type: str) -> Callable[[bytes], Usual | None] | None:
    """Return the reader for the usual pushes of this type (see usual.py), or None if there is none.

    The reader takes a body and returns its Usual, or None for a body that needs the complete reader. It does not check
    destination and event. It raises ValueError for bodies that are not UTF-8 or not JSON.
    """
    if content_type in (_FORM, ""):
        return usual_form
    return usual_json if content_type == _JSON else None


def _find_reader(content_type: str, at_root: bool) -> Callable[[bytes], Body]:
    for charset in _CHARSET.findall(content_type):
        if charset.lower() not in _UTF_8:
            raise Refused(415, "unsupported_media_type", f"send the push in UTF-8, not in {charset[:40]}")
    kind = content_type.partition(";")[0].lower().strip()
    if kind == _JSON:
        return partial(_json_body, at_root=at_root)
    if kind == _LINES:
        return _lines
    if kind == _MULTIPART:
        return partial(_multipart_form, content_type, at_root)
    if kind in (_FORM, "") or at_root:
        return partial(_form, at_root=at_root)
    message = f"send the push as a form ({_FORM}), as JSON ({_JSON}) or as {_LINES}, not as {kind}"
    raise Refused(415, "unsupported_media_type", message)


_reader_of = lru_cache(maxsize=256)(_find_reader)


def _body(environ: dict[str, Any], limit: int) -> bytes:
    """Return the whole body. Raises Refused; a body of more than `limit` bytes is refused before it is read."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            bad("invalid_length", "Content-Length must be a number of bytes")
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
        body: bytes = environ["wsgi.input"].read(size)
        return body
    except Exception as error:  # each WSGI server has its own exceptions for a body that breaks off or has bad chunks
        bad("incomplete_body", f"the body cannot be read to its end: {str(error)[:100] or 'it broke off'}")


def _too_large(limit: int) -> NoReturn:
    message = f"the body of a push may have at most {limit} bytes (setting max_body): send less, or raise the setting"
    raise Refused(413, "too_large", message)


def _check_coding(header: str) -> None:
    """Raise Refused (415) for a compressed body (RFC 9110, 8.4 and 12.5.3)."""
    if any(coding.strip().lower() not in ("", "identity") for coding in header.split(",")):
        message = (
            f"the relay cannot read Content-Encoding {header[:40]}: send the body uncompressed, without that header"
        )
        raise Refused(415, "unsupported_media_type", message, (("Accept-Encoding", "identity"),))


def _text(body: bytes, error: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as wrong:
        if body.startswith(_GZIP):
            bad(error, "the body is compressed with gzip: send it uncompressed")
        bad(error, f"the body is not UTF-8: byte {wrong.start} is invalid")


def _json_body(body: bytes, at_root: bool) -> Body:
    text = _text(body, "invalid_json")
    try:
        if text.startswith("["):
            if pushes := usual_list(text):
                return [*pushes]
        elif usual := usual_push(text):
            return usual
    except ValueError:
        pass  # the complete reader refuses it
    try:
        value = json_text.read(text, AROUND_DATA)
    except json_text.TooDeep as error:
        if not text.lstrip().startswith("["):
            raise _not_json(error) from None
        value = _read_apart(text)
    except json_text.NotJSON as error:
        raise _not_json(error) from None
    else:
        value = _once_each(text, value, ROOT_FIELDS if at_root else FIELDS)
    if isinstance(value, list):
        _check_size(len(value))
        return [each if isinstance(each, dict | Refused) else _no_object(each) for each in value]
    if not isinstance(value, dict):
        raise value if isinstance(value, Refused) else _no_object(value)
    return value


def _once_each(text: str, value: Any, names: Collection[str]) -> Any:
    """Return `value`, which was read from this JSON text, with a Refused for each object that repeats one of `names`.

    Nearly all texts contain each name of a push once, which is quickly checked by counting. Other texts are parsed
    again, as are those in which an escaped letter may hide a name. Objects inside the data may repeat a name: browsers
    use the last one, as the relay does.
    """
    is_plain = True
    if isinstance(value, dict):
        for name in value:
            if name in names and text.count(f'"{name}"') != 1:
                is_plain = False
                break
    elif isinstance(value, list):
        objects = [each for each in value if isinstance(each, dict)]
        is_plain = all(text.count(f'"{name}"') == sum(name in each for each in objects) for name in names)
    else:
        return value
    if is_plain and not ("\\u00" in text and _ESCAPED_LETTER.search(text)):
        return value
    twice = json_text.names_that_come_twice(text)
    refused = [_twice(found & frozenset(names)) for found in twice]
    if isinstance(value, dict):
        return refused[0] or value
    return [no or each for no, each in zip(refused, value, strict=True)]


def _twice(names: frozenset[str]) -> Refused | None:
    if not names:
        return None
    return Refused(400, f"invalid_{min(names)}", f"the field {min(names)!r} was sent twice: send it once")


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
        return _once_each(text, json_text.read(text, AROUND_DATA), FIELDS)
    except json_text.NotJSON as error:
        return _not_json(error)


def _lines(body: bytes) -> list[Fields | Usual | Refused]:
    """Return the push of each line (newline-delimited JSON). Skips empty lines; a bad line fails alone."""
    lines = [line for line in _text(body, "invalid_json").split("\n") if line.strip()]
    _check_size(len(lines))
    return [_line(line) for line in lines]


def _line(text: str) -> Fields | Usual | Refused:
    try:
        if usual := usual_push(text):
            return usual
    except ValueError:
        pass  # as below
    value = _read_alone(text)
    return value if isinstance(value, dict | Refused) else _no_object(value)


def _check_size(count: int) -> None:
    if count > MAX_PUSHES:
        bad("too_many_pushes", f"{count} pushes in one batch are too many: send at most {MAX_PUSHES}")


def _no_object(value: Any) -> Refused:
    return Refused(400, "invalid_json", f"a push must be a JSON object with destination and data, not {kind_of(value)}")


def _not_json(error: json_text.NotJSON) -> Refused:
    if isinstance(error, json_text.TooDeep):
        return Refused(400, "invalid_json", f"the JSON cannot be accepted: {error}")
    return Refused(400, "invalid_json", f"the body is not JSON: {error}")


def _form(body: bytes, at_root: bool) -> Fields:
    is_any = at_root and not body.startswith(_GZIP)
    text = body.decode("utf-8", "surrogateescape") if is_any else _text(body, "invalid_form")
    fields = _form_fields(_form_pairs(text, at_root), at_root)
    if "destination" not in fields and text.lstrip()[:1] in ("{", "["):
        bad("invalid_form", f"the body was sent as a form but looks like JSON: send Content-Type: {_JSON}")
    return fields


def _form_pairs(text: str, at_root: bool = False) -> list[tuple[str, str]]:
    """Return the fields of a form (WHATWG URL, "application/x-www-form-urlencoded parsing"), decoded strictly.

    At the server's root (`at_root`) other fields than destination and data are skipped and may be in any charset.
    """
    if text.count("&") > _MOST_FIELDS:
        bad("invalid_form", f"the form has too many fields: send at most {_MOST_FIELDS}")
    pairs = []
    plain = partial(unquote_plus, errors="surrogateescape") if at_root else unescaped
    try:
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:
                name, value = plain(name), plain(value)
            if at_root and pair:
                if not _has_meaning_at_root(name):
                    continue
                (name + value).encode()  # raises UnicodeEncodeError for a byte that is not UTF-8
            if pair:
                pairs.append((name, value))
    except UnicodeError:
        bad("invalid_form", f"a {'field of' if at_root else '%-sequence in'} the form is not UTF-8")
    return pairs


def _has_meaning_at_root(name: str | None) -> bool:
    return name is not None and (name == "data" or name == "destination" or name.startswith("destination["))


def _multipart_form(content_type: str, at_root: bool, body: bytes) -> Fields:
    return _form_fields(_multipart_pairs(body, content_type, at_root), at_root)


def _multipart_pairs(body: bytes, content_type: str, at_root: bool = False) -> list[tuple[str, str]]:
    """Return the fields of a multipart form (RFC 7578), decoded as UTF-8.

    Werkzeug's form parser would decode each part by the charset that it names, and replace what does not fit.
    At the server's root (`at_root`) other parts than destination and data may be anything, even files.
    """
    if not at_root:
        _text(body, "invalid_form")  # a body that is not UTF-8 is refused as a whole
    pairs: list[tuple[str, str]] = []
    part: Field | File | None = None
    value = b""
    try:
        boundary = parse_options_header(content_type)[1].get("boundary", "").encode("ascii")
        if not boundary:
            raise ValueError("no boundary")
        decoder = MultipartDecoder(boundary, max_parts=_MOST_FIELDS)
        decoder.receive_data(body)
        decoder.receive_data(None)
        while not isinstance(event := decoder.next_event(), Epilogue):
            if isinstance(event, Field | File):
                part, value = event, b""
            elif isinstance(event, Data) and part is not None and (not at_root or _has_meaning_at_root(part.name)):
                value += event.data
                if not event.more_data:
                    _check_part(part, value.isascii())
                    pairs.append((part.name, _text(value, "invalid_form")))
    except (ValueError, HTTPException):
        bad(
            "invalid_form",
            f"the multipart form cannot be read: check its boundary, and send at most {_MOST_FIELDS} fields",
        )
    return pairs


def _check_part(part: Field | File, is_ascii: bool) -> None:
    """Raise Refused (400, 415) for a part that is not the plain UTF-8 text of a field."""
    if isinstance(part, File):
        bad("invalid_form", "files cannot be pushed: send text, such as the address of the file")
    disposition = part.headers["Content-Disposition"].partition(";")[0].strip().lower()
    if part.name is None or disposition != "form-data":
        bad("invalid_form", "a part of the multipart form has no name")
    kind, encoding = part.headers.get("Content-Type", ""), part.headers.get("Content-Transfer-Encoding", "")
    why = ""
    if encoding.strip().lower() not in _PLAIN_ENCODINGS:
        why = f"it is encoded ({encoding[:40]}): send plain text"
    if kind.strip().lower().startswith("multipart/"):
        why = "it has parts of its own: send one text"
    for charset in map(str.lower, _CHARSET.findall(kind)):
        if charset not in _UTF_8 and not (is_ascii and _BASED_ON_ASCII.fullmatch(charset)):
            why = f"it is in {charset[:40]}: send it in UTF-8"
    if why:
        raise Refused(415, "unsupported_media_type", f"the relay cannot accept the part {part.name[:50]!r}: {why}")


def _form_fields(pairs: list[tuple[str, str]], at_root: bool = False) -> Fields:
    """Return the fields of a form. PHP writes a list as destination[], as destination[0] or by repeating the name.

    At the server's root (`at_root`) all fields but destination and data are ignored, even repeated ones.
    """
    fields: Fields = {}
    destinations: list[str] = []
    places = set()  # in the list of destinations
    several = False
    for name, value in pairs:
        if name == "destination" or name.startswith("destination["):
            several = several or name != "destination" or bool(destinations)
            if name != "destination" and not _LISTED.fullmatch(name):
                bad("invalid_destination", f"{name[:50]!r} is not a list: write destination[]=a&destination[]=b")
            if name in places:
                bad("invalid_form", f"the field {name[:50]!r} was sent twice: write destination[] for each")
            if name not in ("destination", "destination[]"):
                places.add(name)
            destinations.append(value)
        elif at_root and name != "data":
            continue
        elif name in fields:
            bad("invalid_form", f"the field {shown_name(name)} was sent twice: send it once")
        else:
            fields[name] = value
    if destinations:
        fields["destination"] = destinations if several else destinations[0]
    return fields


def shown_name(name: str) -> str:
    """Return a field's name for a message, which is also logged: data with an unescaped `&` has names too."""
    return repr(name) if _PLAIN_NAME.fullmatch(name) else "of that name (not shown, because it may be data)"
