"""Requests of operators: the state of each URL, another attempt at once, and dropping what waits."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from pushrelay.errors import Refused, bad
from pushrelay.store.events import Event, Events

from .delivery import Delivery

READ_AT_ONCE = 1000  # events, while their number is looked for
ACTIONS = ("retry", "resume")


class Deliveries(Protocol):
    """The URLs and their deliveries: see Webhooks."""

    def look(self) -> None:
        """Read the state of the queue. Raises StoreError."""

    def labelled(self) -> dict[str, Delivery]:
        """Return the deliveries by their labels: their number in webhook_url, or `request_url`."""

    def waiting(self, delivery: Delivery) -> int:
        """Return how many events wait for a URL, about."""

    def age(self, delivery: Delivery) -> float:
        """Return the age of the oldest event that waits for a URL, about, in seconds."""


class Admin:
    """The requests to /webhooks. All methods raise Refused and StoreError."""

    def __init__(self, deliveries: Deliveries, queue: Callable[[], Events | None]):
        self._deliveries = deliveries
        self._queue = queue

    def show(self) -> dict[str, Any]:
        """Return the state of each URL."""
        queue = self._queue()
        self._deliveries.look()
        urls = [self._state(label, each) for label, each in self._deliveries.labelled().items()]
        return {"sender": "" if queue is None else queue.sender(), "urls": urls}

    def _state(self, label: str, delivery: Delivery) -> dict[str, Any]:
        is_elsewhere = delivery.upto is None
        state = "unsubscribed" if delivery.gone else "failing" if delivery.error else "ok"
        return {
            "url": label,
            "address": delivery.target.shown,
            "state": "elsewhere" if is_elsewhere and not delivery.gone else state,
            "waiting": self._deliveries.waiting(delivery),
            "oldest_seconds": round(self._deliveries.age(delivery), 1),
            "sent": delivery.sent,
            "failed": delivery.failed,
            "dropped": delivery.dropped,
            **(_failure(delivery) if delivery.error else {}),
            **({"unsubscribed_at": round(delivery.gone, 3)} if delivery.gone else {}),
        }

    def act(self, fields: dict[str, str]) -> dict[str, Any]:
        """Have URLs tried again at once (`action` is "retry"), or send to one again that unsubscribed ("resume").

        `url` names one URL: its label, or its address. Without it, all are tried.
        """
        _check_fields(fields, "action", "url")
        action = fields.get("action")
        if action not in ACTIONS:
            bad("invalid_action", f"action must be one of {', '.join(ACTIONS)}")
        if action == "resume" and "url" not in fields:
            bad("invalid_action", "name the URL to resume: add url to the address")
        queue, chosen = self._chosen(fields.get("url"))
        for delivery in chosen.values():
            target = delivery.target
            if action == "resume":
                queue.set_gone(target.topic, target.reader, 0.0)
                cursor = queue.cursors(target.topic).get(target.reader)
                if cursor is not None:  # otherwise it has just come with a reload, and begins soon
                    delivery.begin(cursor)
            delivery.retry()
        return {"ok": True, "urls": list(chosen)}

    def drop(self, fields: dict[str, str]) -> dict[str, Any]:
        """Drop what waits for `url`, or for all of them: what was queued `before` a time, in seconds since 1970.

        Return the number of events that each URL does not get.
        """
        _check_fields(fields, "url", "before")
        if not fields:
            bad("invalid_action", "name what to drop: add url, or before (seconds since 1970), to the address")
        queue, chosen = self._chosen(fields.get("url"))
        before = _time_of(fields.get("before"))
        return {"ok": True, "dropped": {label: _skip(queue, each, before) for label, each in chosen.items()}}

    def _chosen(self, url: str | None) -> tuple[Events, dict[str, Delivery]]:
        queue, found = self._queue(), self._deliveries.labelled()
        if queue is None or not found:
            raise Refused(404, "unknown_url", "this relay has no webhooks: set webhook_url or request_url")
        if url is not None:
            found = {label: each for label, each in found.items() if url in (label, each.target.url, each.target.shown)}
        if not found:
            raise Refused(404, "unknown_url", "webhook_url and request_url have no such URL: GET /webhooks lists them")
        if all(each.upto is None for each in found.values()):
            name = queue.sender()
            where = f"the relay {name!r}" if name else "another relay"
            raise Refused(409, "other_sender", f"{where} sends the events now: ask it, or try again in 15 s")
        return queue, found


def _failure(delivery: Delivery) -> dict[str, Any]:
    return {"error": f"{delivery.error}: {delivery.advice}", "retry_in": round(delivery.next_in, 1)}


def _skip(queue: Events, delivery: Delivery, before: float) -> int:
    """Move a URL's cursor past what was queued before a time; return how many events it does not get."""
    target, upto, count = delivery.target, delivery.upto, 0
    if upto is None:  # it has just come with a reload
        return 0
    while events := _older(queue.read(target.topic, upto, READ_AT_ONCE), before):
        upto = events[-1].number
        count += sum(target.wants(event) for event in events)
    if delivery.upto is not None and upto > delivery.upto:
        queue.done(target.topic, target.reader, upto)
        delivery.skip_to(upto)
    return count


def _older(events: list[Event], before: float) -> list[Event]:
    return list(itertools.takewhile(lambda event: event.at < before, events))


def _check_fields(fields: dict[str, str], *known: str) -> None:
    if unknown := fields.keys() - set(known):
        bad("unknown_field", f"there is no field {sorted(unknown)[0]!r:.100}; the fields are {', '.join(known)}")


def _time_of(text: str | None) -> float:
    if text is None:
        return time.time() + 60
    with contextlib.suppress(ValueError):
        if not math.isnan(before := float(text)):
            return before
    bad("invalid_action", "before must be a time in seconds since 1970")
