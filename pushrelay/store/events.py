"""The event queue: what the backend must be told, kept in the store until every reader has it.

There are two topics, each a queue of its own: `hooks`, for webhooks, and `sends`, for what pages send. A *reader* is
one URL that gets the events of a topic, in their order. The queue keeps how far each reader is, and drops an event once
all of them are past it. *Notes* are small texts by kind and key that change in the same transaction as events are
queued: what was reported last, so that nothing is reported twice after a restart.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pushrelay.errors import StoreError
from pushrelay.json_text import quote

from .group_commit import GroupCommit

HOOKS, SENDS = TOPICS = ("hooks", "sends")
SEND = "send"  # the kind of event that is in the topic `sends`; all others are in `hooks`
OVERHEAD = 100  # bytes that an event counts in addition to its texts


class Event(NamedTuple):
    """One event. `body` is a JSON object with the fields besides id, event and at."""

    kind: str  # online, offline, join, leave, expired, lost, send
    name: str  # of the destination, or of what a page sends: filters compare it
    body: str
    id: str  # unique, so that the backend can drop repeats
    at: float  # seconds since 1970, to the millisecond
    number: int = 0  # in its topic; the queue sets it

    @property
    def topic(self) -> str:
        """The queue that it is in."""
        return SENDS if self.kind == SEND else HOOKS

    @property
    def size(self) -> int:
        """The bytes that it counts."""
        return OVERHEAD + len(self.name.encode()) + len(self.body.encode())

    def as_json(self) -> str:
        """Return the JSON object that the backend gets."""
        rest = self.body.strip()[1:]
        comma = "" if rest.lstrip().startswith("}") else ","
        return f'{{"id":{quote(self.id)},"event":{quote(self.kind)},"at":{self.at:.3f}{comma}{rest}'


def new_event(kind: str, name: str, body: str, id: str = "", at: float | None = None) -> Event:
    """Return an event of now with a random id, or with these."""
    return Event(kind, name, body, id or secrets.token_hex(8), round(time.time() if at is None else at, 3))


class QueueFull(StoreError):
    """The topic `sends` has as many events as it may have. None of those that were given was queued."""


class LeaseLost(StoreError):
    """Another node sends the events now."""


class Note(NamedTuple):
    """A change of a note; without a value, it is removed."""

    kind: str
    key: str
    value: str | None


class Cursor(NamedTuple):
    """How far a reader is."""

    upto: int  # number of the last event that it has, or does not want
    gone: float = 0.0  # when its URL unsubscribed (seconds since 1970); it gets nothing until it is resumed


class Depth(NamedTuple):
    """The contents of a topic."""

    last: int = 0  # number of the newest event there was
    events: int = 0  # that are queued
    size: int = 0  # their bytes
    oldest: float = 0.0  # when the oldest was queued, in seconds since 1970; 0 without any


class Bounds(NamedTuple):
    """How much a topic may hold. Beyond it, `hooks` drops its oldest events, and `sends` refuses new ones."""

    events: int = 100_000  # setting max_webhooks
    size: int = 64 << 20  # bytes: one event that a page sends may have 100 KB


class Events(Protocol):
    """The queue of a broker. Any thread may call it, and it may wait for the store. All methods raise StoreError."""

    bounds: Bounds  # of each topic; may be replaced
    dropped: int  # events of `hooks` that were dropped because it was full, by this process

    def put(self, events: list[Event], notes: Iterable[Note] = ()) -> None:
        """Queue events, and change notes, all in one transaction. Both are durable when this returns.

        Raises QueueFull if the topic `sends` has no room for all events that belong there.
        """

    def read(self, topic: str, after: int, most: int, max_bytes: int = 1 << 30) -> list[Event]:
        """Return the events after a number, in order: at most `most`, and `max_bytes` bytes but at least one event."""

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Move a reader's cursor forward, and drop events that all readers have. Raises LeaseLost."""

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Have exactly these readers, and return their cursors. Raises LeaseLost.

        A new reader begins with the oldest event that is queued.
        """

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Note that a reader unsubscribed, or with 0 that it is back. Raises LeaseLost."""

    def depth(self, topic: str) -> Depth:
        """Return what is in a topic."""

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Return how far each reader is."""

    def notes(self, kind: str) -> dict[str, str]:
        """Return all notes of a kind, by key."""

    def lease(self) -> bool:
        """Return whether this process may send now. Call it every few seconds while it sends, and before it begins."""

    def release(self) -> None:
        """Let another process send."""

    def sender(self) -> str:
        """Return the name of the relay that sends now; empty if none does, or if it has no name."""

    def call_on_put(self, wake: Callable[[], None]) -> None:
        """Have `wake()` called when events may have been queued, by any process. It must not block."""

    # Presence: a queue that several relays share reports who is online by itself, once for all of them.

    reports_presence: bool  # whether it does

    def keep_reporting(self, grace: float, restart: float) -> None:
        """Have `online` and `offline` queued for the next minute. Call it every few seconds.

        A destination is offline if nobody has held it for `grace` seconds, or for `restart` after its node has gone.
        """

    def report_left(self) -> bool:
        """Queue `offline` for what nobody has held for long enough; return whether there is more.

        The process that sends calls it every second.
        """


class Table(Protocol):
    """The part of a store that keeps the queue. Each method is called in a transaction, except those that read.

    The methods are those of Events, which documents them.
    """

    def add(self, events: list[Event], notes: Iterable[Note], bounds: Bounds) -> int:
        """Queue events, and change notes; return the number of events that were dropped.

        Return -1 if the topic `sends` has no room: then nothing was changed. It does not raise QueueFull, because
        others share the transaction.
        """

    def read(self, topic: str, after: int, most: int, max_bytes: int) -> list[Event]:
        """Do what Events.read() does."""

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Do what Events.done() does."""

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Do what Events.set_readers() does."""

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Do what Events.set_gone() does."""

    def depth(self, topic: str) -> Depth:
        """Do what Events.depth() does."""

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Do what Events.cursors() does."""

    def notes(self, kind: str) -> dict[str, str]:
        """Do what Events.notes() does."""


class LocalEvents:
    """The queue of a store that only this process uses: see Events. `run` does work in the store's transaction."""

    def __init__(self, table: Table, group_commit: GroupCommit):
        self.bounds = Bounds()
        self.dropped = 0
        self.reports_presence = False
        self._table = table
        self._run = group_commit.run
        self._wakes: list[Callable[[], None]] = []

    def put(self, events: list[Event], notes: Iterable[Note] = ()) -> None:
        """Queue events, and change notes. Raises ValueError for half a surrogate pair, before the transaction."""
        changes = list(notes)
        for each in events:
            (each.kind + each.name + each.body + each.id).encode()
        dropped = self._run(lambda: self._table.add(events, changes, self.bounds))
        if dropped < 0:
            raise queue_full(self.bounds)
        self.dropped += dropped
        if events:
            for wake in self._wakes:
                wake()

    def read(self, topic: str, after: int, most: int, max_bytes: int = 1 << 30) -> list[Event]:
        """Return the events after a number, in order."""
        return self._table.read(topic, after, most, max_bytes)

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Move a reader's cursor forward, and drop events that all readers have."""
        self._run(lambda: self._table.done(topic, reader, upto))

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Have exactly these readers, and return their cursors."""
        return self._run(lambda: self._table.set_readers(topic, readers))

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Note that a reader unsubscribed, or with 0 that it is back."""
        self._run(lambda: self._table.set_gone(topic, reader, gone))

    def depth(self, topic: str) -> Depth:
        """Return what is in a topic."""
        return self._table.depth(topic)

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Return how far each reader is."""
        return self._table.cursors(topic)

    def notes(self, kind: str) -> dict[str, str]:
        """Return all notes of a kind, by key."""
        return self._table.notes(kind)

    def lease(self) -> bool:
        """Return True: no other process uses the store."""
        return True

    def release(self) -> None:
        """Do nothing: nobody else sends."""

    def sender(self) -> str:
        """Return no name: there is one relay."""
        return ""

    def call_on_put(self, wake: Callable[[], None]) -> None:
        """Have `wake()` called when events have been queued."""
        self._wakes.append(wake)

    def keep_reporting(self, grace: float, restart: float) -> None:
        """Do nothing: this process knows who is online."""

    def report_left(self) -> bool:
        """Do nothing, likewise."""
        return False


def has_room(depth: Callable[[], Depth], events: list[Event], bounds: Bounds) -> bool:
    """Return whether the topic `sends`, whose depth is asked for if it matters, has room for these events."""
    sends = [each for each in events if each.topic == SENDS]
    if not sends:
        return True
    _, count, size, _ = depth()
    return count + len(sends) <= bounds.events and size + sum(each.size for each in sends) <= bounds.size


def queue_full(bounds: Bounds) -> QueueFull:
    """Return the error for events that find no room."""
    limit = f"{bounds.events} events (setting max_webhooks) or {bounds.size / (1 << 20):g} MB"
    return QueueFull(
        f"the queue of what pages send to PHP is full: {limit}. Find out why request_url does not take them",
        "too much waits for the site: send it again later",
    )
