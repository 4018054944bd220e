"""One HTTP response: frames and sends the result of a WSGI app (RFC 9112, PEP 3333)."""

import json
import re
import select
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple, Protocol, TypeAlias

from .connection import SLOW, Connection
from .known_headers import KnownHeader, KnownHeads
from .request import Request

WSGIApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # environ, start_response

# Bytes of a response that may wait to be sent; the app is asked for more only below this limit. So a client that does
# not read costs this much plus one piece.
AHEAD_BYTES = 256 * 1024
FILE_BLOCK = 65536
MOST_LENGTHS = 256  # lengths of bodies for which heads of responses to one known header are kept

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# These headers are the server's own (PEP 3333, "Other HTTP Features"). The app may request a close; others are dropped.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


class Readable(Protocol):
    """A file, as far as FileWrapper needs it. Its `close` is optional."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none at the end."""


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an iterable of blocks, each of at most `block` bytes."""

    def __init__(self, file: Readable, block: int = FILE_BLOCK):
        self._file = file
        self._block = block
        close: Callable[[], object] | None = getattr(file, "close", None)
        if close is not None:
            self.close = close

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        if data := self._file.read(self._block):
            return data
        raise StopIteration


class _Head(NamedTuple):
    """The head of a response, and its consequences for the body and the connection."""

    data: bytes
    left: int  # bytes of the body that are still to come; -1 if unknown
    chunked: bool
    keep_alive: bool
    is_plain: bool  # the whole body follows as it is


# Status, headers, length of the body if known, keep-alive, HTTP version, and whether the request was HEAD.
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...], int | None, bool, str, bool]


class _Heads:
    """The heads of this second, for which their Date is valid: an app sends the same few again and again."""

    LIMIT = 256  # an app with different headers in each response must not fill the memory

    def __init__(self) -> None:
        self._heads: dict[_Key, _Head] = {}
        self._second = 0

    def get(self, key: _Key) -> _Head | None:
        return self._heads.get(key) if int(time.time()) == self._second else None

    def add(self, key: _Key, head: _Head) -> _Head:
        second = int(time.time())
        if second != self._second or len(self._heads) >= self.LIMIT:
            self._heads, self._second = {}, second
        self._heads[key] = head
        return head


_heads = _Heads()


class Response:
    """The response to one request: `start` is the app's start_response; `deliver` and `pump` send its result.

    `send_timeout` is the number of seconds after which a client that does not read is dropped while the app calls
    `write`.
    """

    # The initial state is on the class, because most responses change less than half of it.
    status: str | None = None
    _headers: Sequence[tuple[str, str]] = ()
    head_sent = False
    sent = 0  # bytes of the body
    _chunked = False
    _left = -1  # bytes of the body that are still to come; -1 if the app sets no Content-Length
    _iterator: Any = None
    _close: Callable[[], Any] | None = None  # the iterable's own, called once

    def __init__(self, connection: Connection | None, request: Request, send_timeout: float):
        self._connection: Connection = connection  # type: ignore[assignment]  # None if only its head is used
        self._request = request
        self._send_timeout = send_timeout

    def start(self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """Set status and headers, as WSGI's start_response. They are sent with the body's first byte (PEP 3333).

        Raises ValueError for an invalid status, AssertionError if it is called twice, or the exception in
        `exc_info` if the head has been sent.
        """
        if exc_info is not None:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response was called twice without exc_info")
        if type(status) is not str or not (status[:3].isdigit() and status[3:4] == " "):
            raise ValueError(f"a WSGI status is a string such as '200 OK', not {status!r}")
        self.status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send part of the body through WSGI's old `write` callable. Blocks while the client is slow."""
        self._emit(data)
        if self._connection.backlog > AHEAD_BYTES:
            self._wait()

    def deliver(self, result: Iterable[bytes]) -> bool:
        """Send the app's result. Return False if `pump` must continue when the client has read some of it."""
        if type(result) is list and len(result) == 1 and not self.head_sent:
            self.send_whole(result[0])
            return True
        self._close = getattr(result, "close", None)
        self._iterator = iter(result)
        return self.pump()

    def pump(self) -> bool:
        """Continue to send, until all is sent (return True) or too much waits to be sent (return False)."""
        for piece in self._iterator:
            if piece:
                self._emit(piece)
            if self._connection.closed:
                break
            if self._connection.backlog > AHEAD_BYTES:
                return False
        self.close()
        self._end()
        return True

    def send_whole(self, body: bytes) -> None:
        """Send head and body in one call."""
        head = self.head(len(body))
        self.head_sent = True
        if head.is_plain:
            self.sent = len(body)
            self._connection.write(head.data + body)
            return
        if self._bodyless():
            body = b""
        if self._left >= 0:
            body = body[: self._left]
            self._left -= len(body)
        elif self._chunked:  # the head is in chunks because the app called write() before
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        self.sent = len(body)
        if self._left > 0 and not self._bodyless():
            self._request.keep_alive = False
        self._connection.write(head.data + body)

    def close(self) -> None:
        """Close the app's iterable, once."""
        close, self._close = self._close, None
        self._iterator = None
        if close is not None:
            close()

    def _emit(self, piece: bytes) -> None:
        """Send one piece of the body, with the head before the first one."""
        if type(piece) is not bytes:
            raise TypeError(f"a WSGI body is made of bytes, not of {type(piece).__name__}")
        out = b""
        if not self.head_sent:
            out = self.head(None).data
            self.head_sent = True
        if not self._bodyless():
            if self._left >= 0:
                piece = piece[: self._left]
                self._left -= len(piece)
            self.sent += len(piece)
            out += b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked and piece else piece
        if out:
            self._connection.write(out)

    def _end(self) -> None:
        """Send the end of the body."""
        if not self.head_sent:
            self.send_whole(b"")
        elif self._chunked and not self._bodyless():
            self._connection.write(b"0\r\n\r\n")
        elif self._left > 0 and not self._bodyless():
            self._request.keep_alive = False  # the client must see that something is missing

    def _bodyless(self) -> bool:
        """Return whether the response has no body, whatever its header contains (RFC 9110, 6.4.1)."""
        status = self.status or ""
        return status[:3] in ("204", "304") or status[0] == "1" or self._request.environ["REQUEST_METHOD"] == "HEAD"

    def head(self, whole: int | None) -> _Head:
        """Return the head; `whole` is the length of the body if all of it is here."""
        if self.status is None:
            raise AssertionError("the app returned without having called start_response")
        request = self._request
        key = (
            self.status,
            tuple(self._headers),
            whole,
            request.keep_alive,
            request.version,
            request.environ["REQUEST_METHOD"] == "HEAD",
        )
        head = _heads.get(key) or _heads.add(key, self._build_head(whole))
        if not head.is_plain:
            self._left, self._chunked = head.left, head.chunked
        request.keep_alive = head.keep_alive
        return head

    def _build_head(self, whole: int | None) -> _Head:
        """Build a head. Raises ValueError if a header could change the meaning of the response."""
        request = self._request
        lines = [f"HTTP/1.1 {self.status}\r\n"]
        dated = False
        for name, value in self._headers:
            low = name.lower()
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid name of a header")
            if low in _HOP_BY_HOP:
                if low == "connection" and "close" in value.lower():
                    request.keep_alive = False
                continue
            if low == "content-length":
                self._left = int(value)
            elif low == "date":
                dated = True
            lines.append(f"{name}: {value}\r\n")
        if not dated:
            lines.append(f"Date: {formatdate(usegmt=True)}\r\n")
        self._frame(whole, lines)
        if not request.keep_alive:
            lines.append("Connection: close\r\n")
        elif request.version == "1.0":
            lines.append("Connection: keep-alive\r\n")
        lines.append("\r\n")
        head = "".join(lines)
        # A line break inside a value would let an attacker add headers, or a body.
        if head.count("\n") != len(lines) or head.count("\r") != len(lines) or "\0" in head:
            raise ValueError("a response header holds a line break")
        is_plain = whole is not None and self._left in (-1, whole) and not self._chunked and not self._bodyless()
        return _Head(head.encode("latin-1"), self._left, self._chunked, request.keep_alive, is_plain)

    def _frame(self, whole: int | None, lines: list[str]) -> None:
        """Mark the end of the body: by its length, by chunks, or by the end of the connection."""
        if self._left >= 0 or (self.status or "")[:3] in ("204", "304") or (self.status or "")[0] == "1":
            return
        if whole is not None:
            if whole or self._request.environ["REQUEST_METHOD"] != "HEAD":
                lines.append(f"Content-Length: {whole}\r\n")
        elif self._request.version == "1.1":
            self._chunked = True
            lines.append("Transfer-Encoding: chunked\r\n")
        else:
            self._request.keep_alive = False

    def _wait(self) -> None:
        """Block until the client has read everything, and send it here, because this thread owns the connection."""
        poll = select.poll()
        poll.register(self._connection.fd, select.POLLOUT)
        while self._connection.backlog and not self._connection.closed:
            if not poll.poll(self._send_timeout * 1000):
                self._connection.abort(SLOW)
            self._connection.flush()


def whole_head(known: KnownHeader, status: str, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    """Return the head for a whole body of `length` bytes, in response to a request other than HEAD."""
    heads = known.heads
    if not heads.are_for(status, headers):
        heads = KnownHeads(status, headers)
        if type(headers) is tuple:  # a list may change
            known.heads = heads
    head = heads.by_length.get(length)
    if head is None:
        response = Response(None, Request(known.environ, known.version, known.keep_alive), 0.0)
        response.start(status, headers)
        head = response.head(length).data
        if len(heads.by_length) < MOST_LENGTHS:
            heads.by_length[length] = head
    return head


def error_response(status: str, body: bytes, headers: str = "") -> bytes:
    """Return a whole JSON response that announces the end of the connection; `headers` are more lines of its head."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        f"Date: {formatdate(usegmt=True)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


INTERNAL_ERROR = json.dumps(
    {"error": "internal_server_error", "message": "the relay failed at this request; its log has the reason"}
).encode()
