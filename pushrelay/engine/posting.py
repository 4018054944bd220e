"""The packets of one POST (Engine.IO protocol, revision 4, "HTTP long-polling"), handled in turns."""

from collections import deque
from collections.abc import Callable

from pushrelay.server.connection import TRANSPORT_ERROR
from pushrelay.server.poller import Poller

from .session import Session


class Posting:
    """The packets of one POST, handled in order. A source for the poller once `finish_later` was called."""

    __slots__ = ("_done", "_packets", "_poller", "_session", "share")

    def __init__(self, session: Session, packets: list[str | bytes], poller: Poller | None, share: str | None):
        """Call session.begin_post() before. Without a poller, the first turn handles all packets.

        `share` is the connection's, the group in which it waits for its turn.
        """
        self._session = session
        self._packets = deque(packets)
        self._poller = poller
        self._done: Callable[[bool], None] | None = None
        self.share = share

    def take_turn(self) -> bool:
        """Handle as many packets as one turn allows; return whether all are handled.

        Raises ValueError, with the session closed, if one is invalid.
        """
        try:
            self._session.receive_some(self._packets, self._poller)
        except ValueError:
            self.fail()
            raise
        if self._packets:
            return False
        self._session.end_post()
        return True

    def fail(self) -> None:
        """Close the session, as the protocol demands for an invalid POST."""
        self._packets.clear()
        self._session.close(abort=True, reason=TRANSPORT_ERROR)
        self._session.end_post()

    def finish_later(self, done: Callable[[bool], None]) -> None:
        """Handle the rest on threads of the poller, then call `done(were_valid)`."""
        self._done = done
        self._queue()

    def _queue(self) -> None:
        poller = self._poller
        if poller is None:
            raise RuntimeError("without a poller, one turn handles all packets")
        if poller.is_short():
            poller.run_when_spare(self)
        else:
            poller.run_again(self)

    def run(self) -> None:
        """Take the next turn, on a thread of the poller."""
        try:
            if not self.take_turn():
                self._queue()
                return
        except ValueError:
            self._report(False)
        else:
            self._report(True)

    def _report(self, were_valid: bool) -> None:
        if self._done is not None:
            self._done(were_valid)
