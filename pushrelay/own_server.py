"""The relay's own server, made from the settings. Only on systems with epoll."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pushrelay.log.access_log import AccessLog
from pushrelay.log.limiter import LogLimiter
from pushrelay.settings import Settings
from pushrelay.wsgi.front import Front, WSGIApp

if TYPE_CHECKING:  # imported once it is known which server runs
    from pushrelay.server.limiter import ConnectionLimiter
    from pushrelay.server.poller import Poller
    from pushrelay.server.request import Limits
    from pushrelay.server.server import Server as OwnServer


def own_server(
    app: WSGIApp,
    settings: Settings,
    front: Front | None,
    log_limiter: LogLimiter,
    access_log: AccessLog | None,
    poller: "Poller | None",
) -> "tuple[OwnServer, ConnectionLimiter]":
    """Return a server that listens, and the limiter of its connections. Raises OSError if it cannot listen."""
    from pushrelay.server.limiter import CONNECTIONS_PER_CLIENT, ConnectionLimiter
    from pushrelay.server.open_files import file_limit, files_for, raise_file_limit
    from pushrelay.server.server import Server as OwnServer

    raise_file_limit()
    files = files_for(file_limit(), settings.threads)
    limiter = ConnectionLimiter(
        *files, settings.max_per_address * CONNECTIONS_PER_CLIENT, settings.trusted_proxies, log_limiter
    )
    server = OwnServer(
        app,
        settings.host,
        settings.port,
        settings.threads,
        _request_limits(settings),
        access_log or False,
        poller=poller,
        # If another app wraps the relay's, it must see pushes.
        shortcut=front.lane if front is not None and app is front.app else None,
        limiter=limiter,
        share_of=front.share_of if front is not None else None,
        log_limiter=log_limiter,
        socket_mode=settings.socket_mode,
        socket_group=settings.socket_group,
    )
    return server, limiter


def reload_own_server(
    server: "OwnServer", limiter: "ConnectionLimiter", address_of: Callable[[dict[str, Any]], str], settings: Settings
) -> None:
    """Have a server and its limiter use these settings from now on."""
    from pushrelay.server.limiter import CONNECTIONS_PER_CLIENT

    limiter.reload(settings.max_per_address * CONNECTIONS_PER_CLIENT, settings.trusted_proxies)
    server.reload(_request_limits(settings), access_log_of(settings, address_of))


def access_log_of(settings: Settings, address_of: Callable[[dict[str, Any]], str]) -> AccessLog | None:
    """Return the access log, or None if the settings ask for none."""
    return AccessLog(address_of, hides_names=bool(settings.id_cookie)) if settings.access_log else None


def _request_limits(settings: Settings) -> "Limits":
    from pushrelay.server.request import Limits

    return Limits(
        max_header=settings.max_header,
        header_timeout=settings.header_timeout,
        max_body=max(settings.max_body, settings.max_message),
        body_timeout=settings.body_timeout,
        idle_timeout=settings.idle_timeout,
        send_timeout=settings.send_timeout,
    )
