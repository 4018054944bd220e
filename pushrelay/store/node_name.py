"""The name of a relay among several, if the setting `node` has none."""

import secrets
import socket


def default_node() -> str:
    """Return a new name, of at most 31 letters, digits and hyphens: that of the host, and something random."""
    host = "".join(
        each if each.isalnum() and each.isascii() else "-" for each in socket.gethostname().partition(".")[0]
    )
    return f"{host[:24] or 'node'}-{secrets.token_hex(3)}"
