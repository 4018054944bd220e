"""The parts of a relay, put together from its settings. Nothing is started: no thread, no open file, no socket."""

import os
import platform
import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pushrelay.access.callers import Access
from pushrelay.backend import Backend, Part
from pushrelay.lifecycle import DrainableServer, Draining
from pushrelay.log.limiter import LogLimiter
from pushrelay.log.problems import Problems
from pushrelay.log.refusals import RefusalLog
from pushrelay.log.setup import start_log
from pushrelay.metrics.exposition import Exposition
from pushrelay.metrics.process import Process
from pushrelay.own_server import access_log_of, own_server, reload_own_server
from pushrelay.pages.demo import address
from pushrelay.places import HOME, IS_INSTALLED
from pushrelay.presence.directory import Directory
from pushrelay.presence.part import Presence
from pushrelay.push.counts import PushCounts
from pushrelay.push.publisher import Publisher
from pushrelay.register.node_clients import NodeClients
from pushrelay.register.pages import Pages
from pushrelay.register.registrations import Registrations
from pushrelay.register.subscription import delivery
from pushrelay.requests.requests import Requests
from pushrelay.rooms.client_log import ClientLog
from pushrelay.settings import Settings, SettingsError
from pushrelay.settings.values import is_redis
from pushrelay.status.commit import commit_of
from pushrelay.status.figures import Figures
from pushrelay.status.kept import SUFFIX
from pushrelay.status.recorder import Recorder
from pushrelay.status.report import Sources
from pushrelay.status.slow_facts import SlowFacts
from pushrelay.status.status import Status
from pushrelay.store import Broker, open_broker
from pushrelay.store.maintenance import Maintenance
from pushrelay.store.node_name import default_node
from pushrelay.store.open import RedisOptions, file_of
from pushrelay.store.stripe import Deliver
from pushrelay.webhooks.webhooks import Webhooks
from pushrelay.wsgi.base_path import at_base_path
from pushrelay.wsgi.front import FlaskApp, Front, WSGIApp

if TYPE_CHECKING:  # imported once it is known which server and engine run
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
        self.problems = Problems()  # the last warnings and errors of the log
        self.log_limiter = LogLimiter(again=self.problems.again)  # limits how often the same line is logged
        self.access = Access(settings)
        self.refusal_log = RefusalLog(self.log_limiter, self.access.client_address)
        self.node = node_of(settings)
        client_log = ClientLog(self.access.full_address)
        # Flask-SocketIO's client_manager
        self.rooms = _rooms(settings, self.access, self.log_limiter, client_log, self.node)
        deliver = delivery(self.rooms, settings)
        self._poller = _own_poller(settings)
        self.broker = broker_of(settings, deliver, self._poller, self.node) if broker is None else broker(deliver)
        self.publisher = Publisher(self.broker, settings, self.access, self.refusal_log)
        self.people = Presence(self.rooms, settings, getattr(self.broker, "members", None))
        self.registrations = Registrations(
            self.broker,
            self.rooms,
            settings,
            self.publisher.waiters.note,
            self.access.full_address,
            self.access.origin_allowed,
            client_log,
            self.people.membership,
        )
        self.people.bind(self.registrations)
        self.clients = NodeClients(self.rooms, self.registrations, self.publisher.waiters, settings.drain_spread)
        self.directory = Directory(self.clients, self.broker, self.people)
        self.broker.attach(self.clients)
        if self.broker.is_shared:
            self.clients.report_changes(self.broker.changed)
        pages = Pages(self.rooms, self.access.full_address, self.access.origin_allowed)
        self.requests = Requests(settings, self.rooms, pages, lambda: self.broker.events)
        self.webhooks = Webhooks(settings, self.broker, self.clients)
        self.people.on_change = self.webhooks.member
        parts: list[Part] = [self.people, self.webhooks, self.requests, *self._parts()]
        self.backend = Backend(parts, getattr(self.broker, "rings", None))
        patience = RELOAD_SECONDS if settings.imported else 0.0
        self.maintenance = Maintenance(self.broker, self._each_second, patience, self.backend.start, self._at_end)
        self.lifecycle = Draining(self.rooms, self.publisher.waiters, settings.drain_spread)
        self.clients.is_draining = lambda: self.lifecycle.reason is not None
        self.people.is_draining = lambda: self.lifecycle.reason is not None
        self.front: Front | None = None  # of the app that was given to wsgi()
        self._server: Server | None = None  # the one that make_server() returned last
        self._reload_server: Callable[[Settings], None] = lambda settings: None  # make_server() replaces it
        self._process = Process("own" if broker else settings.broker.partition(":")[0], self._why_not_ready)
        self.exposition = Exposition(self._measured)
        self.status = Status(self._sources(has_own_broker=broker is not None))

    def reload(self, settings: Settings) -> None:
        """Use these settings from now on, without disconnecting a client. One thread at a time may call it.

        They must equal the present ones in all settings that are not reloadable. Each part takes its new values at
        once, and handles a request or an event with either the old or the new ones. Raises OSError if the file auth_ca
        cannot be read; then nothing has changed.
        """
        self.registrations.reload(settings)  # first, because only these two can fail
        self.backend.reload(settings)
        self.access.reload(settings)
        self.publisher.reload(settings)
        self.lifecycle.spread = self.clients.spread = settings.drain_spread
        _reload_engine(self.rooms, settings)
        self.settings = settings
        self._reload_server(settings)  # last, because it forgets what depends on the old settings of other parts

    def wsgi(self, app: FlaskApp) -> WSGIApp:
        """Return a replacement for `app.wsgi_app` that answers pushes before Flask and applies the setting base_path.

        Call it once, after Flask-SocketIO has been attached to the app.
        """
        base = self.settings.base_path
        self.front = Front(app, self.publisher, self.access, self.maintenance, base, self.open)
        if base:
            self.front.outermost = at_base_path(self.front, base, self.refusal_log.log_request)
        return self.front.outermost

    def open(self) -> None:
        """Start the log, and open the store for a request, if that has not happened yet.

        For the requests of a relay that another program imported. `maintenance.trouble` has the reason if it fails.
        """
        start_log(self.settings.log_level, self.settings.log_format, is_imported=True, also=self.problems)
        self.maintenance.ensure_open()

    def make_server(self, app: WSGIApp, settings: Settings) -> Server:
        """Return a server for `app` that listens: our own, or Werkzeug's if the settings or the system need it.

        `settings` may differ from the relay's own in host and port. Raises OSError if it cannot listen there.
        """
        if not is_own(settings):
            from pushrelay.wsgi.werkzeug import WerkzeugServer

            server = WerkzeugServer(app, settings.host, settings.port, settings.max_body)
            self._reload_server = lambda new: server.reload(new.max_body)
            self._server = server
            return server
        access_log = access_log_of(settings, self.access.logged_address)
        own, limiter = own_server(app, settings, self.front, self.log_limiter, access_log, self._poller)
        self._reload_server = partial(reload_own_server, own, limiter, self.access.logged_address)
        self._server = own
        return own

    def presence(self, destinations: list[str]) -> dict[str, dict[str, Any]]:
        """Return the connections of each destination at all nodes, since when there are any, and its members.

        `since` is in seconds since 1970. It is missing if there are no connections, as `members` is if there are none.
        Raises StoreError, and Refused if there are too many members for one answer.
        """
        return self.directory.of(destinations)

    def trouble(self, environ: dict[str, Any]) -> str | None:
        """Return why the relay accepts no pushes now, or None if it accepts them.

        Only callers on this machine get the full reason, which may contain the path of the store's file.
        """
        return self._reason(self.access.is_local(environ))

    def _reason(self, is_local: bool) -> str | None:
        reason = self._why_not_ready()
        is_draining = reason is not None and reason == self.lifecycle.reason
        return STORE_FAILS if reason and not (is_draining or is_local) else reason

    def _why_not_ready(self) -> str | None:
        return self.lifecycle.reason or self.maintenance.trouble or self.broker.trouble

    def _measured(self) -> Iterator[object]:
        """Yield the parts that may have metrics; a broker or a server of somebody else may have none."""
        yield self._process
        yield from (self.publisher, self.registrations, self.rooms, self.refusal_log, self.broker, self._server)
        yield from self.backend.parts

    def _parts(self) -> Iterator[Part]:
        """Yield the parts that serve the site's backend if they are set when the relay starts."""
        if self.settings.outbox:
            yield outbox_of(self.settings, self.broker, self.publisher.batcher.counts)
        if self.settings.spool:
            from pushrelay.spool.spool import Spool

            yield Spool(self.broker, self.settings, self.publisher.batcher.counts, self.log_limiter)

    # The status.

    def _each_second(self) -> None:
        self.status.each_second()
        self.registrations.each_second()
        self.backend.each_second()

    def _at_end(self) -> None:
        self.backend.close()
        self.status.close()

    def _sources(self, has_own_broker: bool) -> Sources:
        """Return the sources of the figures of /status."""
        settings, counts = self.settings, self.publisher.batcher.counts
        path = None if has_own_broker else file_of(settings.broker)

        def figures() -> Figures:
            return Figures(self._measured())

        def is_draining() -> bool:
            return self.lifecycle.reason is not None

        return Sources(
            settings=lambda: self.settings,
            figures=figures,
            recorder=Recorder(
                figures,
                lambda: len(self.rooms.server.eio.sockets),
                self._why_not_ready,
                is_draining,
                path and os.path.realpath(path) + SUFFIX,
            ),
            slow=SlowFacts(getattr(self.broker, "survey", lambda seconds: None), path),
            problems=self.problems,
            access=self.access,
            reason=self._reason,
            is_draining=is_draining,
            most_connected=self.registrations.largest,
            most_pushed=counts.busiest.largest,
            least_reached=counts.unreached.largest,
            renew=counts.renew,
            backend=self.backend.facts,
            clients_limit=self._clients_limit,
            curl=lambda: address(self.settings, self._port())[1],
            doctor=f"{'relay' if IS_INSTALLED else 'python relay.py'} doctor https://YOUR-SITE{settings.base_path}/",
            server="imported" if settings.imported else "own" if is_own(settings) else "werkzeug",
            node=self.node,
            python=platform.python_version(),
            commit=None if IS_INSTALLED else commit_of(HOME),
            store_path=path,
            has_own_broker=has_own_broker,
        )

    def _port(self) -> int:
        return self._server.port if self._server is not None else self.settings.port

    def _clients_limit(self) -> tuple[int | None, str]:
        """Return how many clients may be connected, and what sets that limit; None if nothing does."""
        if not self.rooms.can_defer:  # the engine is not ours, and has no limit
            return None, ""
        most: int = self.rooms.server.eio.limiter.most
        return most, "max_connections" if most >= self.settings.max_connections else "open files"

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


def _rooms(
    settings: Settings, access: Access, log_limiter: LogLimiter, client_log: ClientLog, node: str
) -> "RoomManager | WerkzeugManager":
    """Return the manager of Socket.IO's rooms, a `client_manager` for Flask-SocketIO, and install its engine.

    The setting `server` does not apply if another program imported the relay: our engine works on any server.
    """
    if not (is_own(settings) or (settings.imported and hasattr(select, "epoll"))):
        from pushrelay.wsgi.werkzeug import WerkzeugManager

        return WerkzeugManager(access.client_address, log_limiter, client_log)
    from pushrelay.engine.engine import install
    from pushrelay.engine.limits import ClientLimiter
    from pushrelay.rooms.manager import RoomManager
    from pushrelay.wsgi.carriers import carrier_of

    install(
        **_engine_options(settings),
        admission=ClientLimiter(*_client_limits(settings), access.newcomer_address),
        log_limiter=log_limiter,
        threads=settings.threads,
        node=node,
        carrier_of=carrier_of,
    )
    return RoomManager(client_log)


def _engine_options(settings: Settings) -> dict[str, Any]:
    return {
        "outbox_bytes": settings.max_outbox,
        "outboxes_bytes": settings.max_outboxes,
        "message_timeout": settings.body_timeout,
        "settle_timeout": settings.register_timeout,
        "event_rate": settings.max_event_rate,
    }


def _client_limits(settings: Settings) -> tuple[int, int, int]:
    """Return how many clients there may be, in all and of one address, and the setting of the first limit."""
    return most_clients(settings), settings.max_per_address, settings.max_connections


def _reload_engine(rooms: "RoomManager | WerkzeugManager", settings: Settings) -> None:
    engine = rooms.server.eio
    if rooms.can_defer:  # the engine is ours
        engine.limiter.reload(*_client_limits(settings))
        engine.reload(**_engine_options(settings), message_bytes=settings.max_message)
    else:
        engine.max_http_buffer_size = settings.max_message


def most_clients(settings: Settings) -> int:
    """Return `max_connections`, or what the file descriptors allow if that is less."""
    from pushrelay.server.open_files import file_limit, files_for

    return min(settings.max_connections, files_for(file_limit(), settings.threads).connections)


def clients_expected(settings: Settings) -> int:
    """Return how many clients the operator expects: `max_connections` if it was set; its default is only a bound."""
    most = settings.max_connections
    return most if "max_connections" in settings.given else min(most, USUAL_CLIENTS)


def outbox_of(settings: Settings, broker: Broker, counts: PushCounts) -> Part:
    """Return the part that empties the outbox. Raises StoreError if the package that it needs is missing."""
    from pushrelay.outbox.packages import check_outbox_packages

    check_outbox_packages()
    from pushrelay.outbox.outbox import Outbox

    return Outbox(settings, broker, counts)


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
    """Return the poller that our own server and a connection to Redis share, not started. None if they share none."""
    if not is_redis(settings.broker) or settings.imported or not is_own(settings):
        return None
    from pushrelay.server.poller import Poller

    return Poller(settings.threads)
