"""How many of something there may be: in all, and for one address."""

import secrets
import threading

# Whoever is refused comes back after a time of its own, so that not all of them come at once.
RETRY_SECONDS = range(2, 11)
NO_ROOM = "all connections that the limit on open files (ulimit -n) allows are in use: try again later"


def retry_after() -> str:
    """A value for the header Retry-After."""
    return str(secrets.choice(RETRY_SECONDS))


class Places:
    """So many places in all, and so many of them for one address. Any thread may call its methods."""

    def __init__(self, most: int, most_each: int):
        self.most = most
        self.most_each = most_each
        self.taken = 0
        self._by_address: dict[str, int] = {}
        self._lock = threading.Lock()  # over both

    def take(self, address: str | None) -> str:
        """Take a place, for an address where it is to be counted. Empty if there was one, else "all" or "address"."""
        with self._lock:
            if self.taken >= self.most:
                return "all"
            if address is not None:
                held = self._by_address.get(address, 0)
                if held >= self.most_each:
                    return "address"
                self._by_address[address] = held + 1
            self.taken += 1
        return ""

    def give_back(self, address: str | None) -> None:
        """Give a place back that was taken for the same address."""
        with self._lock:
            self.taken -= 1
            if address is not None:
                held = self._by_address.pop(address) - 1
                if held:
                    self._by_address[address] = held
