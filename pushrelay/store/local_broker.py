"""The broker whose order is determined in this process: it hands out this process's publications, over any store.

A publication is stored in a transaction that it shares with others (group_commit.py), queued with others of its stripe
in the order of the offsets, and handed out by whoever holds the stripe's lock (stripe.py). Holding a destination's
lock over the commit would be simpler, but then a busy destination would wait for one fsync per push.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from pushrelay.counters import Family
from pushrelay.errors import StoreError

from .archive import Archive
from .base_broker import BaseBroker, overtaken, require_pushed
from .broker import Stored
from .dispatcher import Dispatcher, unreached
from .events import Events, LocalEvents
from .group_commit import GroupCommit, Job
from .keys import Keys
from .nodes import Clients
from .publication import Mark, Publication, Survey
from .store import CLOSED, HistoryLimits, Store
from .stripe import NOT_STORED, Deliver, Pending

log = logging.getLogger(__name__)

SWEEP_EVERY = 64  # publications between two sweeps; each sweep can drop more than that


class LocalBroker(BaseBroker):
    """A Broker: see there for its methods.

    `deliver(publication, skip_sid)` hands one publication to the sockets of its destination and returns their number.
    It is called by one thread at a time for each destination, in the order of the offsets, and must not call the
    broker itself. `clock` returns the seconds since 1970.
    """

    is_shared = False

    def __init__(self, store: Store, deliver: Deliver, limits: HistoryLimits, clock: Callable[[], float] = time.time):
        self._clients: Clients | None = None
        self.trouble: str | None = None  # why the last transaction stored nothing, until one does
        self._store = store
        self._clock = clock
        self._group_commit = GroupCommit(self._run)
        self._keys = Keys(store)
        self.events: Events | None = None if store.events is None else LocalEvents(store.events, self._group_commit)
        super().__init__(store, Archive(store, limits, clock), Dispatcher(store, deliver))
        self._committing = self._dispatcher.committing
        self._placed: list[Pending] = []  # the items of the present transaction, in order
        self._unavailable: str | None = CLOSED  # why transactions are refused; None while they are not
        self._unswept = 0  # publications since the last sweep; a lost count delays a sweep by as much
        self._swept = 0  # publications before it

    def start(self) -> None:
        """Open the store. Raises StoreError with what is wrong and what to do; after that, it may be called again."""
        try:
            self._store.open()
        except StoreError as error:
            self._unavailable = str(error)
            raise
        self._unavailable = self.trouble = None

    # Publishing.

    def publish_pending(self, items: list[Pending]) -> None:
        """Store items in one transaction, and hand each out."""
        if items:
            self.store(items)
            self.hand_out(items)
            self.sweep_after(len(items))

    def mark(self, name: str) -> str:
        """Return the text of a mark."""
        return self._group_commit.run(lambda: self._store.mark(name))

    def publish_pending_marked(self, items: list[Pending], mark: Mark) -> None:
        """Store items and set a mark in one transaction, and hand each out."""
        # Others share the transaction, so it must not fail because of a mark.
        if not self._group_commit.run(lambda: self._append_marked(items, mark)):
            raise overtaken(mark)
        self.hand_out(items)
        self.sweep_after(len(items))

    def store(self, items: list[Pending]) -> None:
        """Store items in one transaction. Raises StoreError; then none was stored."""
        self._group_commit.run(lambda: self._store.append(items, self._clock(), self._place, self._keys.is_repeat))

    def store_soon(self, items: list[Pending], stored: Stored) -> None:
        """Store items in one transaction, in this thread, and call `stored(error)`."""
        error: StoreError | None = None
        try:
            self.store(items)
        except StoreError as refused:
            # A copy: the traceback refers to this call and thus to the error itself, which would be a reference cycle.
            error = StoreError(str(refused), refused.public)
        stored(error)

    def hand_out(self, items: list[Pending], most: float = math.inf) -> list[Pending]:
        """Hand out items, and those that they repeat: see Broker."""
        left: list[Pending] = []
        least = -most  # a publication for many clients may take `most`, and those for few that come with it as much
        try:
            for item in items:
                first = item.first or item
                if (stripe := first.stripe) is not None:
                    if most > least:
                        with stripe.lock:
                            most = stripe.drain(most)
                    if first.stripe is not None:
                        left.append(item)
        finally:
            if self._keys.pending:
                unfinished = set(left)
                self._finish_keys([item for item in items if item not in unfinished])
        return left

    def sweep_after(self, count: int) -> None:
        """Drop as much as `count` publications may have made superfluous."""
        self._unswept += count
        if self._unswept < SWEEP_EVERY:
            return
        unswept, self._unswept = self._unswept, 0
        self._swept += unswept
        steps = 8 * (unswept // SWEEP_EVERY)
        with contextlib.suppress(StoreError):  # the publications are stored, and their publishers learn that
            while steps > 0 and self.sweep():
                steps -= 1

    # The transaction.

    def _run(self, jobs: list[Job[Any]]) -> None:
        """Do the work of all jobs in one transaction, and queue what it stored; either all of it or nothing."""
        committed = False
        try:
            if self._unavailable is not None:
                raise StoreError(self._unavailable)
            self._store.transact(jobs)
            for item in self._placed:
                item.stripe = stripe = self._stripe_of(item.destination)
                stripe.queue.append(item)
            committed = True
            if self._placed:
                self.trouble = None
        except StoreError as error:
            self.trouble = str(error)
            raise
        except Exception as error:
            log.exception("the store failed")
            self.trouble = f"the store failed ({error!r}): see the log"
            raise StoreError(self.trouble) from error
        finally:
            if not committed:
                for item in self._placed:
                    self._keys.pending.pop(item.key, None)
            self._placed = []
            self._committing.clear()

    def _append_marked(self, items: list[Pending], mark: Mark) -> bool:
        """Do so in the present transaction, unless the mark is another one; return whether it was done."""
        if self._store.mark(mark.name) != mark.before:
            return False
        self._store.set_mark(mark.name, mark.after)
        self._store.append(items, self._clock(), self._place, self._keys.is_repeat)
        return True

    def _place(self, item: Pending, offset: int, now: float, expires: float) -> None:
        """Give an item its offset, and keep it for handing out. The store calls this for each item that it stores."""
        item.offset = offset
        item.position = position = f"{self._store.epoch}:{offset}"
        # Here and for cursors: like _make(), without a call of Python in between.
        item.publication = tuple.__new__(Publication, (item.destination, position, item.event, item.text, now, expires))
        self._committing.setdefault(item.destination, offset)
        self._placed.append(item)
        if item.use is not None:
            self._keys.pending[item.key] = item

    def _finish_keys(self, items: list[Pending]) -> None:
        """Store the receipts of items with a key, for publishers that repeat the key after a restart."""
        firsts = [item for item in items if item.use is not None and item.publication is not NOT_STORED]
        if not firsts:
            return
        counted = [item for item in firsts if item.connections]
        if counted:
            # The items are accepted whether this works or not; if it fails, the receipt of a repeated push has no
            # connections.
            with contextlib.suppress(StoreError):
                self._group_commit.run(lambda: self._store.set_connections(counted))
        for item in firsts:
            del self._keys.pending[item.key]

    # Clients.

    def _hold(self, destination: str) -> None:
        """Do nothing: every destination is handed out."""

    def ack(self, destination: str, position: str, sid: str = "") -> None:
        """Acknowledge everything up to a position. One that is earlier than acknowledged before changes nothing."""
        offset, tip = self._offset_to_ack(position), self._store.tip(destination)
        require_pushed(offset, tip.offset)
        if offset > tip.acked:
            self._group_commit.run(lambda: self._store.ack(destination, offset))

    # Methods for several relays. This broker belongs to one.

    def attach(self, clients: Clients) -> None:
        """Have the clients of this node take part."""
        self._clients = clients

    def changed(self, destination: str, is_empty: bool) -> None:
        """Do nothing: nobody else wants to know it."""

    def expect(self, destination: str, offset: int, seconds: float) -> None:
        """Do nothing: who acknowledges here reports it."""

    def elsewhere(self, destinations: list[str]) -> dict[str, tuple[int, float]]:
        """Return nothing: there are no connections elsewhere."""
        return {}

    def close_connections(self, destinations: list[str]) -> dict[str, Any]:
        """Disconnect the sockets of destinations, and return their number as `closed`."""
        return {"closed": 0 if self._clients is None else self._clients.close(destinations)}

    # Maintenance.

    def sweep(self) -> bool:
        """Drop a little of what the limits no longer allow; return whether there is more."""
        if self.trouble:
            self._group_commit.run(self._store.probe)
            self.trouble = None
        return self._group_commit.run(lambda: self._store.retain(self._clock()))

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the publications and of the store. Any thread may call it; it does not wait."""
        help_ = "Publications of accepted pushes: one for each destination."
        yield Family("relay_publications_total", "counter", help_, self._swept + self._unswept)
        yield self._dispatcher.deliveries()
        yield unreached(sum(stripe.unreached for stripe in self._dispatcher.stripes))
        yield from self._store.metrics()

    def survey(self, seconds: float) -> Survey | None:
        """Count what is kept; return None if that takes longer than `seconds`. Raises StoreError."""
        return self._store.survey(self._clock(), seconds)

    def flush(self) -> None:
        """Move everything that was accepted to its permanent place in the store. Raises StoreError."""
        self._group_commit.run(self._store.flush)

    def close(self) -> None:
        """Wait for the current transaction, and close the store. Later calls raise StoreError."""
        self._group_commit.exclusive(self._close_once)

    def _close_once(self) -> None:
        if self._unavailable is None:
            self._unavailable = CLOSED
            self._store.close()
