"""Which paths are answered quickly and which block a thread, learned from the requests themselves."""

import time

# Seconds for which a path counts as slow after it blocked a thread.
SLOW_SECONDS = 5.0
# A path counts as quick once a request for it took less than this many seconds.
QUICK_SECONDS = 0.005
# Clients choose paths, so their number and their length, in characters, are bounded. The relay's own are short.
KNOWN_PATHS = 1024
LONGEST_PATH = 256


class PathTimes:
    """Remembers quick and slow paths. Any thread may call it."""

    def __init__(self) -> None:
        self._slow: dict[str, float] = {}  # until when the path counts as slow (monotonic)
        self._quick: set[str] = set()

    def mark_slow(self, path: str) -> None:
        """Record that a request for this path has blocked a thread."""
        if len(path) > LONGEST_PATH:
            return
        if len(self._slow) >= KNOWN_PATHS:
            self._slow.clear()
        self._slow[path] = time.monotonic() + SLOW_SECONDS

    def record(self, path: str, seconds: float) -> None:
        """Record for how many seconds a request for this path held its thread."""
        if seconds < QUICK_SECONDS and path not in self._quick and len(path) <= LONGEST_PATH:
            if len(self._quick) >= KNOWN_PATHS:
                self._quick.clear()  # paths that strangers request must not keep others out
            self._quick.add(path)

    def is_slow(self, path: str) -> bool:
        """Return whether a request for this path blocked a thread within the last SLOW_SECONDS."""
        return self._slow.get(path, 0.0) > time.monotonic()

    def is_quick(self, path: str) -> bool:
        """Return whether a request for this path was answered within QUICK_SECONDS before."""
        return path in self._quick
