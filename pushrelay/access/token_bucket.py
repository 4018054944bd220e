"""How often something may happen: a token bucket."""

import time


class TokenBucket:
    """Lets `rate` things a second happen in the long run, and up to `burst` of them at once. Any thread may ask.

    It keeps one number, the time at which it will be full again, and needs no lock for it: between reading and writing
    that nothing is called and nothing loops, so CPython lets no other thread in. Where one came in all the same, the
    bucket would have counted one of two things that happened at the same moment, and nothing worse.
    """

    __slots__ = ("_full_at", "_rate", "_span")

    def __init__(self, rate: float, burst: float):
        self._rate = rate
        self._span = burst / rate  # seconds in which an empty bucket fills
        self._full_at = float("-inf")  # by the monotonic clock

    def take(self, n: float = 1, now: float | None = None) -> float:
        """Take n tokens, and return 0.0; or take none, and return the seconds until there will be enough.

        More than the burst can be taken when the bucket is full; whoever comes then waits until that is made up for.
        `now` is by time.monotonic().
        """
        if now is None:
            now = time.monotonic()
        cost = n / self._rate
        full_at = self._full_at
        if full_at < now:
            full_at = now
        wait = full_at - now + (cost if cost < self._span else self._span) - self._span
        if wait > 1e-9:  # what adding up fractions of seconds leaves over is no reason to wait
            return wait
        self._full_at = full_at + cost
        return 0.0
