"""An id as a socket holds it: under its own name, or as `me`, the cookie's value that the page must never learn.

With the setting `id_cookie` a page that registers `me` holds the destination that its cookie names. It sits in a second
room of that destination, whose publications say `me`, and positions that are this destination's alone: a position from
before a login means nothing after it. Publishers know nothing of all that.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from pushrelay.access.cookies import cookie_names, cookie_value
from pushrelay.errors import Refused, bad
from pushrelay.names import check_exact, destinations_of
from pushrelay.settings import Settings
from pushrelay.store.publication import Publication

ME = "me"
# Who writes a client of their own chooses its cookies. PHP's session ids have 22 characters or more; a user's number,
# which only a token may open, could otherwise be had by a cookie that says it.
SHORTEST_BESIDE = 20


def room_of(destination: str) -> str:
    """The Socket.IO room of a destination. No sid holds a colon, so no destination is ever taken for one."""
    return f"to:{destination}"


class Subscription(NamedTuple):
    """One id that a socket registers."""

    name: str  # what the page calls it
    destination: str
    room: str

    @property
    def is_me(self) -> bool:
        return self.room.startswith("me:")

    def text(self, publication: Publication) -> str:
        """The event that brings a publication to it."""
        if self.is_me:
            publication = publication._replace(destination=ME, position=self.shown(publication.position))
        return publication.as_event()

    def shown(self, position: str) -> str:
        """A position as the page sees it."""
        if not self.is_me:
            return position
        epoch, _, offset = position.rpartition(":")
        return f"{_shown_epoch(epoch, self.destination)}:{offset}"

    def meant(self, position: str, epoch: str) -> str:
        """The position that the page means in a store of this epoch; another session's is none of any.

        Those that publishers see are taken from the page as well: its PHP may have written one into it.
        """
        shown, _, offset = position.rpartition(":")
        return f"{epoch}:{offset}" if self.is_me and shown == _shown_epoch(epoch, self.destination) else position


@lru_cache(maxsize=256)
def _shown_epoch(epoch: str, destination: str) -> str:
    # 48 bits of a hash: enough to tell two sessions of a browser apart, and nothing to get back a session id from.
    return f"{epoch}~{hashlib.blake2b(destination.encode(), digest_size=6, key=epoch.encode()[:64]).hexdigest()}"


def own_subscription(destination: str) -> Subscription:
    return Subscription(ME, destination, f"me:{destination}")


def rooms_of(destination: str) -> list[str]:
    """All rooms whose sockets hold a destination."""
    return [room_of(destination), own_subscription(destination).room]


def destination_in(room: str) -> str:
    """The destination that one of these rooms belongs to."""
    return room.partition(":")[2]


def subscriptions_of(ids: Any, environ: dict[str, Any], settings: Settings) -> list[Subscription]:
    """The subscriptions for an id, or for a list of them, on a socket with this environ. Raises Refused."""
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
    value = cookie_value(environ.get("HTTP_COOKIE", ""), settings.id_cookie)
    if not value:
        message = (
            f"the browser sent no cookie {settings.id_cookie} when it connected{_others(environ, settings.id_cookie)}: "
            "have PHP set it before the page connects (HttpOnly and SameSite are fine), and load the page from the "
            "relay's own host name"
        )
        raise Refused(403, "missing_cookie", message)
    if (settings.secret or settings.auth_url) and len(value) < SHORTEST_BESIDE:
        bad(
            "invalid_cookie",
            f"the value of the cookie {settings.id_cookie} can be guessed: where other ids are guarded (settings "
            f"secret and auth_url), it has {SHORTEST_BESIDE} characters or more",
        )
    return destinations_of(value, settings)[0]


def _others(environ: dict[str, Any], missing: str) -> str:
    """Return the names of cookies that came, in case the setting id_cookie has a wrong name."""
    sent = ", ".join(name for name in cookie_names(environ.get("HTTP_COOKIE", "")) if name != missing)
    return f", but {sent} (the setting id_cookie has the exact name, in upper and lower case)" if sent else ""


def delivery(manager: Any, settings: Settings) -> Callable[[Publication, str | None], int]:
    """What hands a publication to the sockets that registered its destination, and returns how many those are."""

    def deliver(publication: Publication, skip_sid: str | None) -> int:
        return manager.deliver_text(publication.as_event, room_of(publication.destination), skip_sid)

    def deliver_twice(publication: Publication, skip_sid: str | None) -> int:
        subscription = own_subscription(publication.destination)
        mine = manager.deliver_text(lambda: subscription.text(publication), subscription.room, skip_sid)
        return mine + deliver(publication, skip_sid)

    return deliver_twice if settings.id_cookie else deliver
