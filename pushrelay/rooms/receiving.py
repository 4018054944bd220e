"""The packets of clients on our Engine: handled one after another, and the reasons to refuse or close clients."""

import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from socketio import packet as sio

from pushrelay.engine.packet import MESSAGE, EncodedPacket
from pushrelay.engine.session import REGISTER_TIMEOUT, TOO_MANY_EVENTS, Session

from .client_log import ClientLog
from .deferred import MOST_PACKETS, Data, DeferredPackets
from .packet import Packet, StrictPacket
from .packet_dispatch import is_known, receive, unknown_namespace

log = logging.getLogger(__name__)

# Made once, because json.dumps makes a new encoder for each call with other separators. It accepts everything that
# json.dumps does, unlike json_text.encode: an app's own events may contain NaN or half a surrogate pair.
encode = json.JSONEncoder(separators=(",", ":")).encode
EVENT = f"{MESSAGE}{sio.EVENT}"
# An event that wants an answer, with or without attachments (Socket.IO protocol 5, "Packet encoding").
_ANSWERED_EVENT = re.compile(
    rf"{MESSAGE}(?:{sio.EVENT}|{sio.BINARY_EVENT}[0-9]{{1,9}}-)(/[^,\[]{{0,200}},)?([0-9]{{1,15}})\["
)
_TOO_MANY = "this page sends too many events a second (setting max_event_rate): this one was not handled; send fewer"
_TOO_MANY_WAIT = (
    f"at most {MOST_PACKETS} events, and no very large ones, can wait until the relay knows what this page may do: "
    "wait for the answer to register"
)
_UNREGISTERED = "a client that registers nothing in time is closed (setting register_timeout)"


class Manager(Protocol):
    """The part of RoomManager that this uses."""

    server: Any  # a socketio.Server, which has no type hints
    client_log: ClientLog

    def enter_namespace(self, eio_sid: str, namespace: str) -> str | None:
        """Give a client a sid in a namespace; None if it is in it already, or has disconnected."""

    def namespaces_of(self, eio_sid: str) -> list[str]:
        """Return the namespaces that a client is in."""

    def let_client_stay(self, eio_sid: str, namespace: str) -> None:
        """Do not close a client for registering nothing, if it is in this namespace."""

    def log_client(self, eio_sid: str, cause: str, message: str) -> None:
        """Log what a client did."""


class Receiving:
    """Receives the packets of all clients of a manager. Any thread may call it, one at a time for each client."""

    def __init__(self, manager: Manager):
        self._manager = manager
        self.deferred = DeferredPackets(self._handle, self._call_in_turn)

    def receive(self, eio_sid: str, data: Data) -> None:
        """Handle a Socket.IO packet, or queue it after another one of this client that waits: see DeferredPackets."""
        eio = self._manager.server.eio
        if not self.deferred.receive(eio_sid, data, eio.max_http_buffer_size):
            self._manager.log_client(
                eio_sid, "too_many_events", "was closed because it sent too much while its register waited"
            )
            session = eio.sockets.get(eio_sid)
            if session is not None:
                session.send(relay_error("too_many_events", _TOO_MANY_WAIT))
            eio.disconnect(eio_sid)
        if eio_sid not in eio.sockets:
            self._leave_all(eio_sid)

    def _handle(self, eio_sid: str, data: Data) -> None:
        """Handle a packet. A client that sends an invalid one is closed (Socket.IO protocol, revision 5)."""
        server = self._manager.server
        receive(server, eio_sid, data, self._connect)
        if eio_sid not in server.eio.sockets:
            self._leave_all(eio_sid)

    def _call_in_turn(self, callback: Callable[[str], None], eio_sid: str) -> None:
        self._manager.server.eio.call_in_turn(eio_sid, callback, eio_sid)

    def _leave_all(self, eio_sid: str) -> None:
        """Remove a client from all namespaces: its session was closed while one of its packets was handled."""
        server = self._manager.server
        self.deferred.forget(eio_sid)
        for namespace in self._manager.namespaces_of(eio_sid):
            server._handle_disconnect(eio_sid, namespace, server.reason.TRANSPORT_CLOSE)

    def _connect(self, eio_sid: str, packet: Packet | StrictPacket) -> None:
        """Admit a client to a namespace, by the shortest path if the app has no handler that could reject it."""
        manager, server, namespace = self._manager, self._manager.server, packet.namespace or "/"
        if not is_known(server, namespace):
            error = {"message": "Invalid namespace"}
            manager.log_client(eio_sid, *unknown_namespace(namespace))
            server._send_packet(eio_sid, server.packet_class(sio.CONNECT_ERROR, data=error, namespace=namespace))
        elif server.always_connect or self._has_connect_handler(namespace):
            server._handle_connect(eio_sid, namespace, packet.data)
            if namespace != "/" or self._has_connect_handler(namespace, own=True):
                manager.let_client_stay(eio_sid, namespace)
        elif (sid := manager.enter_namespace(eio_sid, namespace)) is not None:
            manager.client_log.connected(server, sid, namespace)
            prefix = "" if namespace == "/" else namespace + ","
            server.eio.sockets[eio_sid].send(EncodedPacket(f'{MESSAGE}{sio.CONNECT}{prefix}{{"sid":"{sid}"}}'))
            if prefix:
                manager.let_client_stay(eio_sid, namespace)

    def _has_connect_handler(self, namespace: str, own: bool = False) -> bool:
        """Return whether the app may have a handler; with `own`, one for this namespace itself or for all."""
        server, names = self._manager.server, (namespace, "*")
        classes = server.namespace_handlers
        return bool(any(name in classes for name in names) if own else classes) or any(
            "connect" in server.handlers.get(name, ()) for name in names
        )

    # Called by the engine for clients that send too much, or nothing.

    def close_unregistered(self, session: Session) -> None:
        """Close a client that has registered nothing in time.

        After the first registration there is no limit: a page that has unregistered everything may register again.
        """
        is_connected = "/" in self._manager.namespaces_of(session.sid)
        last = relay_error("register_timeout", _UNREGISTERED) if is_connected else None
        session.close(reason=REGISTER_TIMEOUT, last=last)

    def refuse_event(self, session: Session, packet: Data) -> None:
        """Answer an event of a client that sends too many. Without an acknowledgement it is answered once a second."""
        session.complain("too_many_events", "sends too many events, and some were not handled (setting max_event_rate)")
        event = _ANSWERED_EVENT.match(packet) if isinstance(packet, str) else None
        if event is not None:
            answer = {"ok": False, "error": "too_many_events", "message": _TOO_MANY}
            session.send(EncodedPacket(f"{MESSAGE}{sio.ACK}{event[1] or ''}{event[2]}[{encode(answer)}]"))
            return
        namespaces = self._manager.namespaces_of(session.sid)
        if not namespaces:  # the client would not notice anything that could be sent to it
            session.close(reason=TOO_MANY_EVENTS)
            return
        now = time.monotonic()
        if now - session.refused_at >= 1:
            session.refused_at = now
            session.send(relay_error("too_many_events", _TOO_MANY, namespaces[0]))


def relay_error(error: str, message: str, namespace: str = "/") -> EncodedPacket:
    """Return the event `relay_error` with this error code and message."""
    prefix = "" if namespace == "/" else namespace + ","
    return EncodedPacket(EVENT + prefix + encode(["relay_error", {"ok": False, "error": error, "message": message}]))
