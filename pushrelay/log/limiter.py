"""A rate limit for the operator's log: each cause once a minute for each origin or address."""

import logging
import threading
import time
from collections.abc import Callable

from .formats import Fields

EVERY_SECONDS = 60.0
# Strangers choose origins and have many addresses, so the number of subjects is bounded, for each cause and for all
# causes together. Beyond the bound all other subjects count as one, which is also logged once a minute.
MOST_OF_CAUSE = 16
MOST_SUBJECTS = 64
OTHERS = "\0others"  # cannot be an origin or an address
LONGEST = 1000  # characters of a line


class _Silence:
    """The time until which one subject is not logged again, and the number of lines left out since the last one."""

    __slots__ = ("count", "until")

    def __init__(self) -> None:
        self.until = 0.0  # monotonic time
        self.count = 0


class LogLimiter:
    """Writes warnings to a logger, one a minute for each cause and subject. Any thread may call it.

    The default logger is pushrelay.refused. `again(cause, at)` is called for each line that is left out, with the time
    in seconds since 1970.
    """

    def __init__(self, log: logging.Logger | None = None, again: Callable[[str, float], None] = lambda cause, at: None):
        self._again = again
        self._log = log or logging.getLogger("pushrelay.refused")
        self._lock = threading.Lock()  # guards the table
        self._silences: dict[str, dict[str, _Silence]] = {}  # by cause, then by subject

    def warn(self, cause: str, subject: str, sentence: str, fields: Fields | None = None) -> None:
        """Log the sentence, unless one with the same cause and subject was logged within the last minute.

        `cause` is chosen by the program, `subject` is the origin or the address that was refused. The next line gives
        the number of lines that were left out. `fields` are for the log in JSON.
        """
        with self._lock:
            now = time.monotonic()
            of_cause = self._silences.setdefault(cause, {})
            subject = self._subject(of_cause, subject, now)
            silence = of_cause.setdefault(subject, _Silence())
            if now < silence.until:
                silence.count += 1
                self._again(cause, time.time())
                return
            silence.until = now + EVERY_SECONDS
            left_out = silence.count
            more = _more(of_cause, subject, now)
        fields, sentence = {**(fields or {}), "left_out": left_out or None}, _printable(sentence)
        extra = {"fields": fields, "kind": cause, "sentence": sentence}  # the last two are for Problems
        self._log.warning("%s%s", sentence, more, extra=extra)

    def _subject(self, of_cause: dict[str, _Silence], subject: str, now: float) -> str:
        """Return the subject if it is or may be logged individually, or else OTHERS."""
        if subject in of_cause or self._has_room(of_cause):
            return subject
        for each in self._silences.values():
            _drop_old(each, now)
        return subject if self._has_room(of_cause) else OTHERS

    def _has_room(self, of_cause: dict[str, _Silence]) -> bool:
        return len(of_cause) < MOST_OF_CAUSE and sum(map(len, self._silences.values())) < MOST_SUBJECTS


def _drop_old(of_cause: dict[str, _Silence], now: float) -> None:
    """Drop the subjects whose minute has passed, and add their left-out lines to those of OTHERS."""
    for subject, silence in list(of_cause.items()):
        if silence.until <= now and subject != OTHERS:
            del of_cause[subject]
            if silence.count:
                of_cause.setdefault(OTHERS, _Silence()).count += silence.count


def _more(of_cause: dict[str, _Silence], subject: str, now: float) -> str:
    """Return the number of left-out lines as the end of a line, and begin to count again."""
    counts = []
    if own := of_cause[subject].count:
        counts.append(f"{own} more of {'others' if subject == OTHERS else 'the same'}")
        of_cause[subject].count = 0
    others = of_cause.get(OTHERS)
    if subject != OTHERS and others is not None and others.count and others.until <= now:
        counts.append(f"{others.count} more of others")
        del of_cause[OTHERS]
    return f" (and {', '.join(counts)} since the last such line)" if counts else ""


def _printable(text: str) -> str:
    """Return the text without line breaks and control characters, because strangers chose parts of it."""
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST])
