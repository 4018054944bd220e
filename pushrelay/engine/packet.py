"""Engine.IO packets (Engine.IO protocol, revision 4, "Packet encoding"), each encoded once for all recipients."""

import base64
from collections.abc import Callable
from typing import Any

from engineio.packet import Packet

from pushrelay import json_text
from pushrelay.server.websocket import BINARY, frame, text_frame

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
SEPARATOR = "\x1e"  # between the packets of one payload
# Packets in one payload from a client, which has only a few ready at a time: each costs us more than the client.
MAX_PACKETS = 1000


class EncodedPacket:
    """A packet to be sent: its WebSocket frame, and its part of a polling payload."""

    __slots__ = ("_compressed", "_data", "_part", "frame", "size")

    def __init__(self, data: str | bytes):
        """Encode the packet's text, with its type; or the bytes of a binary message, which has no type."""
        self._data = data
        self._part = data if isinstance(data, str) else ""
        self._compressed: dict[str, bytes] | None = None
        self.frame = text_frame(data) if isinstance(data, str) else frame(BINARY, data)
        self.size = len(self.frame)

    @property
    def part(self) -> str:
        """The packet in a payload: text as it is, binary as `b` and base64."""
        if not self._part:
            data = self._data.encode() if isinstance(self._data, str) else self._data
            self._part = "b" + base64.b64encode(data).decode()
        return self._part

    def compressed(self, coding: str, compress: Callable[[bytes], bytes]) -> bytes:
        """Return the payload of this packet alone in this content coding; compressed once for all polling clients."""
        known = self._compressed
        if known is None:
            known = self._compressed = {}
        if coding not in known:
            known[coding] = compress(payload([self]))
        return known[coding]

    def to_packet(self) -> Packet:
        """Return the packet as engineio's class."""
        return Packet(encoded_packet=self._data)


def payload(packets: list[EncodedPacket]) -> bytes:
    """Return the body of a response with these packets."""
    return SEPARATOR.join([packet.part for packet in packets]).encode("utf-8")


def split_payload(body: bytes) -> list[str | bytes]:
    """Return the packets of a payload from a client. Raises ValueError if it is invalid or has too many."""
    packets = body.decode("utf-8").split(SEPARATOR, MAX_PACKETS)
    if len(packets) > MAX_PACKETS:
        raise ValueError("too many packets in one payload")
    return [base64.b64decode(packet[1:], validate=True) if packet[:1] == "b" else packet for packet in packets]


def data_of(packet: str) -> Any:
    """Return the data of a message packet, as engineio does: the value of JSON, except a bare number, or the text."""
    text = packet[1:]
    if text[:1].isnumeric():  # the usual case: Socket.IO's packets begin with their type
        return text
    try:
        return json_text.read(text)
    except json_text.NotJSON:
        return text


PING_PACKET = EncodedPacket(PING)
CLOSE_PACKET = EncodedPacket(CLOSE)
NOOP_PACKET = EncodedPacket(NOOP)
PROBE_ANSWER = EncodedPacket(PONG + "probe")
