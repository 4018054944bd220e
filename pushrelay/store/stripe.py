"""Handing out in order: what is stored goes through the queue of its destination's stripe, one at a time.

A newcomer attaches a live queue to the stripe. It collects what is handed out from then on (see replay.py).
"""

import hashlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pushrelay.json_text import decode, encode, quote

from .publication import KeyRecord, Publication, Receipt

log = logging.getLogger(__name__)


class Unfinished(Protocol):
    """A publication for `connections` sockets, which the last `left` of them have not been handed yet."""

    connections: int
    left: int

    def go_on(self, most: float) -> None:
        """Hand it to at most `most` more sockets."""


# `deliver(publication, skip_sid)` hands one publication to the sockets of its destination, except the one named, and
# returns their number. If they are many, it may return an Unfinished instead, which hands it to those that are left.
Deliver = Callable[[Publication, str | None], int | Unfinished]

# The bytes that a live queue holds for a newcomer that cannot take more at the moment: about a hundred short
# publications. Kept publications can be read from the store instead, so this bound costs a read and no publication.
LIVE_QUEUE_BYTES = 65536
PENDING_BYTES = 600  # memory of a pending publication in addition to its data (measured)
MAX_SKIPPED = 1000  # offsets that a live queue notes as not meant for its newcomer
NOT_STORED = Publication("", "", "", "", 0.0, 0.0)  # the publication of an item that is not stored, or not yet


class KeyUse:
    """One push that has an idempotency key: a digest of its contents, and what its keys were used for before.

    All items of the push share it, so that they are stored together or not at all.
    """

    __slots__ = ("asked_at", "fingerprint", "is_reused", "keys", "known")

    def __init__(self, text: str, event: str = "push", ttl: float | None = None, skip_sid: str | None = None):
        # 1 in JSON and "1" in a form may be the same push, sent in two ways. `wait` is not part of it, because it only
        # changes the answer.
        plain = text[1:-1] if text.startswith('"') else text
        asked = f"{ttl}\0{event}\0{skip_sid}\0{plain}".encode("utf-8", "surrogatepass")
        self.fingerprint = hashlib.blake2b(asked, digest_size=8).hexdigest()
        self.keys: list[str] = []  # of its items
        # Those keys that were used before, by a pending item or a stored one. None until the store is asked.
        self.known: dict[str, Pending | KeyRecord] | None = None
        self.is_reused = False  # a key was used for a push with other contents: nothing of this one is stored
        # The time in seconds since 1970 for which the store is asked, if the push is older than the transaction.
        self.asked_at: float | None = None


class Pending:
    """One publication on its way to the store and the sockets. Raises ValueError for data that is not JSON."""

    __slots__ = (
        "connections",
        "destination",
        "elsewhere",
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
        """The arguments up to `skip_sid` are the fields of a Draft.

        `text` is the data as JSON, if that is already known: then `data` is not used. `use` is the KeyUse that
        all items of one push with a key share.
        """
        self.destination = destination
        self.event = event
        self.ttl = ttl
        self.skip_sid = skip_sid
        if text is None:
            text = quote(data) if type(data) is str else encode(data)
            if not text.isascii():
                _require_encodable(text)
        self.text = text
        if not (destination.isascii() and event.isascii() and (skip_sid is None or skip_sid.isascii())):
            _require_encodable(f"{destination}{event}{skip_sid or ''}")
        self.key = ""  # unique in the whole store, unlike the draft's, which is unique for its destination only
        self.use: KeyUse | None = None  # None without a key
        if key is not None:
            self.key = f"{len(destination)}:{destination}{key}"
            _require_encodable(self.key)
            self.use = use or KeyUse(text, event, ttl, skip_sid)
            self.use.keys.append(self.key)
        self.stripe: Stripe | None = None  # the stripe whose queue it is in, until it is handed out
        self.first: Pending | None = None  # the item that this one repeats, if that is still on its way
        self.offset = 0  # 0 until it is stored
        self.position = ""
        self.publication = NOT_STORED
        self.connections = 0
        self.elsewhere: int  # connections at other nodes; set by a broker that has some

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
        """Return the publisher's receipt, once the item, or the one that it repeats, is handed out."""
        of = self.first or self
        return Receipt(of.position, of.connections, self.publication is NOT_STORED, self.is_reused)


class LiveQueue:
    """Collects what is handed out while a newcomer is still being sent what it missed. The stripe's lock guards it.

    It holds at most LIVE_QUEUE_BYTES. Beyond that it is `overflowed` and empty: the newcomer reads the store again.
    """

    __slots__ = ("_sid", "_size", "dropped_ephemeral", "items", "last", "overflowed", "skipped")

    def __init__(self, sid: str | None = None) -> None:
        """`sid` is the newcomer's own: a publication with this `skip_sid` is not meant for it."""
        self._sid = sid
        self._size = 0
        self.items: deque[Pending] = deque()
        self.last = ""  # the position of the last item that was added
        self.overflowed = False
        self.dropped_ephemeral = False  # it dropped a publication that no store keeps
        self.skipped: set[int] = set()  # offsets of publications that are not meant for the newcomer

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Pending) -> None:
        """Add the item that is handed out next. If it does not fit, drop it and all others."""
        self.last = item.position
        if self._sid is not None and item.skip_sid == self._sid and len(self.skipped) < MAX_SKIPPED:
            self.skipped.add(item.offset)
        self._size += PENDING_BYTES + len(item.text)
        if not self.overflowed and self._size <= LIVE_QUEUE_BYTES:
            self.items.append(item)
        else:
            self._overflow([*self.items, item])

    def take(self) -> deque[Pending]:
        """Remove and return everything it holds."""
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

    def restart(self) -> None:
        """Hold what is handed out from now on; the newcomer reads from the store what was dropped."""
        self.items.clear()
        self._size, self.overflowed = 0, False

    def break_off(self) -> None:
        """Hold nothing: something is missing before what is handed out next."""
        self._overflow(())

    def _overflow(self, dropped: Iterable[Pending]) -> None:
        self.overflowed = True
        self.dropped_ephemeral = self.dropped_ephemeral or any(each.is_ephemeral for each in dropped)
        self.items.clear()


class _FanOut:
    """A publication that is handed out in turns."""

    __slots__ = ("behind", "item", "unfinished")

    def __init__(self, item: Pending, unfinished: Unfinished):
        self.item = item
        self.unfinished = unfinished
        self.behind: deque[Pending] = deque()  # the next ones for its destination, which wait until it is done


class Stripe:
    """Destinations that share one lock: their publications that are not handed out yet, and their live queues.

    A fan-out to many sockets is handed out in turns, with the lock released in between. Other destinations do not wait
    for it. `with stripe:` holds the lock too, but completes all fan-outs first.
    """

    __slots__ = ("_committing", "_deliver", "_fan_outs", "deliveries", "live_queues", "lock", "queue", "unreached")

    def __init__(self, committing: dict[str, int], deliver: Deliver) -> None:
        self._committing = committing  # the dispatcher's
        self._deliver = deliver
        self.lock = threading.Lock()  # held by the callers of all methods but __enter__
        self.queue: deque[Pending] = deque()  # appended to without the lock, in the order of the offsets
        self._fan_outs: dict[str, _FanOut] = {}  # by destination
        self.live_queues: dict[str, list[LiveQueue]] = {}  # by destination
        self.deliveries = 0  # publications that were handed to a client, once for each client
        self.unreached = 0  # publications that no client here was connected for

    def __enter__(self) -> None:
        """Take the lock while nothing is being handed out."""
        self.lock.acquire()
        try:
            self.finish()
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def finish(self) -> None:
        """Complete all fan-outs."""
        while self._fan_outs:
            self._go_on(next(iter(self._fan_outs.values())), math.inf)

    def drain(self, most: float = math.inf) -> float:
        """Hand out everything in the queue, but stop after about `most` sockets. Return what is left of `most`.

        A publication for few sockets is always handed out completely.
        """
        queue = self.queue
        while True:
            while queue:
                item = queue.popleft()
                fan_out = self._fan_outs.get(item.destination) if self._fan_outs else None
                if fan_out is not None:
                    fan_out.behind.append(item)
                    continue
                most -= self._hand_out(item, most)
                if most <= 0:
                    break
            if most <= 0 or not self._fan_outs:
                return most
            for fan_out in list(self._fan_outs.values()):
                most -= self._go_on(fan_out, most)

    def _hand_out(self, item: Pending, most: float) -> int:
        """Hand out an item, or begin to. Return the number of sockets that got it."""
        # Another thread may still be inside this item's transaction. From here on a newcomer need not wait for the
        # item, so the entry advances to the next offset. If the entry outlives the transaction, that is the next
        # offset of the destination, which it would be anyway.
        first = self._committing.get(item.destination)
        if first is not None and first <= item.offset:
            self._committing[item.destination] = item.offset + 1
        if self.live_queues:
            for live_queue in self.live_queues.get(item.destination, ()):
                live_queue.add(item)
        try:
            sockets = self._deliver(item.publication, item.skip_sid)
        except Exception:
            # The push is stored, so it is accepted. Clients that did not get it recover it.
            log.exception("handing out to %.80r failed", item.destination)
            sockets = 0
        else:
            item.connections = connections = sockets if isinstance(sockets, int) else sockets.connections
            if connections:
                self.deliveries += connections
            else:
                self.unreached += 1
        if isinstance(sockets, int):
            item.stripe = None
            return sockets
        fan_out = self._fan_outs[item.destination] = _FanOut(item, sockets)
        return self._go_on(fan_out, most)

    def _go_on(self, fan_out: "_FanOut", most: float) -> int:
        """Hand out to at most `most` more sockets, and return the number of those that got something."""
        item, unfinished = fan_out.item, fan_out.unfinished
        before = unfinished.left
        try:
            unfinished.go_on(most)
        except Exception:
            log.exception("handing out to %.80r failed", item.destination)
            unfinished.left = 0
        done = before - unfinished.left
        if not unfinished.left:
            item.stripe = None
            del self._fan_outs[item.destination]
            self.queue.extendleft(reversed(fan_out.behind))
        return done

    def attach(self, destination: str, live_queue: LiveQueue) -> None:
        """Let a live queue collect what is handed out for a destination."""
        self.live_queues.setdefault(destination, []).append(live_queue)

    def detach(self, destination: str, live_queue: LiveQueue) -> None:
        """Detach a live queue, which may never have been attached."""
        attached = self.live_queues.get(destination, [])
        if live_queue in attached:
            attached.remove(live_queue)
            if not attached:
                del self.live_queues[destination]


def _require_encodable(text: str) -> None:
    """Raise UnicodeEncodeError, a ValueError, for half a surrogate pair: here, not in a transaction with others."""
    text.encode()
