"""The part of the relay that takes pushes from the spool, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from pushrelay.counters import Family
from pushrelay.errors import StoreError, StoreInUse
from pushrelay.log.limiter import LogLimiter
from pushrelay.push.counts import PushCounts
from pushrelay.settings import Settings
from pushrelay.store import Broker

from .folder import Folder, FolderTrouble
from .taking import REFUSED, TAKEN, Taking

log = logging.getLogger(__name__)

EVERY = 0.2  # seconds between two looks at a folder in which nothing waits
SOON = 0.01  # the same, just after files were taken; it doubles with each look
AGAIN = 1.0  # seconds until the next attempt after a failure
CHECK_EVERY = 1.0  # seconds between two checks of the folder itself
CLEAN_EVERY = 600.0  # seconds between two searches for what programs left that died while they wrote
LOCK_SECONDS = 1.0  # that a start waits for a relay that is just ending
BRIEF_SECONDS = 0.1  # that a later attempt waits: PHP locks the file for microseconds
LONG = 2.0  # seconds: files that waited for longer are worth a line in the log
CLOSE_SECONDS = 4.0  # for the batch under way at the end


class Spool:
    """Takes pushes from the folder `settings.spool`. See backend.Part for its methods."""

    name = "spool"
    is_on = True  # it is only made if the setting is there, and a reload does not change it

    def __init__(self, broker: Broker, settings: Settings, counts: PushCounts, log_limiter: LogLimiter):
        self.trouble: str | None = None
        self._settings = settings
        self._folder = Folder(settings.spool)
        self._taking = Taking(self._folder, broker, counts, self._warn, lambda: self._is_over)
        self._log_limiter = log_limiter
        self._is_over = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._pause = SOON
        self._check_at = self._clean_at = 0.0  # monotonic

    def start(self) -> None:
        """Lock the folder and start the thread. Raises StoreInUse if another relay takes files from it.

        That comes before the first request is answered: if the relay answers and the folder is not locked, Relay.php
        concludes that nobody takes files from it.
        """
        try:
            self._hold(LOCK_SECONDS)
        except StoreInUse as error:
            if not self._settings.imported:
                raise
            self.trouble = str(error)  # a server that reloads starts the next process before it ends the previous one
        except (FolderTrouble, OSError) as error:
            self.trouble = str(error)
        self._thread.start()

    def ring(self) -> bool:
        """Look for files now. No other node looks into this folder, but another one may take the outbox."""
        self._wake.set()
        return False

    def each_second(self) -> None:
        """Do nothing: the thread does everything."""

    def reload(self, settings: Settings) -> None:
        """Check the next files by these settings."""
        self._settings = settings

    def close(self) -> None:
        """Stop after the batch under way, and let others lock the folder."""
        self._is_over = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._folder.release()

    def metrics(self) -> Iterator[Family]:
        """Return the metrics of the spool."""
        help_ = "Whether the relay can take files from the spool: 1, or 0 if the folder or the store fails."
        yield Family("relay_spool_up", "gauge", help_, 0 if self.trouble else 1)
        help_ = "Files of the spool, by what became of them."
        yield Family("relay_spool_files_total", "counter", help_, self._taking.files.values(), ("result",))
        help_ = "Files that wait in the spool, when the relay last looked."
        yield Family("relay_spool_waiting", "gauge", help_, self._folder.waiting)
        help_ = "Seconds for which the first file in the spool has waited; 0 if none waits."
        yield Family("relay_spool_oldest_seconds", "gauge", help_, self._oldest_seconds())

    def facts(self) -> dict[str, Any]:
        """Return what /status.json shows of the spool."""
        files = self._taking.files.counts()
        waiting, oldest = self._folder.waiting, self._oldest_seconds()
        more = f", {files[REFUSED]} refused" if files[REFUSED] else ""
        summary = f"{waiting} {'file waits' if waiting == 1 else 'files wait'}, {files[TAKEN]} taken{more}"
        return {"summary": summary, "waiting": waiting, "oldest_seconds": round(oldest, 1), **files}

    def _oldest_seconds(self) -> float:
        oldest = self._taking.oldest
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)

    # The thread.

    def _run(self) -> None:
        while not self._is_over:
            pause = self._step()
            self._wake.wait(pause)
            self._wake.clear()

    def _step(self) -> float:
        """Take what waits; return the seconds until the next look."""
        try:
            self._look_after_folder()
            taken = self._take()
        except StoreInUse as error:
            return self._release(str(error))
        except StoreError as error:
            self.trouble = f"files wait in {self._folder.path}, because the store fails: {error}"
            return AGAIN
        except FolderTrouble as error:
            return self._release(str(error))
        except OSError as error:
            return self._release(f"{self._folder.path}: {error.strerror or error}")
        except Exception as error:
            log.exception("taking files from the spool failed")
            self.trouble = f"{self._folder.path}: the relay failed ({error!r}), and its log has more"
            return AGAIN
        self.trouble = self._taking.trouble
        if taken:
            # While files wait, Relay.php adds to them. It returns to HTTP when it finds none, so that should be soon.
            self._pause = SOON
            return 0.0
        pause, self._pause = self._pause, min(self._pause * 2, EVERY)
        return pause

    def _release(self, trouble: str) -> float:
        """Let Relay.php find out that nobody takes files: it then pushes over HTTP if it can."""
        self._folder.release()
        self.trouble = trouble
        return AGAIN

    def _look_after_folder(self) -> None:
        now = time.monotonic()
        if not self._folder.is_held:
            self._hold(BRIEF_SECONDS)
        elif now >= self._check_at:
            self._check_at = now + CHECK_EVERY
            self._folder.check()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_EVERY
            if removed := self._folder.clean():
                log.info("spool: files that were never completed and are removed now: %d", removed)

    def _hold(self, seconds: float) -> None:
        self._folder.hold(seconds)
        self._taking.begin()
        self._check_at = time.monotonic() + CHECK_EVERY

    def _take(self) -> int:
        taken = self._taking.take(self._settings)
        self._folder.waiting = max(0, self._folder.waiting - taken)
        if taken and self._taking.waited > LONG:
            files = f"{taken} files, the first of which" if taken > 1 else "a file, which"
            log.info("spool: took %s had waited for %.0f s", files, self._taking.waited)
        return taken

    def _warn(self, sentence: str) -> None:
        self._log_limiter.warn("spool_refused", self._folder.path, f"the spool has a file that was refused: {sentence}")
