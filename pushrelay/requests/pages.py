"""Common parts of requests and messages: the page that they come from, and the allowance of its client."""

from typing import Any, Protocol

from pushrelay.access.member import Member
from pushrelay.errors import Refused
from pushrelay.rooms.rooms import Rooms

from .asked import Page

EVENT_BYTES = 16_384  # of data count as one event of the client


class Reply(Protocol):
    """The acknowledgement of an event: see rooms.answering.Reply."""

    def send(self, text: str) -> None:
        """Send the answer, the JSON text of an object."""

    def refuse(self, error: Refused) -> None:
        """Send a refusal."""


class Pages(Protocol):
    """The pages behind the sockets. `environ` is that of a socket's handshake."""

    def member(self, sid: str, environ: dict[str, Any]) -> Member | None:
        """Return the user that the socket's rights name, if they name one."""

    def ids(self, sid: str) -> list[str]:
        """Return the destinations that the socket holds, by the names that its page uses."""

    def address(self, environ: dict[str, Any]) -> str | None:
        """Return the address of the client; None for this machine's own."""

    def check_origin(self, environ: dict[str, Any]) -> None:
        """Raise Refused if the page may not connect any more."""


def page_of(pages: Pages, sid: str, environ: dict[str, Any]) -> Page:
    """Return what PHP gets to know of a socket's page."""
    return Page(sid, pages.member(sid, environ), pages.ids(sid))


def charge(rooms: Rooms, sid: str, size: int) -> None:
    """Count the data of an event, of this many characters, as work of its client. Raises Refused (429)."""
    if seconds := rooms.overdraft(sid):
        message = f"this page has used up its allowance (setting max_event_rate): send it again in {seconds:.0f} s"
        raise Refused(429, "too_many_events", message)
    rooms.charge(sid, size / EVENT_BYTES)
