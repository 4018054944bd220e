"""Clients of the relay and of the site: HTTP, WebSocket, Socket.IO."""
