"""The parts of a relay, put together from its settings. Nothing is started: no thread, no open file, no socket."""

import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from pushrelay.access.callers import Access
from pushrelay.lifecycle import DrainableServer, Draining
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.metrics.exposition import Exposition
from pushrelay.metrics.process import Process
from pushrelay.push.publisher import Publisher
from pushrelay.register.node_clients import NodeClients
from pushrelay.register.registrations import Registrations
from pushrelay.register.subscription import delivery
from pushrelay.settings import Settings, SettingsError
from pushrelay.settings.values import is_redis
from pushrelay.store import Broker, open_broker
from pushrelay.store.maintenance import Maintenance
from pushrelay.store.node_name import default_node
from pushrelay.store.open import RedisOptions
from pushrelay.store.stripe import Deliver
from pushrelay.wsgi.base_path import at_base_path
from pushrelay.wsgi.front import FlaskApp, Front, WSGIApp

if TYPE_CHECKING:  # one of them is imported once it is known which one runs
    from pushrelay.rooms.manager import RoomManager
    from pushrelay.server.poller import Poller
    from pushrelay.wsgi.werkzeug import WerkzeugManager

# Seconds for which the first requests wait for the store if another program imported the relay. When that program
# reloads, the next process starts before the previous one has released the store.
RELOAD_SECONDS = 10.0
# Enough clients for a site that never set max_connections.
USUAL_CLIENTS = 1000
STORE_FAILS = "the store takes no pushes: the relay's log has the reason"


class Server(DrainableServer, Protocol):
    """A server that is bound and listens."""

    port: int  # the one in use, even if the setting is 0

    def close(self) -> None:
        """Stop listening and release everything."""


class Core:
    """All parts of a relay except Flask. relay.py adds routes and event handlers.

    `broker` is a function that takes `deliver` and returns the broker to use, not started; without it, the setting
    `broker` decides. The broker calls `deliver(publication, skip_sid)` for each publication that it has stored, in the
    order of their offsets; that sends the publication to the connected subscribers, and returns how many there are.

    Raises SettingsError if the settings ask for a server that cannot run here, ValueError if the store's path is
    relative and the working folder was removed, and StoreError if packages for Redis are missing.
    """

    def __init__(self, settings: Settings, broker: Callable[[Deliver], Broker] | None = None):
        self.settings = settings
        self.log_limiter = LogLimiter()  # limits how often the same line is logged
        self.access = Access(settings)
        self.refusal_log = RefusalLog(self.log_limiter, self.access.client_address)
        self.node = node_of(settings)
        self.rooms = _rooms(settings, self.access, self.log_limiter, self.node)  # Flask-SocketIO's client_manager
        deliver = delivery(self.rooms, settings)
        self._poller = _own_poller(settings)
        self.broker = broker_of(settings, deliver, self._poller, self.node) if broker is None else broker(deliver)
        self.publisher = Publisher(self.broker, settings, self.access, self.refusal_log)
        self.registrations = Registrations(
            self.broker, self.rooms, settings, self.publisher.waiters.note, self.access.full_address
        )
        self.clients = NodeClients(self.rooms, self.registrations, self.publisher.waiters, settings.drain_spread)
        self.broker.attach(self.clients)
        if self.broker.is_shared:
            self.clients.report_changes(self.broker.changed)
        patience = RELOAD_SECONDS if settings.imported else 0.0
        self.maintenance = Maintenance(self.broker, self.registrations.each_second, patience)
        self.lifecycle = Draining(self.rooms, self.publisher.waiters, settings.drain_spread)
        self.front: Front | None = None  # of the app that was given to wsgi()
        self._server: Server | None = None  # the one that make_server() returned last
        self._process = Process("own" if broker else settings.broker.partition(":")[0], self._why_not_ready)
        self.exposition = Exposition(self._measured)

    def wsgi(self, app: FlaskApp) -> WSGIApp:
        """Return a replacement for `app.wsgi_app` that answers pushes before Flask and applies the setting base_path.

        Call it once, after Flask-SocketIO has been attached to the app.
        """
        base = self.settings.base_path
        self.front = Front(app, self.publisher, self.access, self.maintenance, base)
        if base:
            self.front.outermost = at_base_path(self.front, base, self.refusal_log.log_request)
        return self.front.outermost

    def make_server(self, app: WSGIApp, settings: Settings) -> Server:
        """Return a server for `app` that listens: our own, or Werkzeug's if the settings or the system need it.

        `settings` may differ from the relay's own in host and port. Raises OSError if it cannot listen there.
        """
        if not is_own(settings):
            from pushrelay.wsgi.werkzeug import WerkzeugServer

            self._server = WerkzeugServer(app, settings.host, settings.port, settings.max_body)
        else:
            self._server = _own_server(app, settings, self.front, self.log_limiter, self._poller)
        return self._server

    def presence(self, destinations: list[str]) -> dict[str, dict[str, float]]:
        """Return the connections of each destination at all nodes, and since when there are any.

        `since` is in seconds since 1970, and missing if there are none. Raises StoreError.
        """
        elsewhere = self.broker.elsewhere(destinations)
        found = {}
        for each in destinations:
            here, since = self.clients.holders(each)
            there, other_since = elsewhere.get(each, (0, 0.0))
            times = [seconds for seconds in (since, other_since) if seconds]
            found[each] = {"connections": here + there, **({"since": min(times)} if times else {})}
        return found

    def trouble(self, environ: dict[str, Any]) -> str | None:
        """Return why the relay accepts no pushes now, or None if it accepts them.

        Only callers on this machine get the full reason, which may contain the path of the store's file.
        """
        reason = self._why_not_ready()
        is_draining = reason is not None and reason == self.lifecycle.reason
        return STORE_FAILS if reason and not (is_draining or self.access.is_local(environ)) else reason

    def _why_not_ready(self) -> str | None:
        return self.lifecycle.reason or self.maintenance.trouble or self.broker.trouble

    def _measured(self) -> Iterator[object]:
        """Yield the parts that may have metrics; a broker or a server of somebody else may have none."""
        yield self._process
        yield from (self.publisher, self.registrations, self.rooms, self.refusal_log, self.broker, self._server)

    def close(self) -> None:
        """Disconnect the clients and close the store, once. For a relay whose process another server ends."""
        self.lifecycle.end(self.rooms.server.eio.shutdown, self.maintenance.close)


def is_own(settings: Settings) -> bool:
    """Return whether our own server and engine run. Raise SettingsError if they must and cannot."""
    has_epoll = hasattr(select, "epoll")
    if settings.server == "own" and not has_epoll:
        raise SettingsError("server = own needs Linux, whose epoll it is built on: leave the setting out")
    return has_epoll and settings.server != "werkzeug"


def node_of(settings: Settings) -> str:
    """Return the name of this relay: the setting `node`, or a new one if relays share the store; else an empty text."""
    return settings.node or (default_node() if is_redis(settings.broker) else "")


def _rooms(settings: Settings, access: Access, log_limiter: LogLimiter, node: str) -> "RoomManager | WerkzeugManager":
    """Return the manager of Socket.IO's rooms, a `client_manager` for Flask-SocketIO, and install its engine.

    The setting `server` does not apply if another program imported the relay: our engine works on any server.
    """
    if not (is_own(settings) or (settings.imported and hasattr(select, "epoll"))):
        from pushrelay.wsgi.werkzeug import WerkzeugManager

        return WerkzeugManager(access.client_address, log_limiter)
    from pushrelay.engine.engine import install
    from pushrelay.engine.limits import ClientLimiter
    from pushrelay.rooms.manager import RoomManager
    from pushrelay.wsgi.carriers import carrier_of

    most = most_clients(settings)
    install(
        outbox_bytes=settings.max_outbox,
        outboxes_bytes=settings.max_outboxes,
        message_timeout=settings.body_timeout,
        settle_timeout=settings.register_timeout,
        event_rate=settings.max_event_rate,
        admission=ClientLimiter(most, settings.max_per_address, settings.max_connections, access.client_address),
        log_limiter=log_limiter,
        threads=settings.threads,
        node=node,
        carrier_of=carrier_of,
    )
    return RoomManager()


def most_clients(settings: Settings) -> int:
    """Return `max_connections`, or what the file descriptors allow if that is less."""
    from pushrelay.server.open_files import file_limit, files_for

    return min(settings.max_connections, files_for(file_limit(), settings.threads).connections)


def clients_expected(settings: Settings) -> int:
    """Return how many clients the operator expects: `max_connections` if it was set; its default is only a bound."""
    most = settings.max_connections
    return most if "max_connections" in settings.given else min(most, USUAL_CLIENTS)


def broker_of(settings: Settings, deliver: Deliver, poller: "Poller | None" = None, node: str = "") -> Broker:
    """Return the broker that the settings name, not started. Raises ValueError and StoreError: see Core.

    `poller` is the server's; without one, a connection to Redis has a thread of its own. `node` is the name of this
    relay.
    """
    redis = RedisOptions(
        settings.redis_prefix, settings.redis_wait, settings.redis_patience, node, poller, settings.imported
    )
    return open_broker(
        settings.broker,
        deliver,
        durability=settings.durability,
        history_size=settings.history_size,
        history_ttl=settings.history_ttl,
        history_bytes=settings.history_bytes,
        redis=redis,
    )


def _own_poller(settings: Settings) -> "Poller | None":
    """Return the poller that our own server and a connection to Redis share, not started; None if there is none."""
    if not is_redis(settings.broker) or settings.imported or not is_own(settings):
        return None
    from pushrelay.server.poller import Poller

    return Poller(settings.threads)


def _own_server(
    app: WSGIApp, settings: Settings, front: Front | None, log_limiter: LogLimiter, poller: "Poller | None"
) -> Server:
    from pushrelay.server.limiter import CONNECTIONS_PER_CLIENT, ConnectionLimiter
    from pushrelay.server.open_files import file_limit, files_for, raise_file_limit
    from pushrelay.server.request import Limits
    from pushrelay.server.server import Server as OwnServer
    from pushrelay.server.server import access_logger

    raise_file_limit()
    files = files_for(file_limit(), settings.threads)
    limiter = ConnectionLimiter(
        *files, settings.max_per_address * CONNECTIONS_PER_CLIENT, settings.trusted_proxies, log_limiter
    )
    limits = Limits(
        max_header=settings.max_header,
        header_timeout=settings.header_timeout,
        max_body=max(settings.max_body, settings.max_message),
        body_timeout=settings.body_timeout,
        idle_timeout=settings.idle_timeout,
        send_timeout=settings.send_timeout,
    )
    access_logger.setLevel("INFO" if settings.access_log else "WARNING")
    return OwnServer(
        app,
        settings.host,
        settings.port,
        settings.threads,
        limits,
        settings.access_log,
        poller=poller,
        # If another app wraps the relay's, it must see pushes.
        shortcut=front.lane if front is not None and app is front.app else None,
        limiter=limiter,
        share_of=front.share_of if front is not None else None,
        log_limiter=log_limiter,
        socket_mode=settings.socket_mode,
        socket_group=settings.socket_group,
    )
