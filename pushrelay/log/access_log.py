"""The access log: a line for each HTTP request, with what the relay has noted about it.

Notes are in the environ, in one object that copies of the environ share: a middleware may have given the app a copy.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from .formats import Fields

NOTES = "pushrelay.access_log"  # the environ's key for the notes about a request; absent if there is no access log
MOST_NAMES = 10  # destinations of one request that are logged
LONGEST_NAME = 100  # characters of each
CLIENT_LEFT = 499  # stands for the status if the client has left before it was answered; nginx logs the same
# Parameters whose values are logged. Any other may be a token, a session's id or a key: only its name is logged.
SHOWN = {"EIO", "transport", "destination", "limit"}
_PARAMETER = re.compile(r"[A-Za-z_][\w-]{0,19}", re.ASCII)


def note(environ: dict[str, Any], **facts: object) -> None:
    """Add facts to a request's line in the access log: `user`, `destinations`, `error`. Does nothing without one."""
    notes = environ.get(NOTES)
    if notes is not None:
        notes.update(facts)


class AccessLog:
    """Logs requests to the logger pushrelay.access_log, at the level info. Any thread may call it.

    `address_of(environ)` returns the address of a client. With `hides_names`, destinations are session ids of visitors:
    only their beginnings are logged.
    """

    def __init__(
        self,
        address_of: Callable[[dict[str, Any]], str] = lambda environ: environ.get("REMOTE_ADDR") or "-",
        hides_names: bool = False,
    ):
        self._address_of = address_of
        self._hides_names = hides_names
        self._log = logging.getLogger("pushrelay.access_log")
        self._log.setLevel(logging.INFO)  # whatever log_level is: somebody has asked for this log

    def begin(self, environ: dict[str, Any]) -> None:
        """Take the time at which a request is complete, and accept notes about it."""
        environ[NOTES] = {"began": time.monotonic()}

    def end(self, environ: dict[str, Any], status: int, sent: int) -> None:
        """Log a request that was answered with this status, and with a body of `sent` bytes."""
        notes = environ.get(NOTES) or {}
        seconds = time.monotonic() - notes["began"] if "began" in notes else None
        names = [self._shown(name) for name in notes.get("destinations", ())]
        target = self._masked(environ["RAW_URI"])
        fields: Fields = {
            "address": self._address_of(environ),
            "user": notes.get("user"),
            "method": environ["REQUEST_METHOD"],
            "path": target,
            "status": status,
            "bytes": sent,
            "seconds": None if seconds is None else round(seconds, 6),
            "destinations": names[:MOST_NAMES] or None,
            "destination_count": len(names) or None,
            "error": notes.get("error"),
        }
        self._log.info(
            '%s %s "%s %s %s" %d %d%s%s%s',
            fields["address"],
            notes.get("user", "-"),
            fields["method"],
            target.encode("unicode_escape").decode(),
            environ["SERVER_PROTOCOL"],
            status,
            sent,
            "" if seconds is None else f" {seconds * 1000:.1f}ms",
            f" to {listed(names)}" if names else "",
            f" {notes['error']}" if "error" in notes else "",
            extra={"fields": fields},
        )

    def _masked(self, target: str) -> str:
        """Return a request's target without the values of its query, except harmless ones, and without a password."""
        if not target.startswith("/") and "://" in target:  # as sent to proxies
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, mark, query = target.partition("?")
        return path + mark + "&".join(self._masked_parameter(each) for each in query.split("&")) if mark else path

    def _masked_parameter(self, text: str) -> str:
        name, equals, value = text.partition("=")
        if not equals or not _PARAMETER.fullmatch(name):
            return "…" if text else ""
        if name not in SHOWN:
            return f"{name}=…"
        return f"{name}={self._shown(value) if name == 'destination' else value[:LONGEST_NAME]}"

    def _shown(self, name: str) -> str:
        """Return a destination as it is logged."""
        return f"{name[:4]}…" if self._hides_names and len(name) > 8 else name[:LONGEST_NAME]


def listed(names: Iterable[str]) -> str:
    """Return some of the names, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(name[:LONGEST_NAME] for name in names[:MOST_NAMES]) + more
