"""The fields of a push, checked: destinations, data and options.

Data is read once and written again as JSON. That text is stored, replayed and listed unchanged, so no accepted push can
turn out to be unreadable later. Unknown fields are refused, because `evnet=…` must not be delivered as a plain `push`.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from pushrelay.errors import Refused, bad
from pushrelay.json_text import (
    LONG_TEXT,
    MAX_DEPTH,
    TooDeep,
    check_depth,
    check_numbers,
    decode,
    encode,
    quote,
    quote_long,
)
from pushrelay.names import LONE_SURROGATE, MAX_PUSHES, USUAL_EVENT, destinations_of, event_of, is_clean
from pushrelay.settings import Settings

from .body import FIELDS, ROOT_FIELDS, Body, Fields, read_body, read_query, shown_name
from .usual import Usual

MAX_KEY_LENGTH = 255  # characters
MAX_TTL = 1e20  # seconds: more than any 64-bit integer, because programs send the largest for "no limit"
MAX_WAIT = 30.0  # seconds: not far below PHP's own time limit for a script and the timeouts of proxies
# Bytes of data that one request may store over all destinations, or max_body if that is more: 20 ms of SQLite. Storing
# the data once for all destinations would allow more, but would need reference counts and a second table to sweep.
MOST_STORED = 4 << 20

MOST_ON_PAGE = 1000  # destinations
_PAGE_FIELDS = {"all", "after", "limit"}
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
_QUOTED_KEY = re.compile(r'"((?:[^"\\]|\\["\\])*)"')  # a string of RFC 9651, 3.3.3


class Page(NamedTuple):
    """The part of a list of destinations that somebody asks for."""

    after: str  # a name: the destinations whose names come after it
    limit: int


@dataclass(slots=True)
class Push:
    """A push: the same data for each of its destinations."""

    destinations: list[str]
    several: bool  # the destinations came as a list, possibly of one, so the answer is a list too
    event: str
    text: str  # the data as JSON; all publications of this push share it
    skip_sid: str | None = None
    ttl: float | None = None  # seconds in the history; None: as long as other publications; 0: not kept
    key: str | None = None  # idempotency key: a repeated push gets the first answer and is not delivered again
    wait: float = 0.0  # seconds to wait for an acknowledgement


def read_pushes(environ: dict[str, Any], settings: Settings, at_root: bool = False) -> Push | list[Push | Refused]:
    """Return the push or the batch in a WSGI request. In a batch, a bad item is replaced by its Refused.

    Raises Refused (400, 413, 415), which names the field at fault. At the server's root (`at_root`) only destination
    and data have a meaning: the programs that post there may send an `id` or a `wait` of their own.
    """
    if environ.get("QUERY_STRING") and not at_root:
        bad("unknown_field", "the address has a query string, which nobody reads: send all fields in the body")
    header = environ.get("HTTP_IDEMPOTENCY_KEY")
    return pushes_of(read_body(environ, settings.max_body, at_root), settings, at_root, header)


def pushes_of(
    body: Body, settings: Settings, at_root: bool = False, header: str | None = None
) -> Push | list[Push | Refused]:
    """Return the push, or the batch, that a body asks for. `header` is the `Idempotency-Key`. Raises Refused."""
    if at_root and not isinstance(body, list):
        if isinstance(body, tuple):
            body = fields_of(body)
        return push_of({name: body[name] for name in ROOT_FIELDS if name in body}, settings)
    if header is not None:
        header = _header_key(header)
    if not isinstance(body, list):
        return _push_of(body, settings, header)
    pushes: list[Push | Refused] = []
    for number, fields in enumerate(body):
        try:
            if isinstance(fields, Refused):
                raise fields
            pushes.append(_push_of(fields, settings, header, number))
        except Refused as refused:
            pushes.append(refused)
    _check_total(pushes, settings)
    return pushes


def fields_of(usual: Usual) -> Fields:
    """Return the fields of a push that has only the usual ones."""
    return {"destination": usual[0], "data": decode(usual[1]), "event": usual[2]}


def _push_of(body: Fields | Usual, settings: Settings, header: str | None, number: int | None = None) -> Push:
    """Return the push with these fields. `number` is its place in a batch, if it is in one. Raises Refused."""
    if isinstance(body, tuple):
        destination, text, event = body
        # Characters have at most four bytes.
        is_short = len(destination) <= settings.max_id_length and 4 * len(text) <= settings.max_body
        if header is None and is_short and destination.isprintable():
            return Push([destination], False, event if event == USUAL_EVENT else event_of(event), text)
        body = fields_of(body)
    if number is None:
        return push_of(_with_key(body, header), settings)
    push = push_of(_with_key(body, header, f"#{number}"), settings)
    if push.wait:
        bad("invalid_wait", "a push in a batch cannot wait: send it on its own")
    return push


def push_of(fields: Fields, settings: Settings) -> Push:
    """Return the push that these fields ask for. Raises Refused (400, 413) for the first field that is wrong."""
    if not fields.keys() <= FIELDS:
        _refuse_names(fields.keys() - FIELDS, FIELDS)
    if "destination" not in fields:
        bad("missing_destination", "a push needs a field destination: the id that the page registered")
    if "data" not in fields:
        bad("missing_data", "a push needs a field data: what to deliver (an empty string is fine)")
    destination, data = fields["destination"], fields["data"]
    text = text_of(data)
    size = check_size(text, settings)
    push = Push(destinations_of(destination, settings), isinstance(destination, list), USUAL_EVENT, text)
    if len(push.destinations) > 1:
        _check_stored(size * len(push.destinations), settings)
    if len(fields) > 2:
        _add_options(push, fields)
    return push


def text_of(data: Any) -> str:
    """Return data as JSON. Raises Refused (400) for values that Python can read but browsers cannot."""
    if isinstance(data, str):
        if not data.isascii() and LONE_SURROGATE.search(data):
            _refuse_surrogate()
        return quote(data) if len(data) < LONG_TEXT else quote_long(data)
    try:
        text = encode(data)
        check_depth(text)
        check_numbers(text)
    except TooDeep:
        bad("invalid_data", f"data is nested more than {MAX_DEPTH} levels deep: send it flatter, or as a string")
    except ValueError:
        bad("invalid_data", "data holds a number that is out of range: a browser would read it as Infinity")
    if not text.isascii() and LONE_SURROGATE.search(text):
        _refuse_surrogate()
    return text


def size_of(text: str) -> int:
    """Return the number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def check_size(text: str, settings: Settings) -> int:
    """Return the number of bytes of a push's data as browsers get it. Raises Refused (413) above max_body."""
    size = size_of(text)
    if size > settings.max_body:
        message = (
            f"the data takes {size} bytes as JSON, which is how browsers receive it, and at most {settings.max_body} "
            "are allowed (setting max_body): send less, or raise the setting"
        )
        raise Refused(413, "too_large", message)
    return size


def queried_destinations(environ: dict[str, Any], settings: Settings, *others: str) -> tuple[list[str], Fields]:
    """Return the destinations that a query string names, and all its fields. Raises Refused (400).

    The fields may be `destination` and `others`.
    """
    fields = read_query(environ)
    known = {"destination", *others}
    if not fields.keys() <= known:
        _refuse_names(fields.keys() - known, known)
    if "destination" not in fields:
        bad("missing_destination", "add ?destination=ID to the address, with the id that the page registered")
    return destinations_of(fields["destination"], settings), fields


def presence_query(environ: dict[str, Any], settings: Settings) -> list[str] | Page:
    """Return the destinations that a query string names, or the page of all destinations. Raises Refused (400)."""
    fields = read_query(environ)
    if "all" not in fields:
        return queried_destinations(environ, settings)[0]
    if not fields.keys() <= _PAGE_FIELDS:
        _refuse_names(fields.keys() - _PAGE_FIELDS, _PAGE_FIELDS)
    if fields["all"] != "1":
        bad("invalid_data", "all is 1, for all destinations: leave it out if you name some")
    return Page(fields.get("after", ""), _limit(fields.get("limit"), MOST_ON_PAGE) or MOST_ON_PAGE)


def history_query(environ: dict[str, Any], settings: Settings) -> tuple[str, str | None, int | None]:
    """Return the parameters of a query string for a history: destination, `since` and `limit`. Raises Refused (400).

    `since` is None for the whole history. `limit` is the maximum number of publications, or None.
    """
    (destination, *more), fields = queried_destinations(environ, settings, "since", "limit")
    if more:
        bad("too_many_destinations", "a history has one destination: ask for each on its own")
    return destination, fields.get("since"), _limit(fields.get("limit"))


def _limit(text: str | None, most: int = 999_999) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 6 or not 0 < int(text) <= most:
        bad("invalid_limit", f"limit must be a whole number from 1 to {most}")
    return int(text)


def decimal(text: str) -> float | None:
    """Return the number that a plain decimal stands for, or None. float() would also read " 5 ", "1_0" and "٣"."""
    return float(text) if len(text) < 30 and _DECIMAL.fullmatch(text) else None


def _add_options(push: Push, fields: Fields) -> None:
    if "event" in fields:
        push.event = event_of(fields["event"])
    skip_sid = fields.get("except")
    if skip_sid is not None and not (isinstance(skip_sid, str) and is_clean(skip_sid)):
        bad("invalid_except", "except must be the sid of a socket, a string")
    push.skip_sid = skip_sid or None
    if "ttl" in fields:
        push.ttl = _seconds("ttl", fields["ttl"], MAX_TTL)
    if "wait" in fields:
        push.wait = _seconds("wait", fields["wait"], MAX_WAIT)
    if "id" in fields:
        push.key = _key(fields["id"])


def _seconds(name: str, value: Any, most: float) -> float:
    number = decimal(value) if isinstance(value, str) else value
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if number is None or not is_number or not 0 <= number <= most or math.copysign(1, number) < 0:
        limit = f" and at most {most:g}" if most < MAX_TTL else ""
        bad(f"invalid_{name}", f"{name} must be a number of seconds, 0 or more{limit}")
    return float(number)


def _key(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**40:
        value = str(value)
    if not isinstance(value, str) or not value or len(value) > MAX_KEY_LENGTH or not is_clean(value):
        bad(
            "invalid_id",
            f"id, the idempotency key, must have 1 to {MAX_KEY_LENGTH} characters and no control characters",
        )
    return value


def _with_key(fields: Fields, header: str | None, suffix: str = "") -> Fields:
    """Return the fields with the `Idempotency-Key` header as their id, unless they have one."""
    if header is None or "id" in fields:
        return fields
    return {**fields, "id": header + suffix}


def _header_key(header: str) -> str:
    """Return the key in an `Idempotency-Key` header, with quotes or without. Raises Refused (400).

    Servers join two headers of the same name with a comma, so a key that contains a comma must be in quotes.
    """
    key = header.strip()
    if quoted := _QUOTED_KEY.fullmatch(key):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif '"' in key or "," in key:
        bad("invalid_id", "send the header Idempotency-Key once, with one key, in quotes if it has a comma")
    try:
        return key.encode("latin-1").decode()  # WSGI has its bytes as Latin-1 (PEP 3333)
    except UnicodeDecodeError:
        bad("invalid_id", "the header Idempotency-Key is not UTF-8")


def _check_total(pushes: list[Push | Refused], settings: Settings) -> None:
    taken = [push for push in pushes if isinstance(push, Push)]
    total = sum(len(push.destinations) for push in taken)
    if total > MAX_PUSHES:
        bad("too_many_pushes", f"{total} publications in one batch are too many: {MAX_PUSHES} at most")
    _check_stored(sum(len(push.destinations) * size_of(push.text) for push in taken), settings)


def _check_stored(size: int, settings: Settings) -> None:
    """Raise Refused (413) if the publications of one request take more bytes than one transaction may.

    Other pushes wait while a transaction is written, and it must not displace the whole history.
    """
    most = min(max(MOST_STORED, settings.max_body), settings.history_bytes)
    if size > most:
        message = (
            f"the data takes {size} bytes over all destinations, and one request may store {most}: send it to fewer "
            "destinations at a time, or send less and have pages fetch the rest"
        )
        raise Refused(413, "too_large", message)


def _refuse_names(names: set[str], known: Iterable[str]) -> NoReturn:
    name = min(names)
    if name.startswith("data["):
        bad("invalid_data", "data came as an array of form fields: send json_encode($data), or the whole push as JSON")
    bad("unknown_field", f"there is no field {shown_name(name)}; the fields are {', '.join(sorted(known))}")


def _refuse_surrogate() -> NoReturn:
    bad("invalid_data", "data holds half of a surrogate pair: send whole Unicode characters")
