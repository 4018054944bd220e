"""The metrics of the relay as a whole; prometheus_client adds those of its process, such as memory and open files."""

import platform
import threading
from collections.abc import Callable, Iterator

from pushrelay import __version__
from pushrelay.counters import Family


class Process:
    """The relay as a whole. Any thread may call it.

    `broker` is the kind of its store, such as "sqlite". `trouble()` returns why it accepts no pushes now, or None.
    """

    def __init__(self, broker: str, trouble: Callable[[], str | None]):
        self._build = (__version__, platform.python_version(), broker)
        self._trouble = trouble

    def metrics(self) -> Iterator[Family]:
        """Return the version, whether the relay is ready, and the number of its threads."""
        help_ = "Always 1; the labels have the versions and the kind of the store."
        yield Family("relay_build_info", "gauge", help_, {self._build: 1}, ("version", "python", "broker"))
        help_ = "Whether the relay accepts pushes: 1 if GET /health/ready returns 200."
        yield Family("relay_ready", "gauge", help_, int(not self._trouble()))
        yield Family("relay_threads", "gauge", "Threads of the process that run Python.", threading.active_count())
