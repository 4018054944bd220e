"""Old names of what is in clients.py."""

from clients import Follower, Wire, frame, handshake  # noqa: F401


def upgrade(port, path="/socket.io/"):
    return handshake(f"{path}?EIO=4&transport=websocket", f"127.0.0.1:{port}")
