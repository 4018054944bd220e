"""The last hour in steps of ten seconds: a fixed number of integers for each step, in one flat array of 24 KB.

A step without figures is a gap: the relay was not running, or the machine was suspended.
"""

from array import array
from collections.abc import Iterable

STEP = 10  # seconds
LENGTH = 360  # steps: one hour
GAP = -1  # stands for a figure that is not known
MOST = 2**31 - 1  # the largest figure that fits

# Values at the end of a step.
GAUGES = ("clients", "websocket", "store_kib", "memory_kib", "cpu_permille", "p50_us", "p99_us")
# Events within a step.
COUNTS = (
    *("pushes", "refused", "failed", "publications", "nobody"),
    *("deliveries", "connects", "closed", "recovered", "lost"),
)
SERIES = (*GAUGES, *COUNTS)
ROW = array("i", [GAP] * len(SERIES))  # a gap


class Rings:
    """The figures of each step, the newest last. One thread at a time may call it."""

    def __init__(self) -> None:
        self.cells = ROW * LENGTH  # row after row
        self.next = 0  # the row that the next step replaces, which is the oldest one

    def add(self, figures: dict[str, int]) -> None:
        """Add a step. A series without a figure has a gap."""
        row = array("i", (_fitting(figures.get(name, GAP)) for name in SERIES))
        start = self.next * len(SERIES)
        self.cells[start : start + len(SERIES)] = row
        self.next = (self.next + 1) % LENGTH

    def skip(self, steps: int) -> None:
        """Add this number of gaps."""
        for _ in range(min(steps, LENGTH)):
            self.add({})

    def series(self, name: str) -> "array[int]":
        """Return a series, oldest first. GAP stands for a figure that is not known."""
        column = self.cells[SERIES.index(name) :: len(SERIES)]
        return column[self.next :] + column[: self.next]

    def known(self, name: str, steps: int = LENGTH) -> list[int]:
        """Return the figures that are known among the last `steps` of a series, oldest first."""
        return [each for each in self.series(name)[-steps:] if each != GAP]

    def total(self, name: str) -> int:
        """Return the sum of a series."""
        return sum(self.known(name))

    def steps_known(self) -> int:
        """Return the number of steps since the oldest one with figures."""
        clients = self.series("clients")
        return next((LENGTH - at for at, each in enumerate(clients) if each != GAP), 0)


def shown(column: Iterable[int]) -> list[int | None]:
    """Return a series as JSON has it, with None for a gap."""
    return [None if each == GAP else each for each in column]


def _fitting(figure: int) -> int:
    return GAP if figure < 0 else min(figure, MOST)
