"""One `register` in progress: the replay of each id, one after another, and its room, for all ids or for none.

If the history of one id cannot be read, the socket is in none of the rooms that it asked for. relay.js treats that as a
lost connection and retries with its usual delays.

A register whose socket reads slowly holds no thread: it raises NotYet, and continues when the socket can take more.

It reads positions first and checks last that the socket still holds its rooms. So no answer includes a publication that
came after another thread removed the socket from a room.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

from pushrelay.access.tokens import Rights
from pushrelay.errors import NotYet, bad
from pushrelay.rooms.rooms import Rooms
from pushrelay.store import Broker
from pushrelay.store.base_broker import AGAIN_SECONDS
from pushrelay.store.publication import Delivered, Publication, Recovery, may_be_position, offset_in, position_of
from pushrelay.store.replay import Replay

from .expiry import Expiries
from .membership import Admission, Membership, is_watch
from .socket_state import SocketState
from .subscription import Subscription, destination_in

# How a registration ended for one id: the socket got everything after its position, or something was missing, or it
# asked for nothing.
RECOVERED, LOST, NONE = "recovered", "lost", "none"
RESULTS = (RECOVERED, LOST, NONE)
# Bytes that one socket is sent at a time; then other sockets have their turn. It takes one or two milliseconds.
TURN_BYTES = 65_536
# Minimum bytes that a publication or an id counts as: each takes time, however short it is.
LEAST_BYTES = 512
# The work of a replay, in events: a tenth of an event for each publication, and one event for each BYTES_EACH.
EVENTS_EACH, BYTES_EACH = 0.1, 16_384
# Seconds to wait for a delivery in progress to a socket that leaves. It takes milliseconds, unless a socket of another
# WSGI server blocks.
FINISH_SECONDS = 1.0


class Registration:
    """A `register` of one socket. One thread at a time works on it; others may set `ended` and call let_finish().

    `since` has a position, "acked" or None for each subscription by name. `on_gone(self)` is called if the socket
    disconnects before the register is done.
    """

    def __init__(
        self,
        broker: Broker,
        manager: Rooms,
        expiries: Expiries,
        state: SocketState,
        subscriptions: list[Subscription],
        since: dict[str, str | None],
        membership: Membership,
        on_gone: Callable[["Registration"], None],
    ):
        self.sid = state.sid
        self.subscriptions = subscriptions
        self.rooms = {subscription.room for subscription in subscriptions}
        self.ended = False  # the socket is being disconnected, and nothing more may be sent to it
        self.has_waited = False  # if so, run() is called again, without begin()
        self._cost = len(subscriptions) - 1.0  # in events, beyond its own event; not charged yet
        self._broker = broker
        self._manager = manager
        self._expiries = expiries
        self._state = state
        self._since = since
        self._membership = membership
        self._on_gone = on_gone
        self._lock = threading.Lock()  # held while something is sent
        self._turn = 0  # bytes that may still be sent before others have their turn
        self._todo = deque(subscriptions)
        self._replay: Replay | None = None  # of the first subscription in _todo, once it has begun
        self._done: dict[str, Recovery] = {}  # by the subscription's name
        # From begin() on.
        self._rights: Rights | None = None
        self._admission: Admission | None = None  # until it is settled or withdrawn
        self._expiry_before: dict[str, float | None] = {}  # by room
        self._rooms_before: set[str] = set()

    def begin(self, rights: Rights | None) -> None:
        """Let the socket hold these ids until its rights end. `rights` is None if no rights are needed.

        Raises Refused if a destination has too many members, and StoreError.
        """
        self._rights = rights
        names = [subscription.name for subscription in self.subscriptions if not subscription.is_me]
        self._admission = self._membership.admit(self.sid, names, None if rights is None else rights.member)
        rooms = [subscription.room for subscription in self.subscriptions if not subscription.is_me]
        self._expiry_before = self._expiries.set_expiry(self._state, rooms, self._expires)
        # Read after that: until then the time of some rooms may have ended.
        self._rooms_before = rooms_of_socket(self._manager, self.sid)

    def run(self) -> dict[str, dict[str, Any]]:
        """Replay and join; return the answer for each id.

        Raises NotYet while the socket cannot take more, if handlers may be deferred. Raises Refused and StoreError: the
        socket then holds what it held before, or it is closed and will reconnect.
        """
        with self._lock:
            self._turn = TURN_BYTES
            try:
                self._check(self._expiry_before)
                while self._todo:
                    if not self._register(self._todo[0]):
                        self._pause()
                    self._todo.popleft()
                    self._turn -= LEAST_BYTES
                    if self._turn <= 0 and self._todo and self._manager.has_outbox(self.sid):
                        self._pause()
                self._finish()
            except Exception:
                self._roll_back()
                raise
        return {each.name: _answer(each, self._done[each.name]) for each in self.subscriptions}

    def expires_in(self, now: float) -> dict[str, int]:
        """Return the field of the answer that has the seconds until the right to these ids ends, if it does."""
        expires = self._expires
        return {} if expires is None else {"expires_in": max(0, int(expires - now))}

    def recoveries(self) -> Iterator[tuple[str, int]]:
        """Yield for each id whether the socket got what it had missed, and the number of publications replayed.

        The words are those of RESULTS. The registration is complete.
        """
        for name, done in self._done.items():
            asked = self._since[name] is not None
            yield (RECOVERED if done.recovered else LOST) if asked else NONE, done.replayed

    def inboxes(self) -> list[str]:
        """Return the destinations of which the socket asked for what was not acknowledged."""
        return [each.destination for each in self.subscriptions if self._since[each.name] == "acked"]

    def losses(self) -> list[tuple[str, str]]:
        """Return the destinations of which something is missing, each with the position after which it is.

        A text that is no position was never given out, so nothing is missing. The registration is complete.
        """
        asked = [(each, self._since[each.name]) for each in self.subscriptions if not self._done[each.name].recovered]
        given = [(each.destination, since) for each, since in asked if since]
        return [(destination, since) for destination, since in given if since == "acked" or may_be_position(since)]

    def take_cost(self) -> float:
        """Return the cost of the work since this was last called, in events."""
        cost, self._cost = self._cost, 0.0
        return cost

    def let_finish(self, seconds: float) -> None:
        """Wait until nothing is being sent, but at most this number of seconds."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()

    @property
    def _expires(self) -> float | None:
        return None if self._rights is None else self._rights.expires

    # The steps. The lock is held.

    def _check(self, rooms: Iterable[str] = ()) -> None:
        """Raise Refused if the socket has disconnected, or if its right to one of these rooms has ended."""
        if self.ended or not self._manager.is_connected(self.sid, "/"):
            bad("disconnected", "the socket was closed while it registered")
        rights, expiry = self._rights, self._state.expiry
        if rights is not None and (self.has_waited or any(expiry.get(room) != rights.expires for room in rooms)):
            rights.check_time()

    def _pause(self) -> NoReturn:
        """Let others have their turn until the socket can take more."""
        # A room whose time ended during this turn may have been entered after that.
        self._check(self._expiry_before)
        self.has_waited = True
        is_ahead = self._replay is not None and self._replay.is_ahead
        raise NotYet(self._call_again if is_ahead else self._call_when_clear)

    def _register(self, subscription: Subscription) -> bool:
        """Replay one id and enter its room. Return False if the socket cannot take more now."""
        if self._replay is None:
            since = self._since_in_store(subscription)
            if subscription.room in self._rooms_before:
                position = self._position_if_complete(subscription, since)
                if position is not None:
                    self._done[subscription.name] = Recovery(position, since is not None, 0)
                    return True
            if since is None:
                self._join(subscription)
                return True
            self._replay = self._replay_of(subscription, since)
        replay = self._replay
        while not replay.go_on():
            if self._manager.can_defer or not replay.is_ahead:
                return False
            time.sleep(AGAIN_SECONDS)
        self._replay = None
        if replay.has_joined:
            self._state.entered(subscription.room, replay.epoch, replay.first)
        self._done[subscription.name] = replay.recovery()
        return True

    def _join(self, subscription: Subscription) -> None:
        """Enter the room of an id without a replay."""
        delivered = self._broker.join(subscription.destination, lambda: self._enter(subscription.room))
        self._state.entered(subscription.room, delivered.epoch, delivered.offset)
        self._done[subscription.name] = Recovery(delivered.position, False, 0)

    def _replay_of(self, subscription: Subscription, since: str) -> Replay:
        state, manager, room = self._state, self._manager, subscription.room
        return self._broker.replay(
            subscription.destination,
            since,
            send=lambda publication: self._send(subscription, publication),
            join=lambda: self._enter(room),
            # A socket that is in the room leaves it, so that nothing live comes between the publications of the replay.
            leave=(lambda: leave(manager, state, room)) if room in self._rooms_before else None,
            sid=self.sid,
        )

    def _enter(self, room: str) -> None:
        # The broker calls this with the lock of the destination held, so a close() that comes later finds the socket in
        # the room.
        self._check((room,))
        enter(self._manager, self._state, room)

    def _send(self, subscription: Subscription, publication: Publication) -> bool:
        """Send one publication of a replay. Return False if it must wait."""
        self._check()
        if self._turn <= 0 and self._manager.has_outbox(self.sid):
            return False
        if not self._manager.has_room(self.sid, len(publication.text)):
            return False  # before the event is built, or it would be built again for the next attempt
        text = subscription.text(publication)
        if not self._manager.send_if_clear(text, self.sid):
            return False
        self._turn -= max(len(text), LEAST_BYTES)
        self._cost += EVENTS_EACH + len(text) / BYTES_EACH
        return True

    def _finish(self) -> None:
        if self.has_waited:
            for each in self.subscriptions:  # the first ones have been sent more since they were completed
                self._done[each.name] = _moved_on(self._done[each.name], self._broker.delivered(each.destination))
        # Last: if the socket has left a room by now, a position above may be beyond what it was sent.
        self._check(self._expiry_before)
        if self._rights is not None:
            self._expiries.grant(self._state, self._rights)
            self._prolong_watches(self._rights)
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.settle()

    def _prolong_watches(self, rights: Rights) -> None:
        """Let the socket watch what it watches until these rights end, if they allow it."""
        if rights.presence and self._state.expiry:
            watched = [room for room in rooms_of_socket(self._manager, self.sid) if is_watch(room)]
            rooms = [room for room in watched if rights.presence.allows(destination_in(room))]
            self._expiries.set_expiry(self._state, rooms, rights.expires)

    def _roll_back(self) -> None:
        """Leave the socket only in the rooms that it was in before."""
        replay, self._replay = self._replay, None
        if replay is not None:
            replay.close()
        self._withdraw()
        for subscription in self.subscriptions:
            if subscription.room not in self._rooms_before:
                leave(self._manager, self._state, subscription.room)
        rooms = rooms_of_socket(self._manager, self.sid)
        before = {room: expires if room in rooms else None for room, expires in self._expiry_before.items()}
        self._expiries.restore(self._state, before)
        for subscription in self.subscriptions:
            self._broker.let_finish(subscription.destination, FINISH_SECONDS)
        if replay is not None and replay.has_left:
            # It missed what was delivered since it left the room, so it must reconnect with its last position.
            self._manager.close_transport(self.sid)

    def _withdraw(self) -> None:
        """Give back the places of the user."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.withdraw()

    # Positions.

    def _since_in_store(self, subscription: Subscription) -> str | None:
        """Return the position in this store after which the publications of an id are asked for."""
        since = self._since[subscription.name]
        if since is None:
            return None
        if since == "acked":
            return self._broker.acked(subscription.destination)
        return subscription.position_in_store(since, self._broker.epoch)

    def _position_if_complete(self, subscription: Subscription, since: str | None) -> str | None:
        """Return the position up to which a socket in this room has been sent everything after `since`.

        Return None if something after `since` was not sent to it.
        """
        delivered = self._broker.delivered(subscription.destination)
        if since is None:
            return delivered.position
        offset = offset_in(since, delivered.epoch)
        first = self._state.delivered_since(subscription.room, delivered.epoch)
        if offset is None or offset > delivered.newest:
            return None
        if offset > delivered.offset:
            # The client knows this position from elsewhere, such as the answer to a push. Later publications will
            # be delivered.
            return position_of(delivered.epoch, offset)
        return delivered.position if first is not None and first <= offset else None

    # Waiting.

    def _call_when_clear(self, callback: Callable[[], None]) -> None:
        self._manager.call_when_clear(self.sid, partial(self._resume, callback))

    def _call_again(self, callback: Callable[[], None]) -> None:
        self._manager.call_later(AGAIN_SECONDS, partial(self._resume, callback))

    def _resume(self, callback: Callable[[], None]) -> None:
        if self.ended or not self._manager.is_connected(self.sid, "/"):
            self._end()
        callback()

    def _end(self) -> None:
        """Close the replay of a socket that has disconnected."""
        with self._lock:
            replay, self._replay = self._replay, None
            self._withdraw()
        if replay is not None:
            replay.close()
        self._on_gone(self)


def _moved_on(done: Recovery, delivered: Delivered) -> Recovery:
    """Return the recovery of a socket that has been in the room since it was done."""
    offset = offset_in(done.position, delivered.epoch)
    if offset is None:  # since then the store has lost something and begun a new epoch
        return Recovery(delivered.position, False, done.replayed)
    return done if offset > delivered.offset else done._replace(position=delivered.position)


def _answer(subscription: Subscription, done: Recovery) -> dict[str, Any]:
    position = subscription.shown_position(done.position)
    return {"position": position, "recovered": done.recovered, "replayed": done.replayed}


def rooms_of_socket(manager: Rooms, sid: str) -> set[str]:
    """Return the rooms that a socket is in, without its own."""
    return set(manager.get_rooms(sid, "/")) - {sid}


def enter(manager: Rooms, state: SocketState, room: str) -> None:
    """Put a socket into a room. Raises Refused if it has disconnected."""
    try:
        manager.enter_room(state.sid, "/", room)
    except (ValueError, KeyError):  # from python-socketio
        bad("disconnected", "the socket was closed while it registered")


def leave(manager: Rooms, state: SocketState, room: str) -> None:
    """Take a socket out of a room. A delivery under way may still reach it: see Broker.let_finish()."""
    manager.leave_room(state.sid, "/", room)
    state.left(room)
