"""What the Engine answers to requests that it does not carry out (Engine.IO protocol, revision 4)."""

from typing import NamedTuple

from engineio.packet import Packet

from .admission import Full, retry_after
from .headers import NO_SNIFFING

# The protocol's own errors, as the reference server numbers and words them.
TRANSPORT_UNKNOWN = (0, "Transport unknown")
SESSION_UNKNOWN = (1, "Session ID unknown")
BAD_HANDSHAKE_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
FORBIDDEN = (4, "Forbidden")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")
# And our own.
GOING_DOWN = (BAD_REQUEST[0], "the relay is going down here: connect again")
NO_FILES = (BAD_REQUEST[0], "no file descriptor is left: raise the limit on open files (ulimit -n)")
NO_WEBSOCKETS = "WebSocket does not work through this server: use long polling"

_JSON = [("Content-Type", "application/json"), NO_SNIFFING]


class Answer(NamedTuple):
    """A response that is complete."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Rejected(Exception):
    """A request that the protocol does not allow."""

    def __init__(self, error: tuple[int, str], status: str = "400 Bad Request"):
        super().__init__(error[1])
        self.code, self.message = error
        self.status = status

    def answer(self) -> Answer:
        return Answer(self.status, _JSON, _encoded({"code": self.code, "message": self.message}))


def full_answer(full: Full) -> Answer:
    """What a handshake is answered where nobody more gets in: in the protocol's form, with the relay's own word."""
    told = {"code": FORBIDDEN[0], "message": full.message, "error": full.error}
    return Answer(full.status, [*_JSON, ("Retry-After", retry_after())], _encoded(told))


def _encoded(value: dict[str, object]) -> bytes:
    return Packet.json.dumps(value, separators=(",", ":")).encode()
