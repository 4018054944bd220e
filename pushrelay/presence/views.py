"""The destinations that clients of this node watch, and what is sent to these clients."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

from pushrelay.errors import Refused
from pushrelay.rooms.rooms import Rooms
from pushrelay.store.members import Found

from .person import member_text
from .view import Ask, View

AGAIN_SECONDS = 0.1  # until the next attempt to answer a client that has not read enough
CANCELLED = "the page has ended this watch before the members were known"

log = logging.getLogger(__name__)


class Views:
    """Keeps the members of watched destinations. Any thread may call it.

    `lock` guards it. `load(destination)` is called without locks when a destination is watched for the first time;
    loaded() or failed() must be called for it. `unload(destination)` is called with locks when nobody watches it any
    more. `changed()` is called when there are events to send: flush() sends them.
    """

    def __init__(
        self,
        rooms: Rooms,
        lock: threading.RLock,
        load: Callable[[str], None],
        unload: Callable[[str], None],
        changed: Callable[[], None],
    ):
        self._rooms = rooms
        self._lock = lock
        self._load = load
        self._unload = unload
        self._changed = changed
        self._views: dict[str, View] = {}
        self._dirty: dict[View, None] = {}  # with events to send
        self.events = 0  # that were sent, each counted once

    def __contains__(self, destination: str) -> bool:
        return destination in self._views

    def destinations(self) -> Collection[str]:
        """Return the destinations that are watched."""
        return self._views.keys()

    def ids(self, destination: str) -> set[str]:
        """Return the ids of the members of a watched destination, as watchers know them."""
        view = self._views.get(destination)
        with self._lock:
            return set() if view is None else set(view.members)

    @property
    def watches(self) -> int:
        """The number of watchers; one that watches several destinations counts for each."""
        return self._rooms.watches

    # Questions.

    def ask(self, destination: str, ask: Ask) -> None:
        """Answer with the members, at once or when they are known here, and send the socket what changes from then on.

        It is refused with the reply if the socket may not watch any more.
        """
        with self._lock:
            view = self._views.get(destination)
            is_new = view is None
            if view is None:
                view = self._views[destination] = View(destination)
            view.asks.append(ask)
            is_loaded = view.is_loaded
        if is_new:
            self._load(destination)
        elif is_loaded:
            self.answer(destination)

    def loaded(self, destination: str, members: Iterable[Found]) -> None:
        """Note all members of a destination, unless they are known. Call answer() soon."""
        with self._lock:
            view = self._views.get(destination)
            if view is not None and not view.is_loaded:
                view.members = {each.id: (each.info_json, member_text(*each)) for each in members}
                view.is_loaded = True

    def answer(self, destination: str) -> None:
        """Answer the questions that have waited for loaded(), except those of sockets that must read other lists first.

        Several lists at once would look like a client that reads too slowly.
        """
        view, late = self._views.get(destination), []
        if view is None:
            return
        for ask in self._asks(view):
            if not self._rooms.has_room(ask.sid, view.size):
                late.append(ask)
                continue
            try:
                self._answer(view, ask)
            except Refused as error:
                ask.reply.refuse(error)
            except Exception:
                log.exception("a question for the members of a destination could not be answered")
        if late:
            self._answer_later(view, late)

    def _answer_later(self, view: View, asks: list[Ask]) -> None:
        with self._lock:
            view.asks += asks
            view.answering -= len(asks)
            is_timed, view.is_timed = view.is_timed, True
        if not is_timed:
            self._rooms.call_later(AGAIN_SECONDS, partial(self._answer_again, view))

    def _answer_again(self, view: View) -> None:
        view.is_timed = False
        self.answer(view.destination)

    def cancel(self, destination: str, sid: str) -> None:
        """Refuse the questions of a socket that wait, because it does not want to watch any more."""
        view = self._views.get(destination)
        if view is None or not view.asks:
            return
        with self._lock:
            cancelled = [each for each in view.asks if each.sid == sid]
            view.asks = [each for each in view.asks if each.sid != sid]
            self._drop_if_unused(view)
        for ask in cancelled:
            ask.reply.refuse(Refused(400, "bad_request", CANCELLED))

    def failed(self, destination: str, error: Refused) -> None:
        """Refuse the questions that wait, because the members cannot be read."""
        view = self._views.get(destination)
        if view is None:
            return
        for ask in self._asks(view):
            ask.reply.refuse(error)
            self._done(view)

    def _asks(self, view: View) -> list[Ask]:
        with self._lock:
            asks, view.asks = view.asks, []
            view.answering += len(asks)
        return asks

    def _answer(self, view: View, ask: Ask) -> None:
        """Answer a question that `view.answering` counts. Raises Refused."""
        try:
            with view.sending:
                with self._lock:
                    self._note_watcher(view, ask.sid)
                try:
                    ask.enter()
                except Refused:
                    self.left(view.destination, ask.sid)
                    raise
                with self._lock:
                    text = view.listing(ask.expires)
                    if view.pending:
                        view.starting[ask.sid] = len(view.pending)
                ask.reply.send(text)
        finally:
            self._done(view)
        ask.charge(len(text))

    def _done(self, view: View) -> None:
        with self._lock:
            view.answering -= 1
            self._drop_if_unused(view)

    def _note_watcher(self, view: View, sid: str) -> None:
        rooms = self._rooms
        rooms.watch_rooms += not view.watchers
        rooms.watches += sid not in view.watchers
        view.watchers.add(sid)

    def left(self, destination: str, sid: str) -> None:
        """Note that a socket watches a destination no longer. The lock of the rooms may be held."""
        view = self._views.get(destination)
        if view is None:
            return
        with self._lock:
            if sid in view.watchers:
                view.watchers.discard(sid)
                view.starting.pop(sid, None)
                self._rooms.watches -= 1
                self._rooms.watch_rooms -= not view.watchers
                self._drop_if_unused(view)

    def _drop_if_unused(self, view: View) -> None:
        if not view.watchers and not view.asks and not view.answering and self._views.get(view.destination) is view:
            del self._views[view.destination]
            self._dirty.pop(view, None)
            self._unload(view.destination)

    # Changes.

    def apply(self, destination: str, id_: str, info: str | None, since: float = 0.0) -> None:
        """Note that a member has come or changed, or has left (None). Any lock but a view's may be held."""
        view = self._views.get(destination)
        if view is None:
            return
        with self._lock:
            if view.is_loaded and view.apply(id_, info, since):
                self._dirty[view] = None
                self._changed()

    def flush(self) -> float:
        """Send what has changed; return the seconds that it took."""
        began = time.monotonic()
        while True:
            with self._lock:
                view = next(iter(self._dirty), None)
                if view is None:
                    return time.monotonic() - began
                del self._dirty[view]
            with view.sending:
                with self._lock:
                    events, first, starting = view.take()
                    self.events += len(events)
                view.send(self._rooms, events, first, starting)
