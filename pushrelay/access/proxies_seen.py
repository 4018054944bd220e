"""The proxies through which clients came, by the addresses from which they connect to the relay."""

import threading

MOST = 8  # proxies that are counted; a stranger may claim to be one


class ProxiesSeen:
    """Counts the clients that came through each proxy. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, address: str) -> None:
        """Count a client that came through the proxy at this address."""
        with self._lock:
            if address in self._counts or len(self._counts) < MOST:
                self._counts[address] = self._counts.get(address, 0) + 1

    def counts(self) -> list[tuple[str, int]]:
        """Return the addresses and the number of clients, largest first."""
        return sorted(self._counts.copy().items(), key=lambda pair: -pair[1])
