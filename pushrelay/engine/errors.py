"""What the Engine answers to requests that it does not carry out (Engine.IO protocol, revision 4)."""

import json

from pushrelay.addresses import is_upstream
from pushrelay.answers import PRIVATE, Answer
from pushrelay.server.quota import retry_after

from .limits import LimitReached

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
ORIGIN_REFUSED = "origin_not_allowed"

_DOCTOR = ", or run python relay.py doctor"  # a page shows this on the console, where a developer looks first
# What cannot be listed as it stands: `null` and `*` in the setting let other websites in.
_NO_ORIGINS = {
    "null": "a page from a file or in a sandboxed frame has no origin, so open it from a web server",
    "*": "this is no origin, so have the client send none, or its page's own",
}

_JSON = [("Content-Type", "application/json"), *PRIVATE]
# What the log has about them: see refusals.refused_handshake().
CAUSES = {
    TRANSPORT_UNKNOWN[0]: "transport",
    SESSION_UNKNOWN[0]: "session",
    BAD_HANDSHAKE_METHOD[0]: "method",
    UNSUPPORTED_VERSION[0]: "old_client",
}


class Rejected(Exception):
    """A request that the protocol does not allow."""

    def __init__(self, error: tuple[int, str], status: str = "400 Bad Request", word: str = ""):
        """`word` is the relay's own word for the error, beside the protocol's number."""
        super().__init__(error[1])
        self.code, self.message = error
        self.status = status
        self.word = word

    def answer(self) -> Answer:
        told: dict[str, object] = {"code": self.code, "message": self.message}
        if self.word:
            told["error"] = self.word
        return Answer(self.status, [*_JSON, *_when_to_retry(self.status)], _encoded(told))


def origin_message(origin: str, host: str = "") -> str:
    """Return what a page that may not connect is answered, if it asked for this host (name and port)."""
    advice = _NO_ORIGINS.get(origin.strip())
    if advice is None:
        advice = f"add this origin to the relay's setting origins{_DOCTOR}"
        if host and is_upstream(host):
            advice = f"if a proxy is in front, have it pass the Host header on; if not, {advice}"
    return f"pages of {origin[:100]} may not connect: {advice}"


def limit_answer(full: LimitReached) -> Answer:
    """Return the answer to a handshake if nobody more gets in: in the protocol's form, with the relay's own word."""
    return Rejected((FORBIDDEN[0], full.message), full.status, full.error).answer()


def _when_to_retry(status: str) -> list[tuple[str, str]]:
    """Return the headers that say when to come back, also to a page of another origin, if the refusal will pass."""
    if status[:3] not in ("503", "429"):
        return []
    return [("Retry-After", retry_after()), ("Access-Control-Expose-Headers", "Retry-After")]


def _encoded(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
