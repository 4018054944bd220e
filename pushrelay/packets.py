"""Socket.IO packets as the relay takes them from browsers: small, sound, and telling whether an answer is wanted."""

import json
import re
from typing import Any

from socketio import packet

from . import json_text
from .pushes import RESERVED_EVENTS

INVALID = "relay:invalid"  # the event that stands for a packet that cannot be read; its message is the reason
UNKNOWN = "relay:unknown"  # the event that stands for one of RESERVED; its message is the name
_TYPES = set("0123456")
# Names that python-socketio gives a meaning of its own, so that an event of that name would never be answered.
RESERVED = {"connect", "disconnect", "*", INVALID, UNKNOWN}


def unreadable(why: str) -> str:
    """Return the sentence about a packet that cannot be read."""
    return f"this is not a Socket.IO packet that the relay can read: {why}"


_AROUND_DATA = 2  # levels of a packet around the data of a push: the event's list, and the message
# What stands before and behind the namespace, up to the data. int() would read digits of any script.
_NUMBERS = re.compile(r"([^/\[{\"]*)(?:/[^,]*,([^\[{\"]*))?")


class _JSON:
    """The JSON module that packets are read and written with."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text: str) -> Any:
        return json_text.read(text, _AROUND_DATA)


class Packet(packet.Packet):
    """A Socket.IO packet whose events reach their handler as `handler(message, wants_answer)`.

    python-socketio does not tell a handler whether the browser asked for an acknowledgement (the packet's `id`,
    Socket.IO protocol 5, "Acknowledgement"), and a refusal must go out as an event where it did not. A packet that
    cannot be read becomes the event INVALID, so that its sender is told instead of the log.
    """

    json = _JSON

    def __init__(self, *args: Any, encoded_packet: str | bytes | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if encoded_packet is not None:  # also where it is empty, which the class above passes over
            self.decode(encoded_packet)

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet; returns how many attachments follow, which is none. Never raises."""
        try:
            if not isinstance(encoded_packet, str):
                raise ValueError("binary data is not taken")
            if encoded_packet[:1] not in _TYPES:
                raise ValueError("a packet begins with its type, a digit from 0 to 6")
            if not all(part.isascii() for part in _NUMBERS.match(encoded_packet).groups("")):
                raise ValueError("its id is written with the digits 0 to 9")
            if super().decode(encoded_packet) or self.packet_type in (packet.BINARY_EVENT, packet.BINARY_ACK):
                raise ValueError("binary attachments are not taken")
            if self.packet_type not in (packet.CONNECT, packet.DISCONNECT, packet.EVENT, packet.ACK):
                raise ValueError(f"a client sends no packets of type {self.packet_type}")
            if self.packet_type == packet.EVENT:
                self.data = [*_event(self.data), self.id is not None]
        except ValueError as error:
            self._invalid(str(error))
        return 0

    def _invalid(self, why: str) -> None:
        """Become the event INVALID, which is acknowledged if the packet was an event that asks for that."""
        if self.packet_type not in (packet.EVENT, packet.BINARY_EVENT) or self.namespace not in (None, "/"):
            self.id = None
        self.packet_type, self.namespace = packet.EVENT, None
        self.data = [INVALID, why, self.id is not None]


class StrictPacket(packet.Packet):
    """A Socket.IO packet of which decode() and add_attachment() raise ValueError unless it is one of protocol 5.

    python-socketio's own also takes events that are no lists, and fails with other exceptions in the app's log.
    """

    json = _JSON

    def __init__(self, *args: Any, encoded_packet: str | bytes | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if encoded_packet is not None:  # also if it is empty, which the class above passes over
            self.attachment_count = self.decode(encoded_packet)

    def decode(self, encoded_packet: Any) -> int:
        if not isinstance(encoded_packet, str):
            raise ValueError("an attachment that no packet announced")
        attachments = super().decode(encoded_packet)
        if not _is_sound(self.packet_type, self.data):
            raise ValueError("this packet cannot have this payload")
        return attachments

    def add_attachment(self, attachment: Any) -> bool:
        if not isinstance(attachment, bytes):
            raise ValueError("an attachment is binary data")
        try:
            return super().add_attachment(attachment)
        except (LookupError, TypeError):
            raise ValueError("a placeholder names no attachment") from None


def _is_sound(packet_type: int, data: Any) -> bool:
    """Whether a packet of this type may have this payload (Socket.IO protocol 5, "Packet encoding")."""
    if packet_type == packet.CONNECT:
        return data is None or isinstance(data, dict)
    if packet_type == packet.DISCONNECT:
        return data is None
    if not isinstance(data, list):
        return False
    is_event = packet_type in (packet.EVENT, packet.BINARY_EVENT)
    return not is_event or (len(data) > 0 and isinstance(data[0], str) and data[0] not in RESERVED_EVENTS)


def _event(data: Any) -> tuple[str, Any]:
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise ValueError("an event is a list that begins with its name")
    if data[0] in RESERVED:
        return UNKNOWN, data[0]
    return data[0], data[1] if len(data) > 1 else None
