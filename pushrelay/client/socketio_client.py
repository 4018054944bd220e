"""A client of the relay as a browser is one: Engine.IO 4 and Socket.IO 5, over WebSocket or long polling.

It does nothing by itself: whoever has one calls `next_event`, at least as often as the relay sends pings.
"""

import contextlib
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from .dialer import TIMEOUT, Dialer, Exchange, Reply, TooSlow, Trouble

TRANSPORTS = ("websocket", "polling")
_AT = "socket.io/?EIO=4&transport="
# Packets of Engine.IO ("4" is a message) and, in messages, of Socket.IO's namespace "/".
_OPEN, _CLOSE, _PING, _PONG = "0", "1", "2", "3"
_WELCOME, _GOODBYE, _EVENT, _ANSWER, _REFUSAL = "40", "41", "42", "43", "44"
_SEPARATOR = "\x1e"
_LONGEST_PING = 86400_000  # ms: no relay pings less often, and time-outs of sockets have a bound
# Seconds until a client by polling that sends looks again at what came in turn.
BETWEEN = 0.02


class Polling:
    """Long polling: a GET that is held until there is news, and a POST for each packet."""

    def __init__(self, dialer: Dialer, headers: Mapping[str, str]):
        self.patience = TIMEOUT  # seconds that a GET may be held
        self._dialer = dialer
        self._headers = headers
        self._at = _AT + "polling"
        self._poll: Exchange | None = None  # that is under way
        self._came: list[str] = []  # while something was sent

    def know(self, sid: str) -> None:
        self._at += f"&sid={sid}"

    def send(self, packet: str) -> None:
        """Raises Trouble. What comes meanwhile is taken: a relay that has much to say waits until it is."""
        with contextlib.closing(self._post(packet)) as post:
            end = time.monotonic() + self.patience
            while not post.is_answered(BETWEEN):
                if time.monotonic() > end:
                    raise TooSlow(f"there was no answer within {self.patience:g} s")
                self._came += self._take_poll(0)
            _checked(post.reply(), "POST")

    def receive(self, timeout: float) -> list[str]:
        """What has come, at the latest after so many seconds. Raises Trouble."""
        came, self._came = self._came, []
        return came or self._take_poll(timeout)

    def _post(self, packet: str) -> Exchange:
        headers = {**self._headers, "Content-Type": "text/plain"}
        return self._dialer.begin("POST", self._at, packet.encode(), headers)

    def _take_poll(self, timeout: float) -> list[str]:
        if self._poll is None:
            self._poll = self._dialer.begin("GET", self._at, b"", self._headers, self.patience)
        if not self._poll.is_answered(timeout):
            return []
        poll, self._poll = self._poll, None
        try:
            return _checked(poll.reply()).body.decode("utf-8", "replace").split(_SEPARATOR)
        finally:
            poll.close()

    def close(self) -> None:
        if self._poll is not None:
            self._poll.close()
        if "&sid=" in self._at:
            with contextlib.closing(self._post(_CLOSE)) as post:
                post.reply()


def _checked(reply: Reply, method: str = "GET") -> Reply:
    if reply.status != 200:
        raise Trouble(f"the answer was {reply.status} {reply.reason}", reply, method)
    return reply


class Visitor:
    """One connection. Its methods raise Trouble when it ends, or is refused, or nothing comes in time.

    `hello` is what the relay said first: sid, pingInterval, pingTimeout (both in ms).
    """

    def __init__(self, dialer: Dialer, transport: str, headers: Mapping[str, str] | None = None):
        headers = headers or {}
        self.hello: dict[str, Any] = {}
        self.patience = TIMEOUT  # seconds that the relay may be silent
        self.pings = 0  # of the relay's
        self._numbers = 0  # of what was asked for
        self._events: deque[tuple[str, Any]] = deque()
        self._answers: dict[int, Any] = {}
        self._is_welcome = False
        self._heard = time.monotonic()
        if transport == "websocket":
            self._wire = dialer.open_websocket(_AT + "websocket", headers)
        else:
            self._wire = Polling(dialer, headers)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self._wait(lambda: self.hello, TIMEOUT)
        if isinstance(self._wire, Polling):
            self._wire.know(self.hello["sid"])
            self._wire.patience = self.patience
        self._wire.send(_WELCOME)
        self._wait(lambda: self._is_welcome, TIMEOUT)

    def call(self, event: str, body: Any, timeout: float = TIMEOUT) -> Any:
        """Send an event, and return what it is answered with."""
        self._numbers += 1
        number = self._numbers
        self._wire.send(f"{_EVENT}{number}{json.dumps([event, body])}")
        self._wait(lambda: number in self._answers, timeout)
        return self._answers.pop(number)

    def next_event(self, timeout: float) -> tuple[str, Any] | None:
        """The next event, (name, body); None where none came in time."""
        end = time.monotonic() + timeout
        while not self._events:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._receive(left)
        return self._events.popleft()

    def wait_for_ping(self, timeout: float) -> bool:
        """Wait until the relay sends a ping; False where none came in time."""
        before, end = self.pings, time.monotonic() + timeout
        while self.pings == before and (left := end - time.monotonic()) > 0:
            self._receive(left)
        return self.pings > before

    def close(self) -> None:
        with contextlib.suppress(Trouble):
            self._wire.close()

    def _wait(self, condition: Any, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                raise TooSlow(f"there was no answer within {timeout:g} s")
            self._receive(left)

    def _receive(self, timeout: float) -> None:
        """Take what comes next. A relay that is silent for longer than its pings allow is gone."""
        silent = time.monotonic() - self._heard
        packets = self._wire.receive(max(min(timeout, self.patience - silent), 0.0))
        if packets:
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard >= self.patience:
            raise Trouble(f"the relay said nothing for {self.patience:g} s, not even a ping")
        for packet in packets:
            self._take(packet)

    def _take(self, packet: str) -> None:
        kind, number, text = re.fullmatch(r"(4[0-4]|[0-3])?(\d*)(.*)", packet, re.DOTALL).groups()
        try:
            body = json.loads(text) if text else None
            if kind == _OPEN:
                self.hello = _hello(body)
                self.patience = (self.hello["pingInterval"] + self.hello["pingTimeout"]) / 1000
            elif kind == _PING:
                self.pings += 1
                self._wire.send(_PONG)
            elif kind == _WELCOME:
                self._is_welcome = True
            elif kind == _EVENT:
                self._events.append((str(body[0]), _object(body[1])))
            elif kind == _ANSWER:
                self._answers[int(number)] = _object(body[0])
            elif kind == _REFUSAL:
                refused = _object(body).get("message", text)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            raise Trouble("what came is not Socket.IO") from None
        if kind is None:
            raise Trouble("what came is not Engine.IO")
        if kind in (_CLOSE, _GOODBYE):
            raise Trouble("the relay closed the connection")
        if kind == _REFUSAL:
            raise Trouble(f"the relay refused the connection: {refused}")


def _hello(body: Any) -> dict[str, Any]:
    """Return what the handshake says. Raises ValueError, KeyError or TypeError if no server of Engine.IO says it."""
    hello = {key: body[key] for key in ("sid", "pingInterval", "pingTimeout")}
    is_timed = all(0 < hello[each] <= _LONGEST_PING for each in ("pingInterval", "pingTimeout"))
    if not is_timed or not re.fullmatch(r"[\w-]{1,200}", hello["sid"], re.ASCII):
        raise ValueError
    return hello


def _object(body: Any) -> dict[str, Any]:
    """What the relay answers is a JSON object; raises TypeError for all else."""
    if not isinstance(body, dict):
        raise TypeError
    return body
