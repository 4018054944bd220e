"""The outbox of a client that polls: packets are kept until its next GET, within a limit."""

from typing import Protocol

from pushrelay.server.outboxes import Consumer, Outboxes

from .packet import EncodedPacket


class Parked(Protocol):
    """A GET that is parked until there is something to send."""

    def answer(self, packets: list[EncodedPacket]) -> None:
        """Answer it, from any thread."""


class PollBuffer:
    """The packets for a client's next poll. The session's lock is held for every call."""

    __slots__ = ("_owner", "_packets", "bytes")

    def __init__(self, owner: Consumer):
        self._owner = owner
        self._packets: list[EncodedPacket] = []
        self.bytes = 0  # a packet shared with others counts in full

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, packet: EncodedPacket, outboxes: Outboxes, limit: int) -> bool:
        """Keep a packet; return whether more than `limit` bytes wait now.

        As on a WebSocket, the first and the next packet always fit, whatever their size.
        """
        packets = self._packets
        packets.append(packet)
        self.bytes += packet.size
        outboxes.add(self._owner, packet, 2 * packet.size)  # it is stored both as text and as a frame
        return len(packets) > 2 and self.bytes - packets[0].size > limit

    def take(self, outboxes: Outboxes) -> list[EncodedPacket]:
        """Return the packets, and leave the buffer empty."""
        packets, self._packets = self._packets, []
        self.bytes = 0
        if packets:
            outboxes.remove(self._owner, packets, True)
        return packets
