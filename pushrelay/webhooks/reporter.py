"""The thread that queues events, and finds out whether this relay is the one that sends them.

It gathers what happened for some milliseconds, so that many events share one transaction. Nothing that serves a client
waits for the store.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pushrelay.errors import StoreError
from pushrelay.store.events import Event, Events, LeaseLost, Note

from .inboxes import EXPIRED, INBOX, Inboxes
from .losses import Losses
from .tracker import MEMBER, ONLINE, Tracker

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.02  # between two transactions
ROUND_SECONDS = 1.0  # between two rounds of what is not urgent
WANT_SECONDS = 10.0  # between two reminders for a shared store that webhooks are wanted
LOAD_SECONDS = 15.0  # between two looks at the inboxes that other relays know
RESTART_SECONDS = 30.0  # for which clients may be away after a restart, besides drain_spread
MOST_PENDING = 10_000  # events that wait while the store cannot be written; beyond it the oldest are dropped
MOST_STEPS = 20  # transactions between two rounds; more wait for the next time
LOOKS = 4  # at inboxes in one round, each at some of them; one look if the store is not in this process


class Clients(Protocol):
    """The clients of this relay, as webhooks see them."""

    def holders(self, destination: str) -> tuple[int, float]:
        """Return the number of sockets that hold a destination, and since when one does."""

    def destinations(self) -> list[str]:
        """Return the destinations that sockets hold."""

    @property
    def is_draining(self) -> Callable[[], bool]:
        """Whether the relay sends its clients away, because it is about to end."""

    def report_changes(self, changed: Callable[[str, bool], None]) -> None:
        """Have `changed(destination, is_empty)` called when a client has registered or left a destination."""

    def stop_reporting(self, changed: Callable[[str, bool], None]) -> None:
        """Do not call it any more."""

    def report_use(
        self, on_inbox: Callable[[str], None] | None, on_lost: Callable[[str, str, str], None] | None
    ) -> None:
        """Have these called, or with None nothing: see Registrations.on_inbox and on_lost."""


class Reporter:
    """The thread. `wants(event)` returns whether some URL gets an event.

    `send(is_sender)` is called in each round, with whether this relay sends. `reports` is false if no event is wanted:
    then only what pages send is delivered.
    """

    def __init__(
        self,
        queue: Events,
        inboxes: Inboxes,
        wants: Callable[[Event], bool],
        send: Callable[[bool], None],
        clients: Clients,
        reports: bool,
    ):
        self.error = ""  # why the store could not be used; empty while it can
        self.dropped = 0  # events, because the store could not be written for long
        self.reports = reports
        self.losses = Losses()
        self.tracker: Tracker | None = None  # if this relay itself reports who is online
        if reports and not queue.reports_presence:
            self.tracker = Tracker(lambda destination: clients.holders(destination)[0] > 0, self.wake)
        self._queue = queue
        self._inboxes = inboxes
        self._wants = wants
        self._send = send
        self._clients = clients
        self._grace, self._restart = 5.0, RESTART_SECONDS  # seconds; see Events.keep_reporting()
        self._events: list[Event] = []  # that are not stored yet
        self._notes: dict[tuple[str, str], Note] = {}  # likewise, by kind and key
        self._is_loaded = False
        self._is_sender = False
        self._next_round = self._next_want = self._next_load = 0.0  # monotonic
        self._is_closed = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def use(self, grace: float, spread: float) -> None:
        """Use the settings presence_grace and drain_spread."""
        self._grace, self._restart = grace, RESTART_SECONDS + spread
        if self.tracker is not None:
            self.tracker.grace = grace

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have what happened queued soon. It never blocks; any thread may call it with any lock held."""
        if not self._woken.is_set():
            self._woken.set()

    def renew(self) -> None:
        """Begin the next round at once, as after a change of the settings."""
        self._next_round = self._next_want = 0.0
        self.wake()

    def close(self, seconds: float) -> None:
        """Queue what happened, and end the thread; wait at most this time. Another relay may send then."""
        self._is_closed = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(seconds)

    # The thread.

    def _run(self) -> None:
        while not self._is_closed:
            self._woken.clear()
            self._attempt()
            if not self._is_closed:
                time.sleep(GATHER_SECONDS)
                self._woken.wait(self._seconds_left())
        if self._is_loaded:
            self._attempt()
        self._release()

    def _seconds_left(self) -> float:
        left = min(ROUND_SECONDS, max(0.0, self._next_round - time.monotonic()))
        return left if self.tracker is None or self.error else min(left, self.tracker.seconds_left())

    def _attempt(self) -> None:
        try:
            if not self._is_loaded:
                self._load()
            for _ in range(MOST_STEPS):
                self._gather()
                self._store()
                if self.tracker is None or self.tracker.seconds_left():
                    break
            if time.monotonic() >= self._next_round and not self._is_closed:
                self._next_round = time.monotonic() + ROUND_SECONDS
                self._round()
            self.error = ""
        except LeaseLost:
            self._is_sender, self._next_round = False, 0.0
        except StoreError as error:
            self.error = str(error)
            self._drop_surplus()
        except Exception:  # without this thread nothing is reported any more
            log.exception("webhooks: an event could not be queued; it continues")
            self._next_round = time.monotonic() + ROUND_SECONDS

    def _load(self) -> None:
        """Read what was reported before this relay was started. Raises StoreError."""
        if self.tracker is not None:
            online, members = self._queue.notes(ONLINE), self._queue.notes(MEMBER)
            self.tracker.load(online, members, self._restart)
            self.tracker.found(self._clients.destinations())
        self._is_loaded = True

    def _gather(self) -> None:
        """Take what happened since the last time."""
        if not self.reports:
            return
        events, notes = ([], []) if self.tracker is None else self.tracker.step()
        self._add(events + self.losses.take(), notes + self._inboxes.take_used())

    def _add(self, events: list[Event], notes: list[Note]) -> None:
        self._events += filter(self._wants, events)
        self._notes |= {(note.kind, note.key): note for note in notes}

    def _drop_surplus(self) -> None:
        """Drop the oldest events, if many wait because the store cannot be written."""
        surplus = len(self._events) - MOST_PENDING
        if surplus > 0:
            self.dropped += surplus
            del self._events[:surplus]

    def _store(self) -> None:
        """Queue what was gathered. Raises StoreError; then it is tried again later."""
        if self._events or self._notes:
            try:
                self._queue.put(self._events, self._notes.values())
            except StoreError:
                raise
            except Exception:  # it would fail again, and nothing else would ever be reported
                self.dropped += len(self._events)
                log.exception("webhooks: %d events cannot be stored, and are dropped", len(self._events))
            self._events, self._notes = [], {}

    def _round(self) -> None:
        """Do what is done every second. Raises StoreError."""
        now = time.monotonic()
        if self.reports and now >= self._next_want:
            self._queue.keep_reporting(self._grace, self._restart)
            self._next_want = now + WANT_SECONDS
        was_sender, self._is_sender = self._is_sender, self._queue.lease()
        if self._is_sender and not was_sender:
            self._next_load = 0.0
        self._send(self._is_sender)
        if self._is_sender and self.reports:
            while self._queue.report_left():
                pass
            self._look_at_inboxes(now)

    def _look_at_inboxes(self, now: float) -> None:
        if now >= self._next_load:
            is_first = self._next_load == 0.0
            states = self._queue.notes(EXPIRED) if is_first else None
            self._inboxes.load(self._queue.notes(INBOX), states)
            # If no other process uses the store, this one learns of each inbox by itself.
            self._next_load = now + (LOAD_SECONDS if self._queue.reports_presence else float("inf"))
        for _ in range(1 if self._queue.reports_presence else LOOKS):
            is_over = self._inboxes.is_last_look
            self._add(*self._inboxes.look())
            self._store()
            if is_over:
                break

    def _release(self) -> None:
        if self._is_sender:
            try:
                self._queue.release()
            except StoreError as error:
                log.info("webhooks: another relay will send in some seconds: %s", error)
