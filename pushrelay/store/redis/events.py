"""The event queue in Redis, shared by all nodes. One of them sends, as long as it renews its lease."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.errors import StoreError
from pushrelay.store.events import Bounds, Cursor, Depth, Event, LeaseLost, Note, queue_full

from .history import RedisHistory
from .link import Link
from .nodes import LINGER_SECONDS
from .questions import Questions
from .scripts import (
    EVENTS_DONE,
    EVENTS_PUT,
    EVENTS_READ,
    EVENTS_READERS,
    EVENTS_STATE,
    LEASE,
    LEAVING,
    WANT,
    Script,
)

SENDER_SECONDS = 10  # of the lease: another node sends after this time, if this one is gone
WANTED_SECONDS = 60  # for which the scripts report who is online, after the last node that wanted it said so
MOST_AT_ONCE = 500  # events or notes in one script


class RedisEvents:
    """Events: see there. `announce_all()` has this node write again what it holds; the lock of the link is held."""

    def __init__(self, history: RedisHistory, questions: Questions, link: Link, announce_all: Callable[[], None]):
        self.bounds = Bounds()
        self.dropped = 0
        self.reports_presence = True
        self._history = history
        self._questions = questions
        self._link = link
        self._announce_all = announce_all
        self._wakes: list[Callable[[], None]] = []
        self._scanned: Any = "0"  # cursor of the scan for destinations that were left
        self._epochs: dict[str, str] = {}  # by topic: the epoch in which this node read the cursors
        self._word = b""  # with which the present wish to report began: see want.lua

    def _run(self, script: Script, *args: Any) -> Any:
        return self._history.run(script, *args)

    def _run_as_sender(self, script: Script, topic: str, *args: Any) -> Any:
        try:
            return self._history.run(script, self._link.node, self._epochs.get(topic, ""), topic, *args)
        except StoreError as error:
            if "LEASE " in str(error):
                raise LeaseLost("another relay sends the events now, or the store has lost some") from None
            raise

    def put(self, events: list[Event], notes: Iterable[Note] = ()) -> None:
        """Queue events, and change notes, all or nothing."""
        args: list[Any] = [self.bounds.events, self.bounds.size, len(events)]
        for each in events:
            args += (each.topic, f"{each.at:.3f}", each.id, each.kind, each.name, each.body)
        for kind, key, value in notes:
            args += (kind, key, int(value is not None), value or "")
        dropped = self._run(EVENTS_PUT, *args)
        if dropped < 0:
            raise queue_full(self.bounds)
        self.dropped += dropped

    def read(self, topic: str, after: int, most: int, max_bytes: int = 1 << 30) -> list[Event]:
        """Return the events after a number, in order."""
        return [_event_of(each) for each in self._run(EVENTS_READ, topic, after, most, max_bytes)]

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Move a reader's cursor forward, and drop events that all readers have."""
        self._run_as_sender(EVENTS_DONE, topic, reader, upto, "")

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Have exactly these readers, and return their cursors."""
        self._epochs[topic] = self._history.epoch
        return _cursors_of(self._run_as_sender(EVENTS_READERS, topic, *readers))

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Note that a reader unsubscribed, or that it is back."""
        self._run_as_sender(EVENTS_DONE, topic, reader, "", f"{gone:.3f}")

    def depth(self, topic: str) -> Depth:
        """Return what is in a topic."""
        last, events, size, oldest = self._run(EVENTS_STATE, topic)[:4]
        return Depth(last, events, size, float(oldest or 0))

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Return how far each reader is."""
        return _cursors_of(self._run(EVENTS_STATE, topic)[4:])

    def notes(self, kind: str) -> dict[str, str]:
        """Return all notes of a kind."""
        found: dict[str, str] = {}
        at: Any = "0"
        while True:
            at, pairs = self._questions.ask("HSCAN", f"{self._link.keys}notes:{kind}", at, "COUNT", MOST_AT_ONCE)
            found |= {key.decode(): value.decode() for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
            if int(at) == 0:
                return found

    def lease(self) -> bool:
        """Return whether this node may send now."""
        return bool(self._run(LEASE, self._link.node, SENDER_SECONDS * 1000))

    def release(self) -> None:
        """Let another node send."""
        self._run(LEASE, self._link.node, 0)

    def sender(self) -> str:
        """Return the name of the relay that sends now; empty if none does."""
        word: bytes | None = self._questions.ask("GET", f"{self._link.keys}sender")
        return (word or b"").decode().rpartition(":")[0]

    def call_on_put(self, wake: Callable[[], None]) -> None:
        """Have `wake()` called when events have been queued by any node."""
        self._wakes.append(wake)

    def wake(self) -> None:
        """Wake the threads that send."""
        for each in self._wakes:
            each()

    # Presence.

    def keep_reporting(self, grace: float, restart: float) -> None:
        """Have the scripts queue `online` and `offline` for some time."""
        grace = max(0.0, grace - LINGER_SECONDS)  # for which this node waits before it writes that nobody is left
        bounds = self.bounds
        random = secrets.token_hex(4)
        word = self._run(WANT, grace, restart, bounds.events, bounds.size, WANTED_SECONDS, random)
        if word != self._word:
            self._word = word
            with self._link.lock:
                if self._link.is_up:  # otherwise that happens when it is
                    self._announce_all()

    def report_left(self) -> bool:
        """Queue `offline` for what nobody has held for long enough; return whether there is more."""
        self._scanned, more = self._run(LEAVING, self._scanned)
        return bool(more)


def _event_of(entry: bytes) -> Event:
    """Return the event of an entry: see _events.lua."""
    number, at, kind, _, of_id, of_name, rest = entry.split(b" ", 6)
    end_of_id, end_of_name = int(of_id), int(of_id) + int(of_name)
    id_, name, body = rest[:end_of_id], rest[end_of_id:end_of_name], rest[end_of_name:]
    return Event(kind.decode(), name.decode(), body.decode(), id_.decode(), float(at), int(number))


def _cursors_of(reply: list[bytes]) -> dict[str, Cursor]:
    found = {}
    for name, cursor in zip(reply[::2], reply[1::2], strict=True):
        upto, gone = cursor.split()
        found[name.decode()] = Cursor(int(upto), float(gone))
    return found
