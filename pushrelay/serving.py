"""Which server and which engine the relay runs on: its own, or Werkzeug's and the stock one where there is no epoll."""

import select
from collections.abc import Callable
from typing import Any

from .settings import Settings, SettingsError

SOCKET_KEY = "pushrelay.sid"  # our engine leaves it in the environ of a Socket.IO event


def is_own(settings: Settings) -> bool:
    """Whether it is the relay's own server and engine. Raises SettingsError where they are asked for and cannot run."""
    has_epoll = hasattr(select, "epoll")
    if settings.server == "own" and not has_epoll:
        raise SettingsError("server = own needs Linux, whose epoll it is built on: leave the setting out")
    return has_epoll and settings.server != "werkzeug"


def make_manager(settings: Settings) -> Any:
    """The `client_manager` for Flask-SocketIO, which makes it run on the engine it belongs to."""
    if not is_own(settings):
        from .fallback import StockManager

        return StockManager()
    from .engine import install
    from .manager import RoomManager

    install(outbox_bytes=settings.max_outbox)
    return RoomManager(pacers=settings.threads // 2)


def make_server(app: Callable[..., Any], settings: Settings, shortcut: Any = None) -> Any:
    """The server, bound and listening, with `port`, `serve_forever()` and `close()`. Raises OSError.

    `shortcut` is for our own server (see server.Server); others do without.
    """
    if not is_own(settings):
        from .fallback import FallbackServer

        return FallbackServer(app, settings.host, settings.port, settings.max_body)
    from .server import Limits, Server, access_logger

    limits = Limits(
        max_header=settings.max_header,
        header_timeout=settings.header_timeout,
        max_body=max(settings.max_body, settings.max_message),
        body_timeout=settings.body_timeout,
        idle_timeout=settings.idle_timeout,
        send_timeout=settings.send_timeout,
    )
    access_logger.setLevel("INFO" if settings.access_log else "WARNING")
    return Server(app, settings.host, settings.port, settings.threads, limits, settings.access_log, shortcut=shortcut)


def address(settings: Settings, port: int) -> tuple[str, str]:
    """Where to reach the relay from this machine, and a line for the shell that pushes there."""
    fields = "-d destination=demo -d data=hello"
    if settings.host.startswith("unix:"):
        path = settings.host.removeprefix("unix:")
        return settings.host, f"curl --unix-socket {path} {fields} http://localhost{settings.base_path}/push"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.base_path}"
    return url, f"curl {fields} {url}/push"


def remarks(settings: Settings) -> list[str]:
    """What the start tells about the server, where that is not the usual."""
    if is_own(settings):
        return []
    why = "as the setting says" if settings.server == "werkzeug" else "because this system has no epoll"
    return [f"runs on Werkzeug, {why}: every client takes several threads, so it is good for some hundred of them"]


def is_socket(environ: dict[str, Any]) -> bool:
    """Whether this is the environ of a Socket.IO event, which our engine keeps, and not of an HTTP request."""
    return SOCKET_KEY in environ
