"""The interface between a node and a broker that several relays share, for the members of destinations."""

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from pushrelay.errors import StoreError


class Found(NamedTuple):
    """A member of a destination."""

    id: str
    info_json: str
    since: float  # seconds since 1970

    @property
    def size(self) -> int:
        """The bytes that it has in an answer, about."""
        return len(self.id) + len(self.info_json) + 50


class Users(Protocol):
    """The users that the clients of this node bring along. Any thread may call it, with locks of the broker held."""

    def present(self, destination: str, id_: str) -> Found | None:
        """Return a user whom this node has at a destination, maybe in the time of grace."""

    def everybody(self) -> list[tuple[str, str]]:
        """Return destination and id of each such user."""

    def is_here(self, destination: str) -> bool:
        """Return whether this node has a user at a destination."""

    def return_seconds(self) -> float:
        """Return the seconds within which users come back to other nodes if this one is stopped."""

    def watched(self) -> Collection[str]:
        """Return the destinations whose members must be reported."""

    def arrived(self, destination: str, id_: str, info_json: str | None, since: float) -> None:
        """Note that a member has come or changed, or has left (None), whichever node has reported it."""

    def loaded(self, destination: str, members: list[Found], is_final: bool) -> None:
        """Note all members of a watched destination. Unless it is final, more may come back, and it is called again."""

    def answer(self, destination: str) -> None:
        """Answer those who have waited for loaded(). No lock of the broker is held."""

    def failed(self, destination: str, error: StoreError) -> None:
        """Note that the members of a watched destination cannot be read. No lock of the broker is held."""


class SharedMembers(Protocol):
    """The members of all nodes. Any thread may call it."""

    def attach(self, users: Users) -> None:
        """Have the users of this node take part. Called once, before the broker is started."""

    def changed(self, destination: str, id_: str, is_news: bool) -> None:
        """Note that a user has come to this node, has changed, or has left. Any lock may be held.

        `is_news`: what the site tells about the user is newer than what other nodes know.
        """

    def total(self, destination: str) -> int:
        """Return the number of members of a destination at all nodes, as far as this node knows: it knows it soon after
        it has a user there, or a watcher.
        """

    def forget(self, destination: str) -> None:
        """Note that nobody here watches a destination any more. Any lock may be held."""

    def is_member(self, destination: str, id_: str) -> bool:
        """Return whether a user is a member by some node. It asks the store. Raises StoreError."""

    def load(self, destination: str) -> None:
        """Have Users.loaded() called for a destination that is watched now, or failed()."""

    def destinations(self, after: str, most: int) -> list[str]:
        """Return the destinations after a name that clients of any node hold, in the order of their names.

        Some of them may have been left. Raises StoreError.
        """

    def read(self, destinations: Iterable[str], most_bytes: int) -> dict[str, list[Found]]:
        """Return the members of each destination: of as many of them as have this size, but at least of the first.

        Raises StoreError.
        """
