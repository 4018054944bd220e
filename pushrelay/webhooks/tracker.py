"""Presence as it was reported: events about destinations and members, as this relay's clients come and go.

The last report about each is in the store, as a note that changes together with the event. So after a restart nobody
is online twice, and those who do not come back are reported offline. Relays that share a store do not use this: there,
the store reports it once for all of them.
"""

import time
from collections import deque
from collections.abc import Callable

from pushrelay.json_text import decode, encode, quote
from pushrelay.store.events import Event, Note, new_event

ONLINE, MEMBER = "online", "member"  # kinds of notes

MOST_AT_ONCE = 1000  # changes in one call of step(), and so in one transaction of the store

Changes = tuple[list[Event], list[Note]]


class Tracker:
    """The reports so far, and those that are due. Any thread may call changed() and member(); one calls the others.

    `is_held(destination)` returns whether a client holds a destination. `wake()` has the thread call step() soon.
    """

    def __init__(self, is_held: Callable[[str], bool], wake: Callable[[], None]):
        self.grace = 5.0  # seconds for which nobody holds a destination before it is offline
        self._is_held = is_held
        self._wake = wake
        self._changes: deque[tuple[str, bool]] = deque()
        self._members: deque[tuple[str, str, str, str]] = deque()  # kind, destination, id, info as JSON
        self._online: set[str] = set()  # destinations that were reported online, and not offline since
        self._present: dict[str, str] = {}  # members that were reported, and their info; see _key()
        # Destinations that may be offline, and when they are looked at (monotonic), in this order.
        self._leaving: dict[str, float] = {}
        self._missing: dict[str, float] = {}  # the same for what was online before the restart
        self._missing_members: dict[str, float] = {}

    # Called by any thread, with any lock held.

    def changed(self, destination: str, is_empty: bool) -> None:
        """Note that a client registered a destination, or that the last one left it."""
        if is_empty or destination not in self._online:
            self._changes.append((destination, is_empty))
            self._wake()

    def member(self, kind: str, destination: str, id_: str, info_json: str) -> None:
        """Note that a user appeared in a destination (`join`), or is there no longer (`leave`)."""
        self._members.append((kind, destination, id_, info_json))
        self._wake()

    # Called by the thread.

    def load(self, online: dict[str, str], members: dict[str, str], seconds: float) -> None:
        """Begin with what was reported before. Those who are not back within `seconds` are reported offline."""
        due = time.monotonic() + seconds
        self._online, self._present = set(online), dict(members)
        self._missing = dict.fromkeys(online, due)
        self._missing_members = dict.fromkeys(members, due)

    def found(self, destinations: list[str]) -> None:
        """Report destinations online that are held already."""
        for each in destinations:
            self.changed(each, False)

    def step(self) -> Changes:
        """Return the events that are due, and the notes that change with them. There is more if seconds_left() is 0."""
        events: list[Event] = []
        notes: list[Note] = []
        now = time.monotonic()
        while self._changes and len(notes) < MOST_AT_ONCE:
            self._take(*self._changes.popleft(), now, events, notes)
        while self._members and len(notes) < MOST_AT_ONCE:
            self._take_member(*self._members.popleft(), events, notes)
        for waiting in (self._leaving, self._missing):
            for destination in _due(waiting, now, MOST_AT_ONCE - len(notes)):
                if destination in self._online and not self._is_held(destination):
                    self._online.discard(destination)
                    self._leaving.pop(destination, None)
                    events.append(new_event("offline", destination, f'{{"destination":{quote(destination)}}}'))
                    notes.append(Note(ONLINE, destination, None))
        for key in _due(self._missing_members, now, MOST_AT_ONCE - len(notes)):
            if key in self._present:
                destination, id_ = decode(key)
                self._take_member("leave", destination, id_, self._present[key], events, notes)
        return events, notes

    def seconds_left(self) -> float:
        """Return the seconds until something may be due, at most 1."""
        if self._changes or self._members:
            return 0.0
        firsts = (next(iter(each.values()), None) for each in (self._leaving, self._missing, self._missing_members))
        dues = [each for each in firsts if each is not None]
        return min(1.0, max(0.0, min(dues) - time.monotonic())) if dues else 1.0

    def _take(self, destination: str, is_empty: bool, now: float, events: list[Event], notes: list[Note]) -> None:
        if not is_empty and destination not in self._online:
            self._online.add(destination)
            events.append(new_event("online", destination, f'{{"destination":{quote(destination)}}}'))
            notes.append(Note(ONLINE, destination, ""))
            is_empty = not self._is_held(destination)  # it was held for a moment only
        if is_empty:
            self._leaving.pop(destination, None)  # so that it is at the end
            self._leaving[destination] = now + self.grace

    def _take_member(
        self, kind: str, destination: str, id_: str, info: str, events: list[Event], notes: list[Note]
    ) -> None:
        key = encode([destination, id_])
        self._missing_members.pop(key, None)
        is_known = key in self._present
        if kind == "join":
            if self._present.get(key) != info:
                self._present[key] = info
                notes.append(Note(MEMBER, key, info))
        elif is_known:
            info = self._present.pop(key)
            notes.append(Note(MEMBER, key, None))
        if is_known != (kind == "join"):
            events.append(new_event(kind, destination, member_body(destination, id_, info)))


def member_body(destination: str, id_: str, info_json: str) -> str:
    """Return the body of an event about a user."""
    return f'{{"destination":{quote(destination)},"member":{{"id":{quote(id_)},"info":{info_json or "{}"}}}}}'


def _due(waiting: dict[str, float], now: float, most: int) -> list[str]:
    """Remove and return what is due, but no more than this many."""
    found: list[str] = []
    for each, due in waiting.items():
        if due > now or len(found) >= most:
            break
        found.append(each)
    for each in found:
        del waiting[each]
    return found
