"""What ends by the clock while a socket is connected: the ids that it holds, and what it may push to."""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.access.tokens import Rights

SWEEP_AT = 1000  # entries from which on those of sockets that are gone are looked for
_NOTHING: dict[str, Any] = {}  # what most states have; never written to


class SocketState:
    """What the relay knows of one socket, beside the rooms that it is in.

    A socket in a room has been handed all that came after an offset, its `first`, up to broker.delivered().
    """

    __slots__ = ("_epoch", "_first", "_others", "_room", "due", "auth_request", "rights", "sid", "until")

    def __init__(self, sid: str):
        self.sid = sid
        # `first` by room, in the store of one epoch. Most sockets have one room, for which a dict is too large.
        self._epoch = ""
        self._room: str | None = None
        self._first = 0
        self._others: dict[str, int] = _NOTHING
        self.auth_request: Any = None  # what is being asked for it, see access/auth_url.py
        # Only Expiries changes these; every thread reads them.
        self.rights: Rights | None = None  # what was given last: what it may push to
        self.until: dict[str, float] = _NOTHING  # room: when it has to be left, in seconds since 1970
        self.due: float | None = None  # when Expiries looks at it next

    def entered(self, room: str, epoch: str, first: int) -> None:
        """The socket is in a room, and has been handed all that came after an offset."""
        if epoch != self._epoch:
            self._epoch, self._room, self._others = epoch, None, _NOTHING
        if room in self._others:  # not in `_room` as well: left() would keep this entry
            self._others[room] = first
        elif self._room is None or self._room == room:
            self._room, self._first = room, first
        elif self._others:
            self._others[room] = first
        else:
            self._others = {room: first}

    def handed_since(self, room: str, epoch: str) -> int | None:
        """Return the offset since which a socket in a room has been handed everything; None for another epoch's."""
        if epoch != self._epoch:
            return None
        return self._first if room == self._room else self._others.get(room)

    def left(self, room: str) -> None:
        if room == self._room:
            self._room = None
        else:
            self._others.pop(room, None)


class Expiries:
    """The states whose time will come. Any thread may call it; nothing here waits.

    `leave(state, rooms)` takes a socket out of rooms; it must not wait. `is_there(sid)` tells whether it is connected.
    """

    def __init__(self, leave: Callable[[SocketState, list[str]], None], is_there: Callable[[str], bool]):
        self._leave = leave
        self._is_there = is_there
        self._lock = threading.Lock()  # over all that follows, and over what it has of states
        # The next one first. A state has one entry, and another only where it is due earlier than that: who registers
        # again and again adds nothing. The entry that is not its `due` is an old one.
        self._heap: list[tuple[float, int, SocketState]] = []
        self._numbers = itertools.count()
        self._sweep_at = SWEEP_AT

    def set_expiry(self, state: SocketState, rooms: Iterable[str], expires: float | None) -> dict[str, float | None]:
        """Let a socket be in rooms until a time, or with None for good; returns what was before, for restore()."""
        if expires is None and not state.until:
            return {}
        with self._lock:
            before = {room: state.until.get(room) for room in rooms}
            self._set(state, dict.fromkeys(before, expires))
        return before

    def restore(self, state: SocketState, before: dict[str, float | None]) -> None:
        with self._lock:
            self._set(state, before)

    def grant(self, state: SocketState, rights: Rights) -> None:
        """What a socket may push to from now on."""
        with self._lock:
            state.rights = rights
            self._schedule(state)

    def forget(self, state: SocketState, room: str) -> None:
        """A room was left."""
        with self._lock:
            state.until.pop(room, None)

    def take_due(self, now: float) -> list[tuple[SocketState, list[str]]]:
        """End what is over; returns whose, and the rooms that each was taken out of."""
        ended = []
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > now:
                    return ended
                due, _, state = self._heap[0]
                is_valid = state.due == due and self._is_there(state.sid)
                heapq.heappop(self._heap)  # now, as python-socketio may fail at that while others disconnect
                if is_valid:
                    ended += self._end(state, now)

    def __len__(self) -> int:
        return len(self._heap)

    def _end(self, state: SocketState, now: float) -> list[tuple[SocketState, list[str]]]:
        rooms = [room for room, expires in state.until.items() if expires <= now]
        for room in rooms:
            del state.until[room]
        self._leave(state, rooms)
        rights_end = state.rights is not None and state.rights.expires is not None and state.rights.expires <= now
        tell = bool(rooms) or (rights_end and bool(state.rights.push))
        if rights_end:
            state.rights = None
        state.due = None
        self._schedule(state)
        return [(state, rooms)] if tell else []

    def _set(self, state: SocketState, until: dict[str, float | None]) -> None:
        for room, expires in until.items():
            if expires is None:
                state.until.pop(room, None)
            elif state.until:
                state.until[room] = expires
            else:
                state.until = {room: expires}
        self._schedule(state)

    def _schedule(self, state: SocketState) -> None:
        times = list(state.until.values())
        if state.rights is not None and state.rights.expires is not None:
            times.append(state.rights.expires)
        if not times or (state.due is not None and state.due <= min(times)):
            return
        state.due = min(times)
        heapq.heappush(self._heap, (state.due, next(self._numbers), state))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].due and self._is_there(entry[2].sid)]
            heapq.heapify(self._heap)
            self._sweep_at = max(SWEEP_AT, 2 * len(self._heap))
