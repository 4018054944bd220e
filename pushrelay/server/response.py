"""One HTTP response: what a WSGI app returns, framed and written (RFC 9112, PEP 3333)."""

import json
import re
import select
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple

from .connection import SLOW
from .request import Known, Request

# An app is asked for more when less than this waits to be sent, so a slow reader costs this and one piece.
AHEAD_BYTES = 256 * 1024
FILE_BLOCK = 65536

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# The server's own business (PEP 3333: "Other HTTP Features"): the app may ask for a close, the rest is dropped.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


class FileWrapper:
    """`wsgi.file_wrapper`: a file, in blocks."""

    def __init__(self, file: Any, block: int = FILE_BLOCK):
        self._file = file
        self._block = block
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        if data := self._file.read(self._block):
            return data
        raise StopIteration


class _Head(NamedTuple):
    """A head that was built, and what building it decided about the body and the connection."""

    data: bytes
    left: int
    chunked: bool
    keep_alive: bool
    is_plain: bool  # behind it comes the whole body as it is


class _Heads:
    """The heads of this second: an app answers with the same few, and the Date in them is good for as long."""

    MOST = 256  # apps that make up headers for each answer must not fill the memory

    def __init__(self) -> None:
        self._heads: dict[Any, _Head] = {}
        self._second = 0

    def get(self, key: Any) -> _Head | None:
        return self._heads.get(key) if int(time.time()) == self._second else None

    def add(self, key: Any, head: _Head) -> _Head:
        second = int(time.time())
        if second != self._second or len(self._heads) >= self.MOST:
            self._heads, self._second = {}, second
        self._heads[key] = head
        return head


_heads = _Heads()


class Response:
    """The answer to one request. `start` is the app's start_response, `deliver` and `pump` send what it returned."""

    # What each begins with. On the class: most answers never change the half of it.
    status: str | None = None
    _headers: Sequence[tuple[str, str]] = ()
    head_sent = False
    sent = 0  # bytes of the body
    _chunked = False
    _left = -1  # bytes of the body that are still to come; -1 where the app did not say
    _iterator: Any = None
    _close: Callable[[], Any] | None = None  # the iterable's own, to be called once

    def __init__(self, connection: Any, request: Request, send_timeout: float):
        self._connection = connection
        self._request = request
        self._send_timeout = send_timeout

    def start(self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """WSGI's start_response. Nothing is sent before the first byte of the body (PEP 3333)."""
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
        """The old way to send a body, for apps that need it. Blocks while the client is slow."""
        self._emit(data)
        if self._connection.backlog > AHEAD_BYTES:
            self._wait()

    def deliver(self, result: Iterable[bytes]) -> bool:
        """Send what the app returned. False where `pump` has to go on once the client has taken some of it."""
        if type(result) is list and len(result) == 1 and not self.head_sent:
            self.send_whole(result[0])
            return True
        self._close = getattr(result, "close", None)
        self._iterator = iter(result)
        return self.pump()

    def pump(self) -> bool:
        """Send on until all is sent (True) or too much waits to be sent (False)."""
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
        """Send head and body at once, in one packet if they fit."""
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
        elif self._chunked:  # the app asked for no such thing, but it may have called write() before
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        self.sent = len(body)
        if self._left > 0 and not self._bodyless():
            self._request.keep_alive = False
        self._connection.write(head.data + body)

    def close(self) -> None:
        """Tell the iterable that it is over, once, however that came about."""
        close, self._close = self._close, None
        self._iterator = None
        if close is not None:
            close()

    def _emit(self, piece: bytes) -> None:
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
        if not self.head_sent:
            self.send_whole(b"")
        elif self._chunked and not self._bodyless():
            self._connection.write(b"0\r\n\r\n")
        elif self._left > 0 and not self._bodyless():
            self._request.keep_alive = False  # the client must see that something is missing

    def _bodyless(self) -> bool:
        """Whether the client expects no body whatever the header says (RFC 9110, 6.4.1)."""
        status = self.status or ""
        return status[:3] in ("204", "304") or status[0] == "1" or self._request.environ["REQUEST_METHOD"] == "HEAD"

    def head(self, whole: int | None) -> _Head:
        """The head; `whole` is the body's length where all of it is here."""
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
        request = self._request
        lines = [f"HTTP/1.1 {self.status}\r\n"]
        dated = False
        for name, value in self._headers:
            low = name.lower()
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
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
        # A line break inside a value would begin a header, or a body, of an attacker's choice.
        if head.count("\n") != len(lines) or head.count("\r") != len(lines) or "\0" in head:
            raise ValueError("a response header holds a line break")
        is_plain = whole is not None and self._left in (-1, whole) and not self._chunked and not self._bodyless()
        return _Head(head.encode("latin-1"), self._left, self._chunked, request.keep_alive, is_plain)

    def _frame(self, whole: int | None, lines: list[str]) -> None:
        """Say where the body ends: by its length, by chunks, or by the end of the connection."""
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
        """Block until the client has taken what waits, with the connection's owner sending it by hand."""
        poll = select.poll()
        poll.register(self._connection.fd, select.POLLOUT)
        while self._connection.backlog and not self._connection.closed:
            if not poll.poll(self._send_timeout * 1000):
                self._connection.abort(SLOW)
            self._connection.flush()


def whole_head(known: Known, status: str, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    """The head in front of a body that is all there, for a request that was no HEAD."""
    head = _heads.get((status, tuple(headers), length, known.keep_alive, known.version, False))
    if head is None:
        response = Response(None, Request(known.environ, known.version, known.keep_alive), 0.0)
        response.start(status, headers)
        head = response.head(length)
    return head.data


def plain_answer(status: str, body: bytes, headers: str = "") -> bytes:
    """A whole answer in JSON behind which the connection is closed; `headers` are further lines of its head."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        f"Date: {formatdate(usegmt=True)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


INTERNAL_ERROR = json.dumps(
    {"error": "internal_server_error", "message": "the server failed at this, and its log says why"}
).encode()
