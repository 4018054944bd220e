"""Private names of other packages that the relay uses, and a check that they exist.

Any release of these packages may rename them. The relay then refuses to start and names what is missing, instead of
failing when the first client connects.
"""

import importlib.metadata
import sys
from typing import Any

import socketio

# By package: names that the relay calls, replaces or reads on a socketio.Server and on its `eio`.
PRIVATE = {
    "python-socketio": (
        "_binary_packet",
        "_engineio_server_class",
        "_get_event_handler",
        "_get_namespace_handler",
        "_handle_ack",
        "_handle_connect",
        "_handle_disconnect",
        "_handle_event",
        "_handle_event_internal",
        "_send_eio_packet",
        "_send_packet",
        "_trigger_event",
    ),
    "python-engineio": (
        "_cors_allowed_origins",
        "_generate_sid_cookie",
        "_log_error_once",
        "_trigger_event",
        "_unauthorized",
    ),
}


class Incompatible(ImportError):
    """A package is installed in a version that the relay cannot use. The message is for people."""


def check() -> None:
    """Raise Incompatible if a package lacks a name that the relay uses."""
    server = socketio.Server(async_mode="threading")  # starts nothing
    parts: dict[str, Any] = {"python-socketio": server, "python-engineio": server.eio}
    for package, part in parts.items():
        missing = [name for name in PRIVATE[package] if not hasattr(part, name)]
        if missing:
            raise Incompatible(
                f"{package} {importlib.metadata.version(package)} lacks names that the relay uses "
                f"({', '.join(missing)}): install a version that was tested with the relay, by  "
                f"{sys.executable} -m pip install -r requirements.txt"
            )
