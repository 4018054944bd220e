"""Where a Socket.IO packet goes, by its kind and by the state of its client. No packet is passed over in silence.

The reference server closes the connection for a packet that is out of place (Socket.IO protocol, revision 5). So do we,
and before that we send a CONNECT_ERROR, the only packet of which a client that is not connected takes notice.
"""

from collections.abc import Callable
from typing import Any

from socketio import packet as sio

from .packets import INVALID, unreadable

CONNECT_FIRST = "a client sends CONNECT (40) before any other packet, and again after DISCONNECT (41)"
CONNECTED_ALREADY = "this client is connected to the namespace already: it sends CONNECT (40) once"


def dispatch(server: Any, eio_sid: str, packet: Any, connect: Callable[[str, Any], None]) -> None:
    """Hand a packet to python-socketio, or to `connect(eio_sid, packet)`; refuse it if it is out of place.

    Raises ValueError for a packet that clients must not send.
    """
    kind, namespace = packet.packet_type, packet.namespace or "/"
    is_here = server.manager.sid_from_eio_sid(eio_sid, namespace) is not None
    if is_here and kind == sio.EVENT:
        server._handle_event(eio_sid, namespace, packet.id, packet.data)
    elif kind == sio.CONNECT and not is_here:
        connect(eio_sid, packet)
    elif kind == sio.CONNECT or not is_here:
        _refuse(server, eio_sid, namespace, CONNECTED_ALREADY if is_here else _why(packet))
    elif kind == sio.DISCONNECT:
        server._handle_disconnect(eio_sid, namespace, server.reason.CLIENT_DISCONNECT)
    elif kind == sio.ACK:
        server._handle_ack(eio_sid, namespace, packet.id, packet.data)
    elif kind in (sio.BINARY_EVENT, sio.BINARY_ACK):  # only with a packet class other than ours
        server._binary_packet[eio_sid] = packet
    else:
        raise ValueError(f"a client sends no packets of type {kind}")


def _why(packet: Any) -> str:
    """Return why a packet is refused from a client that is not connected."""
    if packet.packet_type == sio.EVENT and packet.data and packet.data[0] == INVALID:
        return unreadable(packet.data[1])
    return CONNECT_FIRST


def _refuse(server: Any, eio_sid: str, namespace: str, message: str) -> None:
    reason = {"message": message, "data": {"error": "invalid_packet", "message": message}}
    server._send_packet(eio_sid, server.packet_class(sio.CONNECT_ERROR, data=reason, namespace=namespace))
    server.eio.disconnect(eio_sid)
