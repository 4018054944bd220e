"""HTTP/1.1 and WebSocket on epoll, for any WSGI app. It knows nothing of the relay."""

from .server import Server as Server
