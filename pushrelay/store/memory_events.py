"""The event queue of a store in memory. It ends with the process."""

import itertools
import threading
from collections import deque
from collections.abc import Iterable

from .events import SENDS, TOPICS, Bounds, Cursor, Depth, Event, Note, has_room


class _Topic:
    """One queue. Its events have consecutive numbers, the last of which is `last`."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.last = 0
        self.size = 0
        self.cursors: dict[str, Cursor] = {}

    def pop(self) -> None:
        """Drop the oldest event."""
        self.size -= self.events.popleft().size

    def drop_done(self) -> None:
        """Drop what all readers have."""
        upto = min((each.upto for each in self.cursors.values() if not each.gone), default=0)
        while self.events and self.events[0].number <= upto:
            self.pop()


class MemoryEvents:
    """A Table: see there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._topics = {topic: _Topic() for topic in TOPICS}
        self._notes: dict[str, dict[str, str]] = {}

    def add(self, events: list[Event], notes: Iterable[Note], bounds: Bounds) -> int:
        """Queue events, and change notes; return the number of events that were dropped, or -1."""
        dropped = 0
        with self._lock:
            if not has_room(lambda: self._depth(SENDS), events, bounds):
                return -1
            for event in events:
                topic = self._topics[event.topic]
                topic.last += 1
                topic.events.append(event._replace(number=topic.last))
                topic.size += event.size
                while len(topic.events) > bounds.events or (topic.size > bounds.size and len(topic.events) > 1):
                    topic.pop()
                    dropped += 1
            for kind, key, value in notes:
                if value is None:
                    self._notes.get(kind, {}).pop(key, None)
                else:
                    self._notes.setdefault(kind, {})[key] = value
        return dropped

    def read(self, topic: str, after: int, most: int, max_bytes: int) -> list[Event]:
        """Return the events after a number, in order."""
        found: list[Event] = []
        with self._lock:
            queue = self._topics[topic]
            first = queue.last - len(queue.events) + 1
            for event in itertools.islice(queue.events, max(0, after + 1 - first), None):
                max_bytes -= event.size
                if len(found) == most or (max_bytes < 0 and found):
                    break
                found.append(event)
        return found

    def done(self, topic: str, reader: str, upto: int) -> None:
        """Move a reader's cursor forward, and drop events that all readers have."""
        with self._lock:
            queue = self._topics[topic]
            found = queue.cursors.get(reader)
            if found is not None:
                queue.cursors[reader] = found._replace(upto=max(found.upto, upto))
                queue.drop_done()

    def set_readers(self, topic: str, readers: list[str]) -> dict[str, Cursor]:
        """Have exactly these readers, and return their cursors."""
        with self._lock:
            queue = self._topics[topic]
            before = Cursor(queue.last - len(queue.events))
            queue.cursors = {each: queue.cursors.get(each, before) for each in readers}
            queue.drop_done()
            return dict(queue.cursors)

    def set_gone(self, topic: str, reader: str, gone: float) -> None:
        """Note that a reader unsubscribed, or that it is back."""
        with self._lock:
            queue = self._topics[topic]
            if reader in queue.cursors:
                queue.cursors[reader] = queue.cursors[reader]._replace(gone=gone)
                queue.drop_done()

    def depth(self, topic: str) -> Depth:
        """Return what is in a topic."""
        with self._lock:
            return self._depth(topic)

    def _depth(self, topic: str) -> Depth:
        queue = self._topics[topic]
        return Depth(queue.last, len(queue.events), queue.size, queue.events[0].at if queue.events else 0.0)

    def cursors(self, topic: str) -> dict[str, Cursor]:
        """Return how far each reader is."""
        with self._lock:
            return dict(self._topics[topic].cursors)

    def notes(self, kind: str) -> dict[str, str]:
        """Return all notes of a kind."""
        with self._lock:
            return dict(self._notes.get(kind, {}))
