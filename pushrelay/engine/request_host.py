"""The Engine, as the handling of requests sees it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pushrelay.answers import Answer
from pushrelay.counters import Counters
from pushrelay.log.limiter import LogLimiter
from pushrelay.server.sources import Timer

from .carrier import Carrier
from .host import SessionHost
from .limits import ClientLimiter
from .packet import EncodedPacket
from .session import Session


class RequestHost(SessionHost[Session], Protocol):
    """The Engine, as the handling of requests sees it."""

    # engineio.Server's options.
    allow_upgrades: bool
    compression_methods: Sequence[str]
    compression_threshold: int
    cors_allowed_origins: Any  # a list, a string, a function or None
    cors_credentials: bool
    http_compression: bool
    max_http_buffer_size: int
    transports: Sequence[str]
    # The Engine's own.
    connects: Counters  # sessions that were opened, by their transport
    is_shut: bool  # no further request can be carried
    limiter: ClientLimiter
    log_limiter: LogLimiter
    node: str  # the name of this relay among several, with which sids end; empty if it has none
    refusals: Counters  # by their code
    open_text: str  # the first packet of every session, with `%s` for its sid and for the JSON array of its upgrades
    sid_prefix: str  # of the sids of this process
    sockets: dict[str, Session]  # by sid

    def allowed_origins(self, environ: dict[str, Any]) -> Sequence[str] | None:
        """Return the origins whose pages may connect; None for all."""

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back after this many seconds, on a thread of the poller."""

    def carrier_for(self, environ: dict[str, Any]) -> Carrier:
        """Return what parks and upgrades this request. Raises Rejected once the Engine was shut down."""

    def connect(self, session: Session, environ: dict[str, Any]) -> Answer | None:
        """Open the session, or return the answer to a client that the app rejected.

        Raises Rejected if the session was closed while the app was asked.
        """

    def cookie_headers(self, sid: str) -> list[tuple[str, str]]:
        """Return the header that sets engineio's cookie, if the app wants one."""

    def new_sid(self) -> str:
        """Return the sid of a new session."""

    def pop_last_packets(self, sid: str) -> list[EncodedPacket] | None:
        """Return what a client gets if it polls again after its session was closed; None if there is nothing."""
