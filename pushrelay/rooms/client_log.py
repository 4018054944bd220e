"""The log of what clients do: they connect, register destinations, and disconnect.

All of it is at the level debug, because a site may have thousands of clients that come and go with every page.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pushrelay.log.access_log import LONGEST_NAME, MOST_NAMES, listed
from pushrelay.log.formats import Fields
from pushrelay.log.refusals import seen_as

log = logging.getLogger("pushrelay.clients")


class ClientLog:
    """Logs what clients do. Any thread may call it; if the level is off, a call only finds that out.

    `address_of(environ)` returns the address of a client; None for this machine's own.
    """

    def __init__(self, address_of: Callable[[dict[str, Any]], str | None] = lambda environ: None):
        self._address_of = address_of

    def watch(self, server: Any) -> None:
        """Log the clients that disconnect from a socketio.Server, which has no type hints."""
        server._trigger_event = partial(self._triggered, server, server._trigger_event)

    def connected(self, server: Any, sid: str, namespace: str) -> None:
        """Log a client that has entered a namespace."""
        if not log.isEnabledFor(logging.DEBUG):
            return
        eio_sid = server.manager.eio_sid_from_sid(sid, namespace)
        environ, session = server.environ.get(eio_sid), server.eio.sockets.get(eio_sid)
        if environ is None or session is None:  # it has left
            return
        transport = "websocket" if session.upgraded else "polling"
        origin = environ.get("HTTP_ORIGIN", "")[:LONGEST_NAME]
        did = f"connected by {transport}{f' from a page of {origin}' if origin else ''}{_of(namespace)}"
        self._log(environ, sid, did, {"event": "connect", "transport": transport, "origin": origin or None})

    def registered(self, environ: dict[str, Any], sid: str, names: Iterable[str], event: str = "register") -> None:
        """Log a client that has registered or unregistered destinations, or that pushes to them, by its own names."""
        if log.isEnabledFor(logging.DEBUG):
            names = list(names)
            did = f"{_DID[event]} {listed(names)}"
            shown = [name[:LONGEST_NAME] for name in names[:MOST_NAMES]]
            fields: Fields = {"event": event, "destinations": shown, "destination_count": len(names)}
            self._log(environ, sid, did, fields)

    def _triggered(
        self, server: Any, trigger: Callable[..., Any], event: str, namespace: str, sid: str, *args: Any
    ) -> Any:
        if event == "disconnect" and log.isEnabledFor(logging.DEBUG):
            environ = server.get_environ(sid, namespace) or {}
            reason = str(args[0]) if args else ""
            self._log(
                environ, sid, f"disconnected{_of(namespace)} ({reason})", {"event": "disconnect", "reason": reason}
            )
        return trigger(event, namespace, sid, *args)

    def _log(self, environ: dict[str, Any], sid: str, did: str, fields: Fields) -> None:
        address = seen_as(self._address_of(environ), environ)
        fields = {"address": address, "sid": sid, **fields}
        log.debug("the client %s at %s %s", sid, address, did, extra={"fields": fields})


_DID = {"register": "registered", "unregister": "unregistered", "push": "pushes to"}


def _of(namespace: str) -> str:
    return "" if namespace == "/" else f" in the namespace {namespace[:LONGEST_NAME]}"
