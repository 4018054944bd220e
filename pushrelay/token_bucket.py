"""A token bucket: how often something may happen."""

import math
import time


class TokenBucket:
    """Allows `rate` events a second in the long run, and up to `burst` of them at once. Any thread may call it.

    It keeps one number, the time at which it is full again (the generic cell rate algorithm), and needs no lock for it:
    CPython switches threads only at calls and loops, and `take` has neither between reading that number and writing it.
    Even if a thread did come in between, one of two simultaneous events would go uncounted, and nothing worse would
    happen.
    """

    __slots__ = ("_full_at", "_rate", "_span")

    def __init__(self, rate: float, burst: float):
        self._rate = rate
        self._span = burst / rate  # seconds in which an empty bucket fills
        self._full_at = -math.inf  # by the monotonic clock

    def take(self, n: float = 1, now: float | None = None) -> float:
        """Take n tokens and return 0.0; or take none and return the seconds until there will be enough.

        A full bucket gives even more than the burst; the next caller then waits until the difference is made up. `now`
        is by time.monotonic().
        """
        if now is None:
            now = time.monotonic()
        cost = n / self._rate
        full_at = self._full_at
        if full_at < now:
            full_at = now
        wait = full_at - now + (cost if cost < self._span else self._span) - self._span
        if wait > 1e-9:  # do not wait because of rounding errors in added fractions
            return wait
        self._full_at = full_at + cost
        return 0.0

    def overdraw(self, n: float, most: float = math.inf, now: float | None = None) -> float:
        """Take n tokens, even if there are fewer, and return the debt; it never exceeds `most` seconds."""
        if now is None:
            now = time.monotonic()
        full_at = self._full_at
        if full_at < now:
            full_at = now
        self._full_at = min(full_at + n / self._rate, now + self._span + most)
        return self.debt(now)

    def debt(self, now: float | None = None) -> float:
        """Return the seconds until an overdrawn bucket is merely empty; 0.0 if it is not overdrawn."""
        if now is None:
            now = time.monotonic()
        return max(0.0, self._full_at - now - self._span)
