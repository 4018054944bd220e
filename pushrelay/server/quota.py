"""A quota: how many of something may exist in all, and how many of them for one address."""

import secrets
import threading

# Rejected clients retry after a random number of seconds, so that they do not all return at once.
RETRY_SECONDS = range(2, 11)
NO_ROOM = "all connections that the limit on open files (ulimit -n) allows are in use: try again later"


def retry_after() -> str:
    """Return a value for the header Retry-After, in seconds."""
    return str(secrets.choice(RETRY_SECONDS))


class Quota:
    """At most `limit` slots in all, and at most `limit_each` of them for one address. Any thread may call its methods.

    Each slot is acquired once and released once.
    """

    def __init__(self, limit: int, limit_each: int):
        self.limit = limit
        self.limit_each = limit_each
        self.used = 0
        self._by_address: dict[str, int] = {}  # slots in use; an address without any has no entry
        self._lock = threading.Lock()  # guards both

    def acquire(self, address: str | None) -> str:
        """Take a slot; with None it counts for no address.

        Return an empty string if one was free; otherwise the limit that was reached: "all" or "address".
        """
        with self._lock:
            if self.used >= self.limit:
                return "all"
            if address is not None:
                held = self._by_address.get(address, 0)
                if held >= self.limit_each:
                    return "address"
                self._by_address[address] = held + 1
            self.used += 1
        return ""

    def release(self, address: str | None) -> None:
        """Give back a slot that was acquired for the same address."""
        with self._lock:
            self.used -= 1
            if address is not None:
                held = self._by_address.pop(address) - 1
                if held:
                    self._by_address[address] = held
