"""SIGHUP: read the settings again, and apply those that need no restart."""

import logging
import os
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from pushrelay.access.exposure import warnings
from pushrelay.lifecycle import exit_at_signal
from pushrelay.log.setup import set_log
from pushrelay.server.systemd import notify
from pushrelay.settings import Settings, SettingsError
from pushrelay.settings.changes import Changes, read_changes
from pushrelay.settings.table import LOG_LEVELS

if TYPE_CHECKING:
    from pushrelay.core import Core

log = logging.getLogger(__name__)

AGAIN = "correct this, check it with --check, and send SIGHUP again"


class Reloader:
    """Reloads the settings of a relay at each SIGHUP, on a thread of its own."""

    def __init__(self, relay: "Core"):
        self._relay = relay
        # A signal may interrupt any code, also a previous signal's handler. Of all that wakes a thread, only the put()
        # of this queue may be called then.
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_in_foreground = _terminal_group() == os.getpgrp()

    def start(self) -> None:
        """Begin to handle SIGHUP. Call it in the main thread. Does nothing if SIGHUP is ignored, as nohup has it."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return
        threading.Thread(target=self._run, name="reload", daemon=True).start()
        signal.signal(signal.SIGHUP, self._signaled)

    def _signaled(self, *_: object) -> None:
        if self._is_in_foreground and _terminal_group() is None:  # somebody has closed the terminal
            exit_at_signal()
        self._requests.put(None)

    def _run(self) -> None:
        while True:
            self._requests.get()
            while not self._requests.empty():  # one reload answers all signals that came before it
                self._requests.get()
            if self._relay.lifecycle.reason is None:
                self._reload_for_systemd()

    def _reload_for_systemd(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        is_done = reload(self._relay)
        notify(f"READY=1\nSTATUS={'' if is_done else 'The last reload failed: see the log.'}")


def reload(relay: "Core") -> bool:
    """Read the settings again, apply those that can change, and log the result. Return False if they are wrong."""
    old = relay.settings
    try:
        changes = read_changes(old)
        relay.reload(changes.settings)
    except (SettingsError, OSError) as error:
        log.error("the settings were not reloaded, and nothing has changed: %s; %s", error, AGAIN)
        return False
    except Exception:
        log.exception("the settings could not be reloaded: restart the relay")
        return False
    new = changes.settings
    # The result is logged if the old level or the new one shows it.
    set_log(min(old.log_level, new.log_level, key=LOG_LEVELS.index), new.log_format)
    _log_changes(changes, old)
    set_log(new.log_level, new.log_format)
    return True


def _log_changes(changes: Changes, old: Settings) -> None:
    """Log the names of what has changed; never the values, which may be secrets."""
    fields: dict[str, Any] = {"changed": changes.changed, "waiting": changes.waiting}
    names = ", ".join(changes.changed) or "no setting has changed"
    log.info("the settings were reloaded: %s", names, extra={"fields": fields})
    if changes.waiting:
        names = ", ".join(changes.waiting)
        log.warning("changed, but not reloaded: %s; restart the relay to apply this", names, extra={"fields": fields})
    known = warnings(old)
    for each in warnings(changes.settings):
        if each not in known:
            log.warning("%s", each.removeprefix("warning: "))


def _terminal_group() -> int | None:
    """Return the process group in the foreground of the controlling terminal; None if there is no terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(terminal)
    except OSError:
        return None
    finally:
        os.close(terminal)
