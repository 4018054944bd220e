"""Refusals for the operator's log: each cause once a minute for each origin or address, with what mends it."""

import logging
import threading
import time

EVERY_SECONDS = 60.0
# Strangers choose origins and have many addresses, so there is a bound for each cause and for all causes together.
# Beyond it all others are one subject, which has its line once a minute too.
MOST_OF_CAUSE = 16
MOST_SUBJECTS = 64
OTHERS = "\0others"  # no origin and no address
LONGEST = 1000  # characters of a line


class _Silence:
    """A line that was written: until when it is not written again, and how often that would have been."""

    __slots__ = ("count", "until")

    def __init__(self) -> None:
        self.until = 0.0  # monotonic
        self.count = 0


class LogLimiter:
    """Writes warnings to a logger, each cause and subject once a minute. Any thread may call it."""

    def __init__(self, log: logging.Logger | None = None):
        self._log = log or logging.getLogger("pushrelay.refused")
        self._lock = threading.Lock()  # over the table
        self._silences: dict[str, dict[str, _Silence]] = {}  # by cause and subject

    def warn(self, cause: str, subject: str, sentence: str) -> None:
        """Write this sentence, unless one about the same cause and subject was written within the last minute.

        `cause` is a word of the program's own, `subject` the origin or the address that was refused. The next line
        gives the number of those that were not written.
        """
        with self._lock:
            now = time.monotonic()
            of_cause = self._silences.setdefault(cause, {})
            subject = self._subject(of_cause, subject, now)
            silence = of_cause.setdefault(subject, _Silence())
            if now < silence.until:
                silence.count += 1
                return
            silence.until = now + EVERY_SECONDS
            more = _more(of_cause, subject, now)
        self._log.warning("%s%s", _printable(sentence), more)

    def _subject(self, of_cause: dict[str, _Silence], subject: str, now: float) -> str:
        """Return the subject if it has a line of its own, else OTHERS."""
        if subject in of_cause or self._has_room(of_cause):
            return subject
        for each in self._silences.values():
            _drop_old(each, now)
        return subject if self._has_room(of_cause) else OTHERS

    def _has_room(self, of_cause: dict[str, _Silence]) -> bool:
        return len(of_cause) < MOST_OF_CAUSE and sum(map(len, self._silences.values())) < MOST_SUBJECTS


def _drop_old(of_cause: dict[str, _Silence], now: float) -> None:
    """Drop the subjects whose minute is over; what was not written of them is counted with the others."""
    for subject, silence in list(of_cause.items()):
        if silence.until <= now and subject != OTHERS:
            del of_cause[subject]
            if silence.count:
                of_cause.setdefault(OTHERS, _Silence()).count += silence.count


def _more(of_cause: dict[str, _Silence], subject: str, now: float) -> str:
    """Return how many such lines were not written, and begin to count again."""
    told = []
    if own := of_cause[subject].count:
        told.append(f"{own} more of {'others' if subject == OTHERS else 'the same'}")
        of_cause[subject].count = 0
    others = of_cause.get(OTHERS)
    if subject != OTHERS and others is not None and others.count and others.until <= now:
        told.append(f"{others.count} more of others")
        del of_cause[OTHERS]
    return f" (and {', '.join(told)} since the last such line)" if told else ""


def _printable(text: str) -> str:
    """Return a line that cannot be taken for two: what strangers sent may be in it."""
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST])
