"""The last warnings and errors, for people who look at the page /status instead of the log.

A problem of the same kind is counted, not repeated, so a stranger who is refused all day cannot displace the
other problems. Messages contain no secret and no pushed data, because the code that logs them leaves these out.
"""

import logging
import threading
from collections.abc import Hashable
from typing import NamedTuple

from .formats import escaped

MOST = 20  # kinds of problems
LONGEST = 500  # characters of a text
# Lines about the end of a problem. They are warnings, so that a log that has only warnings has them too.
_GOOD_NEWS = ("the store is back", "connected to ")


class Problem(NamedTuple):
    """A kind of problem, with the text of the last time."""

    first: float  # seconds since 1970
    last: float
    times: int
    is_error: bool
    text: str


class Problems(logging.Handler):
    """Keeps the last kinds of warnings and errors that were logged. Any thread may call it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._guard = threading.Lock()
        self._problems: dict[Hashable, Problem] = {}  # the one that happened last is at the end

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. Lines of one kind have the same `kind`, or the same message apart from its arguments.

        `sentence` is the text without the number of lines that were left out, which are counted here.
        """
        try:
            text = getattr(record, "sentence", "") or record.getMessage()
        except Exception:  # wrong arguments must not raise in the code that logs
            text = str(record.msg)
        if text.startswith(_GOOD_NEWS):
            return
        if record.exc_info:
            text += ": the log has the traceback"
        kind = getattr(record, "kind", None) or (record.name, record.msg)
        self._add(kind, record.created, escaped(text[:LONGEST]), record.levelno >= logging.ERROR)

    def again(self, kind: Hashable, at: float) -> None:
        """Count a problem whose line is left out of the log, because the same line was logged a moment ago."""
        with self._guard:
            if (known := self._problems.get(kind)) is not None:
                self._problems[kind] = known._replace(last=at, times=known.times + 1)

    def latest(self) -> list[Problem]:
        """Return the problems, the latest one first."""
        with self._guard:
            return sorted(self._problems.values(), key=lambda problem: -problem.last)

    def _add(self, kind: Hashable, at: float, text: str, is_error: bool) -> None:
        with self._guard:
            known = self._problems.pop(kind, None)
            first, count = (known.first, known.times) if known else (at, 0)
            if len(self._problems) >= MOST:
                self._drop_one()
            self._problems[kind] = Problem(first, at, count + 1, is_error, text)

    def _drop_one(self) -> None:
        """Drop the oldest warning, or the oldest error if there are only errors."""
        by_age = sorted(self._problems, key=lambda kind: self._problems[kind].last)
        del self._problems[next((kind for kind in by_age if not self._problems[kind].is_error), by_age[0])]
