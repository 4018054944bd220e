"""The event `send`: a page sends PHP something that needs no answer. It is stored before it is acknowledged.

The sender of the webhooks delivers it to request_url, at least once and in order. A page that got no acknowledgement
sends the same event with the same id again, which is the event's id for PHP too: the relay drops repeats that it
remembers, and PHP those that a restart or another relay in between let through.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from pushrelay.answers import failure, store_refusal
from pushrelay.client.workers import Workers
from pushrelay.counters import Counters, Family, queue_length
from pushrelay.errors import Refused, StoreError
from pushrelay.json_text import quote
from pushrelay.rooms.rooms import Rooms
from pushrelay.store.events import SEND, Event, Events, QueueFull, new_event

from .asked import rest_of, send_of
from .pages import Pages, Reply, charge, page_of

log = logging.getLogger(__name__)

REPEAT_SECONDS = 300.0  # for which an id is remembered; the newest MOST_IDS of them
MOST_IDS = 20_000
MOST_BATCH = 100  # events that are stored together
MOST_WAITING = 1000  # events that wait to be stored; a store takes that many in a fraction of a second
MOST_BYTES = 32 << 20  # of all of them
STORED, REPEATED, FULL, FAILED = RESULTS = ("stored", "repeated", "full", "failed")
NOT_STORED = "it was not stored; send it again later, with the same id"

Key = tuple[str, str]  # the id of the page's user, or an empty text, and the id that the page chose


class Sent:
    """An event that waits to be stored, and the acknowledgements that wait for that."""

    __slots__ = ("event", "key", "replies")

    def __init__(self, event: Event, key: Key | None, reply: Reply):
        self.event = event
        self.key = key
        self.replies = [reply]


class _Queue:
    """Events that wait to be stored. A batch of them is taken at a time."""

    def __init__(self) -> None:
        self.size = 0  # bytes
        self._events: deque[Sent] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, sent: Sent) -> None:
        self._events.append(sent)
        self.size += sent.event.size

    def pop(self) -> list[Sent]:
        batch = [self._events.popleft() for _ in range(min(MOST_BATCH, len(self._events)))]
        self.size -= sum(each.event.size for each in batch)
        return batch


class Sends:
    """Stores what pages send to the site. Any thread may call it, and no call waits: a thread of its own stores.

    `available()` raises Refused without a request_url. `events()` returns the broker's
    queue, or None if it has none.
    """

    def __init__(
        self, rooms: Rooms, pages: Pages, available: Callable[[], object], events: Callable[[], Events | None]
    ):
        self._rooms = rooms
        self._pages = pages
        self._available = available
        self._events = events
        self._results = Counters(RESULTS)
        self._lock = threading.Lock()  # over all that follows
        self._queue = _Queue()
        self._waiting: dict[Key, Sent] = {}
        self._stored: dict[Key, float] = {}  # when those of the last minutes were stored (monotonic), oldest first
        self._workers = Workers("send", 1, self._lock, self._queue, self._store)

    def send(self, message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
        """Store what a socket sends, and then acknowledge it by `reply`. Raises Refused; then nothing is stored."""
        self._available()
        if self._events() is None:
            raise Refused(404, "no_request_url", "the broker of this relay cannot keep messages for the site")
        self._pages.check_origin(environ)
        asked = send_of(message)
        charge(self._rooms, sid, len(asked.data))
        self._rooms.let_stay(sid)  # a client that may send need not register
        page = page_of(self._pages, sid, environ)
        event = new_event(SEND, asked.name, rest_of(asked, page), asked.id)
        key = (page.member.id if page.member else "", asked.id) if asked.id else None
        if self._add(Sent(event, key, reply)):
            self._results.add(REPEATED)
            _acknowledge(reply, event.id)

    def _add(self, sent: Sent) -> bool:
        """Queue an event. Return whether it was stored before. Raises Refused if too much waits."""
        with self._lock:
            if sent.key is not None:
                if time.monotonic() - self._stored.get(sent.key, -REPEAT_SECONDS) < REPEAT_SECONDS:
                    return True
                before = self._waiting.get(sent.key)
                if before is not None:
                    before.replies += sent.replies
                    return False
            if len(self._queue) >= MOST_WAITING or self._queue.size + sent.event.size > MOST_BYTES:
                self._results.add(FULL)
                raise Refused(
                    503, "store_not_available", "the store is busy with messages of pages: send it again later"
                )
            if sent.key is not None:
                self._waiting[sent.key] = sent
            self._queue.add(sent)
            self._workers.notify()
        return False

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of what pages send."""
        help_ = "Messages that pages sent to the site, by what became of them."
        yield Family("relay_sends_total", "counter", help_, self._results.values(), ("result",))
        yield queue_length("sends", len(self._queue))

    # On the worker's thread.

    def _store(self, batch: list[Sent]) -> None:
        """Store some events in one transaction, and acknowledge them."""
        error = self._put([each.event for each in batch])
        with self._lock:
            replies = [(each.event.id, reply) for each in batch for reply in each.replies]
            for each in batch:
                if each.key is not None:
                    del self._waiting[each.key]
                    if error is None:
                        self._remember(each.key)
        self._results.add(STORED if error is None else FULL if error.error == "queue_full" else FAILED, len(batch))
        for event_id, reply in replies:
            try:
                if error is None:
                    _acknowledge(reply, event_id)
                else:
                    reply.refuse(error)
            except Exception:
                log.exception("the message of a page could not be acknowledged")

    def _put(self, events: list[Event]) -> Refused | None:
        queue = self._events()
        try:
            if queue is not None:
                queue.put(events)
            return None
        except QueueFull as error:
            return Refused(503, "queue_full", error.public)
        except StoreError as error:
            return store_refusal(error, NOT_STORED)
        except Exception:
            log.exception("messages of pages could not be stored")
            return failure()

    def _remember(self, key: Key) -> None:
        """Note that an event is stored, and forget some of the oldest."""
        now = time.monotonic()
        self._stored.pop(key, None)
        self._stored[key] = now
        while len(self._stored) > MOST_IDS or now - next(iter(self._stored.values())) > REPEAT_SECONDS:
            del self._stored[next(iter(self._stored))]


def _acknowledge(reply: Reply, event_id: str) -> None:
    reply.send(f'{{"ok":true,"id":{quote(event_id)}}}')
