"""The parts of a relay that serve the site's backend, such as its outbox and webhooks. Each is off until it is set."""

import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from pushrelay.counters import Family
from pushrelay.settings import Settings
from pushrelay.store.nodes import Rings

log = logging.getLogger(__name__)

AGAIN = 60.0  # seconds between two lines about the same trouble
PUBLIC = "the relay's log has the reason"


class Part(Protocol):
    """A part of the relay that serves the backend. Its constructor starts nothing."""

    name: str  # as the documentation calls it, one word: a key in /health/ready and /status.json

    @property
    def is_on(self) -> bool:
        """Whether its settings switch it on. A reload may change this."""

    @property
    def trouble(self) -> str | None:
        """Why it does not do its work now, and what to do about it; None while it does."""

    def start(self) -> None:
        """Start its threads. The store is open. It is called once, after a reload if that switched the part on."""

    def each_second(self) -> None:
        """Do what is due. It is called at least once a second from start() on, and must not wait."""

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on."""

    def close(self) -> None:
        """Stop, within 5 seconds. The store is closed afterwards."""

    def metrics(self) -> Iterable[Family]:
        """Return its metrics. Any thread may call it; it must not wait."""

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows of it. Any thread may call it; it must not wait.

        `summary` is one short line for people. Strangers may see all of it.
        """


@runtime_checkable
class Ringable(Protocol):
    """A part that looks for new work now and then, and at once when somebody rings."""

    def ring(self) -> bool:
        """Look for work now; return whether this node takes the work that nodes share.

        Any thread may call it; it must not wait.
        """


class Backend:
    """The parts of a relay. Without one that is on, nothing here costs anything.

    `rings` are the broker's: they lead to the other relays that share its store.
    """

    def __init__(self, parts: Iterable[Part] = (), rings: Rings | None = None):
        self._all = list(parts)
        self._rings = rings
        self._started: list[Part] = []
        self._logged: dict[str, tuple[str, float]] = {}  # by part: the trouble, and when it was logged (monotonic)
        self._is_started = False

    @property
    def parts(self) -> list[Part]:
        """The parts that are on."""
        return [part for part in self._all if part.is_on]

    def start(self) -> None:
        """Start all parts that are on, once. The store is open."""
        self._is_started = True
        for part in self.parts:
            if part not in self._started:
                self._started.append(part)
                part.start()

    def each_second(self) -> None:
        """Have each part do what is due, and log its trouble: when it begins, once a minute, and when it is over."""
        if not self._is_started:
            return
        for part in self.parts:
            try:
                part.each_second()
                self._log_trouble(part.name, part.trouble)
            except Exception:  # one part must not stop the others, or the sweeping of the store
                log.exception("%s failed; it continues", part.name)

    def ring(self) -> None:
        """Have the parts that wait for work, such as the outbox, look for it now; at other nodes if they take it."""
        takes = [part.ring() for part in self.parts if isinstance(part, Ringable)]
        if self._rings is not None and not any(takes):
            self._rings.pass_on()

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on."""
        for part in self._all:
            part.reload(settings)
        if self._is_started:
            self.start()

    def close(self) -> None:
        """Stop all parts. The store is closed afterwards."""
        # Those that somebody's use has switched on were not started, and may have threads.
        for part in (*self._started, *(each for each in self.parts if each not in self._started)):
            try:
                part.close()
            except Exception:
                log.exception("%s could not be stopped in order", part.name)

    def trouble(self, is_local: bool) -> dict[str, str]:
        """Return what does not work, by part. Only callers on this machine get the reasons."""
        found = {part.name: part.trouble for part in self.parts}
        return {name: reason if is_local else PUBLIC for name, reason in found.items() if reason}

    def facts(self, is_local: bool) -> dict[str, dict[str, Any]]:
        """Return what /status.json shows of each part, with its `trouble` as trouble() has it, or None."""
        trouble = self.trouble(is_local)
        return {part.name: {**part.facts(), "trouble": trouble.get(part.name)} for part in self.parts}

    def _log_trouble(self, name: str, trouble: str | None) -> None:
        before, since = self._logged.get(name, ("", 0.0))
        now = time.monotonic()
        if trouble is None:
            if before:
                del self._logged[name]
                log.warning("%s works again", name)
        elif trouble != before or now - since >= AGAIN:
            self._logged[name] = trouble, now
            log.warning("%s: %s", name, trouble)
