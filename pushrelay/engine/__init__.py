"""Engine.IO 4: sessions, long polling, the upgrade to WebSocket, heartbeats."""

from .engine import Engine as Engine
