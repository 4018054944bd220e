"""Socket.IO packets as clients send them: checked, with a reason for each packet that is refused.

The relay's own events are special. A refusal is sent as `relay_error` if the client asked for no acknowledgement,
and python-socketio does not report that to its handlers. But its packet class can be replaced, and the packet knows it.
"""

import json
import re
from typing import Any

from socketio import packet

from pushrelay import json_text
from pushrelay.names import RESERVED_EVENTS

# The relay's own events, in namespace "/". Their handlers are called with `(sid, message, ack)`: see Packet.
OUR_EVENTS = {"register", "unregister", "ack", "push", "presence", "request", "send"}
# Replaces the event of a refused packet. It has no handler.
INVALID = "relay:invalid"
# Names with another meaning to python-socketio, which would call the wrong handler for an event with such a name.
RESERVED = {"connect", "disconnect", "*", INVALID}
# In one packet. A page sends one file or a few at a time; each attachment is a separate message.
MOST_ATTACHMENTS = 64
_TYPES = set("0123456")
_EVENTS = (packet.EVENT, packet.BINARY_EVENT)
_BINARY_TYPES = "56"
_BINARY = (packet.BINARY_EVENT, packet.BINARY_ACK)


def unreadable(why: str) -> str:
    """Return the message about a packet that cannot be read."""
    return f"this is not a Socket.IO packet that the relay can read: {why}"


_AROUND_DATA = 2  # levels of JSON around the data of a push: the event's list, and the message
# The numbers before and after the namespace. They are checked, because int() would read digits of any script.
_NUMBERS = re.compile(r"([^/\[{\"]*)(?:/[^,]*,([^\[{\"]*))?")


class _JSON:
    """The JSON module with which packets are read and written."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text: str) -> Any:
        """Return the decoded JSON. Raises ValueError."""
        return json_text.read(text, _AROUND_DATA)


class StrictPacket(packet.Packet):  # type: ignore[misc]  # python-socketio has no type hints
    """A packet whose decode() and add_attachment() raise ValueError if it is not one of Socket.IO protocol 5.

    python-socketio's own class also accepts events that are not lists, and raises other exceptions into the app's log.
    """

    # As the base class sets them.
    packet_type: int
    namespace: str | None
    id: int | None
    data: Any  # decoded JSON
    attachments: list[bytes]

    json = _JSON

    def __init__(self, *args: Any, encoded_packet: str | bytes | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if encoded_packet is not None:  # also if it is empty, which the base class ignores
            self.attachment_count = self.decode(encoded_packet)

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet. Return the number of attachments that follow."""
        if not isinstance(encoded_packet, str):
            raise ValueError("no packet announced this attachment")
        attachments: int = super().decode(encoded_packet)
        if not _is_sound(self.packet_type, self.data):
            raise ValueError("this packet cannot have this payload")
        return attachments

    def add_attachment(self, attachment: Any) -> bool:
        """Add an attachment. Return whether it is the last."""
        if not isinstance(attachment, bytes):
            raise ValueError("an attachment is binary data")
        try:
            is_last: bool = super().add_attachment(attachment)
        except (LookupError, TypeError):
            raise ValueError("a placeholder has no attachment") from None
        return is_last


class Packet(StrictPacket):
    """A packet for the relay, whose constructor never raises. A packet that cannot be accepted has a `refusal`.

    The refusal is sent as the acknowledgement of an event or as `relay_error`. python-socketio would log a traceback
    and leave the client without an answer. The data of the relay's own events becomes `[name, message, ack]`, with the
    number of the acknowledgement that the client asked for, or None. Other events reach the app's handlers unchanged.
    """

    refusal: tuple[str, str] | None = None  # error code and message
    is_ours = False  # whether it is one of OUR_EVENTS
    attachments_left = 0  # that have not come yet, also if the packet is refused
    size = 0  # characters of the packet and bytes of its attachments

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet. Return the number of attachments that follow. Never raises."""
        try:
            _check_head(encoded_packet)
            self.size = len(encoded_packet)
            if encoded_packet[0] in _BINARY_TYPES:
                self.attachments_left = _announced(encoded_packet)
            attachments = packet.Packet.decode(self, encoded_packet)
            self._check(attachments)
        except ValueError as error:
            self.refuse("invalid_packet", unreadable(str(error)))
        return self.attachments_left

    def _check(self, attachments: int) -> None:
        kind = self.packet_type
        if kind == packet.CONNECT_ERROR:
            raise ValueError(f"clients do not send packets of type {kind}")
        if kind in _EVENTS:
            self._check_event(self.data)
        elif kind in (packet.ACK, packet.BINARY_ACK) and not isinstance(self.data, list):
            raise ValueError("an acknowledgement has a list of arguments")
        if attachments > MOST_ATTACHMENTS:
            raise ValueError(f"it has more than {MOST_ATTACHMENTS} attachments")
        if attachments and kind not in _BINARY:
            raise ValueError("only binary packets have attachments")

    def _check_event(self, data: Any) -> None:
        if not isinstance(data, list) or not data or not isinstance(data[0], str):
            raise ValueError("an event is a list that begins with its name")
        name = data[0]
        if name in RESERVED:
            self.refuse(*unknown_event(name))
        elif name in OUR_EVENTS and self.namespace in (None, "/"):
            if self.packet_type == packet.BINARY_EVENT:
                raise ValueError(f"{name} takes no binary attachments: send text, such as base64")
            self.is_ours = True
            self.data = [name, data[1] if len(data) > 1 else None, self.id]

    def refuse(self, error: str, message: str) -> None:
        """Refuse the packet with this error code and message."""
        self.refusal = error, message
        if self.packet_type not in _EVENTS:
            self.id = None
        self.packet_type = packet.EVENT
        self.data = [INVALID, message]
        self.attachments.clear()

    def add_attachment(self, attachment: Any, limit: int | None = None) -> bool:
        """Add an attachment, or only count it if the packet is refused. Return whether it is the last. Never raises.

        `limit` is the size that the whole packet may have, in bytes.
        """
        self.attachments_left -= 1
        if self.refusal is None:
            self.size += len(attachment)
            if limit is not None and self.size > limit:
                self.refuse("invalid_packet", unreadable(f"with its attachments it has more than {limit} bytes"))
            else:
                self._keep(attachment)
        return self.attachments_left <= 0

    def _keep(self, attachment: Any) -> None:
        try:
            super().add_attachment(attachment)
        except ValueError as error:
            self.refuse("invalid_packet", unreadable(str(error)))


def unknown_event(name: str) -> tuple[str, str]:
    """Return error code and message for an event that nothing handles."""
    own = "the relay's own are register, unregister, ack, push, presence, request and send"
    return "unknown_event", f"nothing handles the event {name[:50]!r}: {own}"


def _check_head(encoded_packet: Any) -> None:
    if not isinstance(encoded_packet, str):
        raise ValueError("no packet announced this binary data")
    if encoded_packet[:1] not in _TYPES:
        raise ValueError("a packet begins with its type, a digit from 0 to 6")
    numbers = _NUMBERS.match(encoded_packet)
    if numbers is None or not all(part.isascii() for part in numbers.groups("")):
        raise ValueError("its id is written with the digits 0 to 9")


def _announced(encoded_packet: str) -> int:
    """Return the number of attachments that a binary packet announces, whatever else is wrong with it."""
    count, dash, _ = encoded_packet[1:12].partition("-")
    return int(count) if dash and count.isdigit() else 0


def _is_sound(packet_type: int, data: Any) -> bool:
    """Return whether a packet of this type may have this payload (Socket.IO protocol 5, "Packet encoding")."""
    if packet_type == packet.CONNECT:
        return data is None or isinstance(data, dict)
    if packet_type == packet.DISCONNECT:
        return data is None
    if not isinstance(data, list):
        return False
    return packet_type not in _EVENTS or (len(data) > 0 and isinstance(data[0], str) and data[0] not in RESERVED_EVENTS)
