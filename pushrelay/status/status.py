"""GET /status.json, written at most once a second, from facts that are collected in the background: it never waits."""

import gzip
import logging
import threading
import time
from typing import NamedTuple

from pushrelay.answers import JSON_HEADERS, Answer
from pushrelay.json_text import encode

from .report import Report, Sources

log = logging.getLogger(__name__)

FRESH = 1.0  # seconds for which an answer is used again
RENEW_EVERY = 1800.0  # seconds after which the counts of the busiest destinations begin again


class _Written(NamedTuple):
    """An answer, and until when it is used."""

    until: float  # monotonic
    verdict: dict[str, str]
    plain: bytes
    packed: bytes


class Status:
    """The status of a relay. Any thread may call answer(); one thread calls each_second() and close()."""

    def __init__(self, sources: Sources):
        self._from = sources
        self._lock = threading.Lock()  # guards all that follows
        self._written: dict[bool, _Written] = {}  # by is_local
        self._has_failed = False
        self._renew_at = time.monotonic() + RENEW_EVERY

    def each_second(self) -> None:
        """Bring the last hour up to date. Errors are logged, not raised, because the caller has other work to do."""
        try:
            self._from.recorder.each_second()
            self._from.slow.refresh(self._from.reason(True) is None)
            if time.monotonic() > self._renew_at:
                self._renew_at = time.monotonic() + RENEW_EVERY
                self._from.renew()
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                log.exception("the figures of /status could not be updated; the relay continues without them")

    def close(self) -> None:
        """Note that the relay was stopped in order."""
        self._from.recorder.close()

    def answer(self, is_local: bool, takes_gzip: bool) -> Answer:
        """Return the status as JSON, for a caller on this machine (`is_local`) or for everybody."""
        written = self._fresh(is_local)
        coding = (("Content-Encoding", "gzip"),) if takes_gzip else ()
        body = written.packed if takes_gzip else written.plain
        return Answer("200 OK", (*JSON_HEADERS, ("Vary", "Accept-Encoding"), *coding), body)

    def verdict(self, is_local: bool) -> dict[str, str]:
        """Return the verdict of the same answer, for the page to show before it has asked."""
        return self._fresh(is_local).verdict

    def _fresh(self, is_local: bool) -> _Written:
        with self._lock:
            written = self._written.get(is_local)
            if written is None or time.monotonic() > written.until:
                written = self._written[is_local] = self._write(is_local)
            return written

    def _write(self, is_local: bool) -> _Written:
        report = Report(self._from, is_local)
        facts = report.facts()
        plain = encode({**facts, "history": report.history()}).encode("utf-8", "replace")
        return _Written(time.monotonic() + FRESH, facts["verdict"], plain, gzip.compress(plain, 1, mtime=0))
