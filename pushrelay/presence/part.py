"""Presence as a part of the relay: members, watchers, and the thread that serves them, put together."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pushrelay.access.member import Member
from pushrelay.counters import Family
from pushrelay.rooms.answering import Reply
from pushrelay.rooms.rooms import WATCH, Rooms
from pushrelay.settings import Settings
from pushrelay.store.members import Found, SharedMembers

from .members import HELD, LEAVE, UPDATE, Members
from .node_users import NodeUsers
from .person import Person
from .views import Views
from .watching import Door, Watching
from .worker import Worker

# Seconds for which the first lists of a relay that was just started wait: presence_grace within these bounds.
LEAST_WAIT, MOST_WAIT = 1.0, 5.0
RETURN_SECONDS = 10.0  # for which pages may be away when their relay ends, besides drain_spread


class Presence:
    """The members of destinations, and those who watch them. Any thread may call it.

    `bind()` must be called once, before clients connect.

    `on_change(kind, destination, member)` is called when a user has come ("join") or has left ("leave"), in this order
    for each destination, with locks held: it must not wait. It is not called if `shared` has the members of all nodes:
    then the store itself decides that.
    """

    name = "presence"
    trouble = None

    def __init__(self, rooms: Rooms, settings: Settings, shared: SharedMembers | None = None):
        self.on_change: Callable[[str, str, Member], None] | None = None
        self.is_draining: Callable[[], bool] = lambda: False  # whether this relay sends its clients away to end
        self._settings = settings
        self._rooms = rooms
        self.shared = shared
        self._lock = threading.RLock()
        self._worker = Worker(self._flush, self._end_due)
        self._members = Members(
            rooms,
            self._lock,
            self._grace,
            settings.max_members,
            self._changed,
            self._worker.wake,
            *(() if shared is None else (shared.total, shared.is_member)),
        )
        load = self._load if shared is None else shared.load
        unload = _do_nothing if shared is None else shared.forget
        self._views = Views(rooms, self._lock, load, unload, self._worker.changed)
        self._watching: Watching | None = None
        rooms.on_leave = self._left
        self.membership = self._members  # for Registrations
        # Until then (monotonic), lists wait for the pages that come back to a relay that was started again. So a page
        # that comes back early sees neither leaves nor joins.
        self._complete_at = 0.0
        self._late: list[str] = []  # destinations whose lists wait
        if shared is None:
            self._complete_at = time.monotonic() + min(max(LEAST_WAIT, settings.presence_grace), MOST_WAIT)
        else:
            shared.attach(NodeUsers(self._members, self._views, self._lock, self._return_seconds))

    def bind(self, door: Door) -> None:
        """Have `door` decide who may watch."""
        self._watching = Watching(self._rooms, self._views, door, lambda: self._settings)

    def handle(self, message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
        """Answer the event `presence` of a socket. Raises Refused, StoreError and NotYet."""
        if self._watching is not None:
            self._watching.handle(message, sid, environ, reply)

    def members(self, destinations: list[str], most_bytes: int) -> dict[str, list[Found]]:
        """Return the members of each destination, at all nodes.

        It has as many of the destinations as have this size, but at least the first. Raises StoreError.
        """
        elsewhere = {} if self.shared is None else self.shared.read(destinations, most_bytes)
        found: dict[str, list[Found]] = {}
        for each in destinations:
            if self.shared is not None and each not in elsewhere:
                break
            members = {member.id: member for member in (*self._members.at(each), *elsewhere.get(each, ()))}
            most_bytes -= sum(member.size for member in members.values())
            if most_bytes < 0 and found:
                break
            found[each] = list(members.values())
        return found

    def _grace(self) -> float:
        """Return the seconds after which a user without pages leaves."""
        grace = self._settings.presence_grace
        return max(grace, self._return_seconds()) if self.is_draining() else grace

    def _return_seconds(self) -> float:
        """Return the seconds within which pages come back after this relay has ended."""
        return self._settings.drain_spread + RETURN_SECONDS

    # Called by the others.

    def _changed(self, kind: str, destination: str, person: Person) -> None:
        if self.shared is not None:
            self.shared.changed(destination, person.id, kind != LEAVE)
            return
        info = None if kind == LEAVE else person.info
        self._views.apply(destination, person.id, info, person.since)
        if self.on_change is not None and kind != UPDATE:
            self.on_change(kind, destination, Member(person.id, person.info))

    def _left(self, room: str, sid: str) -> None:
        if room.startswith(HELD):
            self._members.left(room[len(HELD) :], sid)
        elif room.startswith(WATCH):
            self._views.left(room[len(WATCH) :], sid)

    def _load(self, destination: str) -> None:
        """Note the members of a destination that is watched now, at once or when pages have had time to return."""
        with self._lock:
            if (seconds := self._complete_at - time.monotonic()) > 0:
                self._late.append(destination)
                self._worker.wake(seconds)
                return
        self._load_now(destination)

    def _load_now(self, destination: str) -> None:
        with self._lock:
            self._views.loaded(destination, self._members.at(destination))
        self._views.answer(destination)

    def _flush(self) -> float:
        return self._views.flush()

    def _end_due(self, now: float) -> float | None:
        due = self._members.end_due(now)
        if not self._late or now < self._complete_at:
            return min(due or self._complete_at, self._complete_at) if self._late else due
        with self._lock:
            late, self._late = self._late, []
        for each in late:
            self._load_now(each)
        return due

    # A part of the backend.

    @property
    def is_on(self) -> bool:
        """Whether somebody has used it: there is nothing to switch on."""
        return bool(self._members.joins or self._views.watches)

    def start(self) -> None:
        """Note the time of the start. The thread starts when it has something to do."""

    def each_second(self) -> None:
        """Do nothing: its thread does what is due."""

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on. Users who are about to leave do so at the time that was set before."""
        self._settings = settings
        self._members.most = settings.max_members

    def close(self) -> None:
        """Stop the thread."""
        self._worker.close()

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of members and watchers."""
        members, views = self._members, self._views
        help_ = "Users at destinations by clients of this relay; a user at several destinations counts for each."
        yield Family("relay_members", "gauge", help_, members.count)
        help_ = "Users that came to a destination, or left it."
        values: dict[tuple[str, ...], Any] = {("join",): members.joins, ("leave",): members.leaves}
        yield Family("relay_member_changes_total", "counter", help_, values, ("change",))
        help_ = "Clients that watch who is at a destination; a client that watches several counts for each."
        yield Family("relay_presence_watchers", "gauge", help_, views.watches)
        help_ = "Events about members that were sent to watchers; one for several watchers counts once."
        yield Family("relay_presence_events_total", "counter", help_, views.events)

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows of it."""
        members, views = self._members, self._views
        facts = {"members": members.count, "joins": members.joins, "leaves": members.leaves, "watchers": views.watches}
        return {**facts, "summary": f"{members.count} members, {views.watches} watchers"}


def _do_nothing(destination: str) -> None:
    """Do nothing."""
