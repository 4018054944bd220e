"""Asking PHP which ids a browser may register (setting auth_url): who is let in is decided where the users are known.

The browser's cookies go with the question, and nothing else of it. Browsers of one session wait for one question; some
threads, made on demand, ask; and nobody else waits for them.
"""

import contextlib
import hashlib
import http.client
import io
import itertools
import json
import logging
import math
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from . import json_text
from .errors import Refused
from .questions import BEGIN_SECONDS, Question, Waiting, not_available
from .settings import Settings
from .tokens import Rights, rights_of

log = logging.getLogger("relay.auth")

MAX_ANSWER = 65536  # bytes: thousands of ids
IDLE_SECONDS = 10.0  # a thread without a question leaves after that
FAILURE_SECONDS = 1.0  # a failure counts so long: a page that tries again and again must not become PHP's load
MOST_KEPT = 4096  # answers

_ELSEWHERE = (
    "auth_url sent the relay on to {location} ({status}), and it does not go there. Mostly that is a login page: have "
    "auth_url itself answer 401 to who is not logged in"
)


class Asker:
    """Asks the setting auth_url. Any thread may call it, and none waits; `settings` are the relay's."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._most = settings.auth_concurrency
        self._failing = False  # and the log knows
        self._lock = threading.Lock()  # over all that follows
        self._wanted = threading.Condition(self._lock)
        self._questions: dict[bytes, Question] = {}  # by a hash of their cookies, the oldest first
        self._open: set[Question] = set()  # those without an answer
        self._queue = Waiting()  # those that no thread has taken yet
        self._threads = 0
        self._idle = 0

    def ask(self, cookies: str, share: str | None = None) -> Question:
        """Return the question for these cookies: one that is under way, or whose answer still counts, or a new one.

        `share` is whose turn a new one takes, such as the address of the client. Call `leave` if the client is gone.
        """
        key = _key_of(cookies)
        with self._lock:
            question = self._questions.get(key)
            if question is not None and (question in self._open or question.counts_until > time.monotonic()):
                question.waiting += 1
                return question
            question = Question(cookies, share)
            if len(self._queue) >= self._settings.max_connections:
                # More than clients can be waiting for.
                question.settle(not_available("too many questions wait for others (setting auth_concurrency)"))
                return question
            self._make_room()
            self._questions.pop(key, None)  # the new one is the newest
            self._questions[key] = question
            self._open.add(question)
            self._queue.add(question)
            self._wanted.notify()
            if len(self._queue) > self._idle and self._threads < self._most:
                self._hire()
        return question

    def leave(self, question: Question) -> None:
        """Drop a question if nobody waits for its answer any more and PHP has not been asked."""
        with self._lock:
            question.waiting -= 1
            if question.waiting > 0 or question.begun is not None or not self._queue.remove(question):
                return
            self._open.discard(question)
            key = _key_of(question.cookies)
            if self._questions.get(key) is question:
                del self._questions[key]
        question.settle(not_available("nobody waits for the answer"))

    def forget(self) -> None:
        """Forget all answers, those that are under way as well: those are asked for once more."""
        with self._lock:
            for question in self._questions.values():
                question.outdated = True
            self._questions = {key: each for key, each in self._questions.items() if each in self._open}

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
        for question in unbegun:
            why = f"{self._most} questions at a time (setting auth_concurrency) were busy for {BEGIN_SECONDS:g} s"
            self._settle(question, not_available(why), late=True)
        for question in overdue:
            self._settle(question, self._too_late(), late=True)

    # The threads.

    def _hire(self) -> None:
        self._threads += 1
        try:
            threading.Thread(target=self._work, name="auth", daemon=True).start()
        except RuntimeError:  # the system has none to give: the question waits for another, or for give_up()
            self._threads -= 1

    def _work(self) -> None:
        while (question := self._next()) is not None:
            while question in self._open:
                question.outdated, question.begun = False, time.monotonic()
                self._settle(question, self._ask(question))

    def _next(self) -> Question | None:
        """The next question, once there is one; None where this thread is to leave."""
        with self._wanted:
            self._idle += 1
            self._wanted.wait_for(lambda: self._queue, IDLE_SECONDS)
            self._idle -= 1
            if not self._queue:
                self._threads -= 1
                return None
            return self._queue.pop()

    def _ask(self, question: Question) -> Rights | Refused:
        try:
            return self._fetch(question.cookies)
        except Exception:
            log.exception("asking auth_url failed")
            return not_available("the relay failed at asking, and its log says why")

    def _settle(self, question: Question, outcome: Rights | Refused, late: bool = False) -> None:
        """Tell who waits, unless that was done, or this answer is outdated and there is time for another."""
        seconds = FAILURE_SECONDS
        if isinstance(outcome, Rights):
            ends_in = math.inf if outcome.expires is None else outcome.expires - time.time()
            seconds = min(self._settings.auth_cache, ends_in)
        with self._lock:
            if question not in self._open or (question.outdated and not late):
                return
            question.counts_until = time.monotonic() + seconds
            self._open.discard(question)
        self._note(outcome)
        question.settle(outcome)

    def _make_room(self) -> None:
        for key, each in list(itertools.islice(self._questions.items(), 8)):
            if len(self._questions) >= MOST_KEPT and each not in self._open:
                del self._questions[key]

    def _note(self, outcome: Rights | Refused) -> None:
        """Log where failing begins and where it ends, and nothing between."""
        failed = isinstance(outcome, Refused) and outcome.status == 503
        if failed and not self._failing:
            log.error("%s: %s", self._settings.auth_url, outcome.message)
        elif self._failing and not failed:
            log.error("auth_url answers again")
        self._failing = failed

    # One question.

    def _fetch(self, cookies: str) -> Rights | Refused:
        deadline = time.monotonic() + self._settings.auth_timeout
        try:
            status, location, body = get(self._settings.auth_url, cookies, deadline)
        except TimeoutError:
            return self._too_late()
        except ssl.SSLError as error:
            return not_available(f"no secure connection to it: {error.reason or 'TLS failed'}")
        except http.client.IncompleteRead:
            return not_available("its answer was cut short")
        except (http.client.HTTPException, ValueError):
            return not_available("what it answered is not HTTP")
        except OSError as error:
            return not_available(f"no connection to it: {error.strerror or 'it broke'}")
        return self._outcome(status, location, body)

    def _outcome(self, status: int, location: str, body: bytes) -> Rights | Refused:
        if status in (401, 403):
            return Refused(403, "not_allowed", f"the site says no ({status}): log in, and register again")
        if 300 <= status < 400:
            return Refused(403, "not_allowed", _ELSEWHERE.format(status=status, location=location or "nowhere"))
        if status != 200:
            return not_available(f"it answered with status {status}")
        if len(body) > MAX_ANSWER:
            return not_available(f"its answer has more than {MAX_ANSWER} bytes: use names that end with *")
        try:
            answer = json_text.read(body.decode(json.detect_encoding(body)))
        except ValueError:
            return not_available("its answer is not JSON: look whether it prints something else, a warning say")
        claims = {"ids": answer} if isinstance(answer, list) else answer
        if not isinstance(claims, dict) or not claims.keys() & {"ids", "push"}:
            return not_available('its answer is not a list of ids, nor an object such as {"ids": ["42"]}')
        try:
            return rights_of(claims, self._settings)
        except ValueError as error:
            return not_available(f"its answer cannot be used: {error}")

    def _too_late(self) -> Refused:
        return not_available(f"it did not answer within {self._settings.auth_timeout:g} s (setting auth_timeout)")


def _key_of(cookies: str) -> bytes:
    return hashlib.blake2b(cookies.encode("utf-8", "replace"), digest_size=16).digest()


def get(url: str, cookies: str, deadline: float) -> tuple[int, str, bytes]:
    """GET a URL with these cookies: the status, where it redirects to without the query, and MAX_ANSWER + 1 bytes.

    All must be over by `deadline` (monotonic), also if the other side sends a byte now and then; only a name server
    that hangs can make it longer. Raises TimeoutError, OSError, ValueError, http.client.HTTPException, and of these
    IncompleteRead if the answer ends before its length says.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    with contextlib.ExitStack() as opened:
        sock = socket.create_connection((parts.hostname, parts.port or (443 if secure else 80)), _left(deadline))
        opened.callback(sock.close)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        if secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
            sock.settimeout(_left(deadline))
            sock = context.wrap_socket(sock, server_hostname=parts.hostname)
            opened.callback(sock.close)
        connection.sock = _Timed(sock, deadline)
        headers = {"Accept": "application/json", "Connection": "close"}
        if cookies:
            headers["Cookie"] = cookies
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER + 1)
        if response.length and len(body) <= MAX_ANSWER:  # http.client returns what there is, and no error
            raise http.client.IncompleteRead(body, response.length)
        return response.status, _printable(response.getheader("Location", "")), body


def _left(deadline: float) -> float:
    """Seconds that are left. Raises TimeoutError where none are."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _printable(location: str) -> str:
    # Without the query, in which PHP may have put the session's id.
    return "".join(each for each in location.partition("?")[0][:200] if each.isprintable())


class _Timed(io.RawIOBase):
    """A socket as http.client uses one, with a deadline for everything together and not for each piece."""

    def __init__(self, sock: socket.socket, deadline: float):
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._sock, self._deadline))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)
