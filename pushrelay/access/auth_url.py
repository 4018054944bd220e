"""Asking PHP which ids a browser may register (setting auth_url): who is let in is decided where the users are known.

The browser's cookies, its User-Agent and its address go with the request. Browsers of one session wait for one
request; some threads, made on demand, ask; and nobody else waits for them.
"""

import hashlib
import itertools
import logging
import math
import threading
import time

from pushrelay.errors import Refused
from pushrelay.log.limiter import LogLimiter
from pushrelay.settings import Settings, without_secrets

from .auth_requests import BEGIN_SECONDS, AuthQueue, AuthRequest, not_available
from .auth_site import AuthResult, AuthSite
from .auth_site import Visitor as Visitor  # callers of ask() make one
from .tokens import Rights

log = logging.getLogger(__name__)

IDLE_SECONDS = 10.0  # a thread without a request leaves after that
FAILURE_SECONDS = 1.0  # a failure counts so long: a page that tries again and again must not become PHP's load
MOST_KEPT = 4096  # answers


class AuthBackend:
    """Asks the setting auth_url. Any thread may call it, and none waits; `settings` are the relay's."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._site = AuthSite(settings)
        self._url = without_secrets(settings.auth_url)
        self._log_limiter = LogLimiter(log)
        self._most = settings.auth_concurrency
        self._failing = False  # and the log knows
        self._lock = threading.Lock()  # over all that follows
        self._wanted = threading.Condition(self._lock)
        self._requests: dict[bytes, AuthRequest] = {}  # by a hash of their visitor, the oldest first
        self._open: set[AuthRequest] = set()  # those without an answer
        self._queue = AuthQueue()  # those that no thread has taken yet
        self._threads = 0
        self._idle = 0

    def ask(self, visitor: str | Visitor, share: str | None = None) -> AuthRequest:
        """Return the request for this visitor: one that is under way, or whose answer still counts, or a new one.

        A text stands for a visitor with these cookies. `share` is whose turn a new request takes, such as the address
        of the client. Call `leave` if the client is gone.
        """
        if isinstance(visitor, str):
            visitor = Visitor(visitor)
        key = _key_of(visitor)
        with self._lock:
            request = self._requests.get(key)
            if request is not None and (request in self._open or request.counts_until > time.monotonic()):
                request.waiting += 1
                return request
            request = AuthRequest(visitor, share)
            if len(self._queue) >= self._settings.max_connections:
                # More than clients can be waiting for.
                request.settle(not_available("too many requests wait for others (setting auth_concurrency)"))
                return request
            self._make_room()
            self._requests.pop(key, None)  # the new one is the newest
            self._requests[key] = request
            self._open.add(request)
            self._queue.add(request)
            self._wanted.notify()
            if len(self._queue) > self._idle and self._threads < self._most:
                self._hire()
        return request

    def leave(self, request: AuthRequest) -> None:
        """Drop a request if nobody waits for its answer any more and PHP has not been asked."""
        with self._lock:
            request.waiting -= 1
            if request.waiting > 0 or request.begun is not None or not self._queue.remove(request):
                return
            self._open.discard(request)
            key = _key_of(request.visitor)
            if self._requests.get(key) is request:
                del self._requests[key]
        request.settle(not_available("nobody waits for the answer"))

    def forget(self) -> None:
        """Forget all answers, those that are under way as well: those are asked for once more."""
        with self._lock:
            for request in self._requests.values():
                request.outdated = True
            self._requests = {key: each for key, each in self._requests.items() if each in self._open}

    def give_up(self) -> None:
        """Fail what has waited too long, whatever its thread is stuck in. To be called every second or so."""
        if not self._open:
            return
        now, timeout = time.monotonic(), self._settings.auth_timeout
        with self._lock:
            unbegun = {each for each in self._open if each.begun is None and now - each.asked > BEGIN_SECONDS}
            overdue = [each for each in self._open if each.begun is not None and now - each.begun > timeout + 0.5]
            for each in unbegun:
                self._queue.remove(each)
        for request in unbegun:
            why = f"{self._most} requests at a time (setting auth_concurrency) were busy for {BEGIN_SECONDS:g} s"
            advice = "raise auth_concurrency, or make auth_url answer sooner"
            self._settle(request, AuthResult(not_available(why), "concurrency", advice), late=True)
        for request in overdue:
            self._settle(request, self._site.too_late(), late=True)

    # The threads.

    def _hire(self) -> None:
        self._threads += 1
        try:
            threading.Thread(target=self._work, name="auth", daemon=True).start()
        except RuntimeError:  # the system has none to give: the request waits for another, or for give_up()
            self._threads -= 1

    def _work(self) -> None:
        while (request := self._next()) is not None:
            while request in self._open:
                request.outdated, request.begun = False, time.monotonic()
                self._settle(request, self._ask(request))

    def _next(self) -> AuthRequest | None:
        """The next request, once there is one; None where this thread is to leave."""
        with self._wanted:
            self._idle += 1
            self._wanted.wait_for(lambda: self._queue, IDLE_SECONDS)
            self._idle -= 1
            if not self._queue:
                self._threads -= 1
                return None
            return self._queue.pop()

    def _ask(self, request: AuthRequest) -> AuthResult:
        try:
            return self._site.ask(request.visitor)
        except Exception:
            log.exception("asking auth_url failed")
            return AuthResult(not_available("the relay failed at asking, and its log says why"), "relay", "see above")

    def _settle(self, request: AuthRequest, found: AuthResult, late: bool = False) -> None:
        """Tell who waits, unless that was done, or this answer is outdated and there is time for another."""
        outcome, seconds = found.outcome, FAILURE_SECONDS
        if isinstance(outcome, Rights):
            ends_in = math.inf if outcome.expires is None else outcome.expires - time.time()
            seconds = min(self._settings.auth_cache, ends_in)
        with self._lock:
            if request not in self._open or (request.outdated and not late):
                return
            request.counts_until = time.monotonic() + seconds
            self._open.discard(request)
        self._note(found)
        request.settle(outcome)

    def _make_room(self) -> None:
        for key, each in list(itertools.islice(self._requests.items(), 8)):
            if len(self._requests) >= MOST_KEPT and each not in self._open:
                del self._requests[key]

    def _note(self, found: AuthResult) -> None:
        """Have the log name what keeps visitors out, and what to do about it, once a minute for each cause."""
        outcome, cause, advice = found
        if cause:
            message = getattr(outcome, "message", "")
            self._log_limiter.warn(cause, "", f"visitors were refused, {self._url}: {message}; {advice}")
        failed = isinstance(outcome, Refused) and outcome.status == 503
        if self._failing and not failed:
            self._log_limiter.warn("again", "", "auth_url answers again")
        self._failing = failed


def _key_of(visitor: Visitor) -> bytes:
    return hashlib.blake2b("\0".join(visitor).encode("utf-8", "replace"), digest_size=16).digest()
