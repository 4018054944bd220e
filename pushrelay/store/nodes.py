"""The clients of one node, as a broker that several relays share sees them."""

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
