"""One `register` under way: the replay of each id, one after the other, and its room, for all ids or for none.

A register whose socket reads slowly holds no thread. It raises NotYet, and goes on once the socket has room.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from pushrelay.access.tokens import Rights
from pushrelay.errors import NotYet, bad
from pushrelay.store import Broker
from pushrelay.store.publication import Delivered, Publication, Recovery, offset_in, position_of
from pushrelay.store.replay import Replay

from .expiry import Expiries, SocketState
from .subscription import Subscription

# One socket is sent this much at a time, in bytes; then others have their turn. It takes one or two milliseconds.
TURN_BYTES = 65_536
# What a publication, and an id, count as at least: they take time however short they are.
LEAST_BYTES = 512
# How much work a replay is, in events: a tenth of an event for a publication, and one event for so many bytes.
EVENTS_EACH, BYTES_EACH = 0.1, 16_384
# How long to wait for what is being handed out to a socket that leaves. It takes milliseconds, unless another WSGI
# server's socket blocks.
FINISH_SECONDS = 1.0


class Registration:
    """A register of one socket. One thread at a time works on it; others may set `ended` and call let_finish().

    `state` is the socket's. `since` has a position, "acked" or None for each subscription by name. `on_gone(self)` is
    called if the socket is gone before the register is done.
    """

    def __init__(
        self,
        broker: Broker,
        manager: Any,
        expiries: Expiries,
        state: SocketState,
        subscriptions: list[Subscription],
        since: dict[str, str | None],
        on_gone: Callable[["Registration"], None],
    ):
        self.sid = state.sid
        self.subscriptions = subscriptions
        self.rooms = {subscription.room for subscription in subscriptions}
        self.ended = False  # the socket is being sent away, and nothing more may be sent to it
        self.has_waited = False  # go_on() is to be called again, and begin() is not
        self._cost = len(subscriptions) - 1.0  # in events, beyond the one that it is; not charged yet
        self._broker = broker
        self._manager = manager
        self._expiries = expiries
        self._state = state
        self._since = since
        self._on_gone = on_gone
        self._lock = threading.Lock()  # held while something is sent
        self._turn = 0  # bytes that may still be sent before others have their turn
        self._todo = deque(subscriptions)
        self._replay: Replay | None = None  # of the first subscription in _todo, once it has begun
        self._done: dict[str, Recovery] = {}  # by the subscription's name
        # From begin() on.
        self._rights: Rights | None = None
        self._before: dict[str, float | None] = {}  # for each room, until when it was held
        self._held: set[str] = set()  # rooms that the socket was in

    def begin(self, rights: Rights | None) -> None:
        """Let the socket hold these ids until `rights` end; None for rights without an end, or if none are needed."""
        self._rights = rights
        rooms = [subscription.room for subscription in self.subscriptions if not subscription.is_me]
        self._before = self._expiries.set_expiry(self._state, rooms, None if rights is None else rights.expires)
        # Not earlier: until now, some may have been left because their time was up.
        self._held = rooms_of_socket(self._manager, self.sid)

    def go_on(self) -> dict[str, dict[str, Any]]:
        """Return the answer for each id. Raises NotYet while the socket cannot take more, if the manager can wait.

        Raises Refused and StoreError. The socket holds then what it held before, or is closed and comes back.
        """
        with self._lock:
            self._turn = TURN_BYTES
            try:
                self._check(self._before)
                while self._todo:
                    if not self._register(self._todo[0]):
                        self._pause()
                    self._todo.popleft()
                    self._turn -= LEAST_BYTES
                    if self._turn <= 0 and self._todo and self._manager.has_outbox(self.sid):
                        self._pause()
                self._finish()
            except Exception:
                self._break_off()
                raise
        return {
            subscription.name: _answer(subscription, self._done[subscription.name])
            for subscription in self.subscriptions
        }

    def take_cost(self) -> float:
        """Return the cost of the work since this was last called, in events."""
        cost, self._cost = self._cost, 0.0
        return cost

    def let_finish(self, seconds: float) -> None:
        """Wait until nothing is being sent, but no longer than this."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()

    # The steps. The lock is held.

    def _check(self, rooms: Iterable[str] = ()) -> None:
        """Raise Refused if the socket is gone, or if its right to one of these rooms has ended."""
        if self.ended or not self._manager.is_connected(self.sid, "/"):
            bad("disconnected", "the socket was closed while it registered")
        rights, until = self._rights, self._state.until
        if rights is not None and (self.has_waited or any(until.get(room) != rights.expires for room in rooms)):
            rights.check_time()

    def _pause(self) -> NoReturn:
        """Give others their turn until the socket has room."""
        # A room whose time ended during this turn may have been entered after it was left.
        self._check(self._before)
        self.has_waited = True
        raise NotYet(self._call_when_clear)

    def _register(self, subscription: Subscription) -> bool:
        """Replay one id and enter its room. False if the socket cannot take more now."""
        if self._replay is None:
            since = self._meant(subscription)
            if subscription.room in self._held and (position := self._has_had(subscription, since)) is not None:
                self._done[subscription.name] = Recovery(position, since is not None, 0)
                return True
            if since is None:
                self._join(subscription)
                return True
            self._replay = self._replay_of(subscription, since)
        replay = self._replay
        if not replay.go_on():
            return False
        self._replay = None
        if replay.has_joined:
            self._state.entered(subscription.room, replay.epoch, replay.first)
        self._done[subscription.name] = replay.recovery()
        return True

    def _join(self, subscription: Subscription) -> None:
        """Enter the room of an id that is live from now."""
        delivered = self._broker.join(subscription.destination, lambda: self._enter(subscription.room))
        self._state.entered(subscription.room, delivered.epoch, delivered.offset)
        self._done[subscription.name] = Recovery(delivered.position, False, 0)

    def _replay_of(self, subscription: Subscription, since: str | None) -> Replay:
        state, manager, room = self._state, self._manager, subscription.room
        return self._broker.replay(
            subscription.destination,
            since,
            send=lambda publication: self._send(subscription, publication),
            join=lambda: self._enter(room),
            # What it asks for comes in order, so what came live comes once more, and nothing live in between.
            leave=(lambda: leave(manager, state, room)) if room in self._held else None,
            sid=self.sid,
        )

    def _enter(self, room: str) -> None:
        self._check((room,))  # the stripe's lock is held: a close() that comes later finds the socket in the room
        enter(self._manager, self._state, room)

    def _send(self, subscription: Subscription, publication: Publication) -> bool:
        """Send one publication of a replay; False if it has to wait."""
        self._check()
        if self._turn <= 0 and self._manager.has_outbox(self.sid):
            return False
        if not self._manager.has_room(self.sid, len(publication.text)):
            return False  # before the event is built: it would be built again for the next try
        text = subscription.text(publication)
        if not self._manager.send_if_clear(text, self.sid):
            return False
        self._turn -= max(len(text), LEAST_BYTES)
        self._cost += EVENTS_EACH + len(text) / BYTES_EACH
        return True

    def _finish(self) -> None:
        if self.has_waited:
            for subscription in self.subscriptions:  # the first ones have been handed more since they were done
                self._done[subscription.name] = _moved_on(
                    self._done[subscription.name], self._broker.delivered(subscription.destination)
                )
        # Last: if the socket has left a room by now, a position above may be beyond what it was handed.
        self._check(self._before)
        if self._rights is not None:
            self._expiries.grant(self._state, self._rights)

    def _break_off(self) -> None:
        """Leave the socket in those rooms that it was in, and in no other."""
        replay, self._replay = self._replay, None
        if replay is not None:
            replay.close()
        for subscription in self.subscriptions:
            if subscription.room not in self._held:
                leave(self._manager, self._state, subscription.room)
        held = rooms_of_socket(self._manager, self.sid)
        before = {room: until if room in held else None for room, until in self._before.items()}
        self._expiries.restore(self._state, before)
        for subscription in self.subscriptions:
            self._broker.let_finish(subscription.destination, FINISH_SECONDS)
        if replay is not None and replay.has_left:
            # It was in, and missed what was handed out since it left: it has to come back with its last position.
            self._manager.close_transport(self.sid)

    # Positions.

    def _meant(self, subscription: Subscription) -> str | None:
        """Return the position in this store from which on a subscription's id is asked for."""
        since = self._since[subscription.name]
        if since is None:
            return None
        return (
            self._broker.acked(subscription.destination)
            if since == "acked"
            else subscription.meant(since, self._broker.epoch)
        )

    def _has_had(self, subscription: Subscription, since: str | None) -> str | None:
        """Return the position up to which a socket in this room has been handed all that came after `since`.

        None if something that came after `since` was not handed to it.
        """
        delivered = self._broker.delivered(subscription.destination)
        if since is None:
            return delivered.position
        offset, first = offset_in(since, delivered.epoch), self._state.handed_since(subscription.room, delivered.epoch)
        if offset is None or offset > delivered.newest:
            return None
        if offset > delivered.offset:  # it knows this one from elsewhere, and what comes later is yet to be handed out
            return position_of(delivered.epoch, offset)
        return delivered.position if first is not None and first <= offset else None

    # Waiting.

    def _call_when_clear(self, callback: Callable[[], None]) -> None:
        def go_on() -> None:
            if self.ended or not self._manager.is_connected(self.sid, "/"):
                self._end()
            callback()

        self._manager.call_when_clear(self.sid, go_on)

    def _end(self) -> None:
        """The socket is gone."""
        with self._lock:
            replay, self._replay = self._replay, None
        if replay is not None:
            replay.close()
        self._on_gone(self)


def _moved_on(done: Recovery, delivered: Delivered) -> Recovery:
    """Return how a socket stands that has been in the room since it was done."""
    offset = offset_in(done.position, delivered.epoch)
    if offset is None:  # the store lost something in the meantime
        return Recovery(delivered.position, False, done.replayed)
    return done if offset > delivered.offset else done._replace(position=delivered.position)


def _answer(subscription: Subscription, done: Recovery) -> dict[str, Any]:
    return {"position": subscription.shown(done.position), "recovered": done.recovered, "replayed": done.replayed}


def rooms_of_socket(manager: Any, sid: str) -> set[str]:
    return set(manager.get_rooms(sid, "/")) - {sid}


def enter(manager: Any, state: SocketState, room: str) -> None:
    try:
        manager.enter_room(state.sid, "/", room)
    except (ValueError, KeyError):  # python-socketio's words for a room that nobody can enter any more
        bad("disconnected", "the socket was closed while it registered")


def leave(manager: Any, state: SocketState, room: str) -> None:
    """Take a socket out of a room. A publication under way may still reach it: see Broker.let_finish()."""
    manager.leave_room(state.sid, "/", room)
    state.left(room)
