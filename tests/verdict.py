"""The points on which publishers, witnesses and the store must agree after a run: see `violations`."""

import collections
import json
import re
import time
import urllib.parse
from typing import NamedTuple

from conftest import DEADLINE

_STORED = re.compile(r'"id":"([^"]+)","event":"push","data":(\d+)')


class Allowed(NamedTuple):
    """The things that a store may do to what it accepted.

    After a new epoch, clients that return are told that something may be missing. A store that loses publications may
    also forget keys, so a push that is sent again may be published twice.
    """

    epochs: bool = False
    losses: bool = False


def stored(node, destination):
    """Return (position, number) of each publication in the history of a destination, the oldest first."""
    found, since = [], None
    while True:
        query = {"destination": destination, **({"since": since} if since else {})}
        body = _history(node, urllib.parse.urlencode(query))
        page = _STORED.findall(body.decode())
        found += [(position, int(number)) for position, number in page]
        if not page or not json.loads(body)["more"]:
            return found
        since = page[-1][0]


def _history(node, query):
    """Return the answer. After a failure, a relay may need a moment to find Redis again."""
    end = time.monotonic() + DEADLINE
    while True:
        status, _, body = node.request("GET", f"/history?{query}")
        if status == 200:
            return body
        assert time.monotonic() < end, body
        time.sleep(0.1)


class Verdict:
    """Compares what publishers were answered with what each witness got, and with what the store has in the end.

    `counts` has figures, `violations` a sentence for each kind of failure of each witness, at most `most` of a kind.
    """

    def __init__(self, publishers, node, allowed, most=3):
        self.answered = {to: ids for publisher in publishers for to, ids in publisher.answered.items()}
        self.allowed = allowed
        self.violations = [f"publisher: {each}" for publisher in publishers for each in publisher.wrong[:most]]
        self.counts = collections.defaultdict(dict)  # by who and what
        self.stored = {}  # destination: its numbers in the store
        self._most = most
        self._check_store(node)

    def _add(self, who, what, found, word):
        """Count what was found, and make it violations."""
        self.counts[who][word] = len(found)
        self.violations += [f"{who}: {what} {each}" for each in found[: self._most]]
        if len(found) > self._most:
            self.violations.append(f"{who}: and {len(found) - self._most} more: {what}")

    def _check_store(self, node):
        missing, twice, unordered = [], [], []
        for to, ids in self.answered.items():
            numbers = [number for _, number in stored(node, to)]
            self.stored[to] = set(numbers)
            known = {number for number, position in enumerate(ids, 1) if position is not None}
            missing += [f"{to}-{n} ({ids[n - 1]})" for n in sorted(known - self.stored[to])]
            if len(numbers) > len(self.stored[to]):
                twice.append(f"{to}: {len(numbers) - len(self.stored[to])}")
            numbers = [number for number in numbers if number in known]
            if numbers != sorted(numbers):
                unordered.append(to)
        self.counts["store"]["lost"] = len(missing)
        if not self.allowed.losses:
            self._add("store", "lost", missing, "lost")
            self._add("store", "has twice", twice, "twice")
            self._add("store", "is not in order", unordered, "unordered")

    def check(self, witness):
        """Compare what a witness got."""
        lost, moved, excused = [], [], 0
        told = {}
        for gap in witness.gaps:
            if gap.is_told:
                told.setdefault(gap.destination, set()).update(range(gap.first, gap.last + 1))
        for to, ids in self.answered.items():
            offsets = witness.offsets[to]
            for number, position in enumerate(ids, 1):
                if position is None:
                    continue
                epoch, _, offset = position.rpartition(":")
                seen = offsets[number - 1] if number <= len(offsets) else 0
                if seen == int(offset):
                    continue
                if seen:
                    if witness.epoch_of(to, number) == epoch and not self.allowed.losses:
                        moved.append(f"{to}-{number}: answered {position}, received as {seen}")
                elif (
                    number in told.get(to, ())
                    or (number > len(offsets) and witness.was_told(to, position))
                    or (self.allowed.losses and number not in self.stored[to])
                ):
                    excused += 1
                else:
                    lost.append(f"{to}-{number} ({position})")
        name = witness.name
        self.counts[name] = {"got": witness.count, "excused": excused, "told": len(witness.told)}
        self._add(name, "lost", lost, "lost")
        self._add(name, "received at another position", moved, "moved")
        self._add(name, "received twice", [each for each in witness.repeated if not self._may_repeat(each)], "twice")
        self._add(name, "received too late", [each for each in witness.late if not self._may_be_late(each)], "late")
        self._add(name, "was told of a loss", [each for each in witness.told if not self._may_tell(each)], "misled")
        self._add(name, "was wrong:", witness.wrong, "wrong")

    def _may_repeat(self, repeated):
        """Return whether a loss of the store explains that a number came twice: then its positions differ in epoch."""
        _, _, before, after = repeated
        return self.allowed.losses and before.rpartition(":")[0] != after.rpartition(":")[0]

    def _may_be_late(self, late):
        """Return whether nobody knew whether it was stored, or all that came before it was lost by the store."""
        destination, number, higher = late
        if self.answered[destination][number - 1] is None:
            return True
        return self.allowed.losses and not self.stored[destination].intersection(higher)

    def _may_tell(self, told):
        return self.allowed.epochs and told.is_of_another_epoch()
