"""The interface through which registrations report users, and the rooms of clients that watch a destination."""

from typing import Protocol

from pushrelay.access.member import Member
from pushrelay.rooms.rooms import WATCH


class Admission(Protocol):
    """The places of one register's user at its destinations. Call settle() or withdraw() once."""

    def settle(self) -> None:
        """Take the places: the socket holds the destinations."""

    def withdraw(self) -> None:
        """Give them back: the register was refused, or its socket has disconnected."""


class Membership(Protocol):
    """Keeps who is at which destination. Any thread may call it. It learns by itself when a socket leaves a room."""

    def admit(self, sid: str, destinations: list[str], member: Member | None) -> Admission | None:
        """Reserve a place at each destination, or at none.

        `member` is None if the rights of the socket do not name a user.

        Return None if there is nothing to do. Raises Refused if there are too many members, and StoreError.
        """


class Nobody:
    """A Membership that keeps nothing."""

    def admit(self, sid: str, destinations: list[str], member: Member | None) -> Admission | None:
        """Return None."""
        return None


def is_watch(room: str) -> bool:
    """Return whether a room is one of clients that watch a destination, which need not hold it."""
    return room.startswith(WATCH)
