"""The names that are counted most often, among any number of names, in a fixed amount of memory."""

MOST = 64  # names that are counted at a time
LONGEST = 80  # characters of a name that are kept


class TopNames:
    """Counts names by the algorithm Space-Saving (Metwally, Agrawal, El Abbadi, 2005). One thread at a time adds.

    If there are more than MOST names, a new one takes the place of the rarest one, whose count it inherits as its
    possible error. So a name that makes up more than 1/MOST of all is certainly among them. largest() returns the
    counts without these errors: a name was counted at least that often. `renew()`, called regularly, drops old counts.
    """

    __slots__ = ("_counts", "_errors", "_former")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}  # of those in `_counts` that took another one's place
        self._former: dict[str, int] = {}  # what largest() counted before renew()

    def add(self, name: str, times: int = 1) -> None:
        """Count a name `times` times."""
        name, counts = name[:LONGEST], self._counts
        if name in counts:
            counts[name] += times
        elif len(counts) < MOST:
            counts[name] = times
        else:
            rarest = min(counts, key=counts.__getitem__)
            self._errors.pop(rarest, None)
            self._errors[name] = counts.pop(rarest)
            counts[name] = self._errors[name] + times

    def renew(self) -> None:
        """Begin to count from zero. Counts since the last call stay in largest() until the next one."""
        self._former = self._certain()
        self._counts, self._errors = {}, {}

    def largest(self, most: int) -> list[tuple[str, int]]:
        """Return the most frequent names, at most `most` of them, and how often each was counted at least."""
        both = self._certain()
        for name, count in self._former.items():
            both[name] = both.get(name, 0) + count
        return sorted(both.items(), key=lambda pair: -pair[1])[:most]

    def _certain(self) -> dict[str, int]:
        errors = self._errors.copy()
        found = {name: count - errors.get(name, 0) for name, count in self._counts.copy().items()}
        return {name: count for name, count in found.items() if count > 0}
