"""An id as a socket registers it: under its own name, or as `me`, the value of a cookie that the page must never learn.

With the setting `id_cookie`, a page that registers `me` holds the destination that its cookie names. It is in a second
room of that destination, whose events name the destination `me`. So an event is still encoded once for all sockets that
share a session. Publishers do not notice any of this.

The positions of `me` are `EPOCH~HASH:OFFSET`, with a hash of the destination. For relay.js a login is thus a change of
epoch, so it never attributes an earlier position to the new session.
"""

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

from pushrelay.access.cookies import cookie_names, cookie_value
from pushrelay.errors import Refused, bad
from pushrelay.names import check_exact, destinations_of
from pushrelay.rooms.rooms import Rooms
from pushrelay.settings import Settings
from pushrelay.store.publication import Publication
from pushrelay.store.stripe import Deliver, Unfinished

ME = "me"
# If tokens or auth_url guard other ids, a cookie that is `me` has at least this length: any program can send the cookie
# PHPSESSID=42, and would receive what is meant only for holders of a token for 42. PHP's session ids have 22 characters
# or more.
LEAST_GUARDED = 20


def room_of(destination: str) -> str:
    """Return the Socket.IO room of a destination.

    python-socketio has a room for each sid, with the sid for a name. No sid contains a colon, so nobody can register
    another client's room or push to it.
    """
    return f"to:{destination}"


class Subscription(NamedTuple):
    """An id that a socket registers."""

    name: str  # as the page knows it
    destination: str
    room: str

    @property
    def is_me(self) -> bool:
        """Return whether the page knows it as `me`."""
        return self.room.startswith("me:")

    def text(self, publication: Publication) -> str:
        """Return the event that delivers a publication to it, as JSON."""
        if self.is_me:
            publication = publication._replace(destination=ME, position=self.shown_position(publication.position))
        return publication.as_event()

    def shown_position(self, position: str) -> str:
        """Return a position as the page sees it."""
        if not self.is_me:
            return position
        epoch, _, offset = position.rpartition(":")
        return f"{_shown_epoch(epoch, self.destination)}:{offset}"

    def position_in_store(self, position: str, epoch: str) -> str:
        """Return the position that a page means, for a store of this epoch.

        The store does not know another session's position. Positions as publishers see them are accepted as well,
        because PHP may have written one into the page.
        """
        shown, _, offset = position.rpartition(":")
        return f"{epoch}:{offset}" if self.is_me and shown == _shown_epoch(epoch, self.destination) else position


@lru_cache(maxsize=256)
def _shown_epoch(epoch: str, destination: str) -> str:
    # 48 bits of a keyed hash tell two sessions of a browser apart, and no session id can be computed from them.
    return f"{epoch}~{hashlib.blake2b(destination.encode(), digest_size=6, key=epoch.encode()[:64]).hexdigest()}"


def own_subscription(destination: str) -> Subscription:
    """Return the subscription `me` to a destination."""
    return Subscription(ME, destination, f"me:{destination}")


def rooms_of(destination: str) -> list[str]:
    """Return all rooms whose sockets hold a destination."""
    return [room_of(destination), own_subscription(destination).room]


def destination_in(room: str) -> str:
    """Return the destination that one of these rooms belongs to."""
    return room.partition(":")[2]


def subscriptions_of(ids: Any, environ: dict[str, Any], settings: Settings) -> list[Subscription]:
    """Return the subscriptions for an id or a list of ids, on a socket with this environ. Raises Refused."""
    check_exact(ids)
    names = destinations_of(ids, settings, settings.max_ids)
    cookie = settings.id_cookie
    return [
        own_subscription(_own_id(environ, settings))
        if cookie and name == ME
        else Subscription(name, name, room_of(name))
        for name in names
    ]


def _own_id(environ: dict[str, Any], settings: Settings) -> str:
    """Return the destination that is `me` on a socket. Raises Refused if its cookie is missing or too short."""
    value = cookie_value(environ.get("HTTP_COOKIE", ""), settings.id_cookie)
    if not value:
        message = (
            f"the browser sent no cookie {settings.id_cookie} when it connected{_others(environ, settings.id_cookie)}: "
            "have PHP set it before the page connects (HttpOnly and SameSite are fine), and load the page from the "
            "relay's own host name"
        )
        raise Refused(403, "missing_cookie", message)
    if (settings.secret or settings.auth_url) and len(value) < LEAST_GUARDED:
        bad(
            "invalid_cookie",
            f"the value of the cookie {settings.id_cookie} can be guessed: it needs at least {LEAST_GUARDED} "
            "characters if other ids are guarded (settings secret and auth_url)",
        )
    return destinations_of(value, settings)[0]


def _others(environ: dict[str, Any], missing: str) -> str:
    """Return the names of the cookies that the browser sent, in case the setting id_cookie has a wrong name."""
    sent = ", ".join(name for name in cookie_names(environ.get("HTTP_COOKIE", "")) if name != missing)
    return f", but {sent} (the setting id_cookie has the exact name, in upper and lower case)" if sent else ""


def delivery(manager: Rooms, settings: Settings) -> Deliver:
    """Return the function that delivers publications for a broker: `deliver(publication, skip_sid)`.

    It sends a publication to the sockets that registered its destination, except to `skip_sid`, as Deliver describes.
    """

    def deliver(publication: Publication, skip_sid: str | None) -> int | Unfinished:
        return manager.deliver_in_turns(publication.as_event, room_of(publication.destination), skip_sid)

    def deliver_twice(publication: Publication, skip_sid: str | None) -> int | Unfinished:
        subscription = own_subscription(publication.destination)
        mine = manager.deliver_text(lambda: subscription.text(publication), subscription.room, skip_sid)
        others = deliver(publication, skip_sid)
        if isinstance(others, int):
            return mine + others
        others.connections += mine
        return others

    return deliver_twice if settings.id_cookie else deliver
