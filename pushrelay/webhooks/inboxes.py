"""Publications that were kept for an acknowledgement, and are dropped without one: the event `expired`.

A destination is an *inbox* if some page has acknowledged something of it, or has registered it with `since: "acked"`.
The relay that sends compares the state of each inbox with what it reported before, a few inboxes at a time. That state
is in the store, and changes together with the events, so nothing is reported twice.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pushrelay.json_text import decode, encode, quote
from pushrelay.store.events import Event, Note, new_event
from pushrelay.store.publication import Kept, Tip, position_of

INBOX, EXPIRED = "inbox", "expired"  # kinds of notes: that it is an inbox, and what was reported
MOST_INBOXES = 100_000
KEEP_DAYS = 90  # after which an inbox is forgotten that no page has used
AT_ONCE = 500  # inboxes that are looked at in a row
MOST_KEPT = 200  # publications whose expiry is remembered for each inbox; the others are noticed when they are dropped
SECONDS_A_DAY = 86_400


class Histories(Protocol):
    """The part of a broker that is asked. All methods raise StoreError."""

    @property
    def epoch(self) -> str:
        """The part of every position before the colon."""

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations."""

    def kept(self, destination: str, after: int) -> list[Kept]:
        """Return what is kept after an offset, without data."""


class _State(NamedTuple):
    """The state of an inbox, as it was reported."""

    epoch: str
    upto: int  # everything up to here is acknowledged or was reported
    kept: dict[int, float]  # later publications: when each expires; 0: it was reported
    seen: int = 0  # the last offset when it was last looked at


class Inboxes:
    """The inboxes that are known here. Any thread may call used(); one thread calls the others."""

    def __init__(self, histories: Histories, clock: Callable[[], float] = time.time):
        self._histories = histories
        self._clock = clock
        # By inbox: the day on which it was last used, as the store has it. The one that was used longest ago is first.
        self._days: dict[str, int] = {}
        self._states: dict[str, _State] = {}
        self._used: dict[str, None] = {}  # since the last call of take_used()
        self._round: list[str] = []  # the inboxes that are still to be looked at

    def used(self, destination: str) -> None:
        """Note that a page uses a destination as an inbox."""
        if self._days.get(destination) != self._today():
            self._used[destination] = None

    def take_used(self) -> list[Note]:
        """Return the notes about what was used since the last call."""
        today, notes = self._today(), []
        for destination in list(self._used):
            del self._used[destination]
            if self._days.pop(destination, None) is None and len(self._days) >= MOST_INBOXES:
                notes += self._forget(next(iter(self._days)))
            self._days[destination] = today
            notes.append(Note(INBOX, destination, str(today)))
        return notes

    def load(self, inboxes: dict[str, str], states: dict[str, str] | None = None) -> None:
        """Know these inboxes, and what was reported of them."""
        for destination, day in inboxes.items():
            self._days[destination] = max(int(day), self._days.get(destination, 0))
        self._days = dict(sorted(self._days.items(), key=lambda item: item[1]))
        if states is not None:
            self._states = {name: _state_of(text) for name, text in states.items()}

    @property
    def is_last_look(self) -> bool:
        """Whether the next call of look() is the last one of its round over all inboxes."""
        return len(self._round or self._days) <= AT_ONCE

    def look(self, at_once: int = AT_ONCE) -> tuple[list[Event], list[Note]]:
        """Look at the next inboxes; return the events to report, and the notes that change with them."""
        events: list[Event] = []
        notes: list[Note] = []
        if not self._round:
            self._round = list(self._days)
        names, self._round = self._round[-at_once:], self._round[:-at_once]
        epoch = self._histories.epoch
        forgotten = self._today() - KEEP_DAYS
        for name, tip in zip(names, self._histories.tips(names), strict=True):
            if self._days.get(name, forgotten) <= forgotten:
                notes += self._forget(name)
                continue
            before = self._states.get(name)
            if before is None or before.epoch != epoch:
                # A new epoch means that something was lost, and its clients learn that.
                self._states[name] = _State(epoch, tip.trimmed, {})
                notes.append(Note(EXPIRED, name, _text_of(self._states[name])))
            elif before.kept or tip.trimmed > before.upto or tip.offset != before.seen:
                found = self._compare(name, tip, before)
                events += found
                if found or self._states[name].kept.keys() - before.kept.keys():
                    notes.append(Note(EXPIRED, name, _text_of(self._states[name])))
        return events, notes

    def _compare(self, name: str, tip: Tip, state: _State) -> list[Event]:
        """Return the events about one inbox, and keep its new state."""
        upto, events = max(state.upto, tip.acked), []
        kept = {offset: expires for offset, expires in state.kept.items() if offset > upto}
        if tip.trimmed > upto:
            reported = sum(offset <= tip.trimmed and not expires for offset, expires in kept.items())
            if count := tip.trimmed - upto - reported:
                events.append(_expired(name, state.epoch, upto + 1, tip.trimmed, count))
            upto = tip.trimmed
            kept = {offset: expires for offset, expires in kept.items() if offset > upto}
        if tip.offset > max(upto, state.seen):
            for each in self._histories.kept(name, max(upto, state.seen)):
                if len(kept) < MOST_KEPT:
                    kept.setdefault(each.offset, each.expires)
        now = self._clock()
        if over := [offset for offset, expires in kept.items() if 0 < expires <= now]:
            kept |= dict.fromkeys(over, 0.0)
            events.append(_expired(name, state.epoch, min(over), max(over), len(over)))
        self._states[name] = _State(state.epoch, upto, kept, tip.offset)
        return events

    def _forget(self, name: str) -> list[Note]:
        self._days.pop(name, None)
        self._states.pop(name, None)
        return [Note(INBOX, name, None), Note(EXPIRED, name, None)]

    def _today(self) -> int:
        return int(self._clock() // SECONDS_A_DAY)


def _expired(name: str, epoch: str, first: int, last: int, count: int) -> Event:
    ends = f'"from":"{position_of(epoch, first)}","to":"{position_of(epoch, last)}","count":{count}'
    return new_event("expired", name, f'{{"destination":{quote(name)},{ends}}}')


def _text_of(state: _State) -> str:
    """Return what the store keeps of a state."""
    return encode([state.epoch, state.upto, list(state.kept.items())])


def _state_of(text: str) -> _State:
    epoch, upto, kept = decode(text)
    return _State(epoch, upto, dict(kept))
