"""Clients of the relay and of the site: HTTP, WebSocket and Socket.IO. They report exactly what a server answered."""
