"""The rights of sockets: to register ids, and to see who is at a destination."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pushrelay.access.auth_site import AuthSite
from pushrelay.access.auth_url import AuthBackend
from pushrelay.access.tokens import Rights, Tokens
from pushrelay.access.visitor import visitor_of
from pushrelay.counters import Family
from pushrelay.errors import NotYet, Refused
from pushrelay.rooms.rooms import Rooms
from pushrelay.settings import Settings

from .socket_state import SocketState
from .subscription import Subscription


class _InForce(NamedTuple):
    """The sources of rights. They are replaced as a whole, so that no decision mixes old and new settings."""

    settings: Settings
    tokens: Tokens | None
    auth: AuthBackend | None

    @classmethod
    def of(cls, settings: Settings) -> "_InForce":
        """Return what the settings ask for."""
        tokens = Tokens(settings) if settings.secret else None
        return cls(settings, tokens, AuthBackend(settings) if settings.auth_url else None)

    def reloaded(self, settings: Settings) -> "_InForce":
        """Return the same for these settings. An AuthBackend stays, with its open requests. Raises OSError."""
        if self.auth is None or not settings.auth_url:
            return self.of(settings)
        self.auth.reload(settings, AuthSite(settings))
        return _InForce(settings, Tokens(settings) if settings.secret else None, self.auth)


class Guards:
    """Decides what sockets may do. Any thread may call it.

    `address_of(environ)` returns the address of a socket's client, or None for this machine's own.
    """

    def __init__(self, manager: Rooms, settings: Settings, address_of: Callable[[dict[str, Any]], str | None]):
        self._manager = manager
        self._address_of = address_of
        self._in_force = _InForce.of(settings)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._in_force.settings

    @property
    def give_rights(self) -> bool:
        """Whether tokens or the site can give a page rights."""
        return bool(self._in_force.tokens or self._in_force.auth)

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on. Raises OSError if the file auth_ca cannot be read."""
        self._in_force = self._in_force.reloaded(settings)

    def each_second(self) -> None:
        """Fail requests to the site that take too long."""
        if (auth := self._in_force.auth) is not None:
            auth.fail_overdue()

    def forget_results(self) -> None:
        """Forget what the site has answered: an earlier answer must not admit a visitor who was just logged out."""
        if (auth := self._in_force.auth) is not None:
            auth.forget_results()

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the requests to auth_url."""
        if (auth := self._in_force.auth) is not None:
            yield from auth.metrics()

    # Both raise Refused, and NotYet until the site has answered, if handlers may be deferred.

    def to_register(
        self, token: Any, subscriptions: list[Subscription], state: SocketState, environ: dict[str, Any]
    ) -> Rights | None:
        """Return the rights of a socket to these ids, None if it needs none."""
        settings, tokens, auth = self._in_force
        names = [subscription.name for subscription in subscriptions if not subscription.is_me]
        if tokens is not None and (token is not None or (names and auth is None)):
            rights, source = tokens.read(token), "its token does not allow it (claim ids)"
        elif names and auth is not None:
            rights, source = self._rights_from(auth, state, environ), "the site does not allow it (setting auth_url)"
            rights.check_time()
        elif names and settings.id_cookie:
            rights, source = None, 'here a page may register only "me", its own id (setting id_cookie)'
        else:
            return None
        for name in names:
            if rights is None or not rights.ids.allows(name):
                raise Refused(403, "not_allowed", f"this page may not register {name!r:.100}: {source}")
        return rights

    def to_watch(self, token: Any, name: str, state: SocketState, environ: dict[str, Any]) -> Rights | None:
        """Return the rights of a socket to see who is at a destination, None if it needs none.

        Without a token, the rights that its last register gave it count.
        """
        _, tokens, auth = self._in_force
        if tokens is None and auth is None:
            return None
        if tokens is not None and (token is not None or (state.rights is None and auth is None)):
            rights = tokens.read(token)
        elif state.rights is not None:
            rights = state.rights
        elif auth is not None:
            rights = self._rights_from(auth, state, environ)
        rights.check_time()
        if not rights.presence.allows(name):
            message = f"this page may not see who is at {name!r:.100}: its rights do not allow it (claim presence)"
            raise Refused(403, "not_allowed", message)
        return rights

    def _rights_from(self, auth: AuthBackend, state: SocketState, environ: dict[str, Any]) -> Rights:
        """Return the rights that PHP gives this browser. Raise NotYet until they are known, if handlers may do so.

        The result of a request for this socket is valid for it even if results are not cached (auth_cache = 0).
        """
        request = state.auth_request
        if request is None or (request.is_done and request.is_stale):
            visitor = visitor_of(environ, self._address_of(environ))
            request = state.auth_request = auth.request(visitor, self._manager.share_of(state.sid))
        if not request.is_done:
            if self._manager.can_defer:
                raise NotYet(request.call_when_done, lambda: auth.release(request))
            request.wait()
        state.auth_request = None
        return request.result()
