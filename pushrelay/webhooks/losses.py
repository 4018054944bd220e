"""Clients that came back and could not get everything that they missed: the event `lost`."""

import threading
from collections import OrderedDict

from pushrelay.json_text import quote
from pushrelay.store.events import Event, new_event

MOST_REMEMBERED = 10_000  # pairs of client and destination; each pair is reported once
MOST_WAITING = 10_000  # events until the thread takes them


class Losses:
    """The losses since the last call of take(). Any thread may call it."""

    def __init__(self) -> None:
        self.dropped = 0  # because nobody took them
        self._lock = threading.Lock()  # guards the two below
        self._events: list[Event] = []
        self._reported: OrderedDict[tuple[str, str], None] = OrderedDict()

    def add(self, destination: str, since: str, sid: str) -> bool:
        """Note that a client is missing something after `since`; return whether that is new."""
        with self._lock:
            if (destination, sid) in self._reported:
                return False
            self._reported[destination, sid] = None
            if len(self._reported) > MOST_REMEMBERED:
                self._reported.popitem(last=False)
            if len(self._events) >= MOST_WAITING:
                self.dropped += 1
                return False
            body = f'{{"destination":{quote(destination)},"since":{quote(since)}}}'
            self._events.append(new_event("lost", destination, body))
            return True

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        with self._lock:
            events, self._events = self._events, []
            return events
