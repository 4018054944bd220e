"""The events of sockets about their ids: register, unregister, ack, and push; who may do what, and what was missed.

A socket may register any id if none of the settings `secret`, `id_cookie` and `auth_url` is set. Otherwise it may
register the ids that its token allows, or that PHP allows, and `me`, the id that its cookie names.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pushrelay.access.tokens import Rights
from pushrelay.counters import Counters, Family
from pushrelay.errors import NotYet, Refused, bad
from pushrelay.json_text import encode
from pushrelay.names import check_exact
from pushrelay.push.fields import Push, push_of
from pushrelay.rooms.client_log import ClientLog
from pushrelay.rooms.rooms import Rooms, Timer
from pushrelay.settings import Settings
from pushrelay.store import Broker
from pushrelay.store.publication import offset_of

from .expiry import Expiries
from .guards import Guards
from .membership import Membership, Nobody, is_watch
from .registration import BYTES_EACH, FINISH_SECONDS, RESULTS, Registration, enter, leave, rooms_of_socket
from .socket_state import SocketState, state_of
from .subscription import Subscription, destination_in, rooms_of, subscriptions_of

log = logging.getLogger(__name__)

WATCH_EXPIRED = "the token's time (exp) has passed: ask for presence again with a new token"
EXPIRED = "the token's time (exp) has passed, and these ids were unregistered: register them again with a new token"


class Registrations:
    """The ids that sockets hold and may hold. Any thread may call it.

    `on_ack(destination, offset, sid)` is called for each acknowledgement. `address_of(environ)` returns the address of
    a socket's client, or None for this machine's own. `origin_allowed(origin, environ)` returns whether a page may
    connect; every client was allowed when it connected. In the methods, `sid` and `environ` are the socket's own.
    """

    def __init__(
        self,
        broker: Broker,
        manager: Rooms,
        settings: Settings,
        on_ack: Callable[[str, int, str], None],
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
        origin_allowed: Callable[[str | None, dict[str, Any]], bool] = lambda origin, environ: True,
        client_log: ClientLog | None = None,
        membership: Membership | None = None,
    ):
        self._broker = broker
        self._manager = manager
        self._on_ack = on_ack
        self._address_of = address_of
        self._origin_allowed = origin_allowed
        self._client_log = client_log or ClientLog()
        self._membership = membership or Nobody()
        self._origins_have_changed = False  # since some of the clients connected
        self._guards = Guards(manager, settings, address_of)
        self._in_progress: dict[str, Registration] = {}  # by sid: its register, which may be waiting
        self._recoveries = Counters(RESULTS)
        self._replayed = Counters(["replayed"])
        # For webhooks, while they are on: `on_inbox(destination)` if a page acknowledges what comes for a destination,
        # and `on_lost(destination, since, sid)` if it came back and cannot get everything that it missed.
        self.on_inbox: Callable[[str], None] | None = None
        self.on_lost: Callable[[str, str, str], None] | None = None
        self._expiries = Expiries(self._leave_rooms, lambda sid: manager.is_connected(sid, "/"))

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on. Clients keep what they have registered.

        Raises OSError if the file auth_ca cannot be read; then nothing has changed.
        """
        origins = self._guards.settings.origins
        self._guards.reload(settings)
        self._origins_have_changed |= origins != settings.origins

    # The events. All of them raise Refused, StoreError, or NotYet to be called again later.

    def register(self, message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        """Replay what the socket missed and enter the rooms, for all ids or for none.

        Return the answer for each id in `ids`, and in `expires_in` seconds until the right to them ends, if it does.
        """
        registration = self._in_progress.get(sid)
        if registration is None or not registration.has_waited:
            self.await_allowance(sid)
            self.await_store(sid)
            registration = self._begin(message, sid, environ)
        is_over = True
        try:
            ids = self._run(registration, message, environ)
            self._count(registration)
            self._client_log.registered(environ, sid, ids)
            return {"ids": ids, **registration.expires_in(time.time())}
        except NotYet:
            is_over = not registration.has_waited
            raise
        finally:
            if is_over:
                self._forget(registration)

    def unregister(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        """Leave the rooms of these ids. Once this returns, nothing more is sent for them."""
        state, subscriptions = state_of(sid, environ), self._subscriptions(message, environ)
        for subscription in subscriptions:
            leave(self._manager, state, subscription.room)
            self._expiries.forget(state, subscription.room)
        self._charge(sid, len(subscriptions) - 1)
        self._client_log.registered(environ, sid, (each.name for each in subscriptions), "unregister")
        self._let_finish(subscription.destination for subscription in subscriptions)

    def ack(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        """Note that everything up to a position was received, for sockets that ask for what is not acknowledged."""
        subscriptions, position = self._subscriptions(message, environ), message.get("position")
        if len(subscriptions) > 1:
            bad("invalid_id", "a position belongs to one id: acknowledge each id on its own")
        subscription = subscriptions[0]
        if subscription.room not in rooms_of_socket(self._manager, sid):
            bad("not_registered", "register an id before you acknowledge what came for it")
        if not isinstance(position, str):
            bad("invalid_position", "position is the id of the publication that is acknowledged")
        position = subscription.position_in_store(position, self._broker.epoch)
        try:
            self._broker.ack(subscription.destination, position, sid)
        except ValueError as error:
            bad("invalid_position", str(error))
        self._on_ack(subscription.destination, offset_of(position), sid)
        if self.on_inbox is not None:
            self.on_inbox(subscription.destination)

    def read_push(self, message: Any, sid: str, environ: dict[str, Any]) -> Push:
        """Return the push that a socket asks for, if it may push that."""
        fields = fields_of(message, '{destination: "42", data: "hello"}')
        self._check_origin(environ)
        settings = self._guards.settings
        rights = None if settings.socket_push else self._push_rights(state_of(sid, environ))
        check_exact(fields.get("destination"))
        push = push_of(fields, settings)
        if push.wait:
            bad("invalid_wait", "only a push over HTTP can wait for an acknowledgement")
        for each in push.destinations:
            if rights is not None and not rights.push.allows(each):
                message = f"this page may not push to {each!r:.100}: its rights do not allow it (claim push)"
                raise Refused(403, "not_allowed", message)
        if seconds := self._manager.overdraft(sid):
            message = f"this page has used up its allowance (setting max_event_rate): push again in {seconds:.0f} s"
            raise Refused(429, "too_many_events", message)
        self._client_log.registered(environ, sid, push.destinations, "push")
        count = len(push.destinations)
        self._charge(sid, count - 1 + count * len(push.text) / BYTES_EACH)
        return push

    # Called by the relay.

    def each_second(self) -> None:
        """End what has expired, and send those sockets `relay_error`. It takes a moment."""
        for state, rooms in self._expiries.end_due(time.time()):
            # `me` never expires, so each room's name holds the id as the page knows it.
            ids = [destination_in(room) for room in rooms if not is_watch(room)]
            refusal = {"ok": False, "error": "token_expired", "message": EXPIRED, "ids": ids}
            if watched := [destination_in(room) for room in rooms if is_watch(room)]:
                refusal |= {"presence": watched, **({} if ids else {"message": WATCH_EXPIRED})}
            if registration := self._in_progress.get(state.sid):
                registration.let_finish(FINISH_SECONDS)
            self._let_finish(ids)  # nothing is sent for these ids after the message
            try:
                self._manager.send_text(encode(["relay_error", refusal]), state.sid)
            except Exception:
                log.exception("token_expired could not be sent to a socket")
        self._guards.each_second()

    def close(self, destinations: list[str]) -> int:
        """Disconnect all sockets that hold one of these ids or are registering it; return their number.

        Results of auth_url are forgotten: an earlier result must not admit a visitor who has just been logged out.
        """
        self._guards.forget_results()
        rooms = {room for each in destinations for room in rooms_of(each)}
        # Registers in progress first: when a register is done, its socket is in its rooms already.
        registrations = [each for each in list(self._in_progress.values()) if not each.rooms.isdisjoint(rooms)]
        for each in registrations:
            each.ended = True
        sids = {*self._manager.sids_in(list(rooms)), *(each.sid for each in registrations)}
        # These sockets are removed from all rooms below, so registers of other ids must not enter a room after that.
        others = [each for each in list(self._in_progress.values()) if each.sid in sids and not each.ended]
        for each in others:
            each.ended = True
        self._leave_all(sids)
        for each in registrations + others:
            each.let_finish(FINISH_SECONDS)
        self._manager.disconnect_all(sids)
        return len(sids)

    def expel(self, destinations: list[str]) -> set[str]:
        """Remove the sockets that hold one of these ids from all their rooms, and return their sids.

        Once this returns, nothing more is delivered to them. The caller closes them, and they come back.
        """
        sids = self._manager.sids_in([room for each in destinations for room in rooms_of(each)])
        self._leave_all(sids)
        return sids

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the destinations with the most connections, at most `most`, and their numbers of connections."""
        found: dict[str, int] = {}
        for room, connections in self._manager.largest(2 * most):  # a destination may have two rooms
            if room in rooms_of(destination := destination_in(room)):
                found[destination] = found.get(destination, 0) + connections
        return sorted(found.items(), key=lambda pair: -pair[1])[:most]

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of registrations, and of the requests to auth_url."""
        help_ = "Registrations of a destination, by whether the client got all that it had missed since its position."
        yield Family("relay_recoveries_total", "counter", help_, self._recoveries.values(), ("result",))
        help_ = "Publications that were sent again to clients that had missed them."
        yield Family("relay_replayed_total", "counter", help_, self._replayed.total())
        yield from self._guards.metrics()

    # Presence: see pushrelay.presence. The same exceptions.

    def to_watch(self, token: Any, name: str, sid: str, environ: dict[str, Any]) -> Rights | None:
        """Return the rights with which a socket may see who is at a destination; None if it needs none."""
        self._check_origin(environ)
        return self._guards.to_watch(token, name, state_of(sid, environ), environ)

    def watch(self, room: str, rights: Rights | None, sid: str, environ: dict[str, Any]) -> None:
        """Put a socket into the room of those who watch a destination, until its rights end."""
        state, expires = state_of(sid, environ), None if rights is None else rights.expires
        self._expiries.set_expiry(state, [room], expires)
        enter(self._manager, state, room)
        if state.expiry.get(room) != expires:  # they have ended since, and it was not in the room yet
            leave(self._manager, state, room)
            raise Refused(403, "token_expired", WATCH_EXPIRED)

    def unwatch(self, room: str, sid: str, environ: dict[str, Any]) -> None:
        """Take a socket out of such a room."""
        state = state_of(sid, environ)
        leave(self._manager, state, room)
        self._expiries.forget(state, room)

    # The steps of a register.

    def await_allowance(self, sid: str) -> None:
        """Raise NotYet while earlier events of this socket have caused more work than it may cause."""
        if seconds := self._manager.overdraft(sid):
            timers: list[Timer] = []

            def call_when_ready(callback: Callable[[], None]) -> None:
                timers.append(self._manager.call_later(seconds, callback))

            def cancel() -> None:
                for timer in timers:
                    timer.cancel()

            raise NotYet(call_when_ready, cancel)

    def await_store(self, sid: str) -> None:
        """Raise NotYet while the store is out of reach and may be back soon, or wait here if handlers may not do so."""
        if not self._broker.is_away:
            return
        if self._manager.can_defer:
            self._manager.let_stay(sid)
            raise NotYet(self._broker.call_when_back)
        back = threading.Event()
        self._broker.call_when_back(back.set)
        back.wait()

    def _begin(self, message: Any, sid: str, environ: dict[str, Any]) -> Registration:
        self._check_origin(environ)
        subscriptions = self._subscriptions(message, environ)
        since = since_of(message.get("since"), [subscription.name for subscription in subscriptions])
        rooms = {room for room in rooms_of_socket(self._manager, sid) if not is_watch(room)}
        most = self._guards.settings.max_ids
        if len(rooms.union(subscription.room for subscription in subscriptions)) > most:
            bad("too_many_ids", f"a socket registers at most {most} ids (setting max_ids)")
        registration = Registration(
            self._broker,
            self._manager,
            self._expiries,
            state_of(sid, environ),
            subscriptions,
            since,
            self._membership,
            self._forget,
        )
        self._in_progress[sid] = registration
        return registration

    def _run(self, registration: Registration, message: Any, environ: dict[str, Any]) -> dict[str, Any]:
        if not registration.has_waited:
            state = state_of(registration.sid, environ)
            rights = self._guards.to_register(message.get("token"), registration.subscriptions, state, environ)
            registration.begin(rights)
        try:
            return registration.run()
        except NotYet:
            self._manager.let_stay(registration.sid)  # it is being sent what it registered for
            raise
        finally:
            self._charge(registration.sid, registration.take_cost())

    def _count(self, registration: Registration) -> None:
        for result, replayed in registration.recoveries():
            self._recoveries.add(result)
            if replayed:
                self._replayed.add("replayed", replayed)
        if self.on_inbox is not None:
            for each in registration.inboxes():
                self.on_inbox(each)
        if self.on_lost is not None:
            for destination, since in registration.losses():
                self.on_lost(destination, since, registration.sid)

    def _forget(self, registration: Registration) -> None:
        if self._in_progress.get(registration.sid) is registration:
            del self._in_progress[registration.sid]

    def _charge(self, sid: str, events: float) -> None:
        if events:
            self._manager.charge(sid, events)

    # Rights.

    def _check_origin(self, environ: dict[str, Any]) -> None:
        """Raise Refused for a page that connected before a reload removed its origin.

        It keeps what it has. But the site's answer to its cookies (auth_url) is not for the pages of another site.
        """
        if self._origins_have_changed and not self._origin_allowed(environ.get("HTTP_ORIGIN"), environ):
            raise Refused(403, "origin_not_allowed", "pages of this origin may not connect any more (setting origins)")

    def _push_rights(self, state: SocketState) -> Rights:
        rights = state.rights
        if rights is None or not rights.push:
            message = "pages may not push here (setting socket_push); let your server push for it"
            if self._guards.give_rights:
                message += ", or give it the right to (claim push)"
            raise Refused(403, "not_allowed", message)
        rights.check_time()
        return rights

    # Rooms.

    def _subscriptions(self, message: Any, environ: dict[str, Any]) -> list[Subscription]:
        fields = fields_of(message, '{id: "42"}')
        if "id" not in fields:
            bad("missing_id", 'name the id: {id: "42"}, or a list of ids')
        return subscriptions_of(fields["id"], environ, self._guards.settings)

    def _leave_rooms(self, state: SocketState, rooms: list[str]) -> None:
        for room in rooms:
            leave(self._manager, state, room)

    def _leave_all(self, sids: set[str]) -> None:
        """Remove sockets from all their rooms. Once this returns, nothing more is delivered to them."""
        left = set()
        for sid in sids:
            for room in rooms_of_socket(self._manager, sid):
                self._manager.leave_room(sid, "/", room)
                left.add(destination_in(room))
        self._let_finish(left)

    def _let_finish(self, destinations: Iterable[str]) -> None:
        """Wait for deliveries in progress: a socket that has just left a room may still be one of their receivers."""
        for each in destinations:
            self._broker.let_finish(each, FINISH_SECONDS)


def fields_of(message: Any, example: str) -> dict[str, Any]:
    """Return the fields of an event. Raises Refused if its argument is not an object."""
    if not isinstance(message, dict):
        bad("invalid_message", f"send an object such as {example}")
    return message


def since_of(since: Any, ids: list[str]) -> dict[str, str | None]:
    """Return for each id the position to replay from, "acked", or None for no replay. Raises Refused."""
    if since is None or since == "acked":
        return dict.fromkeys(ids, since)
    if isinstance(since, str):
        if len(ids) > 1:
            bad(
                "invalid_since",
                "a position belongs to one id: for several ids, since is an object with a position for each",
            )
        return {ids[0]: since}
    if not isinstance(since, dict) or not all(each is None or isinstance(each, str) for each in since.values()):
        bad("invalid_since", 'since is a position, "acked", or an object with one of these for each id')
    return {each: since.get(each) for each in ids}
