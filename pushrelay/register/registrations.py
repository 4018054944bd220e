"""Who holds which ids: register, unregister, acknowledge, and what a socket may push; may they, and what did they miss.

Which ids a socket may register: any, as long as none of the settings `secret`, `id_cookie` and `auth_url` says
otherwise; else those that its token allows, or that PHP says, and `me`, the one that its cookie names.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.access.auth_requests import Visitor
from pushrelay.access.auth_url import AuthBackend
from pushrelay.access.tokens import Rights, Tokens
from pushrelay.errors import NotYet, Refused, bad
from pushrelay.json_text import encode
from pushrelay.names import check_exact
from pushrelay.push.fields import Push, checked
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.publication import offset_of

from .expiry import Expiries, SocketState
from .registration import BYTES_EACH, FINISH_SECONDS, Registration, leave, rooms_of_socket
from .subscription import Subscription, destination_in, rooms_of, subscriptions_of

log = logging.getLogger(__name__)

STATE_KEY = "relay.socket_state"  # in the environ that is a socket's own: its SocketState
EXPIRED = "the time that the token gave (exp) is over, and these ids were left: register them again with a new token"


class Registrations:
    """What sockets may and do hold. Any thread may call it.

    `manager` is Socket.IO's, with RoomManager's methods. `sid` and `environ` are the socket's own. `on_ack(destination,
    offset, sid)` is told what was acknowledged. `settings` are the relay's. `address_of(environ)` is the address of a
    socket's client, None if that is this machine's own.
    """

    def __init__(
        self,
        broker: Broker,
        manager: Any,
        settings: Settings,
        on_ack: Callable[[str, int, str], None],
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
    ):
        self._broker = broker
        self._manager = manager
        self._settings = settings
        self._on_ack = on_ack
        self._address_of = address_of
        self._tokens = Tokens(settings) if settings.secret else None
        self._auth = AuthBackend(settings) if settings.auth_url else None
        self._in_progress: dict[str, Registration] = {}  # sid: the register that is under way, and may be waiting
        self._expiries = Expiries(self._leave_rooms, lambda sid: manager.is_connected(sid, "/"))

    # What pages ask for. All raise Refused, StoreError, and NotYet if they are to be called again later.

    def register(self, message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        """Replay what was missed, and go live, for all ids or for none; returns the answer for each."""
        registration = self._in_progress.get(sid)
        if registration is None or not registration.has_waited:
            self._await_allowance(sid)
            registration = self._registration(message, sid, environ)
        is_over = True
        try:
            return {"ids": self._go_on(registration, message, environ)}
        except NotYet:
            is_over = not registration.has_waited
            raise
        finally:
            if is_over:
                self._forget(registration)

    def _await_allowance(self, sid: str) -> None:
        """Raise NotYet while earlier events of this socket have caused more work than it may cause."""
        manager = self._manager
        if not manager.can_defer or not (seconds := manager.overdraft(sid)):
            return
        timers: list[Any] = []
        raise NotYet(
            lambda callback: timers.append(manager.call_later(seconds, callback)),
            lambda: [timer.cancel() for timer in timers],
        )

    def _charge(self, sid: str, events: float) -> None:
        if events and self._manager.can_defer:
            self._manager.charge(sid, events)

    def _registration(self, message: Any, sid: str, environ: dict[str, Any]) -> Registration:
        subscriptions = self._subscriptions(message, environ)
        since = since_of(message.get("since"), [subscription.name for subscription in subscriptions])
        rooms = rooms_of_socket(self._manager, sid)
        if len(rooms.union(subscription.room for subscription in subscriptions)) > self._settings.max_ids:
            bad("too_many_ids", f"a socket registers {self._settings.max_ids} ids at most (setting max_ids)")
        state = state_of(sid, environ)
        registration = Registration(
            self._broker, self._manager, self._expiries, state, subscriptions, since, self._forget
        )
        self._in_progress[sid] = registration
        return registration

    def _go_on(self, registration: Registration, message: Any, environ: dict[str, Any]) -> dict[str, Any]:
        if not registration.has_waited:
            state = state_of(registration.sid, environ)
            registration.begin(self._rights(message.get("token"), registration.subscriptions, state, environ))
        try:
            return registration.go_on()
        except NotYet:
            self._manager.let_stay(registration.sid)  # it is being sent what it came for
            raise
        finally:
            self._charge(registration.sid, registration.take_cost())

    def _forget(self, registration: Registration) -> None:
        if self._in_progress.get(registration.sid) is registration:
            del self._in_progress[registration.sid]

    def unregister(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        state, subscriptions = state_of(sid, environ), self._subscriptions(message, environ)
        for subscription in subscriptions:
            leave(self._manager, state, subscription.room)
            self._expiries.forget(state, subscription.room)
        self._charge(sid, len(subscriptions) - 1)
        self._let_finish(subscription.destination for subscription in subscriptions)

    def ack(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        """All up to this position has been dealt with, for every socket that asks for what is not acknowledged."""
        subscriptions, position = self._subscriptions(message, environ), message.get("position")
        if len(subscriptions) > 1:
            bad("invalid_id", "a position is one id's: acknowledge each id on its own")
        subscription = subscriptions[0]
        if subscription.room not in rooms_of_socket(self._manager, sid):
            bad("not_registered", "register an id before you acknowledge what came for it")
        if not isinstance(position, str):
            bad("invalid_position", "position is the id of the publication that is acknowledged")
        position = subscription.meant(position, self._broker.epoch)
        try:
            self._broker.ack(subscription.destination, position)
        except ValueError as error:
            bad("invalid_position", str(error))
        self._on_ack(subscription.destination, offset_of(position), sid)

    def read_push(self, message: Any, sid: str, environ: dict[str, Any]) -> Push:
        """The push that a socket asks for, if it may."""
        fields = fields_of(message, '{destination: "42", data: "hello"}')
        rights = None if self._settings.socket_push else self._push_rights(state_of(sid, environ))
        check_exact(fields.get("destination"))
        push = checked(fields, self._settings)
        if push.wait:
            bad("invalid_wait", "only a push over HTTP can wait for an acknowledgement")
        for each in push.destinations:
            if rights is not None and not rights.push.allows(each):
                message = f"this page may not push to {each!r:.100}: its rights do not say so (claim push)"
                raise Refused(403, "not_allowed", message)
        if self._manager.can_defer and (seconds := self._manager.overdraft(sid)):
            message = f"this page has used up its allowance (setting max_event_rate): push again in {seconds:.0f} s"
            raise Refused(429, "too_many_events", message)
        count = len(push.destinations)
        self._charge(sid, count - 1 + count * len(push.text) / BYTES_EACH)
        return push

    # What the relay calls beside that.

    def each_second(self) -> None:
        """End what is over by the clock, and tell the sockets. It waits for a moment at most."""
        for state, rooms in self._expiries.take_due(time.time()):
            # What expires is never `me`: it has the name that its room has.
            ids = [destination_in(room) for room in rooms]
            refusal = {"ok": False, "error": "token_expired", "message": EXPIRED, "ids": ids}
            if registration := self._in_progress.get(state.sid):
                registration.let_finish(FINISH_SECONDS)
            self._let_finish(ids)  # nothing comes for these behind the message
            try:
                self._manager.send_text(encode(["relay_error", refusal]), state.sid)
            except Exception:
                log.exception("a socket could not be told that its time is over")
        if self._auth is not None:
            self._auth.fail_overdue()

    def close(self, destinations: list[str]) -> int:
        """Close all sockets that hold one of these, or whose register is under way; returns how many those were.

        Who registers next is asked about anew: who was logged out just now must not be let in by what PHP said before.
        """
        if self._auth is not None:
            self._auth.forget_results()
        rooms = {room for each in destinations for room in rooms_of(each)}
        # Registers under way first: a socket whose register is over by now is in its rooms already.
        in_progress = [each for each in list(self._in_progress.values()) if not each.rooms.isdisjoint(rooms)]
        for each in in_progress:
            each.ended = True
        sids = {*self._manager.sids_in(list(rooms)), *(each.sid for each in in_progress)}
        # Other ids that these sockets are registering: they are taken out of all rooms, and must enter no more.
        others = [each for each in list(self._in_progress.values()) if each.sid in sids and not each.ended]
        for each in others:
            each.ended = True
        in_progress += others
        self._empty_rooms_of(sids)
        for each in in_progress:
            each.let_finish(FINISH_SECONDS)
        self._manager.disconnect_all(sids)
        return len(sids)

    def _empty_rooms_of(self, sids: set[str]) -> None:
        """Take sockets out of all their rooms; nothing is handed to them any more when this returns."""
        left = set()
        for sid in sids:
            for room in rooms_of_socket(self._manager, sid):
                self._manager.leave_room(sid, "/", room)
                left.add(destination_in(room))
        self._let_finish(left)

    def _let_finish(self, destinations: Iterable[str]) -> None:
        for each in destinations:
            self._broker.let_finish(each, FINISH_SECONDS)

    # May they?

    def _rights(
        self, token: Any, subscriptions: list[Subscription], state: SocketState, environ: dict[str, Any]
    ) -> Rights | None:
        """What gives a socket the right to these ids; None where it needs none. Raises Refused, and NotYet."""
        names = [subscription.name for subscription in subscriptions if not subscription.is_me]
        if self._tokens is not None and (token is not None or (names and self._auth is None)):
            rights, source = self._tokens.read(token), "its token does not (claim ids)"
        elif names and self._auth is not None:
            rights, source = self._asked(state, environ), "the site does not (setting auth_url)"
            rights.check_time()
        elif names and self._settings.id_cookie:
            rights, source = None, 'here a page registers "me", its own id (setting id_cookie), and no other'
        else:
            return None
        for name in names:
            if rights is None or not rights.ids.allows(name):
                raise Refused(403, "not_allowed", f"this page may not register {name!r:.100}: {source}")
        return rights

    def _asked(self, state: SocketState, environ: dict[str, Any]) -> Rights:
        """What PHP says about this browser. Raises NotYet until that is known, where the manager can wait for it."""
        # What was asked for this socket is its answer, also where answers count for no time at all.
        auth_request = state.auth_request
        if auth_request is None or (auth_request.is_done and auth_request.is_stale):
            share = self._manager.share_of(state.sid) if self._manager.can_defer else None
            auth_request = state.auth_request = self._auth.request(self._visitor(environ), share)
        if not auth_request.is_done:
            if self._manager.can_defer:
                raise NotYet(auth_request.call_when_done, lambda: self._auth.release(auth_request))
            auth_request.wait()
        state.auth_request = None
        return auth_request.result()

    def _visitor(self, environ: dict[str, Any]) -> Visitor:
        address = self._address_of(environ) or ""
        return Visitor(environ.get("HTTP_COOKIE", ""), environ.get("HTTP_USER_AGENT", ""), address)

    def _push_rights(self, state: SocketState) -> Rights:
        rights = state.rights
        if rights is None or not rights.push:
            message = "pages may not push here (setting socket_push); let your server push for it"
            if self._tokens or self._auth:
                message += ", or give it the right to (claim push)"
            raise Refused(403, "not_allowed", message)
        rights.check_time()
        return rights

    # Rooms.

    def _subscriptions(self, message: Any, environ: dict[str, Any]) -> list[Subscription]:
        fields = fields_of(message, '{id: "42"}')
        if "id" not in fields:
            bad("missing_id", 'say which id you mean: {id: "42"}, or a list of ids')
        return subscriptions_of(fields["id"], environ, self._settings)

    def _leave_rooms(self, state: SocketState, rooms: list[str]) -> None:
        for room in rooms:
            leave(self._manager, state, room)


def state_of(sid: str, environ: dict[str, Any]) -> SocketState:
    """What is known of a socket. A client that left the namespace and came back is another one."""
    state = environ.get(STATE_KEY)
    if state is None or state.sid != sid:
        state = environ[STATE_KEY] = SocketState(sid)
    return state


def fields_of(message: Any, example: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        bad("invalid_message", f"send an object such as {example}")
    return message


def since_of(since: Any, ids: list[str]) -> dict[str, str | None]:
    """For each id, from where on it is to be replayed. Raises Refused."""
    if since is None or since == "acked":
        return dict.fromkeys(ids, since)
    if isinstance(since, str):
        if len(ids) > 1:
            bad("invalid_since", "a position is one id's: for several ids, since is an object, a position for each")
        return {ids[0]: since}
    if not isinstance(since, dict) or not all(each is None or isinstance(each, str) for each in since.values()):
        bad("invalid_since", 'since is a position, "acked", or an object with one of these for each id')
    return {each: since.get(each) for each in ids}
