"""RFC 6455 for the server's side, without I/O: bytes in, messages and bytes out.

A frame to a client is not masked, so it is the same for everyone: built once, it is handed to all who get it. No
extension is accepted: `permessage-deflate` would cost hundreds of kilobytes for each client.
"""

import base64
import binascii
import codecs
import hashlib
import io
from typing import Any

# RFC 6455, 11.8: opcodes.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# RFC 6455, 7.4.1: what a connection is closed with.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, POLICY_VIOLATION, TOO_BIG = 1000, 1001, 1002, 1007, 1008, 1009
NO_CODE = 1005  # never sent: stands for a close frame without a code

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN = 0x80
_MASKED = 0x80
_RESERVED_BITS = 0x70

_Decoder = codecs.getincrementaldecoder("utf-8")


class HandshakeError(Exception):
    """The request cannot become a WebSocket; `status` and the message say why."""

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status


def handshake(environ: dict[str, Any], headers: bytes = b"") -> bytes:
    """The answer that makes a request a WebSocket (RFC 6455, 4.2), with further header lines of one's own.

    Raises HandshakeError.
    """
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":  # RFC 9110, 7.8: an upgrade is ignored there
        raise HandshakeError("400 Bad Request", "WebSocket needs HTTP/1.1 (nginx: proxy_http_version 1.1)")
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise HandshakeError("400 Bad Request", "a WebSocket request has no body")
    connection = environ.get("HTTP_CONNECTION", "").lower()
    if "upgrade" not in [token.strip() for token in connection.split(",")]:
        raise HandshakeError("400 Bad Request", "a WebSocket request says Connection: Upgrade")
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or environ["REQUEST_METHOD"] != "GET":
        raise HandshakeError("400 Bad Request", "a WebSocket request is a GET that says Upgrade: websocket")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise HandshakeError("426 Upgrade Required", "this server speaks version 13 of the WebSocket protocol")
    return b"".join((_SWITCHING, accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")), b"\r\n", headers, b"\r\n"))


_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def accept_key(key: str) -> bytes:
    """What answers this Sec-WebSocket-Key (RFC 6455, 4.2.2). Raises HandshakeError where it is no such key."""
    try:
        raw = key.encode("ascii")
        if len(binascii.a2b_base64(raw, strict_mode=True)) != 16:
            raise ValueError("not 16 bytes")
    except ValueError:
        raise HandshakeError("400 Bad Request", "Sec-WebSocket-Key must be 16 bytes in base64") from None
    return base64.b64encode(hashlib.sha1(raw + _GUID, usedforsecurity=False).digest())


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole, unmasked frame."""
    length = len(payload)
    if length < 126:
        return bytes((_FIN | opcode, length)) + payload
    if length < 65536:
        return bytes((_FIN | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, 127)) + length.to_bytes(8, "big") + payload


def text_frame(text: str) -> bytes:
    return frame(TEXT, text.encode("utf-8"))


def close_frame(code: int = NORMAL, reason: str = "") -> bytes:
    """A close frame; a control frame holds 125 bytes, so the reason is cut to 123 (RFC 6455, 5.5.1)."""
    if code == NO_CODE:
        return frame(CLOSE, b"")
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode("utf-8")[:123].decode("utf-8", "ignore").encode())


def unmask(payload: bytes, mask: bytes) -> bytes:
    """The payload with each byte XORed with the mask's (RFC 6455, 5.3): as two long numbers, without a loop."""
    length = len(payload)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(length, "little")


class ProtocolError(Exception):
    """The client broke the protocol; `code` is what the connection is closed with."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code


class WebSocket:
    """The receiving half of one connection.

    `receive` takes what came in and returns the messages that it completes. What has to be sent in turn (pongs, the
    close frame) is in `output` until somebody takes it. Once `close_code` is set, nothing more is received.

    `strays` counts the frames that were no message of their own, control frames and fragments, until somebody resets
    it; `unfinished` says whether a frame or a message has begun to come; `left` is the number of bytes that are still
    to come of a data frame's payload.
    """

    __slots__ = (
        "_buffer",
        "_closing",
        "_decoder",
        "_final",
        "_kind",
        "_mask",
        "_partial",
        "_size",
        "close_code",
        "left",
        "limit",
        "output",
        "strays",
        "unfinished",
    )

    def __init__(self, limit: int):
        self.limit = limit  # bytes of a message
        self.output = b""
        self.close_code: int | None = None
        self.strays = 0
        self.unfinished = False
        self._closing = False  # we have sent a close frame, and wait for the client's
        self._buffer = b""  # the beginning of a header or of a control frame: 139 bytes at most
        # The data frame under way.
        self.left = 0  # bytes of its payload that are still to come
        self._mask = b""  # turned so that it fits the next byte
        self._final = True
        # The message under way, of one frame or several.
        self._kind = 0  # TEXT, BINARY, or 0 for none
        self._size = 0  # bytes announced so far
        # What of it came so far. Not a list of pieces: a client may send a byte at a time.
        self._partial: Any = None
        self._decoder: Any = None

    def receive(self, data: bytes) -> list[str | bytes]:
        """Take bytes from the client; returns the messages that are now complete, in order."""
        # Nearly all that clients of the relay send: one short text in one frame, and nothing before or after it.
        size = len(data)
        whole = 5 < size < 132 and data[0] == _FIN | TEXT and data[1] == size - 6 + _MASKED
        if whole and not self._buffer and not self._kind and self.close_code is None and not self._closing:
            try:
                return [unmask(data[6:], data[2:6]).decode("utf-8")]
            except UnicodeDecodeError:
                self._fail(INVALID_DATA, "text must be UTF-8")
                return []
        messages: list[str | bytes] = []
        if self.close_code is None:
            try:
                self._take(self._buffer + data if self._buffer else data, messages)
            except ProtocolError as error:
                self._fail(error.code, str(error))
        return [] if self._closing else messages

    def take_output(self) -> bytes:
        """What is to be sent now; it is forgotten here."""
        output, self.output = self.output, b""
        return output

    def begin_close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """The close frame to be sent, empty if there was one already. After it, only the client's is waited for."""
        if self._closing or self.close_code is not None:
            return b""
        self._closing = True
        return close_frame(code, reason)

    def _fail(self, code: int, reason: str) -> None:
        if not self._closing:
            self.output += close_frame(code, reason)
        self.close_code = code
        self._buffer, self._partial, self._decoder = b"", None, None

    def _take(self, data: bytes, messages: list[str | bytes]) -> None:
        position = 0
        while self.close_code is None:
            before = position
            take = self._take_payload if self.left else self._take_header
            position = take(data, position, messages)
            if position == before:
                break
        self._buffer = data[position:] if self.close_code is None else b""
        self.unfinished = bool(self._buffer or self._kind)

    def _take_header(self, data: bytes, start: int, messages: list[str | bytes]) -> int:
        """Read one header, with the payload where it is a control frame's. Returns `start` if it is not all there."""
        if len(data) - start < 2:
            return start
        first, second = data[start], data[start + 1]
        opcode, length = first & 0x0F, second & 0x7F
        self._check_header(first, second, opcode, length)
        position = start + 2
        if length > 125:
            extended = 2 if length == 126 else 8
            if len(data) < position + extended:
                return start
            length = _extended_length(data[position : position + extended])
            position += extended
        if opcode < CLOSE:
            self._check_size(length)
        if len(data) < position + 4 + (length if opcode >= CLOSE else 0):
            return start
        mask = data[position : position + 4]
        position += 4
        if opcode >= CLOSE:
            self.strays += 1
            self._control(opcode, unmask(data[position : position + length], mask))
            return position + length
        self._begin_frame(opcode, bool(first & _FIN), length, mask)
        return self._take_payload(data, position, messages)

    def _check_header(self, first: int, second: int, opcode: int, length: int) -> None:
        if first & _RESERVED_BITS:
            raise ProtocolError(PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        if not second & _MASKED:
            raise ProtocolError(PROTOCOL_ERROR, "a client must mask its frames")
        if opcode in (TEXT, BINARY):
            if self._kind:
                raise ProtocolError(PROTOCOL_ERROR, "a new message before the last one was complete")
        elif opcode == CONTINUATION:
            if not self._kind:
                raise ProtocolError(PROTOCOL_ERROR, "a continuation of nothing")
        elif opcode not in (CLOSE, PING, PONG):
            raise ProtocolError(PROTOCOL_ERROR, "an opcode that is not in use")
        elif not first & _FIN or length > 125:
            raise ProtocolError(PROTOCOL_ERROR, "a control frame is one frame of 125 bytes at most")

    def _check_size(self, length: int) -> None:
        """Refuse what would be too large before a byte of it is kept."""
        if self._size + length > self.limit:
            raise ProtocolError(TOO_BIG, f"a message has {self.limit} bytes at most")

    def _begin_frame(self, opcode: int, final: bool, length: int, mask: bytes) -> None:
        if opcode != CONTINUATION:
            self._kind = opcode
            self._decoder = _Decoder() if opcode == TEXT else None
            self._partial = io.StringIO() if opcode == TEXT else io.BytesIO()
        if not final:
            self.strays += 1
        self._size += length
        self.left, self._final, self._mask = length, final, mask

    def _take_payload(self, data: bytes, position: int, messages: list[str | bytes]) -> int:
        piece = data[position : position + self.left]
        self.left -= len(piece)
        plain = unmask(piece, self._mask)
        turned = len(piece) % 4
        self._mask = self._mask[turned:] + self._mask[:turned]
        done = not self.left and self._final
        if self._decoder is not None:
            try:
                plain = self._decoder.decode(plain, done)
            except UnicodeDecodeError:
                raise ProtocolError(INVALID_DATA, "text must be UTF-8") from None
        self._partial.write(plain)
        if done:
            messages.append(self._partial.getvalue())
            self._kind, self._size, self._decoder, self._partial = 0, 0, None, None
        return position + len(piece)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.output += frame(PONG, payload)
        elif opcode == CLOSE:
            code = _checked_close(payload)
            self._fail(code, "")


def _extended_length(raw: bytes) -> int:
    length = int.from_bytes(raw, "big")
    if length < (126 if len(raw) == 2 else 65536):
        raise ProtocolError(PROTOCOL_ERROR, "a length must be written in as few bytes as it needs")
    if length >> 63:
        raise ProtocolError(PROTOCOL_ERROR, "a length has 63 bits at most")
    return length


def _checked_close(payload: bytes) -> int:
    """The code of a close frame (RFC 6455, 7.4); raises ProtocolError where it is none that may be sent."""
    if not payload:
        return NO_CODE
    code = int.from_bytes(payload[:2], "big")
    allowed = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if len(payload) < 2 or not allowed:
        raise ProtocolError(PROTOCOL_ERROR, "a close code that may not be sent")
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(INVALID_DATA, "a close reason must be UTF-8") from None
    return code
