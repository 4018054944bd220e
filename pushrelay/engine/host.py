"""The Engine, as its sessions see it."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pushrelay.server.outboxes import Outboxes
from pushrelay.token_bucket import TokenBucket

from .packet import EncodedPacket

S = TypeVar("S", contravariant=True)  # the class of the sessions


class Heart(Protocol[S]):
    """The heartbeat, as a session sees it. Any thread may call it."""

    def begin(self, session: S) -> None:
        """Ping the session one interval from now."""

    def extend(self, session: S) -> None:
        """Give the session the same time again to answer a ping."""


class SessionHost(Protocol[S]):
    """The Engine, as a session sees it. Any thread may call it."""

    outbox_bytes: int  # what may wait for one client
    message_timeout: float  # seconds within which a message must be complete

    @property
    def heartbeat(self) -> Heart[S]:
        """The pings of all sessions."""

    @property
    def outboxes(self) -> Outboxes:
        """The memory of all outboxes together."""

    def new_bucket(self) -> TokenBucket | None:
        """Return a bucket for the events of one client; None if they are not limited."""

    def dispatch(self, sid: str, packet: str | bytes) -> None:
        """Hand a message to the app."""

    def refuse_event(self, session: S, packet: str | bytes) -> None:
        """Inform a client that sends too many events that this one was not handled."""

    def complain(self, session: S, cause: str, message: str) -> None:
        """Log what a client did."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back on a thread of the poller."""

    def close_soon(self, session: S, reason: str) -> None:
        """Close a session on a thread of the poller."""

    def ended(self, session: S, reason: str) -> None:
        """Forget a session that was closed; called once for each."""

    def keep_last_packets(self, sid: str, packets: list[EncodedPacket]) -> None:
        """Keep what a client gets if it polls again after its session was closed."""
