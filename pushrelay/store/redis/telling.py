"""The log lines about the connection to Redis: its end, failed attempts, its return; each once a minute."""

import logging
import time
from typing import Any

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


class Telling:
    """Logs what becomes of one connection. `place` is the Redis. One thread at a time calls it."""

    def __init__(self, place: Any):
        self._place = place
        self._ended = self._failed = -EVERY_SECONDS  # when the last line of each kind was logged (monotonic)
        self._untold = 0  # ends that were not logged
        self._is_open = False  # something was logged that the return of the connection must close

    def ended(self, reason: str, message: str) -> None:
        """Tell that the connection ended. `reason` is a word, and `message` says more."""
        now = time.monotonic()
        if now - self._ended < EVERY_SECONDS:
            self._untold += 1
            return
        more = f" (it ended {self._untold} more times since this was last logged)" if self._untold else ""
        log.warning("the connection to %s ended (%s: %s); connecting again%s", self._place, reason, message, more)
        self._ended, self._untold, self._is_open = now, 0, True

    def failed(self, message: str) -> None:
        """Tell that an attempt to connect failed."""
        now = time.monotonic()
        if now - self._failed >= EVERY_SECONDS:
            log.error("%s", message)
            self._failed, self._is_open = now, True

    def back(self, seconds: float) -> None:
        """Tell that the connection is there again, after this time."""
        if self._is_open:
            log.warning("connected to %s again after %.1f s", self._place, seconds)
            self._is_open = False
