"""What the relay uses of other packages though it is not part of their interface.

A release of theirs may rename it, and then the relay says so at the start, and not when the first client comes.
"""

import importlib.metadata
from typing import Any

import socketio

# By package: private names of socketio.Server, and of its `eio`, which are called, replaced or read.
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
        "_async",
        "_cors_allowed_origins",
        "_cors_headers",
        "_deflate",
        "_generate_sid_cookie",
        "_gzip",
        "_log_error_once",
        "_trigger_event",
        "_unauthorized",
    ),
}


class Incompatible(ImportError):
    """A package is there in a version that the relay cannot use. The message is for people."""


def check() -> None:
    """Raise Incompatible if a package lacks something that the relay uses of it."""
    server = socketio.Server(async_mode="threading")  # starts nothing
    parts: dict[str, Any] = {"python-socketio": server, "python-engineio": server.eio}
    for package, part in parts.items():
        missing = [name for name in PRIVATE[package] if not hasattr(part, name)]
        if missing:
            raise Incompatible(
                f"{package} {importlib.metadata.version(package)} lacks what the relay uses of it "
                f"({', '.join(missing)}): install the versions that were tried with it, by  "
                "pip install -r requirements.txt"
            )
