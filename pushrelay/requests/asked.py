"""The fields of `request` and `send`, checked, and the event that PHP gets of them."""

import secrets
import time
from typing import Any, NamedTuple

from pushrelay.access.member import Member
from pushrelay.errors import bad
from pushrelay.json_text import encode, quote
from pushrelay.names import is_clean
from pushrelay.push.fields import text_of

MOST_NAME = 128  # characters
REQUEST = "request"
_REQUEST_FIELDS = {"name", "data"}
_SEND_FIELDS = {"name", "data", "id"}


class Page(NamedTuple):
    """The page of a socket, as PHP gets to know it."""

    sid: str
    member: Member | None  # its user, by the claim `as` of its rights as they are now
    ids: list[str]  # the destinations that it holds, by its own names


class Asked(NamedTuple):
    """The fields of an event: a name, the JSON text of the data, and the id that the page chose, or an empty text."""

    name: str
    data: str
    id: str = ""


def request_of(message: Any) -> Asked:
    """Return the fields of a `request`. Raises Refused (400)."""
    return _asked_of(message, _REQUEST_FIELDS, '{name: "cart/add", data: {sku: 7}}')


def send_of(message: Any) -> Asked:
    """Return the fields of a `send`. Raises Refused (400)."""
    asked = _asked_of(message, _SEND_FIELDS, '{name: "seen", data: {message: 7}}')
    value = message.get("id")
    if value is None:
        return asked
    if not isinstance(value, str) or not _is_name(value):
        bad("invalid_id", f"id is a random text of 1 to {MOST_NAME} characters, such as crypto.randomUUID()")
    return asked._replace(id=value)


def rest_of(asked: Asked, page: Page) -> str:
    """Return the JSON object with the fields of an event besides id, event and at."""
    fields = [f'"name":{quote(asked.name)}', f'"data":{asked.data}']
    if page.member is not None:
        fields.append(f'"as":{{"id":{quote(page.member.id)},"info":{page.member.info_json}}}')
    if page.ids:
        fields.append(f'"ids":{encode(page.ids)}')
    fields.append(f'"sid":{quote(page.sid)}')
    return f"{{{','.join(fields)}}}"


def request_event(asked: Asked, page: Page) -> str:
    """Return the event of a request as PHP gets it, in JSON. Its id is random."""
    head = f'"id":{quote(secrets.token_hex(8))},"event":"{REQUEST}","at":{time.time():.3f}'
    return f"{{{head},{rest_of(asked, page)[1:]}"


def _asked_of(message: Any, fields: set[str], example: str) -> Asked:
    if not isinstance(message, dict):
        bad("invalid_message", f"send an object such as {example}")
    if other := message.keys() - fields:
        bad("unknown_field", f"{min(other)!r:.50} is not a field of this event: put it into data")
    name = message.get("name")
    if not isinstance(name, str) or not _is_name(name):
        bad("invalid_name", f"name is a text of 1 to {MOST_NAME} characters without control characters: {example}")
    return Asked(name, text_of(message.get("data")))


def _is_name(value: str) -> bool:
    return 0 < len(value) <= MOST_NAME and is_clean(value)
