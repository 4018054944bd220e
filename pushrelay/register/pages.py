"""The page behind a socket as PHP gets to know it: its user, its destinations and its address."""

import time
from collections.abc import Callable
from typing import Any

from pushrelay.access.member import Member
from pushrelay.errors import Refused
from pushrelay.rooms.rooms import Rooms

from .socket_state import state_of
from .subscription import ME, destination_in, own_subscription, room_of

_NAMED, _OWN = room_of(""), own_subscription("").room  # how the names of rooms begin


class Pages:
    """The pages of the connected sockets. Any thread may call it.

    `environ` is that of a socket's handshake. `address_of` and `origin_allowed` are those of Access.
    """

    def __init__(
        self,
        rooms: Rooms,
        address_of: Callable[[dict[str, Any]], str | None],
        origin_allowed: Callable[[str | None, dict[str, Any]], bool],
    ):
        self._rooms = rooms
        self.address = address_of
        self._origin_allowed = origin_allowed

    def member(self, sid: str, environ: dict[str, Any]) -> Member | None:
        """Return the user that the socket's rights name (claim `as`), while they are valid."""
        rights = state_of(sid, environ).rights
        is_valid = rights is not None and (rights.expires is None or rights.expires > time.time())
        return rights.member if rights is not None and is_valid else None

    def ids(self, sid: str) -> list[str]:
        """Return the destinations that the socket holds, in order, by the names that its page uses."""
        rooms = self._rooms.get_rooms(sid, "/")
        named = sorted(destination_in(room) for room in rooms if room.startswith(_NAMED))
        return [ME, *named] if any(room.startswith(_OWN) for room in rooms) else named

    def check_origin(self, environ: dict[str, Any]) -> None:
        """Raise Refused for a page whose origin a reload has removed: it has another site's cookies."""
        if not self._origin_allowed(environ.get("HTTP_ORIGIN"), environ):
            raise Refused(403, "origin_not_allowed", "pages of this origin may not connect any more (setting origins)")
