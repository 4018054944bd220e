"""Old names of what is in clients.py and measures.py."""

from clients import ServedClient as Client  # noqa: F401
from clients import WebSocketClient, handshake, masked, read_all  # noqa: F401
from measures import error_of, open_fds  # noqa: F401

HANDSHAKE = handshake("{path}", "test").decode()
