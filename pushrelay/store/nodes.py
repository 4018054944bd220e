"""The interface between a node and a broker that several relays share: the clients of a node, and rings among nodes."""

from collections.abc import Callable
from typing import Protocol


class Clients(Protocol):
    """The clients of this node. Any thread may call it, with any lock of the broker held except a stripe's."""

    def holders(self, destination: str) -> tuple[int, float]:
        """Return the number of sockets that hold a destination, and since when one does (seconds since 1970, or 0)."""

    def close(self, destinations: list[str]) -> int:
        """Disconnect all sockets that hold one of these destinations, and return their number. It may take seconds."""

    def send_back(self, destinations: list[str]) -> None:
        """Have the sockets that hold these destinations reconnect: they missed something that no history has."""

    def acknowledged(self, destination: str, offset: int, sid: str) -> None:
        """Note that a client of some node has everything up to an offset."""

    def waiting(self) -> list[str]:
        """Return the destinations of pushes that wait for an acknowledgement."""


class Rings(Protocol):
    """Rings that one node passes on to all others, because another one takes the work. Any thread may call it."""

    def pass_on(self) -> None:
        """Ring at all nodes soon. It does not wait. Rings in quick succession are passed on as one; one may be lost."""

    def call_on_ring(self, bell: Callable[[], None]) -> None:
        """Have `bell()` called when some node passes a ring on. It must not block."""
