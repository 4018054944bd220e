"""Handing out in order: what is stored goes through the queue of its destination's stripe, one at a time.

A newcomer opens a tap on it: what is handed out from then on is kept for it. Then it has all the time it needs to
read and send what came before, and takes what the tap holds, the last of it while nothing is handed out.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from json.encoder import encode_basestring as quote
from typing import Any

from .publication import Publication, Receipt, encode

log = logging.getLogger("relay.broker")


class Item:
    """One draft on its way through the broker, made of its fields. Raises ValueError for data that is not JSON."""

    __slots__ = (
        "connections",
        "data",
        "destination",
        "event",
        "first",
        "key",
        "offset",
        "position",
        "publication",
        "skip_sid",
        "stripe",
        "text",
        "ttl",
    )

    def __init__(
        self,
        destination: str,
        data: Any,
        event: str = "push",
        ttl: float | None = None,
        key: str | None = None,
        skip_sid: str | None = None,
    ):
        self.destination = destination
        self.data = data
        self.event = event
        self.ttl = ttl
        self.skip_sid = skip_sid
        self.text = text = quote(data) if type(data) is str else encode(data)
        if not (text.isascii() and destination.isascii() and event.isascii()):
            f"{text}{destination}{event}".encode()  # half a surrogate pair fails here, not in what others share
        self.key: str | None = None  # unique in the whole store, as the draft's is only for its destination
        if key is not None:
            self.key = f"{len(destination)}:{destination}{key}"
            self.key.encode()
        self.stripe: Stripe | None = None  # where it is queued
        self.first: Item | None = None  # the item that this one repeats, still on its way
        self.offset = 0
        self.position = ""
        self.publication: Publication | None = None  # None where it repeats an earlier one
        self.connections = 0

    def receipt(self) -> Receipt:
        """What the publisher is told, once the item or the one that it repeats is handed out."""
        told = self.first or self
        return Receipt(told.position, told.connections, self.publication is None)


class Tap:
    """What is handed out while a newcomer is still busy with what it missed."""

    __slots__ = ("items", "reached", "sent")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.reached = 0  # the offset up to which the newcomer has all, or does without
        self.sent = 0  # how many it was sent

    def __len__(self) -> int:
        return len(self.items)

    def empty(self, send: Callable[[Publication], Any] | None) -> None:
        """Send what is there beyond `reached`. What comes meanwhile is left for the next time: it might not end."""
        for _ in range(len(self.items)):
            item = self.items.popleft()
            if item.offset <= self.reached:
                continue
            self.reached = item.offset
            if send is not None:
                send(item.publication)
                self.sent += 1


class Stripe:
    """The destinations that share one lock: what is stored and not yet handed out, and who listens in."""

    __slots__ = ("_committing", "lock", "queue", "taps")

    def __init__(self, committing: dict[str, int]) -> None:
        self._committing = committing  # the broker's
        self.lock = threading.Lock()  # held by whoever calls one of the methods
        self.queue: deque[Item] = deque()  # appended to without the lock, in the order of the offsets
        self.taps: dict[str, list[Tap]] = {}

    def drain(self, deliver: Callable[[Publication, str | None], int]) -> None:
        """Hand out what the queue holds."""
        queue = self.queue
        while queue:
            item = queue.popleft()
            # Its transaction may not be over for all, and now no newcomer is to wait for it any more. Where the entry
            # outlives the transaction it is the next offset, which it would be anyway.
            first = self._committing.get(item.destination)
            if first is not None and first <= item.offset:
                self._committing[item.destination] = item.offset + 1
            if self.taps:
                for tap in self.taps.get(item.destination, ()):
                    tap.items.append(item)
            try:
                item.connections = deliver(item.publication, item.skip_sid)
            except Exception:
                # It is stored, so it is accepted, and who did not get it recovers it.
                log.exception("handing out to %.80r failed", item.destination)

    def open_tap(self, destination: str, tap: Tap) -> None:
        self.taps.setdefault(destination, []).append(tap)

    def close_tap(self, destination: str, tap: Tap) -> None:
        taps = self.taps[destination]
        taps.remove(tap)
        if not taps:
            del self.taps[destination]
