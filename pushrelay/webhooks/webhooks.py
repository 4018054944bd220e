"""Webhooks as a part of the relay: the URLs in the settings, and the threads that queue events and send them."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from pushrelay.access.member import Member
from pushrelay.counters import Family
from pushrelay.settings import Settings
from pushrelay.store.events import HOOKS, TOPICS, Bounds, Cursor, Depth, Event, Events

from .admin import Admin
from .delivery import Delivery
from .inboxes import Histories, Inboxes
from .reporter import Clients, Reporter
from .target import targets_of

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0  # for the thread that queues events; the same for all those that send
# After this relay has learnt that it is the one that sends, for which a request may begin. The request takes up to
# delivery.TIMEOUT, and another relay may send 10 seconds after the answer was given, which took some time too.
CERTAIN_SECONDS = 3.0
FAILING_SECONDS = 10.0  # for which a URL may fail before it counts as trouble
LINE_SECONDS = 60.0  # between two lines about dropped events
NO_QUEUE = "this relay's own broker has no event queue: give it one (Broker.events, docs/extending.md)"


class Store(Histories, Protocol):
    """The part of a broker that webhooks use."""

    @property
    def events(self) -> Events | None:
        """The event queue; None if the broker has none."""


class _Snapshot(NamedTuple):
    """The queue as it was in the last round, for the metrics, which must not wait for the store."""

    depths: dict[str, Depth]  # by topic
    cursors: dict[str, dict[str, Cursor]]  # by topic and reader
    is_sender: bool


class Webhooks:
    """The part: see Part in pushrelay/backend.py for its methods. Raises OSError if the file auth_ca cannot be read."""

    name = "webhooks"

    def __init__(self, settings: Settings, store: Store, clients: Clients):
        self._settings = settings
        self._store = store
        self._clients = clients
        self._queue = getattr(store, "events", None)
        self._targets = targets_of(settings)
        self._inboxes = Inboxes(store)
        self._deliveries: dict[tuple[str, str], Delivery] = {}  # by topic and reader, in the order of the settings
        self._reporter: Reporter | None = None  # while it runs
        self._was_sender = False
        self._learnt = float("-inf")  # when it was the one that sends (monotonic)
        self._begun_for: dict[tuple[str, str], Delivery] | None = None  # the deliveries that begin() was called for
        self._begun_in = ""  # the store's epoch then
        self._snapshot = _Snapshot(dict.fromkeys(TOPICS, Depth()), dict.fromkeys(TOPICS, {}), False)
        self.admin = Admin(self, lambda: self._queue)
        self._is_started = False
        self._has_called_on_put = False
        self._logged_drops = 0
        self._next_line = 0.0  # monotonic

    # A part of the relay.

    @property
    def is_on(self) -> bool:
        """Whether there is a URL that gets events."""
        return bool(self._targets)

    @property
    def trouble(self) -> str | None:
        """Why events do not arrive, and what to do about it."""
        if self._queue is None:
            return NO_QUEUE
        if self._reporter is not None and self._reporter.error:
            return f"events cannot be queued: {self._reporter.error}"
        return next(filter(None, map(_trouble_of, self._deliveries.values())), None)

    def start(self) -> None:
        """Start the threads. The store is open."""
        self._is_started = True
        self._apply()

    def each_second(self) -> None:
        """Log that events were dropped, at most once a minute."""
        dropped, now = self._dropped(), time.monotonic()
        if dropped > self._logged_drops and now >= self._next_line:
            log.warning(
                "webhooks: %d events were dropped, because they could not be delivered for a day, or more than "
                "%d were queued (setting max_webhooks). Read who is online from GET /presence?all=1",
                dropped - self._logged_drops,
                self._settings.max_webhooks,
            )
            self._logged_drops, self._next_line = dropped, now + LINE_SECONDS

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on. Raises OSError if the file auth_ca cannot be read."""
        self._targets = targets_of(settings)
        self._settings = settings
        if self._is_started:
            self._apply()

    def close(self) -> None:
        """Stop. Events that are not delivered stay in the store."""
        self._is_started = False
        self._stop()

    # Events in the relay. Any thread may call these, with any lock held.

    def member(self, kind: str, destination: str, member: Member) -> None:
        """Report that a user appeared in a destination ("join"), or is there no longer ("leave")."""
        if kind == "leave" and self._clients.is_draining():
            return
        if (reporter := self._reporter) is not None and reporter.tracker is not None:
            reporter.tracker.member(kind, destination, member.id, member.info_json)

    def _lost(self, destination: str, since: str, sid: str) -> None:
        """Report that a client came back, and could not get everything that it missed."""
        if (
            (reporter := self._reporter) is not None
            and reporter.reports
            and reporter.losses.add(destination, since, sid)
        ):
            reporter.wake()

    # The threads.

    def _apply(self) -> None:
        """Have the threads that the settings ask for. Threads of settings that no longer apply end by themselves."""
        if self._queue is None:
            return
        # In an SQLite file, both queues together take at most half of the space for publications.
        most = self._settings.history_bytes // 4
        self._queue.bounds = Bounds(self._settings.max_webhooks, min(most, Bounds().size))
        if not self.is_on:
            self._stop()
            return
        reports = any(each.topic == HOOKS for each in self._targets)
        if self._reporter is not None and self._reporter.reports != reports:
            self._stop_reporter(self._reporter)
        deliveries: dict[tuple[str, str], Delivery] = {}
        for target in self._targets:
            key = target.topic, target.reader
            delivery = self._deliveries.get(key)
            if delivery is None:
                delivery = Delivery(target, self._queue, lambda: self._settings.webhook_secret, self._may_send)
                delivery.start()
            delivery.target = target
            deliveries[key] = delivery
        for key in self._deliveries.keys() - deliveries.keys():
            self._deliveries[key].stop()
        self._deliveries = deliveries
        self._report(self._queue, reports)

    def _report(self, queue: Events, reports: bool) -> None:
        """Have a reporter run, with the present settings."""
        reporter = self._reporter
        is_new = reporter is None
        if reporter is None:
            reporter = Reporter(queue, self._inboxes, self._wants, self._send, self._clients, reports)
        reporter.use(self._settings.presence_grace, self._settings.drain_spread)
        if not is_new:
            reporter.renew()
            return
        if not self._has_called_on_put:
            queue.call_on_put(self._wake)
            self._has_called_on_put = True
        if reporter.tracker is not None:
            self._clients.report_changes(reporter.tracker.changed)
        if reports:
            self._clients.report_use(self._inboxes.used, self._lost)
        self._reporter = reporter
        reporter.start()

    def _stop_reporter(self, reporter: Reporter) -> None:
        """Stop a reporter. It queues what has happened, for which it needs the deliveries and their filters."""
        self._reporter = None
        self._clients.report_use(None, None)
        if reporter.tracker is not None:
            self._clients.stop_reporting(reporter.tracker.changed)
        reporter.close(CLOSE_SECONDS)
        self._was_sender = False

    def _stop(self) -> None:
        deliveries = list(self._deliveries.values())
        for each in deliveries:
            each.stop()
        end = time.monotonic() + CLOSE_SECONDS
        for each in deliveries:  # first: their cursors move only as long as this relay is the one that sends
            each.join(max(0.0, end - time.monotonic()))
        if self._reporter is not None:
            self._stop_reporter(self._reporter)
        self._deliveries = {}

    # Called by the threads.

    def _wake(self) -> None:
        for each in self._deliveries.values():
            each.wake()

    def _may_send(self) -> bool:
        """Return whether no other relay sends now, or soon. After a pause of this process, one may."""
        return time.monotonic() - self._learnt < CERTAIN_SECONDS

    def _wants(self, event: Event) -> bool:
        """Return whether some URL gets an event."""
        return any(
            each.target.topic == HOOKS and not each.gone and each.target.wants(event)
            for each in self._deliveries.values()
        )

    def _send(self, is_sender: bool) -> None:
        """Have the deliveries send, or not, and look at the queue. Raises StoreError."""
        queue = self._queue
        if queue is None:
            return
        self._learnt = time.monotonic()
        deliveries, epoch = self._deliveries, self._store.epoch
        if not is_sender:
            for each in deliveries.values():
                each.end()
        elif (
            self._begun_for is not deliveries
            or self._begun_in != epoch
            or any(each.upto is None for each in deliveries.values())
        ):
            self._begin(queue, deliveries, epoch)
        self._was_sender = is_sender
        self.look()
        if is_sender:
            for each in filter(self.waiting, deliveries.values()):
                each.wake()  # a message about new events may have been lost with a connection to the store

    def _begin(self, queue: Events, deliveries: dict[tuple[str, str], Delivery], epoch: str) -> None:
        """Have all deliveries continue at their cursors in the store. Raises StoreError; then it is tried again.

        In another epoch the store has lost something, and the numbers that deliveries know may be used again.
        """
        if self._begun_in != epoch:
            for each in deliveries.values():
                each.end()
        for topic in TOPICS:
            cursors = queue.set_readers(topic, [reader for its_topic, reader in deliveries if its_topic == topic])
            for reader, cursor in cursors.items():
                deliveries[topic, reader].begin(cursor)
        self._begun_for, self._begun_in = deliveries, epoch

    # The state, for people and programs.

    def look(self) -> None:
        """Read the state of the queue, which the metrics have from here. Raises StoreError."""
        if (queue := self._queue) is not None:
            depths = {topic: queue.depth(topic) for topic in TOPICS}
            cursors = {topic: queue.cursors(topic) for topic in TOPICS}
            self._snapshot = _Snapshot(depths, cursors, self._was_sender)

    def _dropped(self) -> int:
        """Return how many events this relay has dropped."""
        reporter = self._reporter
        unstored = 0 if reporter is None else reporter.dropped + reporter.losses.dropped
        return unstored + sum(each.dropped for each in self._deliveries.values())

    def labelled(self) -> dict[str, Delivery]:
        """Return the deliveries by their labels: their number in webhook_url, or `request_url`."""
        numbers = itertools.count(1)
        return {
            str(next(numbers)) if topic == HOOKS else "request_url": delivery
            for (topic, _), delivery in self._deliveries.items()
        }

    def waiting(self, delivery: Delivery) -> int:
        """Return how many events of the queue a URL has not got, about; some may not be for it."""
        topic, reader = delivery.target.topic, delivery.target.reader
        depth, cursor = self._snapshot.depths[topic], self._snapshot.cursors[topic].get(reader)
        upto = delivery.upto if delivery.upto is not None else cursor.upto if cursor else depth.last
        return min(depth.events, max(0, depth.last - upto))

    def age(self, delivery: Delivery) -> float:
        """Return the age of the oldest event that waits for a URL, about, in seconds."""
        depth = self._snapshot.depths[delivery.target.topic]
        return max(0.0, time.time() - depth.oldest) if self.waiting(delivery) else 0.0

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of each URL. Its label is its number in webhook_url, or `request_url`."""
        found = self.labelled()

        def values(value: Callable[[Delivery], float]) -> dict[tuple[str, ...], Any]:
            return {(label,): value(delivery) for label, delivery in found.items()}

        help_ = "Events that wait for a URL, with those that its filters leave out."
        yield Family("relay_webhook_queued", "gauge", help_, values(self.waiting), ("url",))
        help_ = "Age of the oldest event that waits for a URL, in seconds; 0 without any."
        yield Family("relay_webhook_oldest_seconds", "gauge", help_, values(self.age), ("url",))
        help_ = "Events that a URL has accepted from this relay."
        yield Family("relay_webhook_sent_total", "counter", help_, values(lambda each: each.sent), ("url",))
        help_ = "Requests to a URL that failed. Their events are sent again."
        yield Family("relay_webhook_failed_total", "counter", help_, values(lambda each: each.failed), ("url",))
        help_ = "Events for a URL that were dropped: too old, too many, or refused by it."
        yield Family("relay_webhook_dropped_total", "counter", help_, values(lambda each: each.dropped), ("url",))
        help_ = "1 if a URL has unsubscribed with status 410."
        yield Family("relay_webhook_gone", "gauge", help_, values(lambda each: int(each.gone > 0)), ("url",))

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows."""
        deliveries = list(self._deliveries.values())
        waiting = max(map(self.waiting, deliveries), default=0)
        sent = sum(each.sent for each in deliveries)
        who = "" if self._snapshot.is_sender or self._queue is None else "; another relay sends"
        return {
            "summary": f"{_count(len(deliveries), 'URL')}, {_count(waiting, 'event')} waiting, {sent} sent{who}",
            "queued": waiting,
            "oldest_seconds": round(max(map(self.age, deliveries), default=0.0), 1),
            "sent": sent,
            "failed": sum(each.failed for each in deliveries),
            "dropped": self._dropped(),
        }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _trouble_of(delivery: Delivery) -> str | None:
    """Return why a URL gets nothing, if it does not."""
    shown = delivery.target.shown
    if delivery.gone:
        return (
            f"{shown} has unsubscribed (status 410): remove it from {delivery.target.setting}, or run:  "
            f"python relay.py webhooks resume {shown}"
        )
    if delivery.error and time.monotonic() - delivery.failing_since > FAILING_SECONDS:
        return f"{shown} takes no events ({delivery.error}): {delivery.advice}"
    return None
