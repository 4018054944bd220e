"""The users that this node's sockets bring to destinations: each counts once, and leaves after a time of grace."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator

from pushrelay.access.member import Member
from pushrelay.errors import Refused
from pushrelay.rooms.rooms import Rooms
from pushrelay.store.members import Found

from .person import Person, Place

# The room of a destination that a socket holds in its own name begins like this: see register.subscription. Nobody is a
# member by the id `me`, whose destination is a secret of one browser.
HELD = "to:"
JOIN, UPDATE, LEAVE = "join", "update", "leave"


class Members:
    """The members of all destinations, by the sockets of this node. Any thread may call it.

    `lock` guards it. `grace()` returns the seconds after which a user without pages leaves. `most` is the setting
    max_members, and may be changed. `changed(kind, destination, person)` is called with the lock held for each JOIN,
    UPDATE and LEAVE, in their order; it must not wait. `wake(seconds)` is called when end_due() must be called after
    this time. `total(destination)` returns the number of members by all nodes, as far as this node knows.
    `is_elsewhere(destination, id)` returns whether a user is a member by another node; it may ask the store, and is
    called without the lock.
    """

    def __init__(
        self,
        rooms: Rooms,
        lock: threading.RLock,
        grace: Callable[[], float],
        most: int,
        changed: Callable[[str, str, Person], None],
        wake: Callable[[float], None],
        total: Callable[[str], int] = lambda destination: 0,
        is_elsewhere: Callable[[str, str], bool] = lambda destination, id_: False,
    ):
        self.most = most
        self._rooms = rooms
        self._lock = lock
        self._grace = grace
        self._changed = changed
        self._wake = wake
        self._total = total
        self._is_elsewhere = is_elsewhere
        self._places: dict[str, Place] = {}
        self._due: list[tuple[float, int, Place, Person]] = []  # a heap of the users that may leave
        self._numbers = itertools.count()  # a tie-breaker, so that places are never compared
        self.count = 0  # members of all destinations
        self.joins = self.leaves = 0

    # Registers.

    def admit(self, sid: str, destinations: list[str], member: Member | None) -> "Admission | None":
        """Reserve a place for a user at each destination, or at none: see Membership."""
        if member is None:
            return Admission(self, sid, destinations, None) if self._is_known(sid, destinations) else None
        known: set[str] = set()  # destinations that are full, with this user as a member by another node
        while full := self._reserve(destinations, member.id, known):
            known.update(full)
            for each in full:
                if not self._is_elsewhere(each, member.id):
                    raise _too_many(each, self.most)
        return Admission(self, sid, destinations, member)

    def _is_known(self, sid: str, destinations: list[str]) -> bool:
        """Return whether a socket holds one of these in the name of a user."""
        places = self._places
        found = map(places.get, destinations) if places else ()  # another thread may remove one at any time
        return any(sid in place.sockets for place in found if place is not None)

    def _reserve(self, destinations: list[str], id_: str, known: set[str]) -> list[str]:
        """Reserve a place at each destination; if some are full, reserve nothing and return these."""
        with self._lock:
            full = [each for each in destinations if each not in known and self._is_full(each, id_)]
            for each in () if full else destinations:
                place = self._places.get(each)
                if place is None:
                    place = self._places[each] = Place(each)
                person = place.people.get(id_)
                if person is None:
                    person = place.people[id_] = Person(id_)
                person.reserved += 1
        return full

    def _is_full(self, destination: str, id_: str) -> bool:
        place = self._places.get(destination)
        people = 0 if place is None else len(place.people)
        return max(people, self._total(destination)) >= self.most and (place is None or id_ not in place.people)

    def settle(self, sid: str, destinations: list[str], member: Member | None) -> None:
        """Note that a socket holds these destinations in the name of a user, or in nobody's."""
        now = time.time()
        with self._lock:
            for each in destinations:
                place = self._places.get(each)
                if place is None:
                    continue
                before = place.sockets.get(sid)
                if member is None:
                    if before is not None:
                        self._detach(place, sid, before)
                    continue
                person = place.people[member.id]
                person.reserved -= 1
                if before is not person:
                    place.sockets[sid] = person
                    person.sockets += 1
                    if before is not None:
                        before.sockets -= 1
                        self._may_leave(place, before)
                self._note(place, person, member, now)
        # A socket that left a room in the meantime was not here yet when it did so.
        rooms = set(self._rooms.get_rooms(sid, "/"))
        for each in destinations:
            if HELD + each not in rooms:
                self.left(each, sid)

    def withdraw(self, destinations: list[str], member: Member | None) -> None:
        """Give back the reserved places."""
        if member is None:
            return
        with self._lock:
            for each in destinations:
                place = self._places[each]
                person = place.people[member.id]
                person.reserved -= 1
                self._may_leave(place, person)

    def left(self, destination: str, sid: str) -> None:
        """Note that a socket does not hold a destination any more. The lock of the rooms may be held."""
        place = self._places.get(destination)
        if place is None or sid not in place.sockets:
            return
        with self._lock:
            person = place.sockets.get(sid)
            if person is not None:
                self._detach(place, sid, person)

    # With the lock held.

    def _note(self, place: Place, person: Person, member: Member, now: float) -> None:
        """Note that a user is at a destination, with what its last register tells about it."""
        kind = None
        if not person.is_member:
            person.since = now
            self.count += 1
            self.joins += 1
            kind = JOIN
        elif person.info != member.info_json:
            kind = UPDATE
        person.due, person.info = 0.0, member.info_json
        if kind is not None:
            self._changed(kind, place.name, person)

    def _detach(self, place: Place, sid: str, person: Person) -> None:
        del place.sockets[sid]
        person.sockets -= 1
        self._may_leave(place, person)

    def _may_leave(self, place: Place, person: Person) -> None:
        """Begin the time of grace of a user without sockets."""
        if person.sockets or person.reserved:
            return
        if not person.is_member:
            self._remove(place, person)
        elif grace := self._grace():
            person.due = time.monotonic() + grace
            heapq.heappush(self._due, (person.due, next(self._numbers), place, person))
            self._wake(grace)
        else:
            self._leave(place, person)

    def _leave(self, place: Place, person: Person) -> None:
        self._remove(place, person)
        self.count -= 1
        self.leaves += 1
        self._changed(LEAVE, place.name, person)

    def _remove(self, place: Place, person: Person) -> None:
        del place.people[person.id]
        if not place.people and self._places.get(place.name) is place:
            del self._places[place.name]

    # Without it.

    def end_due(self, now: float) -> float | None:
        """Let users leave whose time of grace is over; return when the next one's is (monotonic), if there is one."""
        with self._lock:
            while self._due and self._due[0][0] <= now:
                due, _, place, person = heapq.heappop(self._due)
                if person.due == due and not person.sockets and not person.reserved:
                    self._leave(place, person)
            return self._due[0][0] if self._due else None

    def at(self, destination: str) -> list[Found]:
        """Return the members of a destination."""
        with self._lock:
            place = self._places.get(destination)
            people = () if place is None else place.people.values()
            return [Found(each.id, each.info, each.since) for each in people if each.is_member]

    def find(self, destination: str, id_: str) -> Found | None:
        """Return a member of a destination, or None."""
        with self._lock:
            place = self._places.get(destination)
            person = None if place is None else place.people.get(id_)
            return None if person is None or not person.is_member else Found(person.id, person.info, person.since)

    def destinations(self) -> Iterator[str]:
        """Return the destinations that have members, or users who are about to become some."""
        return iter(list(self._places))

    def __contains__(self, destination: str) -> bool:
        return destination in self._places


class Admission:
    """The reserved places of one register: see Membership."""

    __slots__ = ("_destinations", "_member", "_members", "_sid")

    def __init__(self, members: Members, sid: str, destinations: list[str], member: Member | None):
        self._members = members
        self._sid = sid
        self._destinations = destinations
        self._member = member

    def settle(self) -> None:
        """Take the places: the socket holds the destinations."""
        self._members.settle(self._sid, self._destinations, self._member)

    def withdraw(self) -> None:
        """Give them back: the register was refused, or its socket has disconnected."""
        self._members.withdraw(self._destinations, self._member)


def _too_many(destination: str, most: int) -> Refused:
    message = (
        f"{destination!r:.100} has {most} members already, and there cannot be more (setting max_members): register "
        "without a user (claim as), or raise it"
    )
    return Refused(403, "too_many_members", message)
