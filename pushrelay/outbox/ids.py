"""The ids of the rows that are still to be taken, in order, as ranges: a million rows are often one range."""

from collections import deque
from collections.abc import Iterable

Range = tuple[int, int]  # the first id and the last one


class Ids:
    """Ids in ascending order."""

    def __init__(self, ranges: Iterable[Range] = ()):
        self._ranges = deque(ranges)

    @classmethod
    def of(cls, ids: Iterable[int]) -> "Ids":
        """Return these ids, which ascend."""
        found: list[Range] = []
        for each in ids:
            if found and found[-1][1] == each - 1:
                found[-1] = found[-1][0], each
            else:
                found.append((each, each))
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def take(self, most: int) -> list[int]:
        """Remove and return the first ids, at most `most`."""
        taken: list[int] = []
        while self._ranges and len(taken) < most:
            first, last = self._ranges.popleft()
            end = min(last, first + most - len(taken) - 1)
            taken += range(first, end + 1)
            if end < last:
                self._ranges.appendleft((end + 1, last))
        return taken

    def put_back(self, ids: list[int]) -> None:
        """Put ids back that were taken last."""
        self._ranges.extendleft(reversed(Ids.of(ids)._ranges))

    def add(self, ids: Iterable[int]) -> None:
        """Add ids that ascend, and are higher than all that are there."""
        for first, last in Ids.of(ids)._ranges:
            if self._ranges and self._ranges[-1][1] == first - 1:
                first, _ = self._ranges.pop()
            self._ranges.append((first, last))

    def first_ranges(self, most: int) -> list[Range]:
        """Return the first ranges, at most `most`."""
        return [each for each, _ in zip(self._ranges, range(most), strict=False)]
