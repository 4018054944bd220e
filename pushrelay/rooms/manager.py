"""Who is in which Socket.IO room, and how a publication gets to them: packet and frame built once for all.

python-socketio's own manager walks every room of the server when a client leaves, which costs 10,000 leaving clients
ten seconds; this one knows the rooms of each.
"""

import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import engineio.json
import socketio
from socketio import packet as sio

from pushrelay.engine.packet import MESSAGE, EncodedPacket
from pushrelay.engine.session import REGISTER_TIMEOUT, TOO_MANY_EVENTS
from pushrelay.lifecycle import spread_for
from pushrelay.server.connection import TRANSPORT_ERROR

from .app_events import AppEvents
from .deferred import MOST_PACKETS, DeferredPackets
from .dispatch import is_known, receive, unknown_namespace
from .packet import StrictPacket
from .presence import Presence

log = logging.getLogger(__name__)

# Made once: json.dumps makes a new encoder for every call that does not want its default separators.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_EVENT = f"{MESSAGE}{sio.EVENT}"
# A replay fills this part of a client's outbox, 256 KiB of 1 MiB. The rest is for what is published in the meantime.
ROOM_SHARE = 4
_NOTHING: dict[Any, Any] = {}
# An event that wants an answer, with or without attachments (Socket.IO protocol 5, "Packet encoding").
_ANSWERED_EVENT = re.compile(
    rf"{MESSAGE}(?:{sio.EVENT}|{sio.BINARY_EVENT}[0-9]{{1,9}}-)(/[^,\[]{{0,200}},)?([0-9]{{1,15}})\["
)
_TOO_MANY = (
    "a client may not send so many events a second (setting max_event_rate): this one was not handled; send fewer"
)
_TOO_MANY_WAIT = (
    f"no more than {MOST_PACKETS} events, nor very large ones, can wait until it is known what this page may: "
    "wait for the answer to register"
)


def _relay_error(error: str, message: str, namespace: str = "/") -> EncodedPacket:
    prefix = "" if namespace == "/" else namespace + ","
    return EncodedPacket(_EVENT + prefix + _encode(["relay_error", {"ok": False, "error": error, "message": message}]))


class RoomManager(socketio.Manager):
    """A `client_manager` for socketio.Server on our Engine. Any thread may call it."""

    can_defer = True  # a handler may raise NotYet

    def __init__(self) -> None:
        super().__init__()
        # `rooms[namespace][room][sid]` is the Engine.IO sid, as in the base class. A client's own room, which has its
        # sid for a name, is not stored: who is in `rooms[namespace][None]` is in it.
        self._lock = threading.RLock()  # over all that follows
        self._sids: dict[str, dict[str, str]] = {}  # [namespace][eio_sid]: the way back
        self._rooms_of: dict[str, dict[str, set[Any]]] = {}  # [namespace][sid]: the rooms it is in, its own not
        self._presence = Presence()  # of namespace "/"
        self.app_events = AppEvents()
        self._deferred = DeferredPackets(self._handle, self._call_in_turn)

    def set_server(self, server: Any) -> None:
        super().set_server(server)
        if server.packet_class is sio.Packet:  # the app has no class of its own
            server.packet_class = StrictPacket
        server.eio.on("message", self.receive)
        server.eio.refuse_event, server.eio.close_unregistered = self._refuse_event, self._close_unregistered

    # Delivery.

    def deliver(
        self, event: str, data: Any, room: Any, namespace: str = "/", skip_sid: str | list[str] | None = None
    ) -> int:
        """Emit an event to a room, or with None to everyone; returns the number of clients it was handed to."""
        eio_sids = self._recipients(self._members(namespace, room), skip_sid)
        if eio_sids:
            for message in self._messages(event, data, namespace):
                self._hand_out(message, eio_sids)
        return len(eio_sids)

    def deliver_text(self, write: Callable[[], str], room: str, skip_sid: str | None = None) -> int:
        """The same in namespace "/" for an event that `write()` gives as the JSON array of its name and its argument.

        It is called where there is somebody to write to, and once.
        """
        members = self.rooms.get("/", _NOTHING).get(room)
        if not members:
            return 0
        eio_sids = self._recipients(members, skip_sid)
        if eio_sids:
            self._hand_out(EncodedPacket(_EVENT + write()), eio_sids)
        return len(eio_sids)

    def send_text(self, text: str, sid: str) -> None:
        """An event, as above, to one client."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self._hand_out(EncodedPacket(_EVENT + text), [eio_sid])

    def send_if_clear(self, text: str, sid: str) -> bool:
        """An event to one client, if little waits for it. False if it has to be sent later, see call_when_clear().

        A client whose sends block, and one that Flask-SocketIO's tests simulate, takes everything.
        """
        session = self._session(sid)
        message = EncodedPacket(_EVENT + text)
        if session is None:
            self.send_text(text, sid)
            return True
        if not _has_room(session, message.size):
            return False
        session.send(message)
        return True

    def has_room(self, sid: str, size: int) -> bool:
        """Return whether send_if_clear() would send an event of this many bytes."""
        session = self._session(sid)
        return session is None or _has_room(session, size)

    def holds_back(self, sid: str) -> bool:
        """Whether what is sent to a client waits for it to be read, in an outbox that has a bound."""
        session = self._session(sid)
        return session is not None and session.has_outbox

    def call_when_clear(self, sid: str, callback: Callable[[], None]) -> None:
        """Call back once, from a thread of the poller, when nothing waits for a client, or it is gone."""
        session = self._session(sid)
        if session is None:
            self.server.eio.call_soon(callback)
        else:
            session.call_when_clear(callback)

    def _call_in_turn(self, callback: Callable[[str], None], eio_sid: str) -> None:
        self.server.eio.call_in_turn(eio_sid, callback, eio_sid)

    def charge(self, sid: str, events: float) -> None:
        """Count work that an event of this client caused, as the work of this many events."""
        session = self._session(sid)
        if session is not None:
            session.charge(events)

    def overdraft(self, sid: str) -> float:
        """Return the seconds until events of this client may cause such work again; 0 if they may now."""
        session = self._session(sid)
        return 0.0 if session is None else session.overdraft()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        """Call back after this many seconds; returns a timer with `cancel()`."""
        return self.server.eio.call_later(seconds, callback)

    def share_of(self, sid: str) -> str | None:
        """Return what the address of a client is counted as; None for this machine's own."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        session = None if eio_sid is None else self.server.eio.sockets.get(eio_sid)
        return None if session is None else session.counted_as

    def _session(self, sid: str) -> Any:
        return self.server.eio.sockets.get(self.eio_sid_from_sid(sid, "/"))

    def _recipients(self, members: dict[str, str], skip_sid: str | list[str] | None) -> list[str]:
        """The Engine.IO sids of these clients, those to be skipped left out."""
        if not skip_sid:
            return list(members.values())
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        return [eio_sid for sid, eio_sid in list(members.items()) if sid not in skipped]

    def _hand_out(self, message: EncodedPacket, eio_sids: list[str]) -> None:
        """Send a message to each of these clients, whatever happens to another one."""
        sockets = self.server.eio.sockets
        for eio_sid in eio_sids:
            session = sockets.get(eio_sid)
            try:
                if session is not None:
                    session.send(message)
                else:  # Flask-SocketIO's test client, which has no session and listens here; or one just closed
                    self.server._send_eio_packet(eio_sid, message.to_packet())
            except Exception:
                log.exception("sending to the client %s failed. Its connection is closed", eio_sid)
                if session is not None:  # it has missed this message, so it must come back with its last position
                    self.server.eio.close_soon(session, TRANSPORT_ERROR)

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **options: Any,
    ) -> None:
        """socketio's emit. With a callback each recipient has a packet of its own, so that goes the usual way."""
        if callback:
            super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback, to=to, **options)
        else:
            self.deliver(event, data, to or room, namespace, skip_sid)

    def _messages(self, event: str, data: Any, namespace: str) -> list[EncodedPacket]:
        """The Engine.IO messages for an event: one, and one for each binary attachment."""
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        if namespace == "/" and self.json is engineio.json:  # not where the app brought a JSON module of its own
            try:
                return [EncodedPacket(_EVENT + _encode([event, *arguments]))]
            except TypeError:
                pass  # it holds bytes, which become attachments
        encoded = self.server.packet_class(sio.EVENT, namespace=namespace, data=[event, *arguments]).encode()
        parts = encoded if isinstance(encoded, list) else [encoded]
        return [EncodedPacket(MESSAGE + part if isinstance(part, str) else part) for part in parts]

    # Going down.

    def shut(self) -> None:
        """Let nobody in any more."""
        self.server.eio.stop_accepting()

    def drain(self, spread: float, seconds: float) -> int:
        """Tell every client to come back, each at a time of its own within `spread` seconds or less, and close it.

        It is not told to disconnect, as Socket.IO's own clients would not come back then. Returns how many were there.
        """
        sids = self._sids.get("/", _NOTHING)
        milliseconds = round(spread_for(len(sids), spread) * 1000)

        def last(eio_sid: str) -> EncodedPacket | None:
            if eio_sid not in sids:
                return None
            delay = secrets.randbelow(milliseconds + 1)
            return EncodedPacket(f'{_EVENT}["relay_drain",{{"reconnect_in_ms":{delay}}}]')

        return self.server.eio.drain(last, seconds)

    # What a client that sends too much, or nothing, is told.

    def settle(self, sid: str) -> None:
        """This client has done what it came for, though it is in no room."""
        session = self._session(sid)
        if session is not None:
            session.may_stay = True

    def let_stay(self, eio_sid: str, namespace: str) -> None:
        """A client of the app's own handlers may stay if it is in their namespace, though it registers nothing."""
        session = self.server.eio.sockets.get(eio_sid)
        if session is not None and eio_sid in self._sids.get(namespace, _NOTHING):
            session.may_stay = True

    def _close_unregistered(self, session: Any) -> None:
        """It has registered nothing in time."""
        message = "a client that registers nothing is closed after a time (setting register_timeout)"
        is_here = session.sid in self._sids.get("/", _NOTHING)
        last = _relay_error("register_timeout", message) if is_here else None
        session.close(reason=REGISTER_TIMEOUT, last=last)

    def _refuse_event(self, session: Any, packet: str | bytes) -> None:
        """It sends too many events. One that asks for an answer gets it; else it is told once a second."""
        session.complain("too_many_events", "sends too many events, and some were not handled (setting max_event_rate)")
        event = _ANSWERED_EVENT.match(packet) if isinstance(packet, str) else None
        if event is not None:
            answer = {"ok": False, "error": "too_many_events", "message": _TOO_MANY}
            session.send(EncodedPacket(f"{MESSAGE}{sio.ACK}{event[1] or ''}{event[2]}[{_encode(answer)}]"))
            return
        namespace = self._namespace_of(session.sid)
        if namespace is None:  # nothing that it would notice could be sent to it
            session.close(reason=TOO_MANY_EVENTS)
            return
        now = time.monotonic()
        if now - session.refused_at >= 1:
            session.refused_at = now
            session.send(_relay_error("too_many_events", _TOO_MANY, namespace))

    def _namespace_of(self, eio_sid: str) -> str | None:
        """Return a namespace that this client is in: "/" if it can be chosen."""
        if eio_sid in self._sids.get("/", _NOTHING):
            return "/"
        return next((name for name, sids in list(self._sids.items()) if eio_sid in sids), None)

    # Receiving.

    def receive(self, eio_sid: str, data: Any) -> None:
        """Handle a Socket.IO packet, or keep it behind another of this client that waits: see DeferredPackets."""
        eio = self.server.eio
        if not self._deferred.receive(eio_sid, data, eio.max_http_buffer_size):
            self.complain(eio_sid, "too_many_events", "was closed because it sent too much while its register waited")
            self._hand_out(_relay_error("too_many_events", _TOO_MANY_WAIT), [eio_sid])
            eio.disconnect(eio_sid)
        if eio_sid not in eio.sockets:
            self._see_off(eio_sid)

    def _handle(self, eio_sid: str, data: Any) -> None:
        """Handle a packet. A client that sends an invalid one is closed (Socket.IO protocol, revision 5)."""
        receive(self.server, eio_sid, data, self._connect_client)
        if eio_sid not in self.server.eio.sockets:
            self._see_off(eio_sid)

    def complain(self, eio_sid: str, cause: str, message: str) -> None:
        """Have the log name a client by what it did."""
        session = self.server.eio.sockets.get(eio_sid)
        if session is not None:
            session.complain(cause, message)

    def _see_off(self, eio_sid: str) -> None:
        """Its session was closed while its packet was handled, so what that entered it into has to be left."""
        self._deferred.forget(eio_sid)
        for namespace in list(self._sids):
            if eio_sid in self._sids.get(namespace, ()):
                self.server._handle_disconnect(eio_sid, namespace, self.server.reason.TRANSPORT_CLOSE)

    def _connect_client(self, eio_sid: str, packet: Any) -> None:
        """Let a client into a namespace. Where no handler has a say in it, the shortest way is taken."""
        server, namespace = self.server, packet.namespace or "/"
        if not is_known(server, namespace):
            error = {"message": "Invalid namespace"}
            self.complain(eio_sid, *unknown_namespace(namespace))
            server._send_packet(eio_sid, server.packet_class(sio.CONNECT_ERROR, data=error, namespace=namespace))
        elif server.always_connect or self._has_connect_handler(namespace):
            server._handle_connect(eio_sid, namespace, packet.data)
            if namespace != "/" or self._has_connect_handler(namespace, own=True):
                self.let_stay(eio_sid, namespace)
        elif (sid := self._enter_namespace(eio_sid, namespace)) is not None:
            prefix = "" if namespace == "/" else namespace + ","
            server.eio.sockets[eio_sid].send(EncodedPacket(f'{MESSAGE}{sio.CONNECT}{prefix}{{"sid":"{sid}"}}'))
            if prefix:
                self.let_stay(eio_sid, namespace)

    def _has_connect_handler(self, namespace: str, own: bool = False) -> bool:
        """Whether the app may have a handler; with `own`, whether it is one of this very namespace or of all."""
        server, names = self.server, (namespace, "*")
        classes = server.namespace_handlers
        return bool(any(name in classes for name in names) if own else classes) or any(
            "connect" in server.handlers.get(name, ()) for name in names
        )

    # Rooms: the base class's methods, which socketio.Server calls.

    def _members(self, namespace: str, room: Any) -> dict[str, str]:
        """The clients in a room, or in any of a list of them: their sids and Engine.IO sids."""
        rooms = self.rooms.get(namespace, {})
        if not isinstance(room, str) and hasattr(room, "__len__"):
            members: dict[str, str] = {}
            for each in room:
                members.update(self._members(namespace, each))
            return members
        if room in rooms:
            return rooms[room]
        eio_sid = rooms.get(None, {}).get(room)
        return {} if eio_sid is None else {room: eio_sid}

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        yield from list(self._members(namespace, room).items())

    def count(self, room: Any, namespace: str = "/") -> int:
        """How many clients are in a room."""
        return len(self._members(namespace, room))

    def presence(self, rooms: list[str]) -> dict[str, float]:
        """How many clients are in any of these rooms, and since when somebody is (seconds since 1970)."""
        return self._presence.of(rooms, self.count(rooms))

    def sids_in(self, rooms: list[str]) -> set[str]:
        """Return the sids of all clients that are in any of these rooms."""
        return set(self._members("/", rooms))

    def send_away(self, sids: Iterable[str]) -> None:
        """Disconnect clients, and tell them that the server did."""
        for sid in sids:
            self.server.disconnect(sid)

    def cut(self, sid: str) -> None:
        """Close a client's transport, so that it comes back by itself."""
        session = self._session(sid)
        if session is not None:
            session.close()

    def _enter_namespace(self, eio_sid: str, namespace: str) -> str | None:
        """Register a client; None where it is in this namespace already, or gone."""
        sid = self.server.eio.generate_id()
        with self._lock:
            sids = self._sids.setdefault(namespace, {})
            if eio_sid in sids or eio_sid not in self.server.environ:
                return None
            sids[eio_sid] = sid
            self.rooms.setdefault(namespace, {}).setdefault(None, {})[sid] = eio_sid
        return sid

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        sid = self._enter_namespace(eio_sid, namespace)
        if sid is not None:
            with self._lock:
                self.pending_connect.setdefault(namespace, []).append(sid)
        return sid

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return self._sids.get(namespace, {}).get(eio_sid)

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        return self.rooms.get(namespace, {}).get(None, {}).get(sid)

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        with self._lock:
            rooms = self.rooms.get(namespace)
            if rooms is None or sid not in rooms[None]:
                raise ValueError("sid is not connected to requested namespace")
            if sid == room:
                return
            if room in rooms[None]:
                raise ValueError("cannot enter a sid room")
            eio_sid = rooms[None][sid]
            members = rooms.setdefault(room, {})
            if not members and namespace == "/":
                self._presence.entered(room)
            members[sid] = eio_sid
            session = self.server.eio.sockets.get(eio_sid)
            if session is not None:
                session.may_stay = True
            self._rooms_of.setdefault(namespace, {}).setdefault(sid, set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        with self._lock:
            rooms = self.rooms.get(namespace, {})
            if rooms.get(room, {}).pop(sid, None) is None or room is None:
                return
            self._rooms_of[namespace][sid].discard(room)
            if not rooms[room]:
                del rooms[room]
                if namespace == "/":
                    self._presence.emptied(room)

    def basic_disconnect(self, sid: str, namespace: str, **options: Any) -> None:
        """Forget a client; costs what its own rooms cost."""
        with self._lock:
            for room in list(self._rooms_of.get(namespace, {}).get(sid, ())):
                self.basic_leave_room(sid, namespace, room)
            self._rooms_of.get(namespace, {}).pop(sid, None)
            eio_sid = self.rooms.get(namespace, {}).get(None, {}).pop(sid, None)
            if eio_sid is not None:
                if eio_sid not in self.server.eio.sockets:  # else it only left this namespace
                    self._deferred.forget(eio_sid)
                self._sids[namespace].pop(eio_sid, None)
                self._drop_if_empty(namespace)
            self.callbacks.pop(sid, None)
            for pending in (self.pending_connect, self.pending_disconnect):
                if sid in pending.get(namespace, ()):
                    pending[namespace].remove(sid)
                    if not pending[namespace]:
                        del pending[namespace]

    def _drop_if_empty(self, namespace: str) -> None:
        if not self.rooms[namespace][None]:
            for each in (self.rooms, self._sids, self._rooms_of):
                each.pop(namespace, None)

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        if self.eio_sid_from_sid(sid, namespace) is None:
            return []
        return [sid, *self._rooms_of.get(namespace, {}).get(sid, ())]


def _has_room(session: Any, size: int) -> bool:
    backlog = session.backlog
    return not backlog or backlog + size <= session.outbox_bytes // ROOM_SHARE
