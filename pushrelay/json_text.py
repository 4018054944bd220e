"""JSON from outside, read within fixed bounds: its nesting, and the size of its numbers.

Python's own bounds are no substitute. They depend on its version, on the environment, and on how deep in the stack it
is called: a value that could be read once might not be readable when it is needed again.
"""

import json
import json.encoder
import math
import re
from collections import Counter
from itertools import accumulate
from typing import Any, NoReturn

MAX_DEPTH = 100  # arrays and objects inside each other; data written for people has a dozen
# A whole number of fewer digits fits a double, which is what a browser reads numbers as (RFC 8259, 6).
LONG_DIGITS = 309

_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep: send it flatter, or as a string"
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_BRACKETED_STRING = re.compile(rb'"[^"]*"?')
_STEPS = [0] * 256
for _opening, _closing in (b"[]", b"{}"):
    _STEPS[_opening], _STEPS[_closing] = 1, -1
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.DOTALL)
_LONG = re.compile(f"[0-9]{{{LONG_DIGITS}}}")
_NO_NAMES: frozenset[str] = frozenset()
_PASSES = 4  # over the innermost brackets, before they are counted one by one


class NotJSON(ValueError):
    """The text cannot be read. The message is the end of a sentence that begins with what it should be."""


class TooDeep(NotJSON):
    """The text is nested more than MAX_DEPTH levels deep."""


def read(text: str, around: int = 0) -> Any:
    """Return the value of a JSON text; a number that no double can hold is infinite. Raises NotJSON.

    `around` are the levels that the text has around what is bounded.
    """
    check_depth(text, MAX_DEPTH + around)
    try:
        return _decode_long(text) if has_long_number(text) else _decode(text)
    except json.JSONDecodeError as wrong:
        raise NotJSON(str(wrong)) from None


def check_depth(text: str, most: int = MAX_DEPTH) -> None:
    """Raise TooDeep if a JSON text is nested more than `most` levels deep, without reading it.

    A text with few brackets needs no closer look, and that is most of them.
    """
    if may_be_deep(text, most) and _is_deeper(text.encode("utf-8", "replace"), most):
        raise TooDeep(_TOO_DEEP)


def may_be_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Return whether a JSON text has so many brackets that it may be nested more than `most` levels deep."""
    return text.count("[") + text.count("{") > most


def read_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at an index of a JSON text, and the index behind it. Raises ValueError if none does.

    Nothing is bounded: the caller has looked at the text's depth and at the length of its numbers.
    """
    return _decoder.raw_decode(text, start)


def has_long_number(text: str) -> bool:
    """Return whether LONG_DIGITS digits stand in a row. They cover one of the places that are looked at."""
    if len(text) < LONG_DIGITS:
        return False
    for number, character in enumerate(text[LONG_DIGITS - 1 :: LONG_DIGITS], 1):
        if "0" <= character <= "9":
            place = number * LONG_DIGITS
            if _LONG.search(text, place - LONG_DIGITS, place + LONG_DIGITS):
                return True
    return False


def elements(text: str) -> list[str]:
    """Return the texts of an array's elements, which may be nested as deeply as they like. Raises NotJSON."""
    found, depth, begin = [], 0, 0
    for token in _TOKEN.finditer(text):
        character = token[0]
        if character in "[{":
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif character in "]}":
            depth -= 1
        if depth == 0 or (depth == 1 and character == ","):
            found.append(text[begin : token.start()])
            begin = token.end()
        if depth == 0:
            break
    if depth or not found or text[begin:].strip() or text[: text.find("[")].strip():
        raise NotJSON("its brackets do not match")
    return found


class _Doubled(dict[str, Any]):
    """An object that has some names twice."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.names = frozenset(name for name, count in counts.items() if count > 1)


def names_that_come_twice(text: str) -> list[frozenset[str]]:
    """Return which names an object has twice: of a JSON text's object, or of each element of its array.

    The text has been read before, so it is JSON. Objects further inside do not count: readers keep their last member.
    """
    value = _decode_pairs(text)
    objects = value if isinstance(value, list) else [value]
    return [each.names if type(each) is _Doubled else _NO_NAMES for each in objects]


def _keep_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(pairs)


def check_numbers(text: str) -> None:
    """Raise ValueError if a JSON text that can be read holds a whole number that no double can hold."""
    if has_long_number(text):
        _decode_finite(text)


def _is_deeper(raw: bytes, most: int) -> bool:
    """Return whether a JSON text is nested more than `most` levels deep."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # What is left are brackets and the quotes of strings; then only strings with brackets in them; then none.
    brackets = raw.translate(None, _OTHERS).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _BRACKETED_STRING.sub(b"", brackets)
    outer = brackets
    for _ in range(_PASSES):
        outer = outer.replace(b"{}", b"").replace(b"[]", b"")  # two levels at most
    if len(outer) + 2 * _PASSES <= most:
        return False
    return any(map(most.__lt__, accumulate(map(_STEPS.__getitem__, brackets))))


def _no_constant(word: str) -> NoReturn:
    raise NotJSON(f"{word} is JavaScript, not JSON")


def _whole(digits: str) -> int | float:
    """Read a whole number as a browser does. int() would take quadratic time, or refuse."""
    if len(digits) > LONG_DIGITS + 1:  # with its sign; leading zeros are no JSON
        return math.inf
    try:
        float(value := int(digits))
    except OverflowError:
        return math.inf
    return value


def _decode(text: str) -> Any:
    """Return decode(text). Most texts have no space around their value, which is quicker to read than to look for."""
    try:
        value, end = _decoder.raw_decode(text)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(text) else _decoder.decode(text)


def _finite(digits: str) -> int:
    value = _whole(digits)
    if value == math.inf:
        raise ValueError("a number that no double can hold")
    return int(value)


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_decode_long = json.JSONDecoder(parse_constant=_no_constant, parse_int=_whole).decode
_decode_pairs = json.JSONDecoder(object_pairs_hook=_keep_doubled, parse_int=str).decode
_decode_finite = json.JSONDecoder(parse_int=_finite).decode

# What the relay itself writes, and reads again.

# Made once: json.dumps makes a new encoder for every call that does not want its default separators.
# allow_nan: what JSON has no word for no browser could read. Not ASCII only: other scripts would take twice the room.
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
decode = json.JSONDecoder().decode
quote = json.encoder.encode_basestring  # a JSON string of a text, not ASCII only either
# The encoder behind `encode`, for which the type checker has no type. PyPy has none.
_make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
_chunks = _make_encoder and _make_encoder(None, None, quote, None, ":", ",", False, False, False)


def encode_decoded(value: Any) -> str:
    """Return what encode() returns for a value that was read from JSON, in half the time. Raises ValueError as it does.

    encode() makes an encoder for each call, to find values that hold themselves. No JSON reads as one.
    """
    if type(value) is str:
        return quote(value)
    return "".join(_chunks(value, 0)) if _chunks else encode(value)
