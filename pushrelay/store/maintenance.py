"""The broker's life outside the requests: opened for the first request, swept every second, closed at the end."""

import logging
import threading
import time
from collections.abc import Callable

from pushrelay.errors import StoreError, StoreInUse

from .broker import Broker

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two sweeps if there is nothing to drop
AGAIN = 0.05  # seconds until the next sweep if there is more to drop


class Maintenance:
    """Opens a broker when it is first needed, so that a process may fork before, and sweeps it until it is closed.

    `each_second()` is called at least once a second; it must not wait. `patience` is the number of seconds that the
    first requests wait for a relay that still uses the store. `at_start()` is called once when the store is open, and
    `at_end()` before it is closed.
    """

    def __init__(
        self,
        broker: Broker,
        each_second: Callable[[], None] = lambda: None,
        patience: float = 0.0,
        at_start: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
    ):
        self.broker = broker
        self._at_start = at_start
        self._at_end = at_end
        self.patience = patience
        self.trouble: str | None = None  # the reason, while the store cannot be written
        self.started = False
        self._each_second = each_second
        self._patient_until = 0.0  # monotonic; 0 until the first request has come
        self._next_try = 0.0  # monotonic; no attempt before then, because an attempt may have to wait for a lock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Open the store and start the thread, once. Raises StoreError; it may be called again then."""
        with self._lock:
            if not self.started:
                self.broker.start()
                self._report(None)
                self._thread = threading.Thread(target=self._run, name="broker-maintenance", daemon=True)
                self._thread.start()
                try:
                    self._at_start()
                finally:
                    self.started = True  # requests of other threads wait for all of this

    def ensure_open(self) -> None:
        """Open the store for a request, if it is not open. If that fails, `trouble` has the reason."""
        if self.started or time.monotonic() < self._next_try:
            return
        self._patient_until = self._patient_until or time.monotonic() + self.patience
        try:
            self._start_patiently()
        except StoreError as error:
            self._report(str(error))
            self._next_try = time.monotonic() + EVERY

    def _start_patiently(self) -> None:
        while not self._ended.is_set():
            try:
                return self.start()
            except StoreInUse:
                if time.monotonic() > self._patient_until:
                    raise

    def _run(self) -> None:
        pause = EVERY
        while not self._ended.wait(pause):
            try:
                self._each_second()
                pause = AGAIN if self.broker.sweep() else EVERY
                self.broker.flush()
                self._report(None)
            except StoreError as error:
                pause = EVERY
                self._report(str(error))
            except Exception:  # without this thread, no token would expire and nothing would be swept
                pause = EVERY
                log.exception("maintenance failed; it continues")

    def _report(self, trouble: str | None) -> None:
        """Log when the trouble begins and when it ends, and nothing in between."""
        if trouble and not self.trouble:
            log.error("pushes are refused: %s", trouble)
        elif self.trouble and not trouble:
            log.error("the store is back: pushes are accepted again")
        self.trouble = trouble

    def close(self) -> None:
        """Stop sweeping, and close the store."""
        self._ended.set()
        with self._lock:
            if self._thread is not None:
                self._thread.join(5)
                self._at_end()
                self.broker.close()
