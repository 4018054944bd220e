"""Dispatches Socket.IO packets by their type and by the state of their client. No packet is ignored silently.

The reference server closes the connection for a packet that its client may not send now (Socket.IO protocol, revision
5). So do we, after a CONNECT_ERROR, the only packet that a client reacts to while it is not connected.
"""

from collections.abc import Callable
from typing import Any

from socketio import packet as sio

from .app_events import MOST_MESSAGES, TOO_MANY_WAIT
from .packet import Packet, unknown_event, unreadable

CONNECT_FIRST = "a client must send CONNECT (40) before any other packet, and again after DISCONNECT (41)"
CONNECTED_ALREADY = "this client is connected to the namespace already: it must send CONNECT (40) once"
_BINARY = (sio.BINARY_EVENT, sio.BINARY_ACK)
_COMPLETE = {sio.BINARY_EVENT: sio.EVENT, sio.BINARY_ACK: sio.ACK}

Connect = Callable[[str, Any], None]


def receive(server: Any, eio_sid: str, data: Any, connect: Connect) -> None:
    """Handle a Socket.IO message: a packet, or an attachment of the previous packet. Close the client if it is invalid.

    `server` is a socketio.Server, which has no type hints. `connect(eio_sid, packet)` handles CONNECT. Exceptions of
    the app's handlers are raised.
    """
    try:
        if eio_sid in server._binary_packet and _takes(server, eio_sid, data):
            packet = _attach(server, eio_sid, data)
        else:
            packet = server.packet_class(encoded_packet=data)
    except ValueError:
        server.manager.log_client(eio_sid, "invalid_packet", "was closed for an invalid Socket.IO packet")
        server.eio.disconnect(eio_sid)
        return
    if packet is not None:
        _dispatch(server, eio_sid, packet, connect)


def _takes(server: Any, eio_sid: str, data: Any) -> bool:
    """Return whether a message belongs to the packet that waits for attachments. Raise ValueError if it cannot."""
    if not isinstance(data, str):
        return True
    packet = server._binary_packet.pop(eio_sid)
    if getattr(packet, "refusal", None) is None:
        raise ValueError("text in place of an attachment")
    return False  # the client has been answered, and may have dropped the attachments


def _attach(server: Any, eio_sid: str, data: bytes) -> Any:
    """Return the packet if it is complete, or if this attachment is the reason to refuse it."""
    packet = server._binary_packet[eio_sid]
    if not isinstance(packet, Packet):
        is_last = packet.add_attachment(data)
        was_refused = is_refused = False
    else:
        was_refused = packet.refusal is not None
        is_last = packet.add_attachment(data, server.eio.max_http_buffer_size)
        is_refused = packet.refusal is not None
    if is_last:
        server._binary_packet.pop(eio_sid, None)
        packet.packet_type = _COMPLETE.get(packet.packet_type, packet.packet_type)
    return packet if not was_refused and (is_last or is_refused) else None


def _dispatch(server: Any, eio_sid: str, packet: Any, connect: Connect) -> None:
    kind, namespace = packet.packet_type, packet.namespace or "/"
    sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
    if sid is not None and kind == sio.EVENT:
        _handle_event(server, eio_sid, sid, packet)
    elif kind == sio.CONNECT and sid is None:
        connect(eio_sid, packet)
    elif kind == sio.CONNECT or sid is None:
        _refuse_client(server, eio_sid, namespace, CONNECT_FIRST if sid is None else CONNECTED_ALREADY, packet)
    elif kind == sio.DISCONNECT:
        server._handle_disconnect(eio_sid, namespace, server.reason.CLIENT_DISCONNECT)
    elif kind == sio.ACK:
        server._handle_ack(eio_sid, namespace, packet.id, packet.data)
    else:
        _await_attachments(server, eio_sid, sid, packet)


def is_known(server: Any, namespace: str) -> bool:
    """Return whether clients may connect to a namespace, by python-socketio's rules."""
    return (
        namespace in server.handlers
        or namespace in server.namespace_handlers
        or server.namespaces == "*"
        or namespace in server.namespaces
    )


def unknown_namespace(namespace: str) -> tuple[str, str]:
    """Return the cause and the message for the log about a client that asks for an unknown namespace."""
    only = "only the namespace / exists unless the app has handlers for others"
    return "namespace", f"asked for the namespace {namespace!r:.100} and was refused: {only}"


def _await_attachments(server: Any, eio_sid: str, sid: str, packet: Any) -> None:
    """Keep a binary packet until its attachments have come, unless nothing handles its event."""
    if packet.packet_type not in _BINARY:  # clients send no other binary packets
        server.eio.disconnect(eio_sid)
        return
    if isinstance(packet, Packet):
        if packet.packet_type == sio.BINARY_ACK and packet.id not in server.manager.callbacks.get(sid, ()):
            packet.refuse("invalid_packet", unreadable("no event asked for this acknowledgement"))
        elif packet.packet_type == sio.BINARY_EVENT and not _is_handled(server, packet):
            packet.refuse(*unknown_event(packet.data[0]))
        if packet.refusal is not None or not packet.attachments_left:
            packet.packet_type = _COMPLETE.get(packet.packet_type, packet.packet_type)
            _dispatch(server, eio_sid, packet, _nothing)
            return
    server._binary_packet[eio_sid] = packet


def _nothing(eio_sid: str, packet: Any) -> None:
    """Do nothing: no packet with attachments is a CONNECT."""


def _handle_event(server: Any, eio_sid: str, sid: str, packet: Any) -> None:
    """Run the handler of an event: the relay's own on this thread, an app's on a thread of AppEvents."""
    namespace = packet.namespace or "/"
    if not isinstance(packet, Packet):
        server._handle_event(eio_sid, namespace, packet.id, packet.data)
        return
    if packet.refusal is None and not packet.is_ours and not _is_handled(server, packet):
        packet.refuse(*unknown_event(packet.data[0]))
    if packet.refusal is not None:
        _answer_refusal(server, eio_sid, sid, packet)
        return
    if not server.manager.is_connected(sid, namespace):
        return  # it is being disconnected
    if packet.is_ours:
        server._handle_event_internal(server, sid, eio_sid, packet.data, namespace, packet.id)
    else:
        _hand_to_app(server, eio_sid, sid, packet)


def _hand_to_app(server: Any, eio_sid: str, sid: str, packet: Packet) -> None:
    data, namespace, number = packet.data, packet.namespace or "/", packet.id

    def run() -> None:
        if server.manager.is_connected(sid, namespace):
            server._handle_event_internal(server, sid, eio_sid, data, namespace, number)

    manager, limit = server.manager, MOST_MESSAGES * server.eio.max_http_buffer_size
    manager.let_client_stay(eio_sid, namespace)
    if not manager.app_events.add(eio_sid, run, packet.size, limit):
        packet.refuse("too_many_events", TOO_MANY_WAIT)
        _answer_refusal(server, eio_sid, sid, packet)


def _is_handled(server: Any, packet: Packet) -> bool:
    """Return whether the app handles an event. In an app's own namespaces python-socketio ignores the others."""
    namespace = packet.namespace or "/"
    if namespace != "/":
        return True
    handler, _ = server._get_event_handler(packet.data[0], namespace, ())
    return handler is not None or server._get_namespace_handler(namespace, ())[0] is not None


def _answer_refusal(server: Any, eio_sid: str, sid: str, packet: Packet) -> None:
    error, message = packet.refusal or ("", "")
    server.manager.log_client(eio_sid, error, f"sent an event that was refused ({error}): {message}")
    answer = {"ok": False, "error": error, "message": message}
    if packet.id is None:
        server.manager.emit("relay_error", answer, packet.namespace or "/", room=sid)
    else:
        server._send_packet(eio_sid, server.packet_class(sio.ACK, [answer], packet.namespace, packet.id))
    if packet.attachments_left:
        server._binary_packet[eio_sid] = packet  # its attachments are counted and dropped


def _refuse_client(server: Any, eio_sid: str, namespace: str, message: str, packet: Any) -> None:
    if getattr(packet, "refusal", None) is not None:
        message = packet.refusal[1]
    server.manager.log_client(eio_sid, "invalid_packet", f"was closed: {message}")
    reason = {"message": message, "data": {"error": "invalid_packet", "message": message}}
    server._send_packet(eio_sid, server.packet_class(sio.CONNECT_ERROR, data=reason, namespace=namespace))
    server.eio.disconnect(eio_sid)
