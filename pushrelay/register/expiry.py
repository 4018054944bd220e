"""The expiry of a connected socket's ids and of its right to push."""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable

from pushrelay.access.tokens import Rights

from .socket_state import SocketState

SWEEP_AT = 1000  # entries of the heap from which on those of disconnected sockets are removed

Ended = list[tuple[SocketState, list[str]]]  # sockets, and the rooms that each had to leave


class Expiries:
    """The times at which sockets lose their rights. Any thread may call it; nothing here waits.

    `leave(state, rooms)` takes a socket out of rooms; it must not wait. `is_connected(sid)` returns whether a socket is
    connected. Times are in seconds since 1970, as in tokens, and are compared with the wall clock each second.
    """

    def __init__(self, leave: Callable[[SocketState, list[str]], None], is_connected: Callable[[str], bool]):
        self._leave = leave
        self._is_connected = is_connected
        self._lock = threading.Lock()  # over all that follows, and over the expiry and rights of every state
        # The next time first. A socket has one entry, and another one only for an earlier time, so that a page that
        # registers in a loop adds nothing. An entry whose time is not the state's `next_expiry` is an old one.
        self._heap: list[tuple[float, int, SocketState]] = []
        self._numbers = itertools.count()  # a tie-breaker, so that states are never compared
        self._sweep_at = SWEEP_AT

    def set_expiry(self, state: SocketState, rooms: Iterable[str], expires: float | None) -> dict[str, float | None]:
        """Let a socket be in rooms until a time; None means no limit. Return what was set before."""
        if expires is None and not state.expiry:
            return {}
        with self._lock:
            before = {room: state.expiry.get(room) for room in rooms}
            self._set(state, dict.fromkeys(before, expires))
        return before

    def restore(self, state: SocketState, before: dict[str, float | None]) -> None:
        """Set again what set_expiry() returned."""
        with self._lock:
            self._set(state, before)

    def grant(self, state: SocketState, rights: Rights) -> None:
        """Set what a socket may push to from now on."""
        with self._lock:
            state.rights = rights
            self._schedule(state)

    def forget(self, state: SocketState, room: str) -> None:
        """Forget the time of a room that the socket has left."""
        with self._lock:
            state.expiry.pop(room, None)

    def end_due(self, now: float) -> Ended:
        """Remove sockets from rooms whose time has passed. Return those that lost rooms or the right to push."""
        ended: Ended = []
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > now:
                    return ended
                due, _, state = self._heap[0]
                is_valid = state.next_expiry == due and self._is_connected(state.sid)
                heapq.heappop(self._heap)  # after is_connected(), which may raise while other sockets disconnect
                if is_valid:
                    ended += self._end(state, now)

    def __len__(self) -> int:
        return len(self._heap)

    def _end(self, state: SocketState, now: float) -> Ended:
        rooms = [room for room, expires in state.expiry.items() if expires <= now]
        for room in rooms:
            del state.expiry[room]
        self._leave(state, rooms)
        rights, may_push = state.rights, False
        if rights is not None and rights.expires is not None and rights.expires <= now:
            may_push = bool(rights.push)
            state.rights = None
        state.next_expiry = None
        self._schedule(state)
        return [(state, rooms)] if rooms or may_push else []

    def _set(self, state: SocketState, times: dict[str, float | None]) -> None:
        for room, expires in times.items():
            if expires is None:
                state.expiry.pop(room, None)
            elif state.expiry:
                state.expiry[room] = expires
            else:
                state.expiry = {room: expires}
        self._schedule(state)

    def _schedule(self, state: SocketState) -> None:
        times = list(state.expiry.values())
        if state.rights is not None and state.rights.expires is not None:
            times.append(state.rights.expires)
        if not times or (state.next_expiry is not None and state.next_expiry <= min(times)):
            return
        state.next_expiry = min(times)
        heapq.heappush(self._heap, (state.next_expiry, next(self._numbers), state))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        """Remove old entries and those of sockets that have disconnected."""
        self._heap = [
            entry for entry in self._heap if entry[0] == entry[2].next_expiry and self._is_connected(entry[2].sid)
        ]
        heapq.heapify(self._heap)
        self._sweep_at = max(SWEEP_AT, 2 * len(self._heap))
