"""Socket.IO packets as the relay takes them from browsers: small, sound, and telling whether an answer is wanted."""

from typing import Any

from socketio import packet

from .pushes import RESERVED_EVENTS

INVALID = "relay:invalid"  # the event that stands for a packet nobody can read; its message says why


class Packet(packet.Packet):
    """A Socket.IO packet whose events reach their handler as `handler(message, wants_answer)`.

    python-socketio does not tell a handler whether the browser asked for an acknowledgement (the packet's `id`,
    Socket.IO protocol 5, "Acknowledgement"), and a refusal must go out as an event where it did not. A packet that
    cannot be read becomes the event INVALID, so that its sender is told instead of the log.
    """

    def __init__(self, *args: Any, encoded_packet: str | bytes | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if encoded_packet is not None:  # also where it is empty, which the class above passes over
            self.decode(encoded_packet)

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet; returns how many attachments follow, which is none. Never raises."""
        try:
            if not isinstance(encoded_packet, str):
                raise ValueError("binary data is not taken")
            if super().decode(encoded_packet) or self.packet_type in (packet.BINARY_EVENT, packet.BINARY_ACK):
                raise ValueError("binary attachments are not taken")
            if self.packet_type not in (packet.CONNECT, packet.DISCONNECT, packet.EVENT, packet.ACK):
                raise ValueError(f"a client sends no packets of type {self.packet_type}")
            if self.packet_type == packet.EVENT:
                self.data = [*_event(self.data), self.id is not None]
        except RecursionError:
            self._invalid("it is nested too deeply")
        except ValueError as error:
            self._invalid(str(error))
        return 0

    def _invalid(self, why: str) -> None:
        self.packet_type, self.namespace, self.id = packet.EVENT, None, None
        self.data = [INVALID, why, False]


class StrictPacket(packet.Packet):
    """A Socket.IO packet of which decode() and add_attachment() raise ValueError unless it is one of protocol 5.

    python-socketio's own also takes events that are no lists, and fails with other exceptions in the app's log.
    """

    def __init__(self, *args: Any, encoded_packet: str | bytes | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if encoded_packet is not None:  # also if it is empty, which the class above passes over
            self.attachment_count = self.decode(encoded_packet)

    def decode(self, encoded_packet: Any) -> int:
        if not isinstance(encoded_packet, str):
            raise ValueError("an attachment that no packet announced")
        try:
            attachments = super().decode(encoded_packet)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
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
    return data[0], data[1] if len(data) > 1 else None
