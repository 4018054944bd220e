"""The store as the archive and the dispatcher see it: the histories in Redis, and the ends that this node has seen."""

from collections.abc import Callable
from typing import Any

import hiredis

from pushrelay.errors import StoreError
from pushrelay.store.publication import Tip
from pushrelay.store.store import Page

from .entry import kept_of, kept_without_data
from .held import ASKED, Held
from .link import Link
from .questions import Questions
from .scripts import HOLD, READ, Script

EVERYTHING = 1 << 53  # bytes
AT_ONCE = 100  # destinations that are asked for together
# Errors after which connections are not kept: after a failover, they may be connections to the former master.
OF_ANOTHER_MASTER = {"EPOCH", "READONLY", "MASTERDOWN", "LOADING", "NOREPLICAS"}


class RedisHistory:
    """The histories in Redis. Every method may raise StoreError, and waits for Redis's answer."""

    def __init__(self, questions: Questions, link: Link, clock: Callable[[], float]):
        self._questions = questions
        self._link = link
        self._clock = clock

    @property
    def epoch(self) -> str:
        """The store's epoch, as this node knows it."""
        return self._link.state.epoch

    def tip(self, destination: str) -> Tip:
        """Return the state of a destination."""
        return self._read(destination, 1 << 53, 0, False).tip

    def tips(self, destinations: list[str]) -> list[Tip]:
        """Return the state of destinations, with few questions."""
        found: list[Tip] = []
        for start in range(0, len(destinations), AT_ONCE):
            part = destinations[start : start + AT_ONCE]
            args = [(self.epoch, self._clock(), each, 1 << 53, 0, 0) for each in part]
            commands = [("EVALSHA", READ.sha, 1, self._link.meta, *each) for each in args]
            for reply, each in zip(self._questions.replies(commands), args, strict=True):
                answer = self.run(READ, *each) if isinstance(reply, hiredis.ReplyError) else reply
                found.append(Tip(*answer[:3]))
        return found

    def hold(self, destination: str, forget_after: float) -> int:
        """Return the last offset of a destination that this node begins to hold: see hold.lua."""
        offset: int = self.run(HOLD, self.epoch, self._clock(), destination, forget_after)
        return offset

    def read(self, destination: str, after: int, max_bytes: int | None = None, with_data: bool = True) -> Page:
        """Return what is kept after an offset: see Store.read()."""
        return self._read(destination, after, EVERYTHING if max_bytes is None else max_bytes, with_data)

    def run(self, script: Script, *args: Any) -> Any:
        """Return a script's answer."""
        command = ("EVALSHA", script.sha, 1, self._link.meta, *args)
        [reply] = self._questions.replies([command])
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            [reply] = self._questions.replies([("EVAL", script.text, 1, self._link.meta, *args)])
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).partition(" ")[0] in OF_ANOTHER_MASTER:
                self._questions.renew()
            if str(reply).startswith("EPOCH"):
                raise StoreError("Redis was restarted or replaced, and the relay is about to notice: ask again")
            raise self._questions.place.explained(reply)
        return reply

    def _read(self, destination: str, after: int, most: int, with_data: bool) -> Page:
        answer = self.run(READ, self.epoch, self._clock(), destination, after, most, int(with_data))
        offset, trimmed, acked, more, *entries = answer
        kept = list(map(kept_of if with_data else kept_without_data, entries))
        return Page(kept, Tip(offset, trimmed, acked), bool(more))


class Seen:
    """The end of each destination that this node holds, as far as it has seen it. For the dispatcher."""

    def __init__(self, link: Link):
        self.held: Held  # set by the broker
        self._link = link

    @property
    def epoch(self) -> str:
        """The store's epoch, as this node knows it."""
        return self._link.state.epoch

    def tip(self, destination: str) -> Tip:
        """Return a tip with the offset that was queued last. Raises StoreError if this node does not hold that."""
        with self._link.lock:
            reached = self.held.reached.get(destination.encode())
        if reached is None or reached == ASKED:
            raise StoreError("the connection to Redis has just ended: ask again", "ask again")
        return Tip(reached, 0, 0)
