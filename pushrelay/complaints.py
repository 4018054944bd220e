"""Warnings that would fill the log if each was written: once a minute for each cause and subject."""

import logging
import threading
import time

EVERY_SECONDS = 60.0
# Subjects are chosen by strangers (origins, addresses), so there is a bound; beyond it all others are one subject.
MOST_SUBJECTS = 64
OTHERS = "others"


class Complaints:
    """Write warnings to a logger, each cause and subject once a minute. Any thread may call it."""

    def __init__(self, log: logging.Logger):
        self._log = log
        self._lock = threading.Lock()  # over both
        self._quiet_until: dict[tuple[str, str], float] = {}  # monotonic
        self._unsaid: dict[tuple[str, str], int] = {}  # how many were not written since the last warning

    def note(self, cause: str, subject: str, sentence: str) -> None:
        """Write this sentence, unless one about the same cause and subject was written within the last minute."""
        with self._lock:
            now = time.monotonic()
            key = self._key(cause, subject, now)
            if now < self._quiet_until.get(key, 0.0):
                self._unsaid[key] = self._unsaid.get(key, 0) + 1
                return
            self._quiet_until[key] = now + EVERY_SECONDS
            unsaid = self._unsaid.pop(key, 0)
        more = f" (and {unsaid} more times since the last such line)" if unsaid else ""
        self._log.warning("%s%s", sentence, more)

    def _key(self, cause: str, subject: str, now: float) -> tuple[str, str]:
        key = (cause, subject)
        if key in self._quiet_until or len(self._quiet_until) < MOST_SUBJECTS:
            return key
        for old in [each for each, until in self._quiet_until.items() if until < now]:
            del self._quiet_until[old]
            self._unsaid.pop(old, None)
        return key if len(self._quiet_until) < MOST_SUBJECTS else (cause, OTHERS)
