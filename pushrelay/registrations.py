"""Who holds which ids: register, unregister, acknowledge, and what a socket may push; may they, and what did they miss.

Which ids a socket may register: any, as long as none of the settings `secret`, `id_cookie` and `auth_url` says
otherwise; else those that its token allows, or that PHP says, and `me`, the one that its cookie names.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from .asking import Asker
from .broker import Broker
from .errors import Awaited, Refused, bad
from .expiry import Expiries, Holder
from .publication import StoreError, encode, offset_in, offset_of
from .pushes import Push, checked
from .seats import Seat, rooms_of, seats_of
from .settings import Settings
from .tokens import Rights, Tokens

log = logging.getLogger("relay.registrations")

HOLDER = "relay.holder"  # in the environ that is a socket's own: its Holder
EXPIRED = "the time that the token gave (exp) is over, and these ids were left: register them again with a new token"


class Registrations:
    """What sockets may and do hold. Any thread may call it.

    `manager` is Socket.IO's, with RoomManager's methods. `sid` and `environ` are the socket's own. `note(destination,
    offset, sid)` is told what was acknowledged. `settings` are the relay's.
    """

    def __init__(self, broker: Broker, manager: Any, settings: Settings, note: Callable[[str, int, str], None]):
        self._broker = broker
        self._manager = manager
        self._settings = settings
        self._note = note
        self._tokens = Tokens(settings) if settings.secret else None
        self._asker = Asker(settings) if settings.auth_url else None
        self._coming: dict[str, set[str]] = {}  # sid: the rooms that it is about to enter
        self._expiries = Expiries(self._leave_rooms, lambda sid: manager.is_connected(sid, "/"))

    # What pages ask for. All raise Refused, StoreError, and where PHP has to be asked first, Awaited.

    def register(self, message: Any, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        """Replay what was missed, and go live, for all ids or for none; what the page is told about each."""
        seats = self._seats(message, environ)
        self._coming[sid] = {seat.room for seat in seats}
        try:
            return self._register(message, seats, sid, environ)
        finally:
            self._coming.pop(sid, None)

    def _register(self, message: Any, seats: list[Seat], sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        since = since_of(message.get("since"), [seat.name for seat in seats])
        rooms = self._rooms(sid)
        if len(rooms.union(seat.room for seat in seats)) > self._settings.max_ids:
            bad("too_many_ids", f"a socket registers {self._settings.max_ids} ids at most (setting max_ids)")
        holder = holder_of(sid, environ)
        rights = self._rights(message.get("token"), seats, holder, environ)
        expires = None if rights is None else rights.expires
        before = self._expiries.hold(holder, [seat.room for seat in seats if not seat.is_me], expires)
        if before:  # until now some may have been left because their time was up
            rooms = self._rooms(sid)
        try:
            told = {seat.name: self._recover(holder, seat, since[seat.name], seat.room in rooms) for seat in seats}
            if expires is not None and any(holder.until.get(room) != expires for room in before):
                rights.check_time()  # it ended meanwhile
        except (Refused, StoreError):
            for seat in seats:  # all of them or none
                if seat.room not in rooms:
                    self._leave(holder, seat.room)
            self._expiries.restore(holder, before)
            raise
        if rights is not None:
            self._expiries.grant(holder, rights)
        return {"ids": told}

    def unregister(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        holder = holder_of(sid, environ)
        for seat in self._seats(message, environ):
            self._leave(holder, seat.room)
            self._expiries.forget(holder, seat.room)

    def ack(self, message: Any, sid: str, environ: dict[str, Any]) -> None:
        """All up to this position has been dealt with, for every socket that asks for what is not acknowledged."""
        seats, position = self._seats(message, environ), message.get("position")
        if len(seats) > 1:
            bad("invalid_id", "a position is one id's: acknowledge each id on its own")
        seat = seats[0]
        if seat.room not in self._rooms(sid):
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
        push = checked(fields, self._settings)
        if push.wait:
            bad("invalid_wait", "only a push over HTTP can wait for an acknowledgement")
        for each in push.destinations:
            if rights is not None and not rights.push.allows(each):
                message = f"this page may not push to {each!r:.100}: its rights do not say so (claim push)"
                raise Refused(403, "not_allowed", message)
        return push

    # What the relay calls beside that.

    def each_second(self) -> None:
        """End what is over by the clock, and tell the sockets. Never waits."""
        for holder, rooms in self._expiries.take_due(time.time()):
            # What expires is never `me`: it has the name that its room has.
            ids = [room.partition(":")[2] for room in rooms]
            refusal = {"ok": False, "error": "token_expired", "message": EXPIRED, "ids": ids}
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
        rooms = [room for each in destinations for room in rooms_of(each)]
        # First these: who is no longer among them holds its rooms.
        coming = [sid for sid, theirs in list(self._coming.items()) if not theirs.isdisjoint(rooms)]
        return self._manager.disconnect_rooms(rooms, coming)

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
            question = holder.question = self._asker.ask(environ.get("HTTP_COOKIE", ""))
        if not question.is_settled:
            if self._manager.can_hold:
                raise Awaited(question.then)
            question.wait()
        holder.question = None
        return question.answer()

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

    def _rooms(self, sid: str) -> set[str]:
        return set(self._manager.get_rooms(sid, "/")) - {sid}

    def _enter(self, holder: Holder, room: str) -> None:
        try:
            self._manager.enter_room(holder.sid, "/", room)
        except (ValueError, KeyError):  # python-socketio's words for a room that nobody can enter any more
            bad("disconnected", "the socket was closed while it registered")

    def _leave(self, holder: Holder, room: str) -> None:
        self._manager.leave_room(holder.sid, "/", room)
        holder.left(room)

    def _leave_rooms(self, holder: Holder, rooms: list[str]) -> None:
        for room in rooms:
            self._leave(holder, room)

    # Recovery.

    def _recover(self, holder: Holder, seat: Seat, since: str | None, held: bool) -> dict[str, Any]:
        """Replay to the socket that asks what it missed, and let it into the room; what it is told about this id."""
        broker, sid, room, destination = self._broker, holder.sid, seat.room, seat.destination
        if since is not None:
            since = broker.acked(destination) if since == "acked" else seat.meant(since, broker.epoch)
        if held and (since is None or self._has_had(holder, seat, since)):
            position = seat.shown(broker.position(destination))
            return {"position": position, "recovered": since is not None, "replayed": 0}
        if held:  # it asks for more than it has had: all of that in order, and so what came live once more
            self._leave(holder, room)
        try:
            recovery = broker.recover(
                destination,
                since,
                send=lambda publication: self._manager.send_text(seat.text(publication), sid),
                join=lambda: self._enter(holder, room),
                pace=lambda: self._manager.pace(sid),
            )
        except StoreError:
            if held:
                with contextlib.suppress(Refused):
                    self._enter(holder, room)
            raise
        if recovery.recovered:
            holder.recovered_from(room, since)
        return {**recovery._asdict(), "position": seat.shown(recovery.position)}

    def _has_had(self, holder: Holder, seat: Seat, since: str) -> bool:
        """Whether a socket that is registered was sent all that came after a position."""
        first, last = holder.had_since(seat.room), self._broker.position(seat.destination)
        offset = offset_in(since, self._broker.epoch)
        if offset is None or offset > offset_of(last):
            return False
        return since == last or (first is not None and offset >= offset_of(first))


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
