"""JSON: text from outside is read within fixed bounds on nesting and numbers; the relay's own is written compactly.

Python's own bounds cannot replace these. They depend on its version, on the environment, and on the depth of the stack:
a value that could be read once might not be readable when it is needed again.
"""

import json
import json.decoder
import json.encoder
import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NoReturn

MAX_DEPTH = 100  # levels of arrays and objects; real data has a dozen
# Integers with fewer digits fit a double, the type in which browsers read numbers (RFC 8259, 6).
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
    """The text is not valid JSON. The message is the second half of a sentence."""


class TooDeep(NotJSON):
    """The text is nested more than MAX_DEPTH levels deep."""


def read(text: str, around: int = 0) -> Any:
    """Return the value of a JSON text; a number that exceeds a double becomes infinite. Raises NotJSON.

    `around` is the number of outer levels that do not count for the bound on nesting.
    """
    check_depth(text, MAX_DEPTH + around)
    try:
        return _decode_long(text) if has_long_number(text) else _decode(text)
    except json.JSONDecodeError as wrong:
        raise NotJSON(str(wrong)) from None


def check_depth(text: str, most: int = MAX_DEPTH) -> None:
    """Raise TooDeep if a JSON text is nested more than `most` levels deep, without parsing it.

    Most texts have few brackets and need no closer look.
    """
    if may_be_deep(text, most) and _is_deeper(text.encode("utf-8", "replace"), most):
        raise TooDeep(_TOO_DEEP)


def may_be_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Return whether a JSON text has enough brackets to be nested more than `most` levels deep."""
    return text.count("[") + text.count("{") > most


def read_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value at index `start` of a JSON text, and the index after it.

    Raises ValueError if there is no value, and for a number with an exponent that is too large for a double. It checks
    no other bounds: the caller has checked the text's depth and the length of its numbers.
    """
    try:
        return _scan(text, start)
    except StopIteration:
        raise NotJSON("a value is missing") from None


def has_long_number(text: str) -> bool:
    """Return whether a text has LONG_DIGITS digits in a row. It checks one character in LONG_DIGITS first."""
    if len(text) < LONG_DIGITS:
        return False
    for number, character in enumerate(text[LONG_DIGITS - 1 :: LONG_DIGITS], 1):
        if "0" <= character <= "9":
            place = number * LONG_DIGITS
            if _LONG.search(text, place - LONG_DIGITS, place + LONG_DIGITS):
                return True
    return False


def elements(text: str) -> list[str]:
    """Return the texts of an array's elements, which may be nested to any depth. Raises NotJSON."""
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
    """A JSON object with duplicate names."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.names = frozenset(name for name, count in counts.items() if count > 1)


def names_that_come_twice(text: str) -> list[frozenset[str]]:
    """Return the duplicate names of a JSON text's object, or of each element of its array.

    The text has been read before, so it is valid. Objects further inside do not count: readers keep the last member.
    """
    value = _decode_pairs(text)
    objects = value if isinstance(value, list) else [value]
    return [each.names if type(each) is _Doubled else _NO_NAMES for each in objects]


def _keep_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(pairs)


def check_numbers(text: str) -> None:
    """Raise ValueError if a valid JSON text contains an integer that exceeds a double."""
    if has_long_number(text):
        _decode_finite(text)


def _is_deeper(raw: bytes, most: int) -> bool:
    """Return whether a JSON text is nested more than `most` levels deep."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Keep brackets and the quotes of strings, then drop empty strings, then those with brackets inside.
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
    """Read an integer as a browser does. int() would take quadratic time, or raise an exception."""
    if len(digits) > LONG_DIGITS + 1:  # with its sign; JSON has no leading zeros
        return math.inf
    try:
        float(value := int(digits))
    except OverflowError:
        return math.inf
    return value


def _decode(text: str) -> Any:
    """Return decode(text). Most texts have no space around their value, and that case is faster."""
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


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number that no double can hold")
    return value


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_finite_decoder: Any = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite_float)
_scan: Callable[[str, int], tuple[Any, int]] = _finite_decoder.scan_once  # in C, unlike raw_decode()
_decode_long = json.JSONDecoder(parse_constant=_no_constant, parse_int=_whole).decode
_decode_pairs = json.JSONDecoder(object_pairs_hook=_keep_doubled, parse_int=str).decode
_decode_finite = json.JSONDecoder(parse_int=_finite).decode

# For the relay's own texts.

# Created once, because json.dumps creates an encoder for each call with other separators. Without NaN and infinity,
# which browsers cannot read, and not limited to ASCII, in which other scripts would take twice the space.
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
decode = json.JSONDecoder().decode
quote = json.encoder.encode_basestring  # a text as a JSON string, not limited to ASCII
_scan_string: Callable[[str, int], tuple[str, int]] = vars(json.decoder)["scanstring"]
LONG_TEXT = 500  # characters; for longer texts quote_long() is faster than quote()
_make_encoder: Callable[..., Any] | None = getattr(json.encoder, "c_make_encoder", None)  # None in PyPy
_chunks = _make_encoder and _make_encoder(None, None, quote, None, ":", ",", False, False, False)


def encode_decoded(value: Any) -> str:
    """Return the same as encode(), in half the time, for a value that was read from JSON. Raises ValueError as well.

    encode() makes an encoder for each call, to find values that contain themselves. JSON never yields one.
    """
    if type(value) is str:
        return quote(value)
    return "".join(_chunks(value, 0)) if _chunks else encode(value)


def quote_long(text: str) -> str:
    """Return the same as quote(). For a long text in which nothing needs an escape, this takes a third of the time.

    json's scanner takes half a nanosecond for each character, and its encoder four. So the text is scanned first.
    """
    quoted = f'"{text}"'
    try:
        is_plain = "\\" not in text and _scan_string(quoted, 1)[1] == len(quoted)
    except ValueError:  # a control character
        is_plain = False
    return quoted if is_plain else quote(text)
