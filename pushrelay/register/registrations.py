"""Who holds which ids: register, unregister, acknowledge, and what a socket may push; may they, and what did they miss.

Which ids a socket may register: any, as long as none of the settings `secret`, `id_cookie` and `auth_url` says
otherwise; else those that its token allows, or that PHP says, and `me`, the one that its cookie names.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from pushrelay.access.auth_url import Asker, Visitor
from pushrelay.access.tokens import Rights, Tokens
from pushrelay.errors import Awaited, Refused, bad
from pushrelay.names import check_exact
from pushrelay.push.fields import Push, checked
from pushrelay.settings import Settings
from pushrelay.store.broker import Broker
from pushrelay.store.publication import encode, offset_of

from .expiry import Expiries, Holder
from .registration import BYTES_EACH, FINISH_SECONDS, Registering, leave, rooms_of_socket
from .subscription import Seat, destination_in, rooms_of, seats_of

log = logging.getLogger(__name__)

HOLDER = "relay.holder"  # in the environ that is a socket's own: its Holder
EXPIRED = "the time that the token gave (exp) is over, and these ids were left: register them again with a new token"


class Registrations:
    """What sockets may and do hold. Any thread may call it.

    `manager` is Socket.IO's, with RoomManager's methods. `sid` and `environ` are the socket's own. `note(destination,
    offset, sid)` is told what was acknowledged. `settings` are the relay's. `address_of(environ)` is the address of a
    socket's client, None if that is this machine's own.
    """

    def __init__(
        self,
        broker: Broker,
        manager: Any,
        settings: Settings,
        note: Callable[[str, int, str], None],
        address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None,
    ):
        self._broker = broker
        self._manager = manager
        self._settings = settings
        self._note = note
        self._address_of = address_of
        self._tokens = Tokens(settings) if settings.secret else None
        self._asker = Asker(settings) if settings.auth_url else None
        self._coming: dict[str, Registering] = {}  # sid: the register that is under way, and may be waiting
        self._expiries = Expiries(self._leave_rooms, lambda sid: manager.is_connected(sid, "/"))

    # What pages ask for. All raise Refused, StoreError, and Awaited if they are to be called again later.

    def register(self, message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        """Replay what was missed, and go live, for all ids or for none; returns the answer for each."""
        registering = self._coming.get(sid)
        if registering is None or not registering.has_waited:
            self._await_allowance(sid)
            registering = self._registering(message, sid, environ)
        is_over = True
        try:
            return {"ids": self._go_on(registering, message, environ)}
        except Awaited:
            is_over = not registering.has_waited
            raise
        finally:
            if is_over:
                self._forget(registering)

    def _await_allowance(self, sid: str) -> None:
        """Raise Awaited while earlier events of this socket have caused more work than it may cause."""
        manager = self._manager
        if not manager.can_hold or not (seconds := manager.overdraft(sid)):
            return
        timers: list[Any] = []
        raise Awaited(
            lambda callback: timers.append(manager.call_later(seconds, callback)),
            lambda: [timer.cancel() for timer in timers],
        )

    def _charge(self, sid: str, events: float) -> None:
        if events and self._manager.can_hold:
            self._manager.charge(sid, events)

    def _registering(self, message: Any, sid: str, environ: dict[str, Any]) -> Registering:
        seats = self._seats(message, environ)
        since = since_of(message.get("since"), [seat.name for seat in seats])
        rooms = rooms_of_socket(self._manager, sid)
        if len(rooms.union(seat.room for seat in seats)) > self._settings.max_ids:
            bad("too_many_ids", f"a socket registers {self._settings.max_ids} ids at most (setting max_ids)")
        holder = holder_of(sid, environ)
        registering = Registering(self._broker, self._manager, self._expiries, holder, seats, since, self._forget)
        self._coming[sid] = registering
        return registering

    def _go_on(self, registering: Registering, message: Any, environ: dict[str, Any]) -> dict[str, Any]:
        if not registering.has_waited:
            holder = holder_of(registering.sid, environ)
            registering.begin(self._rights(message.get("token"), registering.seats, holder, environ))
        try:
            return registering.go_on()
        except Awaited:
            self._manager.settle(registering.sid)  # it is being sent what it came for
            raise
        finally:
            self._charge(registering.sid, registering.take_cost())

    def _forget(self, registering: Registering) -> None:
        if self._coming.get(registering.sid) is registering:
            del self._coming[registering.sid]

    def unregister(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        holder, seats = holder_of(sid, environ), self._seats(message, environ)
        for seat in seats:
            leave(self._manager, holder, seat.room)
            self._expiries.forget(holder, seat.room)
        self._charge(sid, len(seats) - 1)
        self._let_finish(seat.destination for seat in seats)

    def ack(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        """All up to this position has been dealt with, for every socket that asks for what is not acknowledged."""
        seats, position = self._seats(message, environ), message.get("position")
        if len(seats) > 1:
            bad("invalid_id", "a position is one id's: acknowledge each id on its own")
        seat = seats[0]
        if seat.room not in rooms_of_socket(self._manager, sid):
            bad("not_registered", "register an id before you acknowledge what came for it")
        if not isinstance(position, str):
            bad("invalid_position", "position is the id of the publication that is acknowledged")
        position = seat.meant(position, self._broker.epoch)
        try:
            self._broker.ack(seat.destination, position)
        except ValueError as error:
            bad("invalid_position", str(error))
        self._note(seat.destination, offset_of(position), sid)

    def read_push(self, message: Any, sid: str, environ: dict[str, Any]) -> Push:
        """The push that a socket asks for, if it may."""
        fields = fields_of(message, '{destination: "42", data: "hello"}')
        rights = None if self._settings.socket_push else self._push_rights(holder_of(sid, environ))
        check_exact(fields.get("destination"))
        push = checked(fields, self._settings)
        if push.wait:
            bad("invalid_wait", "only a push over HTTP can wait for an acknowledgement")
        for each in push.destinations:
            if rights is not None and not rights.push.allows(each):
                message = f"this page may not push to {each!r:.100}: its rights do not say so (claim push)"
                raise Refused(403, "not_allowed", message)
        if self._manager.can_hold and (seconds := self._manager.overdraft(sid)):
            message = f"this page has used up its allowance (setting max_event_rate): push again in {seconds:.0f} s"
            raise Refused(429, "too_many_events", message)
        count = len(push.destinations)
        self._charge(sid, count - 1 + count * len(push.text) / BYTES_EACH)
        return push

    # What the relay calls beside that.

    def each_second(self) -> None:
        """End what is over by the clock, and tell the sockets. It waits for a moment at most."""
        for holder, rooms in self._expiries.take_due(time.time()):
            # What expires is never `me`: it has the name that its room has.
            ids = [destination_in(room) for room in rooms]
            refusal = {"ok": False, "error": "token_expired", "message": EXPIRED, "ids": ids}
            if registering := self._coming.get(holder.sid):
                registering.let_finish(FINISH_SECONDS)
            self._let_finish(ids)  # nothing comes for these behind the message
            try:
                self._manager.send_text(encode(["relay_error", refusal]), holder.sid)
            except Exception:
                log.exception("a socket could not be told that its time is over")
        if self._asker is not None:
            self._asker.give_up()

    def close(self, destinations: list[str]) -> int:
        """Close all sockets that hold one of these, or whose register is under way; returns how many those were.

        Who registers next is asked about anew: who was logged out just now must not be let in by what PHP said before.
        """
        if self._asker is not None:
            self._asker.forget()
        rooms = {room for each in destinations for room in rooms_of(each)}
        # Registers under way first: a socket whose register is over by now is in its rooms already.
        coming = [each for each in list(self._coming.values()) if not each.rooms.isdisjoint(rooms)]
        for each in coming:
            each.ended = True
        sids = {*self._manager.sids_in(list(rooms)), *(each.sid for each in coming)}
        # Other ids that these sockets are registering: they are taken out of all rooms, and must enter no more.
        others = [each for each in list(self._coming.values()) if each.sid in sids and not each.ended]
        for each in others:
            each.ended = True
        coming += others
        self._empty_rooms_of(sids)
        for each in coming:
            each.let_finish(FINISH_SECONDS)
        self._manager.send_away(sids)
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

    def _rights(self, token: Any, seats: list[Seat], holder: Holder, environ: dict[str, Any]) -> Rights | None:
        """What gives a socket the right to these ids; None where it needs none. Raises Refused, and Awaited."""
        names = [seat.name for seat in seats if not seat.is_me]
        if self._tokens is not None and (token is not None or (names and self._asker is None)):
            rights, source = self._tokens.read(token), "its token does not (claim ids)"
        elif names and self._asker is not None:
            rights, source = self._asked(holder, environ), "the site does not (setting auth_url)"
            rights.check_time()
        elif names and self._settings.id_cookie:
            rights, source = None, 'here a page registers "me", its own id (setting id_cookie), and no other'
        else:
            return None
        for name in names:
            if rights is None or not rights.ids.allows(name):
                raise Refused(403, "not_allowed", f"this page may not register {name!r:.100}: {source}")
        return rights

    def _asked(self, holder: Holder, environ: dict[str, Any]) -> Rights:
        """What PHP says about this browser. Raises Awaited until that is known, where the manager can wait for it."""
        # What was asked for this socket is its answer, also where answers count for no time at all.
        question = holder.question
        if question is None or (question.is_settled and question.outdated):
            share = self._manager.share_of(holder.sid) if self._manager.can_hold else None
            question = holder.question = self._asker.ask(self._visitor(environ), share)
        if not question.is_settled:
            if self._manager.can_hold:
                raise Awaited(question.then, lambda: self._asker.leave(question))
            question.wait()
        holder.question = None
        return question.answer()

    def _visitor(self, environ: dict[str, Any]) -> Visitor:
        address = self._address_of(environ) or ""
        return Visitor(environ.get("HTTP_COOKIE", ""), environ.get("HTTP_USER_AGENT", ""), address)

    def _push_rights(self, holder: Holder) -> Rights:
        rights = holder.rights
        if rights is None or not rights.push:
            message = "pages may not push here (setting socket_push); let your server push for it"
            if self._tokens or self._asker:
                message += ", or give it the right to (claim push)"
            raise Refused(403, "not_allowed", message)
        rights.check_time()
        return rights

    # Rooms.

    def _seats(self, message: Any, environ: dict[str, Any]) -> list[Seat]:
        fields = fields_of(message, '{id: "42"}')
        if "id" not in fields:
            bad("missing_id", 'say which id you mean: {id: "42"}, or a list of ids')
        return seats_of(fields["id"], environ, self._settings)

    def _leave_rooms(self, holder: Holder, rooms: list[str]) -> None:
        for room in rooms:
            leave(self._manager, holder, room)


def holder_of(sid: str, environ: dict[str, Any]) -> Holder:
    """What is known of a socket. A client that left the namespace and came back is another one."""
    holder = environ.get(HOLDER)
    if holder is None or holder.sid != sid:
        holder = environ[HOLDER] = Holder(sid)
    return holder


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
