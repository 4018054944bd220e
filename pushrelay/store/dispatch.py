"""Handing out in order: what is stored goes through the queue of its destination's stripe, one at a time.

A newcomer attaches a live queue to it, which keeps for it what is handed out from then on (replay.py).
"""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.json_text import decode, encode, quote

from .publication import Publication, Receipt

log = logging.getLogger(__name__)

# What a live queue holds for a newcomer that cannot take more at the moment: a hundred short publications. All that is
# kept can be read from the store instead, so this bound costs a read and no publication.
LIVE_QUEUE_BYTES = 65536
PENDING_BYTES = 600  # what an item takes beside its data (measured)
MOST_SKIPPED = 1000


class KeyUse:
    """One push that has an idempotency key: what it asks for, and whether its key was used for something else.

    All items of the push share it, so that they are stored together or not at all.
    """

    __slots__ = ("fingerprint", "is_reused", "keys", "known")

    def __init__(self, text: str, event: str = "push", ttl: float | None = None, skip_sid: str | None = None):
        # 1 in JSON and "1" in a form may be the same push, sent in two ways.
        plain = text[1:-1] if text.startswith('"') else text
        asked = f"{ttl}\0{event}\0{skip_sid}\0{plain}".encode("utf-8", "surrogatepass")
        self.fingerprint = hashlib.blake2b(asked, digest_size=8).hexdigest()
        self.keys: list[str] = []  # of its items
        self.known: dict[str, Any] | None = None  # those that were used before; None until the store is asked
        self.is_reused = False  # for a push with other contents: nothing of this one is stored


class Pending:
    """One draft on its way through the broker, made of its fields. Raises ValueError for data that is not JSON."""

    __slots__ = (
        "connections",
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
        "use",
    )

    def __init__(
        self,
        destination: str,
        data: Any,
        event: str = "push",
        ttl: float | None = None,
        key: str | None = None,
        skip_sid: str | None = None,
        text: str | None = None,
        use: KeyUse | None = None,
    ):
        """`text` is the data as JSON, if it is known already; items of the same data share it, and items of a push
        with a key share its `use`.
        """
        self.destination = destination
        self.event = event
        self.ttl = ttl
        self.skip_sid = skip_sid
        if text is None:
            text = quote(data) if type(data) is str else encode(data)
            if not text.isascii():
                text.encode()  # half a surrogate pair fails here, not in what others share
        self.text = text
        if not (destination.isascii() and event.isascii()):
            f"{destination}{event}".encode()
        self.key: str | None = None  # unique in the whole store, as the draft's is only for its destination
        self.use: KeyUse | None = None  # of the key
        if key is not None:
            self.key = f"{len(destination)}:{destination}{key}"
            self.key.encode()
            self.use = use or KeyUse(text, event, ttl, skip_sid)
            self.use.keys.append(self.key)
        self.stripe: Stripe | None = None  # where it is queued
        self.first: Pending | None = None  # the item that this one repeats, still on its way
        self.offset = 0
        self.position = ""
        self.publication: Publication | None = None  # None where it repeats an earlier one
        self.connections = 0

    @property
    def is_reused(self) -> bool:
        """Whether it was not stored because its key was used for a push with other contents."""
        return self.use is not None and self.use.is_reused

    @property
    def is_ephemeral(self) -> bool:
        """Whether no store keeps it, so that nobody can read it later."""
        return self.publication.expires <= self.publication.created

    @property
    def data(self) -> Any:
        """The data itself."""
        return decode(self.text)

    def receipt(self) -> Receipt:
        """What the publisher is told, once the item or the one that it repeats is handed out."""
        told = self.first or self
        return Receipt(told.position, told.connections, self.publication is None, self.is_reused)


class LiveQueue:
    """What is handed out while a newcomer is still being sent what it missed. The stripe's lock guards it.

    It holds at most LIVE_QUEUE_BYTES. Beyond that it is `overflowed` and holds nothing: the newcomer
    reads the store again.
    """

    __slots__ = ("_sid", "_size", "dropped_ephemeral", "items", "last", "overflowed", "skipped")

    def __init__(self, sid: str | None = None) -> None:
        self._sid = sid  # the newcomer's, for publications that are not meant for it
        self._size = 0
        self.items: deque[Pending] = deque()
        self.last = ""  # the position of the last item that was added
        self.overflowed = False
        self.dropped_ephemeral = False  # something was dropped that no store keeps
        self.skipped: set[int] = set()  # offsets of what was pushed with the newcomer's sid as `except`

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Pending) -> None:
        self.last = item.position
        if self._sid is not None and item.skip_sid == self._sid and len(self.skipped) < MOST_SKIPPED:
            self.skipped.add(item.offset)
        self._size += PENDING_BYTES + len(item.text)
        if not self.overflowed and self._size <= LIVE_QUEUE_BYTES:
            self.items.append(item)
        else:
            self._overflow([*self.items, item])

    def take(self) -> deque[Pending]:
        """Take all that it holds."""
        items, self.items = self.items, deque()
        self._size = 0
        return items

    def put_back(self, items: deque[Pending]) -> None:
        """Give back what take() returned and could not be sent."""
        if self.overflowed:
            self._overflow(items)
            return
        items.extend(self.items)
        self.items = items
        self._size = sum(PENDING_BYTES + len(each.text) for each in items)

    def begin_again(self) -> None:
        """Hold what is handed out from now on; the newcomer reads from the store what was dropped."""
        self.items.clear()
        self._size, self.overflowed = 0, False

    def _overflow(self, dropped: Iterable[Pending]) -> None:
        self.overflowed = True
        self.dropped_ephemeral = self.dropped_ephemeral or any(each.is_ephemeral for each in dropped)
        self.items.clear()


class Stripe:
    """The destinations that share one lock: what is stored and not yet handed out, and who listens in."""

    __slots__ = ("_committing", "lock", "queue", "live_queues")

    def __init__(self, committing: dict[str, int]) -> None:
        self._committing = committing  # the broker's
        self.lock = threading.Lock()  # held by whoever calls one of the methods
        self.queue: deque[Pending] = deque()  # appended to without the lock, in the order of the offsets
        self.live_queues: dict[str, list[LiveQueue]] = {}

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
            if self.live_queues:
                for live_queue in self.live_queues.get(item.destination, ()):
                    live_queue.add(item)
            try:
                item.connections = deliver(item.publication, item.skip_sid)
            except Exception:
                # It is stored, so it is accepted, and who did not get it recovers it.
                log.exception("handing out to %.80r failed", item.destination)

    def attach(self, destination: str, live_queue: LiveQueue) -> None:
        self.live_queues.setdefault(destination, []).append(live_queue)

    def detach(self, destination: str, live_queue: LiveQueue) -> None:
        """Close a live_queue, which may never have been opened."""
        live_queues = self.live_queues.get(destination, [])
        if live_queue in live_queues:
            live_queues.remove(live_queue)
            if not live_queues:
                del self.live_queues[destination]
