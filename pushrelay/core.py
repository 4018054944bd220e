"""Which server and which engine the relay runs on: its own, or Werkzeug's and the stock one where there is no epoll."""

import logging
import select
from collections.abc import Callable
from typing import Any

from pushrelay.log.limiter import LogLimiter
from pushrelay.pages.demo import demo_facts as demo_facts
from pushrelay.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def is_own(settings: Settings) -> bool:
    """Whether it is the relay's own server and engine. Raises SettingsError where they are asked for and cannot run."""
    has_epoll = hasattr(select, "epoll")
    if settings.server == "own" and not has_epoll:
        raise SettingsError("server = own needs Linux, whose epoll it is built on: leave the setting out")
    return has_epoll and settings.server != "werkzeug"


def make_manager(
    settings: Settings,
    address_of: Callable[[dict[str, Any]], str | None],
    imported: bool = False,
    log_limiter: LogLimiter | None = None,
) -> Any:
    """The `client_manager` for Flask-SocketIO, which makes it run on the engine it belongs to.

    `address_of`: see limits.ClientLimiter. `log_limiter` gets what the engine refuses. `imported`: another server than
    those below runs the app. The setting `server` does not apply to that one, and our engine works there.
    """
    if not (is_own(settings) or (imported and hasattr(select, "epoll"))):
        from pushrelay.wsgi.werkzeug import WerkzeugManager

        return WerkzeugManager(address_of, log_limiter)
    from pushrelay.engine.engine import install
    from pushrelay.engine.limits import ClientLimiter
    from pushrelay.rooms.manager import RoomManager
    from pushrelay.server.limiter import most_clients
    from pushrelay.wsgi.carriers import carrier_of

    most = most_clients(settings)
    install(
        outbox_bytes=settings.max_outbox,
        outboxes_bytes=settings.max_outboxes,
        message_timeout=settings.body_timeout,
        settle_timeout=settings.register_timeout,
        event_rate=settings.max_event_rate,
        admission=ClientLimiter(most, settings.max_per_address, settings.max_connections, address_of),
        log_limiter=log_limiter,
        threads=settings.threads,
        carrier_of=carrier_of,
    )
    return RoomManager()


def make_server(
    app: Callable[..., Any],
    settings: Settings,
    shortcut: Any = None,
    share_of: Any = None,
    log_limiter: LogLimiter | None = None,
) -> Any:
    """The server, bound and listening, with `port`, `serve_forever()`, `drain()`, `finish()` and `close()`.

    Raises OSError.

    `shortcut`, `share_of` and `log_limiter` are for our own server (see server.Server); others do without.
    """
    if not is_own(settings):
        from pushrelay.wsgi.werkzeug import WerkzeugServer

        return WerkzeugServer(app, settings.host, settings.port, settings.max_body)
    from pushrelay.server.limiter import CONNECTIONS_PER_CLIENT, Doors, file_limit, files_for, raise_file_limit
    from pushrelay.server.server import Limits, Server, access_logger

    raise_file_limit()
    files = files_for(file_limit(), settings.threads)
    doors = Doors(files, settings.max_per_address * CONNECTIONS_PER_CLIENT, settings.trusted_proxies, log_limiter)
    limits = Limits(
        max_header=settings.max_header,
        header_timeout=settings.header_timeout,
        max_body=max(settings.max_body, settings.max_message),
        body_timeout=settings.body_timeout,
        idle_timeout=settings.idle_timeout,
        send_timeout=settings.send_timeout,
    )
    access_logger.setLevel("INFO" if settings.access_log else "WARNING")
    return Server(
        app,
        settings.host,
        settings.port,
        settings.threads,
        limits,
        settings.access_log,
        shortcut=shortcut,
        doors=doors,
        share_of=share_of,
        log_limiter=log_limiter,
        socket_mode=settings.socket_mode,
        socket_group=settings.socket_group,
    )
