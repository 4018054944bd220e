"""What the relay runs on where there is no epoll: Werkzeug's server, and python-socketio's own engine and manager.

It takes a thread for each connection and four for each WebSocket client.
"""

import json
import socket
from collections.abc import Callable
from typing import Any

import socketio
from werkzeug.serving import WSGIRequestHandler, make_server

BACKLOG = 1024  # connections that wait to be accepted; a page that reconnects everybody at once needs many


class StockManager(socketio.Manager):
    """python-socketio's manager, with what the relay's own has and this one has not."""

    can_hold = False  # a client has a thread of its own here, which can wait

    def deliver_text(self, write: Callable[[], str], room: str, skip_sid: str | None = None) -> int:
        """Emit an event that `write()` gives as the JSON array of its name and its argument; returns to how many."""
        sids = [sid for sid, _ in self.get_participants("/", room) if sid != skip_sid]
        if sids:
            event, argument = json.loads(write())
            self.emit(event, argument, "/", room=room, skip_sid=skip_sid)
        return len(sids)

    def send_text(self, text: str, sid: str) -> None:
        """An event, as above, to one client."""
        event, argument = json.loads(text)
        self.emit(event, argument, "/", room=sid)

    def pace(self, sid: str) -> None:
        """Nothing: the stock engine's queues have no bound."""


class FallbackServer:
    """Serves a WSGI app on one address until it is closed. `port` is the one in use, also where 0 was asked for."""

    def __init__(self, app: Any, host: str, port: int, max_body: int):
        """Bind the address. Raises OSError where that cannot be done."""
        self._listener = _listen(host, port)
        self.port = self._listener.getsockname()[1]
        handler = type("RequestHandler", (_RequestHandler,), {"max_body": max_body})
        self._server = make_server(
            host, self.port, app, threaded=True, request_handler=handler, fd=self._listener.fileno()
        )

    def serve_forever(self) -> None:
        """Serve until another thread calls close(), or an exception such as KeyboardInterrupt comes up."""
        self._server.serve_forever()

    def close(self) -> None:
        """Stop listening. What is connected ends with the process: clients come back by themselves."""
        self._server.server_close()
        self._listener.close()


class _RequestHandler(WSGIRequestHandler):
    max_body: int

    def handle_expect_100(self) -> bool:
        """Leave it to run_wsgi, or the client is told to continue twice."""
        return True

    def run_wsgi(self) -> None:
        # RFC 9110, 10.1.1: a client that asks first is spared sending what would be refused. Werkzeug says
        # "100 Continue" to everyone, and then has to read it all.
        length = self.headers.get("Content-Length", "")
        if length.isdigit() and (len(length) > 18 or int(length) > self.max_body):
            del self.headers["Expect"]
        super().run_wsgi()

    def log_request(self, *_: Any) -> None:
        """Nothing: a line for each push says nothing that somebody needs."""


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
