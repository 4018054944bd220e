"""Delivery to one URL: batches of events in their order, each at least once, with a thread of its own.

So a URL that is slow or down delays no other. Its cursor is in the store, and moves once the URL has accepted a batch.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from pushrelay.client.signature import HEADER, signature
from pushrelay.client.site import SEE_LOGS, SiteError
from pushrelay.errors import StoreError
from pushrelay.store.events import Cursor, Event, Events, LeaseLost

from .target import Target

log = logging.getLogger(__name__)

MOST_EVENTS = 100  # in one request
MOST_BYTES = 1_000_000  # of one request's body: nginx accepts 1 MiB by default
TIMEOUT = 5.0  # seconds for a request, from the lookup of the name to the end of the response
LARGEST_ANSWER = 65_536  # bytes of the response that are read
LONGEST_PAUSE = 60.0  # seconds between two attempts
DAY = 86_400.0  # seconds for which an event is tried
IDLE_SECONDS = 30.0  # between two looks at the queue if nothing wakes the thread
AGAIN_SECONDS = 1.0  # until the store is asked again, after an error
# The URL does not take this batch. Smaller ones are tried, because one event may be the reason.
REFUSED = {400, 413, 422}
REFUSALS = 3  # of one event alone, after which it is dropped: it must not block the others for a day


class Delivery:
    """The thread for one target. `secrets()` returns the setting webhook_secret.

    `may_send()` returns whether this relay is certain to be the one that sends for as long as a request takes.
    """

    def __init__(
        self,
        target: Target,
        queue: Events,
        secrets: Callable[[], tuple[str, ...]],
        may_send: Callable[[], bool] = lambda: True,
    ):
        self.target = target  # may be replaced by one with other filters
        self.sent = 0  # events that were accepted
        self.failed = 0  # requests
        self.dropped = 0  # events that were given up, or dropped from a full queue before they were read
        self.error = ""  # why the last attempt failed; empty after one that did not
        self.advice = ""  # what to do about it
        self.failing_since = 0.0  # monotonic; 0 unless the last attempt failed
        self.gone = 0.0  # when the URL unsubscribed (seconds since 1970); 0 if it did not
        self._queue = queue
        self._secrets = secrets
        self._may_send = may_send
        self._lock = threading.Lock()  # guards the next three
        self._upto: int | None = None  # the number of the last event that is done; None while another relay sends
        self._saved = 0  # the same in the store, as far as this relay knows
        self._ends = 0  # calls of end(): numbers from before the last one mean nothing
        self._most = MOST_EVENTS
        self._tries = 0  # that failed in a row
        self._refusals = 0  # of one event alone
        self._next = 0.0  # monotonic: no attempt before
        self._closed = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks-send", daemon=True)

    # Called by other threads.

    def start(self) -> None:
        """Start the thread. Nothing is sent before begin()."""
        self._thread.start()

    def begin(self, cursor: Cursor) -> None:
        """Send what is after a cursor. It may be older than what is done by now."""
        with self._lock:
            self._upto, self._saved, self.gone = max(cursor.upto, self._upto or 0), cursor.upto, cursor.gone
        self.wake()

    def end(self) -> None:
        """Send nothing more, because another relay does, or the numbers of the events are others now."""
        with self._lock:
            self._upto = None
            self._ends += 1

    def wake(self) -> None:
        """Look at the queue. It never blocks."""
        self._woken.set()

    def retry(self) -> None:
        """Make the next attempt at once."""
        self._next = 0.0
        self.wake()

    def skip_to(self, number: int) -> None:
        """Send nothing up to this event."""
        with self._lock:
            if self._upto is not None:
                self._upto = max(self._upto, number)
        self.retry()

    @property
    def upto(self) -> int | None:
        """The number of the last event that is done; None while another relay sends."""
        return self._upto

    @property
    def next_in(self) -> float:
        """Seconds until the next attempt, after one that failed."""
        return max(0.0, self._next - time.monotonic())

    def stop(self) -> None:
        """Begin no other request."""
        self._closed = True
        self.wake()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, but at most this time."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    # The thread.

    def _run(self) -> None:
        while not self._closed:
            self._woken.clear()
            try:
                seconds = self._step()
            except LeaseLost:
                self.end()
                seconds = IDLE_SECONDS
            except StoreError as error:
                log.debug("webhooks: %s", error)  # the part reports it
                seconds = AGAIN_SECONDS
            except Exception:
                log.exception("webhooks: sending to %s failed; it continues", self.target.shown)
                seconds = AGAIN_SECONDS
            if seconds and not self._closed:
                self._woken.wait(seconds)

    def _step(self) -> float:
        """Send one batch if there is one. Return the seconds to wait; 0 if there may be more."""
        after, ends = self._upto, self._ends
        if after is None or self.gone:
            return IDLE_SECONDS
        target = self.target
        if self._saved < after:
            self._save(target, after)
        if left := self.next_in:
            return left
        events = self._queue.read(target.topic, after, self._most, MOST_BYTES)
        if not events:
            self._recover()  # what could not be delivered does not wait any more
            return IDLE_SECONDS
        if not self._may_send():
            return AGAIN_SECONDS
        if (missing := events[0].number - 1 - after) > 0 and self._advance(events[0].number - 1, ends):
            self.dropped += missing
        wanted = [event for event in events if target.wants(event)]
        oldest = time.time() - DAY
        young = [event for event in wanted if event.at > oldest]
        if (not young or self._deliver(target, young)) and self._advance(events[-1].number, ends):
            self.dropped += len(wanted) - len(young)
            self._save(target, events[-1].number)
        return 0.0

    def _advance(self, number: int, ends: int) -> bool:
        """Have events done up to this one, and return True, unless end() was called in the meantime."""
        with self._lock:
            if self._upto is None or self._ends != ends:
                return False
            self._upto = max(self._upto, number)
        return True

    def _save(self, target: Target, upto: int) -> None:
        """Move the cursor in the store. If that raises StoreError, the next step does it, and sends nothing twice."""
        self._queue.done(target.topic, target.reader, upto)
        self._saved = max(self._saved, upto)

    def _deliver(self, target: Target, events: list[Event]) -> bool:
        """Send events, and return whether they are done with."""
        body = f'{{"events":[{",".join(event.as_json() for event in events)}]}}'.encode()
        headers = {"Content-Type": "application/json", HEADER: signature(self._secrets(), body, time.time())}
        try:
            reply = target.site.post(body, headers, TIMEOUT, LARGEST_ANSWER)
        except SiteError as error:
            return self._failed(error.reason, error.advice)
        if 200 <= reply.status < 300:
            return self._succeeded(len(events))
        if reply.status == 410:
            return self._unsubscribed(target)
        if reply.status in REFUSED:
            return self._refused(reply.status, len(events))
        return self._failed(*_about(reply.status, reply.headers, target.setting))

    def _succeeded(self, count: int) -> bool:
        self.sent += count
        self._recover()
        self._most = min(MOST_EVENTS, 2 * self._most)
        return True

    def _failed(self, reason: str, advice: str) -> bool:
        self.failed += 1
        self.error, self.advice, self.failing_since = reason, advice, self.failing_since or time.monotonic()
        pause = min(LONGEST_PAUSE, 2.0**self._tries)
        self._tries = min(self._tries + 1, 10)
        self._next = time.monotonic() + pause * random.uniform(0.75, 1.0)  # noqa: S311 - spreads relays and URLs
        return False

    def _refused(self, status: int, count: int) -> bool:
        """Handle a response with which the URL refuses this batch. Try a smaller one at once."""
        if count > 1:
            self.failed += 1
            self._most = max(1, count // 2)
            return False
        self._refusals += 1
        if self._refusals < REFUSALS:
            return self._failed(f"it answered one event with status {status}", SEE_LOGS)
        self.dropped += 1
        log.warning(
            "webhooks: %s answered one event %d times with status %d. The event is dropped",
            self.target.shown,
            REFUSALS,
            status,
        )
        self._recover()
        return True

    def _recover(self) -> None:
        """Forget the last failure."""
        self.error, self.failing_since = "", 0.0
        self._tries = self._refusals = 0

    def _unsubscribed(self, target: Target) -> bool:
        self.gone = time.time()
        self._queue.set_gone(target.topic, target.reader, self.gone)
        log.warning(
            "webhooks: %s answered with status 410 and gets no more events. To send it events again, run:  "
            "python relay.py webhooks resume %s",
            target.shown,
            target.shown,
        )
        return False


def _about(status: int, headers: Any, setting: str) -> tuple[str, str]:
    """Return what a response's status means, and what to do."""
    if 300 <= status < 400:
        place = "".join(each for each in str(headers.get("Location", "")).partition("?")[0][:200] if each.isprintable())
        reason = f"it redirects to {place or 'nowhere'} ({status}), and the relay does not follow redirects"
        return reason, f"write the final address in {setting}"
    reason = f"it answered with status {status}"
    if status == 403:
        return reason, "check that PHP has a secret that is in webhook_secret, and the clocks of both machines"
    if status == 404:
        messages = ", and that the script answers messages of pages with 200" if setting == "request_url" else ""
        return reason, f"check the path in {setting}{messages}"
    return reason, SEE_LOGS
