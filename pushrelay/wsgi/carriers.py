"""The carriers of clients under WSGI servers other than the relay's own."""

from typing import Any

from pushrelay.engine.carrier import Carrier
from pushrelay.server.poller import Poller

from . import blocking, hijack


def carrier_of(environ: dict[str, Any], poller: Poller) -> Carrier:
    """Return the carrier of a request: its connection is taken if that is possible, else it holds a thread."""
    return hijack.carrier_of(environ, poller) or blocking.BlockingCarrier(environ, poller)
