"""HTTP/1.1 requests, without I/O: bytes in, WSGI environs out (RFC 9112, PEP 3333).

httptools (the parser of Node) reads; what it lets pass and we do not is refused here. Whoever gets `Refused` sends its
answer and closes the connection: after a request that two readers could read in two ways, nothing that follows on the
connection can be trusted.
"""

import contextlib
import io
import json
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools


@dataclass(frozen=True)
class Limits:
    """What a client may take of the server. Seconds are counted to within a second."""

    max_header: int = 32768  # Apache takes 8 KiB a line, and its proxies pass cookies on
    header_timeout: float = 10.0
    max_body: int = 16 * 1024 * 1024
    body_timeout: float = 60.0  # for the whole body
    idle_timeout: float = 75.0  # between requests; longer than proxies keep theirs, so that it is they who close
    send_timeout: float = 60.0  # without taking anything of a response
    spill_bytes: int = 256 * 1024  # of a body that are kept in memory; beyond it lies in a temporary file


class Refused(Exception):
    """A request that is answered with an error, and its connection closed."""

    def __init__(self, status: str, error: str, message: str):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.body = json.dumps({"error": error, "message": message}).encode()


# The first bytes of TLS: a handshake, of any version (RFC 8446, 5.1).
_TLS = b"\x16\x03"
_NO_METHOD = "this is not HTTP/1.1, or not a method that the relay knows: GET, POST, DELETE"
_HTTPS = (
    "this is https, and the relay's own port takes http: write http:// before this address, or have browsers connect "
    "to a web server in front that has the certificate"
)


def bad_request(message: str) -> Refused:
    return Refused("400 Bad Request", "bad_request", message)


# The headers that clients send, as they mostly spell them: everything else is worked out each time.
_COMMON = """
    Host Connection User-Agent Accept Accept-Encoding Accept-Language Cookie Origin Referer Cache-Control Pragma
    Upgrade Sec-WebSocket-Key Sec-WebSocket-Version Sec-WebSocket-Extensions Authorization Expect Transfer-Encoding
    X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Real-IP Forwarded Idempotency-Key X-Relay-Key
"""
_SPELT = _COMMON.split() + _COMMON.lower().split()
_KEYS = {name.encode(): "HTTP_" + name.upper().replace("-", "_") for name in _SPELT}
_KEYS |= {b"Content-Type": "CONTENT_TYPE", b"content-type": "CONTENT_TYPE"}
_KEYS |= {b"Content-Length": "CONTENT_LENGTH", b"content-length": "CONTENT_LENGTH"}
_ONLY_ONCE = {"HTTP_HOST", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_SEC_WEBSOCKET_KEY"}


def environ_key(name: bytes) -> str:
    """The environ's key for a header; empty where the header is to be dropped.

    With an underscore in it, `X_Forwarded_For` would pass for `X-Forwarded-For`, which a proxy takes care to strip.
    """
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


# A program that pushes sends the same header again and again, so what a header was read as is kept: by its very bytes,
# for a parser between two requests, and only where the body is as long as it says and came along. These are bounds of
# what a server remembers; a header of such a size costs some 2 KiB.
REMEMBERED_BYTES = 1024
REMEMBERED_HEADERS = 256


class Known:
    """What a header was read as."""

    __slots__ = ("environ", "keep_alive", "length", "take", "version")

    def __init__(self, environ: dict[str, Any], version: str, keep_alive: bool, length: int):
        self.environ = environ  # without the body; what is the peer's is replaced for each request
        self.version = version
        self.keep_alive = keep_alive
        self.length = length  # of the body
        self.take: Any = None  # the app's shortcut for such requests, if it has one: see server.Server


Remembered = dict[bytes, Known]


class Request:
    """One request that is complete: its environ, its body, and whether the connection goes on after it."""

    __slots__ = ("environ", "keep_alive", "spilled", "version")

    def __init__(self, environ: dict[str, Any], version: str, keep_alive: bool, spilled: bool = False):
        self.environ = environ
        self.version = version
        self.keep_alive = keep_alive
        self.spilled = spilled  # the body lies in a file, to be closed


class Parser:
    """Bytes in, requests out. Raises Refused; what was complete before is in `requests` also then."""

    def __init__(
        self,
        base: dict[str, Any],
        peer: dict[str, Any],
        limits: Limits,
        remembered: Remembered,
        shortcut: Callable[[dict[str, Any]], Any] | None = None,
    ):
        """`base` is what all environs of a server hold, `peer` what those of this connection do.

        `shortcut(environ)` is asked for each header that is remembered: see server.Server.
        """
        self._remembered = remembered  # shared by all parsers of a server
        self._shortcut = shortcut
        self._base = base
        self._peer = peer
        self._limits = limits
        self._header_bytes = b""  # what the request under way began with, while it may be remembered
        self.requests: deque[Request] = deque()
        self.upgrade_rest: bytes | None = None  # what came behind a request that asks for another protocol
        self.wants_continue = False
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._fed = 0  # bytes in the last call of feed
        self._completed = False  # a request ended in this call of feed
        self._stand_in = False  # the header under way is the one that `_upgraded` makes up
        self._forget()

    def _forget(self) -> None:
        self.phase = "idle"  # then "header", then "body"
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._seen = 0  # bytes fed since the header began, what else came with its beginning not counted
        self._environ: dict[str, Any] = {}
        self._version = ""
        self._body: Any = None
        self._body_size = 0
        self._refused: Refused | None = None

    def feed(self, data: bytes) -> None:
        """Read on. May complete several requests."""
        if self.phase == "idle":
            known = self.recognize(data)
            if known is not None:
                self.requests.append(self.request_of(known, data))
                return
            self._header_bytes = data
        else:
            self._header_bytes = b""
        self._completed = False
        rest: bytes | None = data
        while rest is not None:  # not a call in itself: a client may send hundreds of upgrades in one packet
            rest = self._parse(rest)
        # Where this held requests before the one that begins here, nobody knows how much of it is the header's.
        if self.phase == "header" and not self._completed:
            self._seen += len(data)
            if self._seen > self._limits.max_header:
                raise self._header_too_large()

    def close(self) -> None:
        """Read no more. It and llhttp know each other, which would leave them to the garbage collector."""
        self._llhttp = None

    def _parse(self, data: bytes) -> bytes | None:
        """Feed llhttp. Returns what is to be fed next, where a request that asked for an upgrade is over."""
        self._fed = len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            # Not 501 for what looks like a method: llhttp fails at its first unknown letter, wherever the piece ends.
            raise bad_request(_HTTPS if data.startswith(_TLS) else _NO_METHOD) from None
        except httptools.HttpParserError as error:
            raise self._noted() or bad_request(f"this is not HTTP/1.1: {error}") from None
        return None

    def _noted(self) -> Refused | None:
        """The refusal that was noted, no more to be kept here: its traceback knows this parser."""
        refused, self._refused = self._refused, None
        return refused

    def recognize(self, data: bytes) -> Known | None:
        """Whether this is a whole request between two others, whose header was read before. None: it has to be fed."""
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_BYTES) + 4
        known = self._remembered.get(data[:end])
        if known is None or len(data) - end != known.length or self.phase != "idle":
            return None
        return known

    def request_of(self, known: Known, data: bytes) -> Request:
        """The request that was recognized."""
        environ = known.environ.copy()
        environ.update(self._peer)
        environ["wsgi.input"] = io.BytesIO(data[len(data) - known.length :])
        return Request(environ, known.version, known.keep_alive)

    def _remember(self, request: Request) -> None:
        """Keep what the header was read as, if all of the request came at once and nothing else with it."""
        data = self._header_bytes
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_BYTES) + 4
        environ = request.environ
        odd = environ["QUERY_STRING"] or any(key in environ for key in ("HTTP_UPGRADE", "HTTP_EXPECT", "HTTP_COOKIE"))
        if end > 4 and not odd and len(data) - end == self._body_size == int(environ.get("CONTENT_LENGTH") or 0):
            if len(self._remembered) >= REMEMBERED_HEADERS:
                self._remembered.clear()
            kept = {name: value for name, value in environ.items() if name != "wsgi.input"}
            known = Known(kept, request.version, request.keep_alive, self._body_size)
            known.take = self._shortcut(kept) if self._shortcut is not None else None
            self._remembered[data[:end]] = known

    def _header_too_large(self) -> Refused:
        message = f"the header has {self._limits.max_header} bytes at most (setting max_header)"
        return Refused("431 Request Header Fields Too Large", "header_too_large", message)

    def _upgraded(self, rest: bytes) -> bytes | None:
        """llhttp takes a request with `Upgrade` for the last one of HTTP, and leaves its body to what comes next.

        Only a WebSocket handshake is the last one. For any other request a new parser, which knows nothing of the
        upgrade, reads the body and what follows it.
        """
        if self._environ.get("HTTP_UPGRADE", "").lower() == "websocket" and self._environ["REQUEST_METHOD"] == "GET":
            self.upgrade_rest = rest
            self._complete()
            self.requests[-1].keep_alive = False  # nothing of HTTP can follow, also where the upgrade is refused
            return None
        framing = (
            "Transfer-Encoding: chunked"
            if "HTTP_TRANSFER_ENCODING" in self._environ
            else (f"Content-Length: {self._environ.get('CONTENT_LENGTH') or 0}")
        )
        self._header_bytes = b""  # it began with another request
        self._llhttp = httptools.HttpRequestParser(self)
        self._stand_in = True
        self._llhttp.feed_data(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        self.phase = "body" if self._environ else "idle"
        return rest or None

    # Called by httptools. What these raise ends the parsing, so a refusal is noted before.

    def on_message_begin(self) -> None:
        self.phase = "header"

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))
        if self.phase == "body":  # a trailer; it is not used, and it is bounded like the header
            self._seen += len(name) + len(value)
            if self._seen > self._limits.max_header:
                self._refused = self._header_too_large()
                raise self._refused

    def on_headers_complete(self) -> None:
        if self._stand_in:
            self._stand_in = False
            return
        try:
            if self._seen + self._fed > self._limits.max_header:
                self._check_header_size()
            self._version = self._llhttp.get_http_version()
            self._environ = self._read_header()
            self.phase, self._seen = "body", 0
        except Refused as refused:
            self._refused = refused
            raise

    def on_body(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._body_size > self._limits.max_body:
            self._refused = self._body_too_large()
            raise self._refused
        if self._body is None:
            self._body = io.BytesIO()
        elif self._body_size > self._limits.spill_bytes and type(self._body) is io.BytesIO:
            self._spill()
        self._body.write(data)

    def _spill(self) -> None:
        """Go on in a file; with no file descriptor left the body stays in memory."""
        with contextlib.suppress(OSError):
            file = tempfile.TemporaryFile(prefix="relay-body-")  # noqa: SIM115 (it is the app's)
            try:
                file.write(self._body.getbuffer())
            except OSError:
                file.close()
                raise
            self._body = file

    def on_message_complete(self) -> None:
        if not self._llhttp.should_upgrade():  # `_upgraded` finds out what is to become of it
            self._complete()

    def _complete(self) -> None:
        environ = self._environ
        if self._body is None:
            environ["wsgi.input"] = io.BytesIO()
        else:
            self._body.seek(0)
            environ["wsgi.input"] = self._body
            if "HTTP_TRANSFER_ENCODING" in environ:
                # The chunks are put together: what the app reads is a body of known length.
                environ["CONTENT_LENGTH"] = str(self._body_size)
        spilled = self._body is not None and type(self._body) is not io.BytesIO
        request = Request(environ, self._version, self._keeps_alive(environ), spilled)
        if "HTTP_TRANSFER_ENCODING" in environ:
            del environ["HTTP_TRANSFER_ENCODING"]
        elif self._header_bytes:
            self._remember(request)
            self._header_bytes = b""
        self.requests.append(request)
        self._completed = True
        self._forget()

    # The header.

    def _check_header_size(self) -> None:
        """Count exactly: what was fed may have held more than this header."""
        size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._fields)
        if size > self._limits.max_header:
            raise self._header_too_large()

    def _keeps_alive(self, environ: dict[str, Any]) -> bool:
        connection = environ.get("HTTP_CONNECTION")
        if connection is None:
            return self._version == "1.1"
        tokens = {token.strip() for token in connection.lower().split(",")}
        return "close" not in tokens if self._version == "1.1" else "keep-alive" in tokens

    def _read_header(self) -> dict[str, Any]:
        if self._version not in ("1.1", "1.0"):
            raise Refused("505 HTTP Version Not Supported", "http_version", "speak HTTP/1.1 or HTTP/1.0")
        environ = self._base.copy()
        environ.update(self._peer)
        environ["REQUEST_METHOD"] = self._llhttp.get_method().decode("ascii")
        environ["SERVER_PROTOCOL"] = "HTTP/" + self._version
        self._read_fields(environ)
        self._read_target(environ)
        if "HTTP_HOST" not in environ and self._version == "1.1":
            raise bad_request("an HTTP/1.1 request has one Host header")
        self._check_framing(environ)
        if "HTTP_UPGRADE" in environ:
            self._check_upgrade(environ)
        return environ

    def _check_upgrade(self, environ: dict[str, Any]) -> None:
        """Ignore an upgrade that cannot be carried out, as RFC 9110, 7.8 demands for HTTP/1.0 and allows for the rest.

        A body in front of the new protocol belongs to the request: its bytes must never be read as frames.
        """
        has_body = environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if self._version == "1.0" or has_body:
            del environ["HTTP_UPGRADE"]

    def _read_fields(self, environ: dict[str, Any]) -> None:
        for name, value in self._fields:
            key = _KEYS.get(name) or environ_key(name)
            text = value.decode("latin-1")
            if not key:
                continue
            if key not in environ:
                environ[key] = text
            elif key in _ONLY_ONCE:
                raise bad_request(f"the header {name.decode('latin-1')[:50]} is there twice")
            else:
                environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + text

    def _read_target(self, environ: dict[str, Any]) -> None:
        """Origin form, or the absolute form that proxies use, whose host counts then (RFC 9112, 3.2.2)."""
        target = self._target
        environ["REQUEST_URI"] = environ["RAW_URI"] = target.decode("latin-1")
        if target[:1] != b"/" and target != b"*":
            scheme, _, rest = target.partition(b"://")
            if scheme.lower() not in (b"http", b"https"):
                raise bad_request("the target of a request is a path, or a whole http:// address")
            host, slash, rest = rest.partition(b"/")
            host, mark, query = host.partition(b"?")
            environ["HTTP_HOST"] = host.decode("latin-1")
            target = (slash or b"/") + rest + mark + query
        path, _, query = target.partition(b"?")
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")

    def _check_framing(self, environ: dict[str, Any]) -> None:
        """How long the body is must be said once and plainly (RFC 9112, 6.3 and 11.2)."""
        length, coding = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            raise bad_request("Content-Length is one decimal number")
        if coding is not None:
            if length is not None or self._version != "1.1":
                raise bad_request("Transfer-Encoding belongs to HTTP/1.1, and not beside a Content-Length")
            if coding.strip().lower() != "chunked":
                message = "the only Transfer-Encoding that is understood here is chunked"
                raise Refused("501 Not Implemented", "transfer_encoding", message)
        elif not length or length == "0":
            return
        elif int(length) > self._limits.max_body:
            raise self._body_too_large()
        self._check_expect(environ)

    def _check_expect(self, environ: dict[str, Any]) -> None:
        expect = environ.get("HTTP_EXPECT")
        if expect is None or self._version != "1.1":
            return
        if expect.strip().lower() != "100-continue":
            raise Refused("417 Expectation Failed", "expectation", "the only Expect that is met here is 100-continue")
        self.wants_continue = True

    def _body_too_large(self) -> Refused:
        message = (
            f"a body has {self._limits.max_body} bytes at most (setting max_body): send less, or raise the setting"
        )
        return Refused("413 Content Too Large", "too_large", message)
