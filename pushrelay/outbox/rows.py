"""Rows of the table become publications, after the same checks as a push over HTTP."""

import logging
import time
from typing import NamedTuple

from pushrelay import json_text
from pushrelay.errors import Refused
from pushrelay.push.fields import push_of
from pushrelay.push.publisher import items_of
from pushrelay.settings import Settings
from pushrelay.store.stripe import Pending

from .database import Row
from .mark import fingerprint
from .table import MOST_REASON

log = logging.getLogger(__name__)

# After this number of rows, the threads that serve clients get their turn: they would otherwise wait for Python's lock
# for 5 ms (sys.getswitchinterval()) each time. During a backlog, that halves the slowest percent of pushes.
TURN_ROWS = 32
TURN_SECONDS = 0.00005


class Sorted(NamedTuple):
    """Rows, sorted into those to publish and those to refuse."""

    items: list[Pending]  # to publish, in the order of the rows
    stored: dict[int, int]  # the fingerprints of these rows by their ids
    refused: dict[str, list[int]]  # the ids of the others by what is wrong with them


def sort_rows(rows: list[Row], settings: Settings) -> Sorted:
    """Sort rows that were read with table.lock()."""
    found = Sorted([], {}, {})
    for number, row in enumerate(rows, 1):
        if not number % TURN_ROWS:
            time.sleep(TURN_SECONDS)
        id_, destination, created, data = int(row[0]), row[1], row[2], row[3]
        try:
            items = _items_of(row, settings)
        except Refused as refused:
            found.refused.setdefault(f"{refused.error}: {refused.message}"[:MOST_REASON], []).append(id_)
        except Exception as error:  # whatever it is, the other rows must not wait for this one
            log.exception("row %d of the outbox cannot be read", id_)
            found.refused.setdefault(f"the relay cannot read this row: {error!r}"[:MOST_REASON], []).append(id_)
        else:
            found.items.extend(items)
            found.stored[id_] = fingerprint(destination, created, data)
    return found


def _items_of(row: Row, settings: Settings) -> list[Pending]:
    """Return the publications of a row. Raises Refused."""
    _, destination, _, data, size, is_json, event, ttl = row
    for column, value in (("destination", destination), ("data", data), ("event", event)):
        if isinstance(value, bytes):  # in somebody's own table
            raise Refused(400, "invalid_data", f"the column {column} is binary: make it text, as in docs/outbox.md")
    if size is None:
        raise Refused(400, "missing_data", "data is NULL: insert what to deliver (an empty text is fine)")
    if data is None:
        message = (
            f"the data takes {size} bytes, and at most {settings.max_body} are allowed (setting max_body): insert "
            "less, or raise the setting"
        )
        raise Refused(413, "too_large", message)
    fields = {"destination": destination, "data": data}
    if is_json != "0":
        try:
            fields["data"] = json_text.read(data)
        except json_text.NotJSON as error:
            raise Refused(400, "invalid_json", f"data is not JSON: {error}; set is_json to 0 if it is text") from None
    if event is not None:
        fields["event"] = event
    if ttl is not None:
        fields["ttl"] = float(ttl)
    return items_of(push_of(fields, settings))
