"""The content of a file of the spool: the body of a POST to /push in JSON, checked as if it had come over HTTP."""

import time
from typing import NamedTuple

from pushrelay.errors import Refused
from pushrelay.json_text import encode
from pushrelay.push.body import Body, reader_of
from pushrelay.push.fields import Push, fields_of, pushes_of
from pushrelay.push.publisher import items_of
from pushrelay.settings import Settings
from pushrelay.store.stripe import Pending

from .folder import SpooledFile

_read = reader_of("application/json")


class Content(NamedTuple):
    """The publications that a file asks for, and the pushes of a batch that are refused."""

    name: str
    items: list[Pending]
    size: int  # bytes of data, approximately
    refused: str = ""  # the reasons, a line for each refused push
    rest: bytes = b""  # those pushes, as a batch
    stamp: int = 0  # of the file: see SpooledFile


def content_of(file: SpooledFile, settings: Settings) -> Content:
    """Return what a file asks for. Raises Refused if nothing of it can be published.

    A `wait` is ignored: nobody waits any more. A `ttl` counts from when the file was written, and so does the time for
    which the relay remembers idempotency keys.
    """
    body = _read(file.body)
    if isinstance(body, dict):
        body.pop("wait", None)
    try:
        pushes = pushes_of(body, settings)
        items = items_of(pushes)
    except ValueError as error:
        raise Refused(400, "invalid_data", f"a text in it cannot be encoded ({error})") from None
    age = max(0.0, time.time() - file.written)
    for item in items:
        if item.ttl is not None:
            item.ttl = max(0.0, item.ttl - age)
        if item.use is not None:
            item.use.asked_at = file.written
    refused, rest = _refused(pushes, body)
    return Content(file.name, items, sum(len(item.text) for item in items), refused, rest, file.stamp)


def _refused(pushes: Push | list[Push | Refused], body: Body) -> tuple[str, bytes]:
    if isinstance(pushes, Push) or not isinstance(body, list):
        return "", b""
    found = [(number, push) for number, push in enumerate(pushes) if isinstance(push, Refused)]
    if not found:
        return "", b""
    sent = [body[number] for number, _ in found]
    fields = [
        None if isinstance(each, Refused) else fields_of(each) if isinstance(each, tuple) else each for each in sent
    ]
    return "\n".join(f"push {number}: {each.error}: {each.message}" for number, each in found), encode(fields).encode()
