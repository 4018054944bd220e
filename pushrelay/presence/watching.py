"""The event `presence`: a page asks who is at a destination, and hears of every change from then on."""

from collections.abc import Callable
from typing import Any, Protocol

from pushrelay.access.tokens import Rights
from pushrelay.errors import bad
from pushrelay.json_text import encode
from pushrelay.names import check_exact, destinations_of
from pushrelay.rooms.answering import Reply
from pushrelay.rooms.rooms import WATCH, Rooms, watch_room
from pushrelay.settings import Settings

from .view import Ask
from .views import Views

EXAMPLE = 'send an object such as {id: "room-7"}'
BYTES_EACH = 16_384  # of an answer, which cost as much as one event of the page


class Door(Protocol):
    """Decides who may watch, and until when: Registrations. All methods may raise Refused, the first three NotYet."""

    def await_allowance(self, sid: str) -> None:
        """Return if the socket's earlier events have not caused more work than they may."""

    def await_store(self, sid: str) -> None:
        """Return if the store is in reach, or has been out of reach for too long."""

    def to_watch(self, token: Any, name: str, sid: str, environ: dict[str, Any]) -> Rights | None:
        """Return the rights with which a socket may watch a destination; None if it needs none."""

    def watch(self, room: str, rights: Rights | None, sid: str, environ: dict[str, Any]) -> None:
        """Put a socket into the room of those who watch a destination, until its rights end."""

    def unwatch(self, room: str, sid: str, environ: dict[str, Any]) -> None:
        """Take a socket out of such a room."""


class Watching:
    """Answers the event `presence`. Any thread may call it. `settings()` returns those in force."""

    def __init__(self, rooms: Rooms, views: Views, door: Door, settings: Callable[[], Settings]):
        self._rooms = rooms
        self._views = views
        self._door = door
        self._settings = settings

    def handle(self, message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
        """Answer one event. Raises Refused, StoreError and NotYet."""
        if not isinstance(message, dict):
            bad("invalid_message", EXAMPLE)
        name = self._name(message)
        watch = message.get("watch", True)
        if not isinstance(watch, bool):
            bad("invalid_message", "watch is true or false")
        if not watch:
            self._views.cancel(name, sid)
            self._door.unwatch(watch_room(name), sid, environ)
            reply.send(encode({"ok": True, "id": name}))
            return
        self._door.await_allowance(sid)
        self._door.await_store(sid)
        rights = self._door.to_watch(message.get("token"), name, sid, environ)
        self._check_number(sid, name)
        self._rooms.let_stay(sid)
        ask = Ask(
            sid,
            lambda: self._door.watch(watch_room(name), rights, sid, environ),
            reply,
            lambda size: self._rooms.charge(sid, size / BYTES_EACH),
            None if rights is None else rights.expires,
        )
        self._views.ask(name, ask)

    def _name(self, message: dict[str, Any]) -> str:
        if "id" not in message:
            bad("missing_id", f"name the destination: {EXAMPLE}")
        id_ = message["id"]
        if isinstance(id_, list):
            bad("invalid_id", "ask for each destination on its own: id is one name, not a list")
        check_exact(id_)
        return destinations_of(id_, self._settings())[0]

    def _check_number(self, sid: str, name: str) -> None:
        watched = {room for room in self._rooms.get_rooms(sid, "/") if room.startswith(WATCH)}
        most = self._settings().max_ids
        if len(watched | {watch_room(name)}) > most:
            bad("too_many_ids", f"a socket watches at most {most} destinations (setting max_ids)")
