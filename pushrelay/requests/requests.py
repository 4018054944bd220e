"""The event `request`: a page asks PHP something through the relay, and gets PHP's answer as its acknowledgement.

A request holds no thread while it waits for its turn: some threads, started on demand, send the requests one after
another. Clients take turns, and each page may have a few requests under way, so that no page delays those of others.
A request is sent at most once, because PHP may have carried it out even if its answer does not arrive.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pushrelay.access.visitor import Visitor, visitor_of
from pushrelay.answers import failure
from pushrelay.client.workers import Workers
from pushrelay.counters import SECONDS, Counters, Family, Histogram, queue_length
from pushrelay.errors import Refused
from pushrelay.log.limiter import LogLimiter
from pushrelay.rooms.rooms import Rooms
from pushrelay.settings import Settings
from pushrelay.store.events import Events

from .asked import request_event, request_of
from .pages import Pages, Reply, charge, page_of
from .php_answer import ANSWERED, FAILED, REFUSED, TIMED_OUT, Outcome
from .sends import Sends
from .target import Target
from .turns import Turns, decrement

log = logging.getLogger(__name__)

MOST_OF_PAGE = 16  # requests of one page under way; a page that needs more can send a list in one
BEGIN_SECONDS = 30.0  # a request that has not been sent by then fails
MOST_BYTES = 32 << 20  # of all requests in the queue
FAILURES = 3  # in a row, before the site counts as not working
TROUBLE_SECONDS = 60.0  # before another reason takes the place of the first: each change is a line in the log
DROPPED, TURNED_AWAY = "dropped", "turned_away"  # the client left before its turn; too many are waiting
RESULTS = (ANSWERED, REFUSED, FAILED, TIMED_OUT, DROPPED, TURNED_AWAY)

_TOO_MANY_OF_PAGE = (
    f"a page may have {MOST_OF_PAGE} requests under way, and this is one more: wait for some of the answers first"
)


class Waiting:
    """A request that waits for its turn, or for its answer."""

    __slots__ = ("created", "event", "reply", "share", "sid", "visitor")

    def __init__(self, sid: str, share: str, event: str, visitor: Visitor, reply: Reply):
        self.sid = sid
        self.share: str | None = share
        self.event = event  # as PHP gets it, in JSON
        self.visitor = visitor
        self.reply = reply
        self.created = time.monotonic()


class Requests:
    """Sends the requests of pages to the setting request_url. Any thread may call it, and no call waits.

    `events()` returns the broker's queue of events, in which `sends` keeps what pages send, or None if it has none.
    """

    name = "requests"

    def __init__(self, settings: Settings, rooms: Rooms, pages: Pages, events: Callable[[], Events | None]):
        self._target = Target.of(settings)
        self.sends = Sends(rooms, pages, lambda: self._target.check(), events)
        self._rooms = rooms
        self._pages = pages
        self._log_limiter = LogLimiter(log)
        self._results = Counters(RESULTS)
        self._lock = threading.Lock()  # over all that follows
        self._turns: Turns[Waiting] = Turns(settings.request_concurrency)
        self._of_page: Counter[str | None] = Counter()  # requests under way by sid, sent or not
        self._bytes = 0  # of the events that wait
        self._seconds = Histogram((*SECONDS, 10.0, 30.0, 60.0))
        self._failures = 0  # in a row
        self._trouble: str | None = None
        self._trouble_until = 0.0  # when its reason may change (monotonic)
        self._workers = Workers("request", settings.request_concurrency, self._lock, self._turns, self._send)

    # As a part of the backend.

    @property
    def is_on(self) -> bool:
        """Whether there is a request_url."""
        return self._target.site is not None

    @property
    def trouble(self) -> str | None:
        """Why the site does not answer, and what to do; None while it does."""
        return self._trouble

    def start(self) -> None:
        """Do nothing: threads start when there are requests."""

    def each_second(self) -> None:
        """Drop requests of clients that left, and fail those that have waited for too long."""
        if not self._turns.waiting:
            return
        begun_by = time.monotonic() - BEGIN_SECONDS
        for each in list(self._turns.waiting):
            if not self._rooms.is_connected(each.sid, "/"):
                if self._take_back(each):
                    self._results.add(DROPPED)
            elif each.created < begun_by and self._take_back(each):
                self._results.add(TURNED_AWAY)
                each.reply.refuse(self._too_busy())

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on. Requests that wait go to the new URL; without one, they are refused.

        Raises OSError if the file auth_ca cannot be read; then nothing has changed.
        """
        old = self._target
        self._target = Target.of(settings)
        with self._lock:
            self._turns.resize(settings.request_concurrency)
        self._workers.resize(settings.request_concurrency)
        if old.settings.request_url != settings.request_url:
            with self._lock:
                self._failures, self._trouble, self._trouble_until = 0, None, 0.0

    def close(self) -> None:
        """Drop what waits. Requests that were sent run on without anybody who waits for their answers."""
        for each in list(self._turns.waiting):
            if self._take_back(each):
                self._results.add(DROPPED)

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the requests."""
        help_ = "Requests of pages to request_url, by what came of them."
        yield Family("relay_requests_total", "counter", help_, self._results.values(), ("result",))
        help_ = "Seconds until a request of a page had the site's answer, including the time that it waited to be sent."
        yield Family("relay_request_seconds", "histogram", help_, self._seconds)
        yield queue_length("requests", len(self._turns.waiting))
        yield from self.sends.metrics()

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows of the requests."""
        counts, waiting = self._results.counts(), len(self._turns.waiting)
        answered, failed = counts[ANSWERED] + counts[REFUSED], counts[FAILED] + counts[TIMED_OUT]
        summary = f"{answered} requests answered, {failed} failed, {waiting} waiting"
        return {"summary": summary, "answered": answered, "failed": failed, "waiting": waiting}

    # The event.

    def request(self, message: Any, sid: str, environ: dict[str, Any], reply: Reply) -> None:
        """Send a request of a socket to the site when it is its turn, and then its answer to `reply`.

        Raises Refused; then nothing is sent.
        """
        settings, _ = self._target.check()
        self._pages.check_origin(environ)
        asked = request_of(message)
        charge(self._rooms, sid, len(asked.data))
        self._rooms.let_stay(sid)  # a client that may ask need not register
        event = request_event(asked, page_of(self._pages, sid, environ))
        visitor = visitor_of(environ, self._pages.address(environ))
        # The clients of this machine have no share. Each of them gets its own, as behind a proxy that names none.
        waiting = Waiting(sid, self._rooms.share_of(sid) or sid, event, visitor, reply)
        with self._lock:
            self._check_room(waiting, settings.max_requests)
            self._of_page[sid] += 1
            self._bytes += len(waiting.event)
            if self._turns.add(waiting):
                self._workers.notify()

    def _check_room(self, waiting: Waiting, most: int) -> None:
        """Raise Refused if one more request of this page, or in all, is too many. The lock is held.

        One address may take half of the queue, so that it cannot turn all others away.
        """
        if self._of_page[waiting.sid] >= MOST_OF_PAGE:
            refusal = _too_many(_TOO_MANY_OF_PAGE)
        elif (
            len(self._turns.waiting) >= most
            or self._turns.waiting_of(waiting.share) >= max(1, most // 2)
            or self._bytes + len(waiting.event) > MOST_BYTES
        ):
            refusal = _too_many("too many requests wait for the site: send this one again later (setting max_requests)")
        else:
            return
        self._results.add(TURNED_AWAY)
        raise refusal

    def _take_back(self, waiting: Waiting) -> bool:
        """Remove a request that no thread has taken. Return False if one has."""
        with self._lock:
            if not self._turns.remove(waiting):
                return False
            self._bytes -= len(waiting.event)
            decrement(self._of_page, waiting.sid)
        return True

    def _too_busy(self) -> Refused:
        most = self._target.settings.request_concurrency
        return _too_many(
            f"all {most} requests at a time were busy for {BEGIN_SECONDS:g} s (setting request_concurrency), and this "
            "one was not sent: send it again later"
        )

    # On the workers' threads.

    def _send(self, waiting: Waiting) -> None:
        """Send one request, and then its answer to the page."""
        with self._lock:
            self._bytes -= len(waiting.event)
        outcome = None
        try:
            if self._rooms.is_connected(waiting.sid, "/"):
                outcome = self._ask(waiting)
        except Exception:
            log.exception("a request of a page failed in the relay")
            outcome = Outcome(failure(), FAILED)
        with self._lock:  # before the answer, after which the page may send the next one
            decrement(self._of_page, waiting.sid)
            if self._turns.done(waiting.share):
                self._workers.notify()
            if outcome is not None:
                self._seconds.observe(time.monotonic() - waiting.created)
        self._results.add(DROPPED if outcome is None else outcome.result)
        if outcome is not None:
            self._answer(waiting.reply, outcome.answer)

    def _ask(self, waiting: Waiting) -> Outcome:
        target = self._target
        try:
            outcome = target.ask(waiting.event, waiting.visitor)
        except Refused as error:  # a reload has removed the URL
            return Outcome(error, FAILED)
        self._note(target, outcome)
        return outcome

    def _answer(self, reply: Reply, answer: str | Refused) -> None:
        try:
            if isinstance(answer, Refused):
                reply.refuse(answer)
            else:
                reply.send(f'{{"ok":true,"answer":{answer}}}')
        except Exception:
            log.exception("the answer to a request of a page could not be sent")

    def _note(self, target: Target, outcome: Outcome) -> None:
        """Log what is wrong with the site, once a minute for each cause; after some failures in a row it is trouble."""
        problem = f"to {target.shown} failed: {outcome.reason}; {outcome.advice}"
        with self._lock:
            if self._target.site is not target.site:
                return
            self._failures = self._failures + 1 if outcome.result in (FAILED, TIMED_OUT) else 0
            if self._failures >= FAILURES and time.monotonic() > self._trouble_until:
                self._trouble = f"the last requests of pages {problem}"
                self._trouble_until = time.monotonic() + TROUBLE_SECONDS
            elif self._failures == 0:
                self._trouble, self._trouble_until = None, 0.0
            is_known = self._trouble is not None
        if outcome.cause and not is_known:
            sentence = f"a request of a page {problem}"
            self._log_limiter.warn(outcome.cause, "", sentence, {"reason": outcome.cause})


def _too_many(message: str) -> Refused:
    return Refused(429, "too_many_requests", message)
