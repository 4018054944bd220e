"""The users of this node, as a broker that several relays share sees them."""

import threading
from collections.abc import Callable, Collection

from pushrelay.answers import store_refusal
from pushrelay.errors import StoreError
from pushrelay.store.members import Found

from .members import Members
from .views import Views

NOT_READ = "the members could not be read; ask again later"


class NodeUsers:
    """The Users that a broker asks: see there. `return_seconds()` is documented there too."""

    def __init__(self, members: Members, views: Views, lock: threading.RLock, return_seconds: Callable[[], float]):
        self._members = members
        self._views = views
        self._lock = lock
        self.return_seconds = return_seconds

    def present(self, destination: str, id_: str) -> Found | None:
        """Return a user whom this node has at a destination, maybe in the time of grace."""
        return self._members.find(destination, id_)

    def everybody(self) -> list[tuple[str, str]]:
        """Return destination and id of each such user."""
        return [(each, found.id) for each in self._members.destinations() for found in self._members.at(each)]

    def is_here(self, destination: str) -> bool:
        """Return whether this node has a user at a destination."""
        return destination in self._members

    def watched(self) -> Collection[str]:
        """Return the destinations whose members must be reported."""
        return self._views.destinations()

    def arrived(self, destination: str, id_: str, info_json: str | None, since: float) -> None:
        """Note that a member has come or changed, or has left (None), whichever node has reported it."""
        self._views.apply(destination, id_, info_json, since)

    def loaded(self, destination: str, members: list[Found], is_final: bool) -> None:
        """Note all members of a watched destination."""
        with self._lock:
            self._views.loaded(destination, members)
            there = {each.id for each in members}
            for each in members:
                self._views.apply(destination, *each)
            for id_ in self._views.ids(destination) - there if is_final else ():
                self._views.apply(destination, id_, None)

    def answer(self, destination: str) -> None:
        """Answer those who have waited for loaded()."""
        self._views.answer(destination)

    def failed(self, destination: str, error: StoreError) -> None:
        """Note that the members of a watched destination cannot be read."""
        self._views.failed(destination, store_refusal(error, NOT_READ))
