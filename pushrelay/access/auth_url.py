"""The setting auth_url: the relay asks the site (PHP) which ids a browser may register, because users are known there.

The request has the browser's cookies, its User-Agent and its address, because sites bind sessions to these. All three
are also the key under which a result is kept: a result for one browser must not answer another that has its cookies.
Browsers of one session share one request. Some threads, started on demand, send the requests, and no other thread waits
for them.
"""

import hashlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Iterator

from pushrelay.client.workers import Workers
from pushrelay.counters import SECONDS, Counters, Family, Histogram, queue_length
from pushrelay.errors import Refused
from pushrelay.log.limiter import LogLimiter
from pushrelay.server.fair_queue import FairQueue
from pushrelay.settings import Settings, without_secrets

from .auth_requests import BEGIN_SECONDS, AuthRequest, not_available
from .auth_site import AuthResult, AuthSite
from .tokens import Rights
from .visitor import Visitor

log = logging.getLogger(__name__)

# Seconds for which a failure answers further clients, so that a page that retries at once does not overload PHP.
FAILURE_SECONDS = 1.0
MOST_RESULTS = 4096  # that are kept
LATE_SECONDS = 0.5  # a request that exceeds auth_timeout by this much fails, whatever its thread hangs in


class AuthBackend:
    """Requests the rights of visitors from the setting auth_url. Any thread may call it, and no call waits."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._site = AuthSite(settings)
        self._url = without_secrets(settings.auth_url)
        self._log_limiter = LogLimiter(log)
        self._is_failing = False  # and the log has reported it
        self._lock = threading.Lock()  # over all that follows
        self._requests: dict[bytes, AuthRequest] = {}  # by a hash of their visitor, the oldest first
        self._open: set[AuthRequest] = set()  # those without a result
        self._queue: FairQueue[AuthRequest] = FairQueue()  # those of them that no thread has taken
        self._results = Counters(("allowed", "refused", "failed"))
        self._seconds = Histogram((*SECONDS, 10.0, 30.0, 60.0))  # from the first client that waits to the result
        self._workers = Workers("auth", settings.auth_concurrency, self._lock, self._queue, self._send)

    def request(self, visitor: Visitor, share: str | None = None) -> AuthRequest:
        """Return the request for this visitor: an open one, one whose result is still valid, or a new one.

        `share` stands for the client whose turn a new request takes, such as its address. Call `release` if the client
        disconnects before there is a result.
        """
        key = _key_of(visitor)
        with self._lock:
            request = self._requests.get(key)
            if request is not None and (request in self._open or request.valid_until > time.monotonic()):
                request.clients += 1
                return request
            request = AuthRequest(visitor, share)
            if len(self._queue) >= self._settings.max_connections:
                # There cannot be as many clients: most of these have left.
                request.finish(not_available("too many requests to it are waiting already (setting auth_concurrency)"))
                return request
            self._make_room()
            self._requests.pop(key, None)  # the new one goes to the end
            self._requests[key] = request
            self._open.add(request)
            self._queue.add(request)
            self._workers.notify()
        return request

    def release(self, request: AuthRequest) -> None:
        """Count one client fewer. Drop the request if no client waits for it any longer and it has not been sent."""
        with self._lock:
            request.clients -= 1
            if request.clients > 0 or request.started is not None or not self._queue.remove(request):
                return
            self._open.discard(request)
            key = _key_of(request.visitor)
            if self._requests.get(key) is request:
                del self._requests[key]
        request.finish(not_available("no client waits for the answer"))

    def forget_results(self) -> None:
        """Forget all results. Open requests are sent again, because PHP may have answered them before this call."""
        with self._lock:
            for request in self._requests.values():
                request.is_stale = True
            self._requests = {key: each for key, each in self._requests.items() if each in self._open}

    def fail_overdue(self) -> None:
        """Fail requests that are open for too long, whatever their threads hang in. Call this every second."""
        if not self._open:
            return
        now, most = time.monotonic(), self._settings.auth_timeout + LATE_SECONDS
        with self._lock:
            unsent = {each for each in self._open if each.started is None and now - each.created > BEGIN_SECONDS}
            overdue = [each for each in self._open if each.started is not None and now - each.started > most]
            self._queue.remove_all(unsent)
        for request in unsent:
            self._finish(request, self._too_busy(), is_late=True)
        for request in overdue:
            self._finish(request, self._site.timed_out(), is_late=True)

    def _too_busy(self) -> AuthResult:
        most = self._settings.auth_concurrency
        reason = f"all {most} requests at a time (setting auth_concurrency) were busy for {BEGIN_SECONDS:g} s"
        return AuthResult(
            not_available(reason), "concurrency", "raise auth_concurrency, or make auth_url answer sooner"
        )

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the requests to auth_url."""
        help_ = "Requests to auth_url, by what the site answered."
        yield Family("relay_auth_requests_total", "counter", help_, self._results.values(), ("result",))
        help_ = "Seconds until a request to auth_url had its answer, including the time that it waited to be sent."
        yield Family("relay_auth_seconds", "histogram", help_, self._seconds)
        yield queue_length("auth", len(self._queue))

    def reload(self, settings: Settings, site: AuthSite) -> None:
        """Use these settings and this site from now on; `site` is made of the same settings.

        If it is another site, forget what the previous one has granted, and ask the new one for open requests too.
        """
        old = self._settings
        self._settings, self._site, self._url = settings, site, without_secrets(settings.auth_url)
        self._workers.resize(settings.auth_concurrency)
        if (old.auth_url, old.auth_ca) != (settings.auth_url, settings.auth_ca):
            self.forget_results()

    # On the workers' threads.

    def _send(self, request: AuthRequest) -> None:
        """Send a request, and send it again if results were forgotten in the meantime."""
        while request in self._open:
            request.is_stale, request.started = False, time.monotonic()
            self._finish(request, self._fetch(request))

    def _fetch(self, request: AuthRequest) -> AuthResult:
        try:
            return self._site.fetch(request.visitor)
        except Exception:
            log.exception("a request to auth_url failed in the relay")
            return AuthResult(
                not_available("the relay itself failed, and its log has the reason"), "relay", "see above"
            )

    def _finish(self, request: AuthRequest, result: AuthResult, is_late: bool = False) -> None:
        """Finish a request, unless it is finished, or its result is stale and there is time to send it again."""
        outcome, seconds = result.outcome, FAILURE_SECONDS
        if isinstance(outcome, Rights):
            until_end = math.inf if outcome.expires is None else outcome.expires - time.time()
            seconds = min(self._settings.auth_cache, until_end)
        with self._lock:
            if request not in self._open or (request.is_stale and not is_late):
                return
            request.valid_until = time.monotonic() + seconds
            self._open.discard(request)
            self._seconds.observe(time.monotonic() - request.created)
        self._note(result)
        request.finish(outcome)

    def _make_room(self) -> None:
        """Drop some of the oldest results if there are too many."""
        for key, each in list(itertools.islice(self._requests.items(), 8)):
            if len(self._requests) >= MOST_RESULTS and each not in self._open:
                del self._requests[key]

    def _note(self, result: AuthResult) -> None:
        """Log what keeps visitors out, and what to do about it: once a minute for each cause."""
        outcome, cause, advice = result
        if cause:
            message = outcome.message if isinstance(outcome, Refused) else ""
            self._log_limiter.warn(
                cause, "", f"visitors were refused, {self._url}: {message}; {advice}", {"reason": cause}
            )
        failed = isinstance(outcome, Refused) and outcome.status == 503
        self._results.add("failed" if failed else "refused" if isinstance(outcome, Refused) else "allowed")
        if self._is_failing and not failed:
            self._log_limiter.warn("again", "", "auth_url answers again")
        self._is_failing = failed


def _key_of(visitor: Visitor) -> bytes:
    return hashlib.blake2b("\0".join(visitor).encode("utf-8", "replace"), digest_size=16).digest()
