"""Questions to Redis beside the relay's subscribed connection: histories, tips, acknowledgements."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import hiredis

from pushrelay.errors import StoreError

from .place import Place
from .wire import Command, Wire

MOST_IDLE = 4  # connections that are kept open while nobody asks


class Questions:
    """Asks Redis, and waits for the reply. Any thread may ask; each question has a connection of its own.

    `patience` is the number of seconds within which a question must be answered, a new connection included.
    """

    def __init__(self, place: Place, patience: float):
        self.place = place
        self.patience = patience
        self._lock = threading.Lock()  # held only to take and to return a connection
        self._idle: list[Wire] = []
        self._generation = 0  # connections of earlier ones are not kept
        self._closed = False

    def ask(self, *command: str | int | float | bytes) -> Any:
        """Return the reply to a command: texts as bytes. Raises StoreError, with what to do.

        After an error it is not known whether Redis has carried out the command.
        """
        return self.ask_all([command])[0]

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands that are sent together. Raises StoreError for the first error among them."""
        replies = self.replies(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self.place.explained(reply)
        return replies

    def replies(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands that are sent together, with each hiredis.ReplyError in its place.

        Raises StoreError if there are none.
        """
        deadline = time.monotonic() + self.patience
        wire, generation = self._take(deadline)
        try:
            found = wire.ask_all(deadline, commands)
        except BaseException as error:
            wire.close()
            if isinstance(error, OSError):
                raise self.place.lost(error) from None
            if isinstance(error, hiredis.ProtocolError):
                raise self.place.lost(ConnectionAbortedError()) from None
            raise
        self._give_back(wire, generation)
        return found

    def renew(self) -> None:
        """Close all connections: a new Redis, or one that was restarted, must answer from now on."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()

    def close(self) -> None:
        """Close all connections. Further questions raise StoreError."""
        self._closed = True
        self.renew()

    def _take(self, deadline: float) -> tuple[Wire, int]:
        while True:
            with self._lock:
                if self._closed:
                    raise StoreError("the store is closed until the relay is started again")
                wire, generation = self._idle.pop() if self._idle else None, self._generation
            if wire is None:
                return Wire(self.place.connect(deadline, blocking=True).sock), generation
            if wire.is_quiet():  # Redis has not closed it in the meantime
                return wire, generation
            wire.close()

    def _give_back(self, wire: Wire, generation: int) -> None:
        with self._lock:
            keep = generation == self._generation and len(self._idle) < MOST_IDLE and not self._closed
            if keep:
                self._idle.append(wire)
        if not keep:
            wire.close()
