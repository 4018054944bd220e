"""The clients in each Socket.IO room, and the delivery to them: one packet and one frame for all clients of a room.

python-socketio's own manager walks through every room of the server when a client leaves, which takes ten seconds for
10,000 leaving clients. This one knows the rooms of each client.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import engineio.json
import socketio
from socketio import packet as sio

from pushrelay.counters import Family
from pushrelay.engine.packet import MESSAGE, EncodedPacket
from pushrelay.engine.session import Session
from pushrelay.lifecycle import spread_for
from pushrelay.server.connection import TRANSPORT_ERROR

from .app_events import AppEvents
from .client_log import ClientLog
from .fan_out import FEW, FanOut, Sessions
from .packet import StrictPacket
from .presence import Presence
from .receiving import EVENT, Receiving, encode
from .rooms import largest_of, room_metrics

log = logging.getLogger(__name__)

# A replay fills this fraction of a client's outbox, 256 KiB of 1 MiB. The rest is for what is published in the
# meantime.
ROOM_SHARE = 4
_NOTHING: dict[Any, Any] = {}


class RoomManager(socketio.Manager):  # type: ignore[misc]  # python-socketio has no type hints
    """A `client_manager` for socketio.Server on our Engine. Any thread may call it."""

    can_defer = True  # a handler may raise NotYet
    on_change: Callable[[str, bool], None] | None = None  # see Rooms for these
    on_leave: Callable[[str, str], None] | None = None
    watch_rooms = watches = 0

    def __init__(self, client_log: ClientLog | None = None) -> None:
        super().__init__()
        self.client_log = client_log or ClientLog()
        self.rooms: dict[str, dict[Any, dict[str, str]]]  # the base class sets it
        # `rooms[namespace][room][sid]` is the Engine.IO sid, as in the base class. A client's own room, which has its
        # sid for a name, is not stored: all clients in `rooms[namespace][None]` have one.
        self._lock = threading.RLock()  # over all that follows
        self._sids: dict[str, dict[str, str]] = {}  # [namespace][eio_sid]: the reverse mapping
        self._rooms_of: dict[str, dict[str, set[Any]]] = {}  # [namespace][sid]: the rooms it is in, without its own
        self._presence = Presence()  # of namespace "/"
        self._sessions = Sessions(self.rooms, self._lock)
        self.app_events = AppEvents()
        self._receiving = Receiving(self)
        self._deferred = self._receiving.deferred

    def set_server(self, server: Any) -> None:
        """Attach to a socketio.Server, whose engine is ours. python-socketio calls it."""
        super().set_server(server)
        if server.packet_class is sio.Packet:  # the app has not set its own class
            server.packet_class = StrictPacket
        server.eio.on("message", self._receiving.receive)
        server.eio.refuse_event = self._receiving.refuse_event
        server.eio.close_unregistered = self._receiving.close_unregistered
        self.client_log.watch(server)

    # Delivery.

    def deliver(
        self, event: str, data: Any, room: Any, namespace: str = "/", skip_sid: str | list[str] | None = None
    ) -> int:
        """Emit an event to a room, or to everybody if that is None; return the number of clients."""
        eio_sids = self._recipients(self._members(namespace, room), skip_sid)
        if eio_sids:
            for message in self._messages(event, data, namespace):
                self._hand_out(message, eio_sids)
        return len(eio_sids)

    def deliver_in_turns(
        self, write: Callable[[], str], room: str, skip_sid: str | list[str] | None = None
    ) -> int | FanOut:
        """Emit an event to a room of namespace "/": at once if the clients are few, and return their number.

        Otherwise return what emits it in turns. `write()` returns the JSON array of the event's name and its argument.
        It is called at most once, and only if there is a client in the room.
        """
        members = self.rooms.get("/", _NOTHING).get(room)
        if not members:
            return 0
        eio_sids = self._recipients(members, skip_sid)
        if len(eio_sids) <= FEW:
            return self._hand_out(EncodedPacket(EVENT + write()), eio_sids) if eio_sids else 0
        message, engine = EncodedPacket(EVENT + write()), self.server.eio
        sessions = self._sessions.of(room, engine.sockets, skip_sid and eio_sids)
        fan_out = FanOut(message, sessions, engine.outbox_bytes, self._failed)
        if len(sessions) < len(eio_sids):
            fan_out.connections += self._hand_out(message, [sid for sid in eio_sids if sid not in engine.sockets])
        return fan_out

    def deliver_text(self, write: Callable[[], str], room: str, skip_sid: str | list[str] | None = None) -> int:
        """Do the same for all clients at once."""
        delivery = self.deliver_in_turns(write, room, skip_sid)
        if isinstance(delivery, int):
            return delivery
        delivery.go_on(delivery.left)
        return delivery.connections

    def send_text(self, text: str, sid: str) -> None:
        """Emit an event to one client. `text` is the JSON array of its name and its argument."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self._hand_out(EncodedPacket(EVENT + text), [eio_sid])

    def send_answer(self, text: str, sid: str, ack: int) -> None:
        """Send the acknowledgement with this number to one client. `text` is the JSON of its one argument."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self._hand_out(EncodedPacket(f"{MESSAGE}{sio.ACK}{ack}[{text}]"), [eio_sid])

    def send_if_clear(self, text: str, sid: str) -> bool:
        """Emit an event to one client if little waits for it. Return False if it must be sent later.

        See call_when_clear(). Clients whose sends block can always take more, and so can those that Flask-SocketIO's
        test client simulates.
        """
        session = self._session(sid)
        message = EncodedPacket(EVENT + text)
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

    def has_outbox(self, sid: str) -> bool:
        """Return whether events wait for a client in an outbox, which has a bound, until the client reads them."""
        session = self._session(sid)
        return session is not None and session.has_outbox

    def call_when_clear(self, sid: str, callback: Callable[[], None]) -> None:
        """Call back once, from a thread of the poller, when nothing waits for a client or it has disconnected."""
        session = self._session(sid)
        if session is None:
            self.server.eio.call_soon(callback)
        else:
            session.call_when_clear(callback)

    def charge(self, sid: str, events: float) -> None:
        """Count work that an event of this client caused as the work of this number of events."""
        if (session := self._session(sid)) is not None:
            session.charge(events)

    def overdraft(self, sid: str) -> float:
        """Return the seconds until events of this client may cause such work again; 0 if they may now."""
        session = self._session(sid)
        return 0.0 if session is None else session.overdraft()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        """Call back after this number of seconds. Return a timer with `cancel()`."""
        return self.server.eio.call_later(seconds, callback)

    def share_of(self, sid: str) -> str | None:
        """Return what the address of a client is counted as; None for this machine's own."""
        eio_sid = self.eio_sid_from_sid(sid, "/")
        session = None if eio_sid is None else self.server.eio.sockets.get(eio_sid)
        return None if session is None else session.counted_as

    def _session(self, sid: str) -> Session | None:
        sessions: dict[str | None, Session] = self.server.eio.sockets
        return sessions.get(self.eio_sid_from_sid(sid, "/"))

    def _recipients(self, members: dict[str, str], skip_sid: str | list[str] | None) -> list[str]:
        """Return the Engine.IO sids of these clients, without those to skip."""
        if not skip_sid:
            return list(members.values())
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        return [eio_sid for sid, eio_sid in list(members.items()) if sid not in skipped]

    def _hand_out(self, message: EncodedPacket, eio_sids: list[str]) -> int:
        """Send a message to each of these clients; return their number. An error with one does not affect others."""
        sockets = self.server.eio.sockets
        for eio_sid in eio_sids:
            session = sockets.get(eio_sid)
            try:
                if session is not None:
                    session.send(message)
                else:  # Flask-SocketIO's test client, which has no session and listens here; or a session just closed
                    self.server._send_eio_packet(eio_sid, message.to_packet())
            except Exception:
                self._failed(session)
        return len(eio_sids)

    def _failed(self, session: Session | None) -> None:
        """Close a client that has missed a message, because of the exception that is being handled."""
        log.exception("sending to the client %s failed; its connection is closed", session and session.sid)
        if session is not None:
            self.server.eio.close_soon(session, TRANSPORT_ERROR)  # it reconnects with its last position

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
        """Emit an event, as socketio.Server.emit() describes it.

        With a callback, each client gets its own packet, which python-socketio sends.
        """
        if callback:
            super().emit(event, data, namespace, room=room, skip_sid=skip_sid, callback=callback, to=to, **options)
        else:
            self.deliver(event, data, to or room, namespace, skip_sid)

    def _messages(self, event: str, data: Any, namespace: str) -> list[EncodedPacket]:
        """Return the Engine.IO messages of an event: one, and one for each binary attachment."""
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        if namespace == "/" and self.json is engineio.json:  # unless the app has its own JSON module
            try:
                return [EncodedPacket(EVENT + encode([event, *arguments]))]
            except TypeError:
                pass  # it contains bytes, which become attachments
        encoded = self.server.packet_class(sio.EVENT, namespace=namespace, data=[event, *arguments]).encode()
        parts = encoded if isinstance(encoded, list) else [encoded]
        return [EncodedPacket(MESSAGE + part if isinstance(part, str) else part) for part in parts]

    # Shutdown.

    def shut(self) -> None:
        """Accept no new clients."""
        self.server.eio.stop_accepting()

    def drain(self, spread: float, seconds: float) -> int:
        """Ask every client to reconnect, each at a random time within `spread` seconds, and close it.

        Wait at most `seconds` until the clients have received that; return their number. They get no DISCONNECT, after
        which Socket.IO's own client does not reconnect.
        """
        sids = self._sids.get("/", _NOTHING)
        milliseconds = round(spread_for(len(sids), spread) * 1000)

        def last(eio_sid: str) -> EncodedPacket | None:
            if eio_sid not in sids:
                return None
            delay = secrets.randbelow(milliseconds + 1)
            return EncodedPacket(f'{EVENT}["relay_drain",{{"reconnect_in_ms":{delay}}}]')

        clients: int = self.server.eio.drain(last, seconds)
        return clients

    # Limits.

    def let_stay(self, sid: str) -> None:
        """Do not close this client for registering nothing."""
        if (session := self._session(sid)) is not None:
            session.may_stay = True

    def let_client_stay(self, eio_sid: str, namespace: str) -> None:
        """Do not close a client of the app's own handlers for registering nothing, if it is in their namespace."""
        session = self.server.eio.sockets.get(eio_sid)
        if session is not None and eio_sid in self._sids.get(namespace, _NOTHING):
            session.may_stay = True

    def log_client(self, eio_sid: str, cause: str, message: str) -> None:
        """Log what a client did, at most once a minute for each `cause` and client address."""
        session = self.server.eio.sockets.get(eio_sid)
        if session is not None:
            session.complain(cause, message)

    # Metrics.

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the rooms of destinations that have the most clients."""
        return largest_of(self.rooms.get("/", _NOTHING), most)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the clients and of the rooms that they are in."""
        registrations = sum(map(len, list(self._rooms_of.get("/", _NOTHING).values()))) - self.watches
        yield from room_metrics(registrations, max(0, len(self.rooms.get("/", _NOTHING)) - 1 - self.watch_rooms))
        yield from self.server.eio.metrics()

    # Rooms: methods of the base class, which socketio.Server calls.

    def _members(self, namespace: str, room: Any) -> dict[str, str]:
        """Return the clients in a room, or in any of a list of rooms: sid to Engine.IO sid."""
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
        """Return the clients in a room, or in any of a list of rooms: sid and Engine.IO sid."""
        yield from list(self._members(namespace, room).items())

    def count(self, room: Any, namespace: str = "/") -> int:
        """Return the number of clients in a room."""
        return len(self._members(namespace, room))

    def presence(self, rooms: list[str]) -> dict[str, float]:
        """Return the number of clients in these rooms, and since when there are any: see Presence.of()."""
        return self._presence.of(rooms, self.count(rooms))

    def sids_in(self, rooms: list[str]) -> set[str]:
        """Return the sids of all clients that are in any of these rooms."""
        return set(self._members("/", rooms))

    def disconnect_all(self, sids: Iterable[str]) -> None:
        """Disconnect clients with the packet DISCONNECT, after which they do not reconnect automatically."""
        for sid in sids:
            self.server.disconnect(sid)

    def close_transport(self, sid: str) -> None:
        """Close a client's connection, so that the client reconnects automatically."""
        if (session := self._session(sid)) is not None:
            session.close()

    def enter_namespace(self, eio_sid: str, namespace: str) -> str | None:
        """Give a client a sid in a namespace; None if it is in it already, or has disconnected."""
        sid: str = self.server.eio.generate_id()
        with self._lock:
            sids = self._sids.setdefault(namespace, {})
            if eio_sid in sids or eio_sid not in self.server.environ:
                return None
            sids[eio_sid] = sid
            self.rooms.setdefault(namespace, {}).setdefault(None, {})[sid] = eio_sid
        return sid

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        """Enter a namespace whose handler of `connect` has not decided yet."""
        sid = self.enter_namespace(eio_sid, namespace)
        if sid is not None:
            with self._lock:
                self.pending_connect.setdefault(namespace, []).append(sid)
        return sid

    def connect(self, sid: str, namespace: str) -> str | None:
        """Note that the app's handler of `connect` has accepted a client."""
        accepted: str | None = super().connect(sid, namespace)
        if accepted is not None:
            self.client_log.connected(self.server, accepted, namespace)
        return accepted

    def namespaces_of(self, eio_sid: str) -> list[str]:
        """Return the namespaces that a client is in, "/" first."""
        found = [name for name, sids in list(self._sids.items()) if eio_sid in sids]
        return sorted(found, key=lambda name: name != "/")

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the sid of a client in a namespace, or None if it is not in it."""
        return self._sids.get(namespace, {}).get(eio_sid)

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the Engine.IO sid of a client, or None if it is not in this namespace."""
        return self.rooms.get(namespace, {}).get(None, {}).get(sid)

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Put a client into a room. Raises ValueError if it has disconnected, or if the room is another client's."""
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
            self._sessions.changed(room)
            if self.on_change is not None and namespace == "/":
                self.on_change(room, False)
            session = self.server.eio.sockets.get(eio_sid)
            if session is not None:
                session.may_stay = True
            self._rooms_of.setdefault(namespace, {}).setdefault(sid, set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Remove a client from a room. Does nothing if the client is not in it."""
        with self._lock:
            rooms = self.rooms.get(namespace, {})
            if rooms.get(room, {}).pop(sid, None) is None or room is None:
                return
            self._rooms_of[namespace][sid].discard(room)
            self._sessions.changed(room)
            if self.on_leave is not None and namespace == "/":
                self.on_leave(room, sid)
            if not rooms[room]:
                del rooms[room]
                if namespace == "/":
                    self._presence.emptied(room)
            if self.on_change is not None and namespace == "/":
                self.on_change(room, room not in rooms)

    def basic_disconnect(self, sid: str, namespace: str, **options: Any) -> None:
        """Forget a client. The time depends on the number of its own rooms only."""
        with self._lock:
            for room in list(self._rooms_of.get(namespace, {}).get(sid, ())):
                self.basic_leave_room(sid, namespace, room)
            self._rooms_of.get(namespace, {}).pop(sid, None)
            eio_sid = self.rooms.get(namespace, {}).get(None, {}).pop(sid, None)
            if eio_sid is not None:
                if eio_sid not in self.server.eio.sockets:  # otherwise it only left this namespace
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
        """Return the rooms that a client is in, including its own."""
        if self.eio_sid_from_sid(sid, namespace) is None:
            return []
        return [sid, *self._rooms_of.get(namespace, {}).get(sid, ())]


def _has_room(session: Session, size: int) -> bool:
    backlog = session.backlog
    return not backlog or backlog + size <= session.outbox_bytes // ROOM_SHARE
