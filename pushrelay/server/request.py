"""HTTP/1.1 requests, without I/O: bytes in, WSGI environs out (RFC 9112, PEP 3333).

httptools (Node's parser, llhttp) parses; this module rejects what llhttp accepts although two parsers could read it
differently: Content-Length with Transfer-Encoding, two lengths, headers with an underscore, and the like. After a
`RequestError` the caller sends its response and closes the connection, because nothing that follows such a request can
be trusted.
"""

import contextlib
import io
import tempfile
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from .known_headers import REMEMBERED_BYTES, KnownHeader, KnownHeaders
from .request_error import RequestError, bad_request


@dataclass
class Limits:
    """Limits on a client's requests: bytes, and seconds that are counted to within a second.

    A server and all its connections share one object, which Server.reload() changes. Each limit stands for itself, so
    nobody needs all of them to be of the same time. The defaults are for a standalone server. The relay sets all but
    `spill_bytes` from its settings, whose defaults are the same, except for a smaller `max_body`.
    """

    max_header: int = 32768  # Apache allows 8 KiB for each line, and as a proxy forwards cookies
    header_timeout: float = 10.0
    max_body: int = 16 * 1024 * 1024
    body_timeout: float = 60.0  # for the whole body
    idle_timeout: float = 75.0  # between requests; longer than a proxy's own, so that the proxy closes first
    send_timeout: float = 60.0  # without reading anything of a response
    spill_bytes: int = 256 * 1024  # of a body in memory; a larger body goes into a temporary file


# The first bytes of TLS: a handshake, of any version (RFC 8446, 5.1).
_TLS = b"\x16\x03"
_NO_METHOD = "this is not HTTP/1.1, or not a method that the relay knows: GET, POST, DELETE"
_HTTPS = (
    "this is https, and the relay's own port takes http: write http:// before this address, or have browsers connect "
    "to a web server in front that has the certificate"
)


# The headers that clients usually send, in the usual spelling. The keys of all others are computed each time.
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
    """Return the environ's key for a header; empty if the header must be dropped.

    A header with an underscore, such as `X_Forwarded_For`, would be taken for `X-Forwarded-For`, which proxies strip.
    """
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class Request:
    """One complete request: its environ with its body, and whether the connection stays open after it."""

    __slots__ = ("environ", "keep_alive", "spilled", "version")

    def __init__(self, environ: dict[str, Any], version: str, keep_alive: bool, spilled: bool = False):
        self.environ = environ
        self.version = version
        self.keep_alive = keep_alive
        self.spilled = spilled  # the body is in a file, which must be closed


class Parser:
    """Bytes in, requests out. After a RequestError, `requests` still holds those that were complete before it."""

    def __init__(
        self,
        base: dict[str, Any],
        peer: dict[str, Any],
        limits: Limits,
        remembered: KnownHeaders,
    ):
        """`base` holds the entries of all environs of a server, `peer` those of this connection.

        All parsers of a server share `remembered`.
        """
        self._known = remembered
        self._remembered = remembered.by_bytes
        self._base = base
        self._peer = peer
        self._limits = limits
        self._header_bytes = b""  # the bytes with which this request began, while its header may be remembered
        self.requests: deque[Request] = deque()
        self.upgrade_rest: bytes | None = None  # the bytes after a request for another protocol
        self.wants_continue = False
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._fed = 0  # bytes in the last call of feed
        self._completed = False  # a request ended in this call of feed
        self._stand_in = False  # the header that llhttp reads is the one that `_ignore_upgrade` made up
        self._forget()

    def _forget(self) -> None:
        """Get ready for the next request."""
        self.phase = "idle"  # then "header", then "body"
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._seen = 0  # bytes fed since the header began, without the first piece if that held other requests
        self._environ: dict[str, Any] = {}
        self._version = ""
        self._body: Any = None
        self._body_size = 0
        self._error: RequestError | None = None

    def feed(self, data: bytes) -> None:
        """Parse the next bytes, which may complete several requests. Raises RequestError."""
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
        while rest is not None:  # no recursion: one packet may hold hundreds of upgrades
            rest = self._parse(rest)
        # If other requests came before this one in the same data, the size of this header's part is unknown.
        if self.phase == "header" and not self._completed:
            self._seen += len(data)
            if self._seen > self._limits.max_header:
                raise self._header_too_large()

    def close(self) -> None:
        """Stop parsing. The parser and llhttp refer to each other; this breaks the cycle for the garbage collector."""
        self._llhttp = None

    def _parse(self, data: bytes) -> bytes | None:
        """Feed llhttp. Return the bytes to feed next if llhttp stopped after a request with an upgrade."""
        self._fed = len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            # Not 501, even if the word resembles a method: llhttp fails at the first unknown letter, wherever the data
            # ends.
            raise bad_request(_HTTPS if data.startswith(_TLS) else _NO_METHOD) from None
        except httptools.HttpParserError as error:
            raise self._take_error() or bad_request(f"this is not HTTP/1.1: {error}") from None
        return None

    def _take_error(self) -> RequestError | None:
        """Return the error of a callback, and forget it here, because its traceback refers to this parser."""
        error, self._error = self._error, None
        return error

    def recognize(self, data: bytes) -> KnownHeader | None:
        """Return the known header if this is exactly one request with it; None if the data must be fed."""
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_BYTES) + 4
        known = self._remembered.get(data[:end])
        if known is None or len(data) - end != known.length or self.phase != "idle":
            return None
        return known

    def request_of(self, known: KnownHeader, data: bytes) -> Request:
        """Return the request that was recognized in this data."""
        environ = known.environ.copy()
        environ.update(self._peer)
        environ["wsgi.input"] = io.BytesIO(data[len(data) - known.length :])
        return Request(environ, known.version, known.keep_alive)

    def _remember(self, request: Request) -> None:
        """Keep the parsed header if the data held exactly this request."""
        data = self._header_bytes
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_BYTES) + 4
        environ = request.environ
        odd = environ["QUERY_STRING"] or any(key in environ for key in ("HTTP_UPGRADE", "HTTP_EXPECT", "HTTP_COOKIE"))
        if end > 4 and not odd and len(data) - end == self._body_size == int(environ.get("CONTENT_LENGTH") or 0):
            kept = {name: value for name, value in environ.items() if name != "wsgi.input"}
            self._known.add(data[:end], KnownHeader(kept, request.version, request.keep_alive, self._body_size))

    def _header_too_large(self) -> RequestError:
        message = f"a header may have at most {self._limits.max_header} bytes (setting max_header)"
        return RequestError("431 Request Header Fields Too Large", "header_too_large", message)

    def _upgraded(self, rest: bytes) -> bytes | None:
        """Continue after a request with `Upgrade`, after which llhttp stops. Return the bytes to feed next.

        Only a WebSocket handshake is the last request on its connection.
        """
        if self._environ.get("HTTP_UPGRADE", "").lower() == "websocket" and self._environ["REQUEST_METHOD"] == "GET":
            self.upgrade_rest = rest
            self._complete()
            self.requests[-1].keep_alive = False  # no HTTP can follow, even if the app rejects the upgrade
            return None
        self._ignore_upgrade()
        return rest or None

    def _ignore_upgrade(self) -> None:
        """Read the body and the next requests without the upgrade, as RFC 9110, 7.8 allows.

        llhttp leaves the body of such a request to the next protocol. So a new llhttp is fed a header of the same
        framing, without the upgrade; `on_headers_complete` ignores that header, and the body reaches this request.
        """
        framing = f"Content-Length: {self._environ.get('CONTENT_LENGTH') or 0}"
        if "HTTP_TRANSFER_ENCODING" in self._environ:
            framing = "Transfer-Encoding: chunked"
        self._header_bytes = b""  # these bytes began with another request
        self._llhttp = httptools.HttpRequestParser(self)
        self._stand_in = True
        self._llhttp.feed_data(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        self.phase = "body" if self._environ else "idle"

    # Called by httptools. It replaces what these raise with its own error, so ours is kept in `_error`.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.phase = "header"

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field, or one of a trailer."""
        self._fields.append((name, value))
        if self.phase == "body":  # a trailer: it is not used, but bounded like the header
            self._seen += len(name) + len(value)
            if self._seen > self._limits.max_header:
                self._error = self._header_too_large()
                raise self._error

    def on_headers_complete(self) -> None:
        """The header is complete."""
        if self._stand_in:
            self._stand_in = False
            return
        try:
            if self._seen + self._fed > self._limits.max_header:
                self._check_header_size()
            self._version = self._llhttp.get_http_version()
            self._environ = self._read_header()
            self.phase, self._seen = "body", 0
        except RequestError as error:
            self._error = error
            raise

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        self._body_size += len(data)
        if self._body_size > self._limits.max_body:
            self._error = self._body_too_large()
            raise self._error
        if self._body is None:
            self._body = io.BytesIO()
        elif self._body_size > self._limits.spill_bytes and type(self._body) is io.BytesIO:
            self._spill()
        self._body.write(data)

    def _spill(self) -> None:
        """Move the body into a temporary file. If no file descriptor is left, it stays in memory."""
        with contextlib.suppress(OSError):
            file = tempfile.TemporaryFile(prefix="relay-body-")  # noqa: SIM115 (the conversation closes it)
            try:
                file.write(self._body.getbuffer())
            except OSError:
                file.close()
                raise
            self._body = file

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._llhttp.should_upgrade():  # if it should, `_upgraded` decides
            self._complete()

    def _complete(self) -> None:
        """Add the request to `requests`."""
        environ = self._environ
        if self._body is None:
            environ["wsgi.input"] = io.BytesIO()
        else:
            self._body.seek(0)
            environ["wsgi.input"] = self._body
            if "HTTP_TRANSFER_ENCODING" in environ:
                # The app reads a body of known length, not chunks.
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
        """Count exactly, because the data may have held more than this header. Raises RequestError."""
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
            raise RequestError("505 HTTP Version Not Supported", "http_version", "speak HTTP/1.1 or HTTP/1.0")
        environ = self._base.copy()
        environ.update(self._peer)
        environ["REQUEST_METHOD"] = self._llhttp.get_method().decode("ascii")
        environ["SERVER_PROTOCOL"] = "HTTP/" + self._version
        self._read_fields(environ)
        self._read_target(environ)
        if "HTTP_HOST" not in environ and self._version == "1.1":
            raise bad_request("an HTTP/1.1 request needs a Host header")
        self._check_framing(environ)
        if "HTTP_UPGRADE" in environ:
            self._check_upgrade(environ)
        return environ

    def _check_upgrade(self, environ: dict[str, Any]) -> None:
        """Ignore an upgrade of HTTP/1.0, as RFC 9110, 7.8 requires, or of a request with a body, as it allows.

        A body before the new protocol belongs to the request: its bytes must never be read as frames.
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
                raise bad_request(f"the header {name.decode('latin-1')[:50]} is there twice: send it once")
            else:
                environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + text

    def _read_target(self, environ: dict[str, Any]) -> None:
        """Read a path, or a whole URL as sent to proxies, whose host replaces the Host header (RFC 9112, 3.2.2)."""
        target = self._target
        environ["REQUEST_URI"] = environ["RAW_URI"] = target.decode("latin-1")
        if target[:1] != b"/" and target != b"*":
            scheme, _, rest = target.partition(b"://")
            if scheme.lower() not in (b"http", b"https"):
                raise bad_request("the target of a request must be a path, or a whole http:// address")
            host, slash, rest = rest.partition(b"/")
            host, mark, query = host.partition(b"?")
            environ["HTTP_HOST"] = host.decode("latin-1")
            target = (slash or b"/") + rest + mark + query
        path, _, query = target.partition(b"?")
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")

    def _check_framing(self, environ: dict[str, Any]) -> None:
        """Reject a request whose body's length is not given once and unambiguously (RFC 9112, 6.3 and 11.2)."""
        length, coding = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            raise bad_request("Content-Length must be one decimal number")
        if coding is not None:
            if length is not None or self._version != "1.1":
                raise bad_request("send Transfer-Encoding only with HTTP/1.1, and without Content-Length")
            if coding.strip().lower() != "chunked":
                message = "the only Transfer-Encoding that the relay accepts is chunked"
                raise RequestError("501 Not Implemented", "transfer_encoding", message)
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
            raise RequestError(
                "417 Expectation Failed", "expectation", "the only Expect that the relay meets is 100-continue"
            )
        self.wants_continue = True

    def _body_too_large(self) -> RequestError:
        message = (
            f"a body may have at most {self._limits.max_body} bytes (setting max_body): send less, or raise the setting"
        )
        return RequestError("413 Content Too Large", "too_large", message)
