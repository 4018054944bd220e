"""The records of the pages in a chaos run, and their comparison with the pushes: see `Verdict`."""

import collections
import threading
import time
from typing import Any, NamedTuple

# Errors that pages may report while a relay, the network or the token endpoint is away.
EXPECTED = {"token_failed", "no_relay", "disconnected", "timeout", "offline", "blocked"}
OVERLAP = 2.0  # seconds before a crash: pushes of this time may come again, because their position was not stored


class Record(NamedTuple):
    """Something that a connection noted. `value` is the number of a push, or belongs to another kind of record."""

    time: float
    serial: float  # its place among the records of its document
    key: str  # the connection
    life: str  # the document; one that comes out of the back/forward cache lives on
    what: str  # start, registered, push, lost, status, error; crash: the tab was crashed
    id: str  # the destination, if it is about one
    value: Any


class Kind(NamedTuple):
    """The behavior of a connection from page to page."""

    keeps: bool = True  # its tab's next page continues; if not, a page begins where it registers
    repeats: bool = False  # an inbox: publications that were not acknowledged come again in the next page


class Ledger:
    """The records of all pages."""

    def __init__(self):
        self.last = {}  # (key, id): the last number
        self._records = {}  # (life, serial): a record
        self._lives = {}  # key: its lives, in order
        self._lock = threading.Lock()

    def note(self, serial, key, life, what, id_="", value=None):
        """Note a record. Pages send some twice, because those sent while a page is left may not arrive."""
        with self._lock:
            if (life, serial) in self._records:
                return
            self._records[life, serial] = Record(time.monotonic(), serial, key, life, what, id_, value)
            lives = self._lives.setdefault(key, [])
            if life not in lives:
                lives.append(life)
            if what == "push":
                self.last[key, id_] = max(value, self.last.get((key, id_), -1))

    def note_crash(self, key):
        """Note that the page of a connection was crashed."""
        self.note(float("inf"), key, self._lives[key][-1], "crash")

    @property
    def records(self):
        """Return all records. Those of each connection are in order."""
        order = {(key, life): number for key, lives in self._lives.items() for number, life in enumerate(lives)}
        return sorted(self._records.values(), key=lambda each: (each.key, order[each.key, each.life], each.serial))

    def has(self, key, id_, number):
        return self.last.get((key, id_), -1) >= number

    def reached(self, key, id_, number, since):
        """Return the seconds from `since` until a connection had this number, None if it never had."""
        for each in self.records:
            if each.what == "push" and (each.key, each.id) == (key, id_) and each.value >= number:
                return max(0.0, each.time - since)
        return None


class Verdict:
    """Compares the records with numbers that were pushed in order from 0 to `count` - 1.

    Each connection must get every number once and in order, from where it registered first. If numbers are missing, it
    must have got `lost` with this id, and `lost` must not come if none is missing. `violations` are sentences, `counts`
    figures.
    """

    def __init__(self, ledger, kinds, count):
        self.violations = []
        self.counts = collections.Counter()
        streams = collections.defaultdict(list)
        for record in ledger.records:
            for id_ in [record.id] if record.id else sorted(i for k, i in kinds if k == record.key):
                streams[record.key, id_].append(record)
        for (key, id_), kind in kinds.items():
            Stream(self, f"{key} {id_}", kind).check(streams[key, id_], count)
        self._check_statuses(ledger)

    def add(self, what):
        self.violations.append(what)

    def _check_statuses(self, ledger):
        """A connection that came back must say `recovered` or `lost` in the end."""
        open_ = {}
        for each in ledger.records:
            if each.what == "start":
                open_.pop(each.key, None)
                self.counts["pages"] += 1
            elif each.what == "status":
                status = each.value[0]
                self.counts[status] += 1
                if status == "online" and each.key in open_:
                    open_[each.key] = False
                elif status == "online":
                    open_[each.key] = True  # its first connection may have nothing to recover
                elif status in ("recovered", "lost"):
                    open_[each.key] = True
            elif each.what == "error":
                self.counts[each.value] += 1
                if each.value not in EXPECTED:
                    self.add(f"{each.key}: error {each.value}")
        self.violations += [f"{key}: neither recovered nor lost" for key, is_said in open_.items() if not is_said]


class Stream:
    """The numbers of one id at one connection."""

    def __init__(self, verdict, name, kind):
        self.verdict = verdict
        self.name = name
        self.kind = kind
        self.last = None  # the number that was handed over last, or from which the connection is live
        self.has_begun = False  # whether this page was handed a number
        self.is_after_crash = False
        self.times = {}  # number: when it came last
        self.is_told = False  # `lost` came, and what is missing has not shown yet
        self.gap = None  # what is missing, and has not been told yet

    def check(self, records, count):
        for record in records:
            getattr(self, f"_{record.what}", lambda _: None)(record)
        if self.gap:
            self.verdict.add(f"{self.name}: lost {self.gap[0]} to {self.gap[1]} unannounced")
        if self.last != count - 1:
            self.verdict.add(f"{self.name}: ends with {self.last} instead of {count - 1}")

    def _start(self, _):
        self.has_begun = False
        if not self.kind.keeps:
            self.last, self.is_told = None, False

    def _crash(self, _):
        self.is_after_crash = True

    def _registered(self, record):
        """Begin at the number of the answer's position, unless the page continues."""
        if self.last is None:
            self.last = record.value

    def _lost(self, record):
        self.verdict.counts["told of a loss"] += 1
        if self.gap:
            self.gap = None
        else:
            self.is_told = True

    def _push(self, record):
        number = record.value
        self.verdict.counts["received"] += 1
        if self.last is None or number == self.last + 1:
            if self.is_told:
                self.verdict.add(f"{self.name}: lost was said before {number}, and nothing was missing")
        elif number > self.last:
            self._miss(self.last + 1, number - 1)
        elif not self._may_repeat(number, record.time):
            self.verdict.add(f"{self.name}: {number} came after {self.last}")
        self.is_told = False
        self.last, self.has_begun, self.is_after_crash = number, True, False
        self.times[number] = record.time

    def _miss(self, first, last):
        self.verdict.counts["missing"] += last - first + 1
        if self.gap and not self.is_told:
            self.verdict.add(f"{self.name}: lost {self.gap[0]} to {self.gap[1]} unannounced")
        self.gap = None if self.is_told else (first, last)

    def _may_repeat(self, number, now):
        """Return whether a number may come again: only at the start of a page that cannot know that it came."""
        if self.has_begun:
            return False
        self.verdict.counts["repeated by the next page"] += self.last - number + 1
        return self.kind.repeats or (
            self.is_after_crash and self.times[self.last] - self.times.get(number, 0) < OVERLAP
        )
