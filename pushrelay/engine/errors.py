"""The answers to requests that the Engine refuses (Engine.IO protocol, revision 4)."""

import json
import re

from pushrelay.addresses import is_upstream
from pushrelay.answers import PRIVATE, Answer
from pushrelay.server.quota import retry_after

from .limits import LimitReached

NODE = r"[A-Za-z0-9_-]{1,32}"  # the setting `node`

# The protocol's errors, with the numbers and the words of the reference server.
TRANSPORT_UNKNOWN = (0, "Transport unknown")
SESSION_UNKNOWN = (1, "Session ID unknown")
BAD_HANDSHAKE_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
FORBIDDEN = (4, "Forbidden")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")
# Our own.
GOING_DOWN = (BAD_REQUEST[0], "the relay is shutting down: connect again")
NO_FILES = (BAD_REQUEST[0], "no file descriptor is left: raise the limit on open files (ulimit -n)")
ORIGIN_REFUSED = "origin_not_allowed"
WRONG_NODE = "wrong_node"

_DOCTOR = ", or run python relay.py doctor"  # a browser shows this on its console, where developers look first
# Origins that must not be added as they are: `null` and `*` in the setting would let other websites connect.
_NO_ORIGINS = {
    "null": "a page from a file or in a sandboxed frame has no origin, so open it from a web server",
    "*": "this is not an origin: have the client send no Origin, or that of its page",
}

_JSON = [("Content-Type", "application/json"), *PRIVATE]
# Their causes for the log: see refused_handshake().
CAUSES = {
    TRANSPORT_UNKNOWN[0]: "transport",
    SESSION_UNKNOWN[0]: "session",
    BAD_HANDSHAKE_METHOD[0]: "method",
    UNSUPPORTED_VERSION[0]: "old_client",
}
# Codes for the metrics: of the protocol's errors by their number, and of the others.
_CODES = (
    "transport_unknown",
    "session_unknown",
    "bad_handshake_method",
    "bad_request",
    "forbidden",
    "unsupported_version",
)
CODES = (*_CODES, ORIGIN_REFUSED, "draining", "too_many_connections", "too_many_of_address", "too_large")


class Rejected(Exception):
    """A request that the protocol does not allow."""

    def __init__(self, error: tuple[int, str], status: str = "400 Bad Request", word: str = ""):
        """`error` is the protocol's number and the message; `word` is the relay's own code for the error, if any."""
        super().__init__(error[1])
        self.code, self.message = error
        self.status = status
        self.word = word

    @property
    def metric_code(self) -> str:
        """The code under which the metrics count it: one of CODES."""
        return self.word or ("too_large" if self.status.startswith("413") else _CODES[self.code])

    def answer(self) -> Answer:
        """Return the answer in the protocol's form."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.word:
            body["error"] = self.word
        return Answer(self.status, [*_JSON, *_when_to_retry(self.status)], _encoded(body))


def session_unknown(sid: str, node: str) -> Rejected:
    """Return the refusal of a request for a session that is not here. `node` is the name of this relay, or empty.

    Only the names of nodes, which clients know from their sids, are in the message.
    """
    owner = sid.rpartition(".")[2] if "." in sid else ""
    if not node or owner == node or not re.fullmatch(NODE, owner):
        return Rejected(SESSION_UNKNOWN)
    message = (
        f"{SESSION_UNKNOWN[1]}: it belongs to node {owner}, and this is node {node}; have the proxy send all requests "
        "of a session to its node (docs/load-balancing.md)"
    )
    return Rejected((SESSION_UNKNOWN[0], message), word=WRONG_NODE)


def origin_message(origin: str, host: str = "") -> str:
    """Return the message for a page of an origin that may not connect; `host` is its Host header (name and port)."""
    advice = _NO_ORIGINS.get(origin.strip())
    if advice is None:
        advice = f"add this origin to the relay's setting origins{_DOCTOR}"
        if host and is_upstream(host):
            advice = f"if a proxy is in front, have it pass the Host header on; if not, {advice}"
    return f"pages of {origin[:100]} may not connect: {advice}"


def limit_answer(reached: LimitReached) -> Answer:
    """Return the answer to a handshake beyond a limit: in the protocol's form, with the relay's own code."""
    return Rejected((FORBIDDEN[0], reached.message), reached.status, reached.error).answer()


def _when_to_retry(status: str) -> list[tuple[str, str]]:
    """Return the headers with the time to retry, which a page of any origin may read; none for permanent refusals."""
    if status[:3] not in ("503", "429"):
        return []
    return [("Retry-After", retry_after()), ("Access-Control-Expose-Headers", "Retry-After")]


def _encoded(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
