"""Presence for programs: how many sockets hold a destination, since when, and its members; or all destinations."""

import heapq
from collections.abc import Iterable
from typing import Any, Protocol

from pushrelay.errors import Refused
from pushrelay.json_text import decode
from pushrelay.store.members import Found

from .part import Presence

MOST_BYTES = 8 << 20  # of members in one answer, about
PAGE_BYTES = 1 << 20  # of members on a page of all destinations, unless the first one has more
TOO_MANY = "these destinations have too many members for one answer: ask for fewer destinations at once"


class Clients(Protocol):
    """The clients of this node: NodeClients."""

    def holders(self, destination: str) -> tuple[int, float]:
        """Return the number of sockets that hold a destination, and since when one does (seconds since 1970, or 0)."""

    def destinations(self) -> Iterable[str]:
        """Return the destinations that clients of this node hold."""


class Store(Protocol):
    """The part of a broker that is asked for other nodes."""

    def elsewhere(self, destinations: list[str]) -> dict[str, tuple[int, float]]:
        """Return the connections at other nodes of each destination that has some, and since when."""


class Directory:
    """Answers programs. Any thread may call it. Its methods raise StoreError."""

    def __init__(self, clients: Clients, store: Store, people: Presence):
        self._clients = clients
        self._store = store
        self._people = people

    def of(self, destinations: list[str]) -> dict[str, dict[str, Any]]:
        """Return the presence of each destination. Raises Refused (413) if there are too many members.

        `since` is missing if there are no connections, and `members` if there are none.
        """
        members = self._people.members(destinations, MOST_BYTES)
        if len(members) < len(destinations) or sum(map(_size, members.values())) > MOST_BYTES:
            raise Refused(413, "too_large", TOO_MANY)
        return self._with(members)

    def page(self, after: str, limit: int) -> dict[str, Any]:
        """Return the presence of the destinations after a name, at most `limit`, and the name after which to go on.

        They are all destinations that somebody holds at any node, in the order of their names.
        """
        shared = self._people.shared
        if shared is not None:
            names = shared.destinations(after, limit + 1)
        else:
            names = heapq.nsmallest(limit + 1, {each for each in self._clients.destinations() if each > after})
        found = self._with(self._people.members(names[:limit], PAGE_BYTES)) if names else {}
        last = next(reversed(found), None)
        held = {name: each for name, each in found.items() if each["connections"] or "members" in each}
        return {"destinations": held, "next": last if len(found) < len(names) else None}

    def _with(self, members: dict[str, list[Found]]) -> dict[str, dict[str, Any]]:
        """Return the presence of destinations that have these members."""
        elsewhere = self._store.elsewhere(list(members))
        found: dict[str, dict[str, Any]] = {}
        for each, people in members.items():
            here, since = self._clients.holders(each)
            there, other_since = elsewhere.get(each, (0, 0.0))
            times = [seconds for seconds in (since, other_since) if seconds]
            found[each] = {"connections": here + there, **({"since": min(times)} if times else {})}
            if people:
                found[each]["members"] = [_shown(one) for one in people]
        return found


def _size(members: list[Found]) -> int:
    return sum(each.size for each in members)


def _shown(member: Found) -> dict[str, Any]:
    return {"id": member.id, "info": decode(member.info_json), "since": round(member.since, 3)}
