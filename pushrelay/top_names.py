"""The names that are counted most often, among any number of names, in a fixed amount of memory."""

MOST = 64  # names that are counted at a time
LONGEST = 80  # characters of a name that are kept


class TopNames:
    """Counts names by the algorithm of Misra and Gries (1982). One thread at a time adds.

    If there is no room for a new name, all counts are lowered until one of them is zero. So a name that makes up more
    than 1/MOST of all is certainly among them, and it was counted at least as often as largest() returns. Lowering
    them is rare, because each of them has to be counted first. `renew()`, called regularly, drops old counts.
    """

    __slots__ = ("_counts", "_former")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._former: dict[str, int] = {}  # the counts before renew()

    def add(self, name: str, times: int = 1) -> None:
        """Count a name `times` times."""
        name, counts = name[:LONGEST], self._counts
        if name in counts:
            counts[name] += times
        elif len(counts) < MOST:
            counts[name] = times
        else:
            less = min(times, min(counts.values()))
            counts = {each: count - less for each, count in counts.items() if count > less}
            if times > less:
                counts[name] = times - less
            self._counts = counts

    def renew(self) -> None:
        """Begin to count from zero. Counts since the last call stay in largest() until the next one."""
        self._former, self._counts = self._counts, {}

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the most frequent names, at most `most` of them, and how often each was counted at least."""
        both = self._counts.copy()
        for name, count in self._former.items():
            both[name] = both.get(name, 0) + count
        return sorted(both.items(), key=lambda pair: -pair[1])[:most]
