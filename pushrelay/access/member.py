"""The claim `as`: the user that a visitor is, as the site names it."""

from typing import Any, NamedTuple

from pushrelay.errors import Refused
from pushrelay.json_text import check_numbers, encode
from pushrelay.names import LONE_SURROGATE, id_text, is_clean, kind_of

MAX_ID = 128  # characters
MAX_INFO = 1024  # bytes: each member's info is sent to everybody who watches a destination
NO_INFO = "{}"
_FIELDS = {"id", "info"}


class Member(NamedTuple):
    """A user of the site, who may be at a destination in several tabs and on several devices."""

    id: str
    info_json: str = NO_INFO  # a JSON object with whatever the site tells about this user


def member_of(claims: dict[str, Any]) -> Member | None:
    """Return the user that the claim `as` names; None without that claim. Raises ValueError with the reason."""
    value = claims.get("as")
    if value is None:
        return None
    if not isinstance(value, dict) or "id" not in value:
        raise ValueError(f'as names a user in an object such as {{"id": "42"}}; this is {_kind_of(value)}')
    if other := value.keys() - _FIELDS:
        raise ValueError(f"as has the fields id and info, but not {min(other)!r:.50}: put it into info")
    return Member(_id_of(value["id"]), _info_of(value.get("info")))


def _kind_of(value: Any) -> str:
    return "an object without id" if isinstance(value, dict) else kind_of(value)


def _id_of(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else id_text(value)
    except Refused:
        raise ValueError(f"the id in as is a string or a whole number, not {kind_of(value)}") from None
    if not text or len(text) > MAX_ID or not is_clean(text):
        raise ValueError(f"the id in as has 1 to {MAX_ID} characters, and no control characters")
    return text


def _info_of(value: Any) -> str:
    """Return the JSON text of what the site tells about a user."""
    if value is None or value == []:  # PHP encodes an empty array as a list
        return NO_INFO
    if not isinstance(value, dict):
        raise ValueError(f"info in as is an object, not {kind_of(value)}")
    try:
        text = encode(value)
        check_numbers(text)
    except ValueError:  # infinity, or NaN
        raise ValueError("info in as has a number that JSON cannot hold") from None
    if LONE_SURROGATE.search(text):
        raise ValueError("info in as is not Unicode text")
    if (size := len(text.encode())) > MAX_INFO:
        raise ValueError(f"info in as has {size} bytes as JSON, and at most {MAX_INFO} are allowed")
    return text
