"""A client of the relay that behaves as a browser does: Engine.IO 4 and Socket.IO 5, over WebSocket or long polling.

It has no thread. It answers pings only while one of its methods waits, so call `next_event` at least once in each ping
interval.
"""

import contextlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .dialer import TIMEOUT, Dialer
from .errors import ClientError, ClientTimeout
from .polling import Polling

TRANSPORTS = ("websocket", "polling")
_TARGET = "socket.io/?EIO=4&transport="
# The first character is Engine.IO's ("4" is a message). The second is Socket.IO's, in the namespace "/".
_OPEN, _CLOSE, _PING, _PONG = "0", "1", "2", "3"
_CONNECT, _DISCONNECT, _EVENT, _ACK, _CONNECT_ERROR = "40", "41", "42", "43", "44"
_PACKET = re.compile(r"(4[0-4]|[0-3])?(\d*)(.*)", re.DOTALL)
_LONGEST_PING = 86400_000  # ms; no relay pings less often, and the timeouts of sockets have a bound


class Transport(Protocol):
    """A transport, which carries the packets. All methods raise ClientError."""

    def send(self, packet: str) -> None:
        """Send a packet."""

    def receive(self, timeout: float) -> list[str]:
        """Return the packets that have come, none after `timeout` seconds."""

    def close(self) -> None:
        """Close the connection."""


class SocketIOClient:
    """One connection to a relay, in the namespace "/".

    All methods raise ClientError if the connection ends or is refused, or if no answer comes in time. `handshake` has
    what the relay sent first: sid, pingInterval and pingTimeout (both in ms). `patience` is the number of seconds for
    which the relay may send nothing, `pings` the number of pings it has sent.
    """

    def __init__(self, dialer: Dialer, transport: str, headers: Mapping[str, str] | None = None):
        self.handshake: dict[str, Any] = {}
        self.patience = TIMEOUT
        self.pings = 0
        self._acks_wanted = 0  # the number of the last event that asks for an acknowledgement
        self._events: deque[tuple[str, dict[str, Any]]] = deque()
        self._acks: dict[int, dict[str, Any]] = {}  # by the number of the event
        self._is_connected = False
        self._last_received = time.monotonic()
        self._transport = _opened(dialer, transport, headers or {})
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self._wait_for(lambda: bool(self.handshake), TIMEOUT)
        if isinstance(self._transport, Polling):
            self._transport.join(self.handshake["sid"])
            self._transport.patience = self.patience
        self._transport.send(_CONNECT)
        self._wait_for(lambda: self._is_connected, TIMEOUT)

    def call(self, event: str, body: Any, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Send an event, and return its acknowledgement."""
        self._acks_wanted += 1
        number = self._acks_wanted
        self._transport.send(f"{_EVENT}{number}{json.dumps([event, body])}")
        self._wait_for(lambda: number in self._acks, timeout)
        return self._acks.pop(number)

    def next_event(self, timeout: float) -> tuple[str, dict[str, Any]] | None:
        """Return the next event as (name, body); None if none comes in `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self._events:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._receive(left)
        return self._events.popleft()

    def wait_for_ping(self, timeout: float) -> bool:
        """Wait until the relay sends a ping. Return False if none comes in `timeout` seconds."""
        before, end = self.pings, time.monotonic() + timeout
        while self.pings == before and (left := end - time.monotonic()) > 0:
            self._receive(left)
        return self.pings > before

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(ClientError):
            self._transport.close()

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                raise ClientTimeout(f"there was no answer within {timeout:g} s")
            self._receive(left)

    def _receive(self, timeout: float) -> None:
        """Handle the packets that come within `timeout` seconds. A relay that misses its own ping is gone."""
        silent = time.monotonic() - self._last_received
        packets = self._transport.receive(max(min(timeout, self.patience - silent), 0.0))
        if packets:
            self._last_received = time.monotonic()
        elif time.monotonic() - self._last_received >= self.patience:
            raise ClientError(f"the relay sent nothing for {self.patience:g} s, not even a ping")
        for packet in packets:
            self._handle(packet)

    def _handle(self, packet: str) -> None:
        found = _PACKET.fullmatch(packet)
        kind, number, text = found.groups() if found else (None, "", "")
        if kind is None:
            raise ClientError("the server does not follow the Engine.IO protocol")
        try:
            body = json.loads(text) if text else None
            if kind == _CONNECT_ERROR:
                reason = _object(body).get("message", text)
            else:
                self._handle_body(kind, number, body)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            raise ClientError("the server's answer is not Socket.IO") from None
        if kind in (_CLOSE, _DISCONNECT):
            raise ClientError("the relay closed the connection")
        if kind == _CONNECT_ERROR:
            raise ClientError(f"the relay refused the connection: {reason}")

    def _handle_body(self, kind: str, number: str, body: Any) -> None:
        """Handle a packet by its kind. Raises several kinds of errors if the body is not one for this kind."""
        if kind == _OPEN:
            self.handshake = _handshake(body)
            self.patience = (self.handshake["pingInterval"] + self.handshake["pingTimeout"]) / 1000
        elif kind == _PING:
            self.pings += 1
            self._transport.send(_PONG)
        elif kind == _CONNECT:
            self._is_connected = True
        elif kind == _EVENT:
            self._events.append((str(body[0]), _object(body[1])))
        elif kind == _ACK:
            self._acks[int(number)] = _object(body[0])


def _opened(dialer: Dialer, transport: str, headers: Mapping[str, str]) -> Transport:
    if transport == "websocket":
        return dialer.open_websocket(f"{_TARGET}websocket", headers)
    return Polling(dialer, f"{_TARGET}polling", headers)


def _handshake(body: Any) -> dict[str, Any]:
    """Return the fields of Engine.IO's OPEN packet that are used. Raises ValueError, KeyError or TypeError."""
    handshake = {key: body[key] for key in ("sid", "pingInterval", "pingTimeout")}
    is_timed = all(0 < handshake[each] <= _LONGEST_PING for each in ("pingInterval", "pingTimeout"))
    if not is_timed or not re.fullmatch(r"[\w.-]{1,200}", handshake["sid"], re.ASCII):
        raise ValueError
    return handshake


def _object(body: Any) -> dict[str, Any]:
    """Return a JSON object, which all bodies of a relay are. Raises TypeError for other values."""
    if not isinstance(body, dict):
        raise TypeError
    return body
