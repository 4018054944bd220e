"""The table of settings: the name, type, default, bounds and help of each one are here and nowhere else."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .mysql_url import outbox_url
from .values import (
    BROKER_HELP,
    Hook,
    Key,
    Network,
    SettingsError,
    address,
    broker_url,
    ca_file,
    cookie_name,
    durability_of,
    file_mode,
    folder_path,
    group_name,
    hooks,
    http_url,
    keys,
    name_of_at_most,
    networks,
    one_of,
    origin_list,
    path_prefix,
    seconds,
    secrets,
    size,
    switch,
    whole,
)

T = TypeVar("T")

LOG_LEVELS = ("debug", "info", "warning", "error")  # from the most lines to the fewest


def _reloadable(default: T, parse: Callable[[str], T], help: str, is_secret: bool = False) -> T:
    """Declare a setting whose changed value SIGHUP applies.

    Each part of the relay that uses it must take the new value from its `reload()`, which Core.reload() calls. `parse`
    reads the setting's text. It raises ValueError with the end of the sentence "NAME must be …". The type is `T` for
    the type checker, which sees a class with plain defaults.
    """
    metadata = {"parse": parse, "help": help, "secret": is_secret, "reloadable": True}
    return dataclasses.field(default=default, metadata=metadata)


def _fixed(default: T, parse: Callable[[str], T], help: str, is_secret: bool = False) -> T:
    """Declare a setting whose changed value applies when the relay is started again; otherwise as _reloadable()."""
    metadata = {"parse": parse, "help": help, "secret": is_secret, "reloadable": False}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(repr=False, eq=False)  # a repr would show secrets
class Settings:
    """The settings in force. Each attribute is a setting, except the first four.

    Raises SettingsError for settings that contradict each other.
    """

    file: pathlib.Path | None = None  # the INI file that was read
    given: dict[str, str] = dataclasses.field(default_factory=dict)  # the settings that somebody set, and where
    imported: bool = False  # another program, such as gunicorn, imported relay.py
    # Reads the same sources again: the file, the environment as it was, and the flags. Raises SettingsError.
    read_again: Callable[[], "Settings"] | None = None

    host: str = _fixed("127.0.0.1", address, "address to listen on; 0.0.0.0 for all networks of this machine")
    port: int = _fixed(8080, whole(0, 65535), "TCP port to listen on; 0 lets the system choose one")
    socket_mode: int | None = _fixed(
        None, file_mode, "permissions of the Unix socket, as for chmod: 660; unset: the umask decides"
    )
    socket_group: str = _fixed("", group_name, "group of the Unix socket, such as www-data")
    base_path: str = _fixed(
        "", path_prefix, "path that all addresses begin with, for a proxy that does not remove it: /relay"
    )
    server: str = _fixed(
        "auto", one_of("auto", "own", "werkzeug"), "own, or werkzeug for systems without epoll; auto decides"
    )
    threads: int = _fixed(8, whole(2, 64), "maximum number of threads that handle requests and events")

    broker: str = _fixed("sqlite:relay.db", broker_url, BROKER_HELP)
    durability: str = _fixed(
        "process",
        durability_of,
        "what accepted pushes survive: the end of the `process`, or a `power` failure (slower: syncs every commit)",
    )
    history_size: int = _fixed(100, whole(0, 100_000), "maximum number of publications kept for each destination")
    history_ttl: float = _fixed(
        3600.0, seconds(0, 366 * 86400), "seconds for which a publication is kept; also 15m, 1h, 7d"
    )
    history_bytes: int = _fixed(
        256 << 20, size(1 << 20, 1 << 40), "maximum size of all publications in bytes; also 512M, 2G"
    )

    spool: str = _fixed(
        "", folder_path, "folder from which the relay takes pushes that programs here could not make: /var/spool/relay"
    )

    redis_prefix: str = _fixed(
        "relay",
        name_of_at_most(64, empty=False),
        "first word of all keys and channels in Redis; relays that work together have the same one",
    )
    redis_wait: int = _fixed(
        0, whole(0, 8), "number of Redis's replicas that must have a push before it is accepted (WAIT)"
    )
    redis_patience: float = _fixed(
        2.0, seconds(0.1, 60), "seconds for which a push waits for a Redis that does not answer, before it is refused"
    )
    node: str = _fixed(
        "", name_of_at_most(32, empty=True), "name of this relay among several; empty: the relay makes one up"
    )

    outbox: str = _fixed(
        "",
        outbox_url,
        "database with a table of pushes that PHP inserts in its own transactions: mysql://USER:PASSWORD@HOST/DATABASE",
        is_secret=True,
    )
    outbox_interval: float = _reloadable(
        0.2, seconds(0.01, 5), "seconds between two looks at the outbox, if nobody rings"
    )

    push_keys: tuple[Key, ...] = _reloadable(
        (),
        keys,
        "keys with which programs on other machines may push: KEY or name:KEY, separated by commas",
        is_secret=True,
    )
    metrics_keys: tuple[Key, ...] = _reloadable(
        (),
        keys,
        "keys with which programs on other machines may read GET /metrics: KEY or name:KEY, separated by commas",
        is_secret=True,
    )
    push_rate: int = _reloadable(
        0, whole(0, 10_000_000), "maximum number of publications per second for each key; 0: unlimited"
    )
    secret: tuple[str, ...] = _reloadable(
        (), secrets, "secret that signs tokens for register (HS256); list two while you replace it", is_secret=True
    )
    id_cookie: str = _fixed("", cookie_name, "cookie whose value is a browser's id, registered as me: PHPSESSID")
    auth_url: str = _reloadable(
        "", http_url, "URL that the relay asks, with a browser's cookies, which ids the browser may register"
    )
    auth_ca: str = _reloadable(
        "", ca_file, "file with the certificate (PEM) of your own CA, for URLs of your site with https"
    )
    auth_timeout: float = _reloadable(3.0, seconds(0.1, 60), "seconds within which auth_url must answer")
    auth_concurrency: int = _reloadable(4, whole(1, 64), "maximum number of requests to auth_url at a time")
    auth_cache: float = _reloadable(
        10.0, seconds(0, 3600), "seconds for which an answer of auth_url is used for the same cookies"
    )
    webhook_url: tuple[Hook, ...] = _reloadable(
        (),
        hooks,
        "URLs that get events such as online and offline, separated by commas: URL [events=join|leave] [ids=room-*]",
    )
    webhook_secret: tuple[str, ...] = _reloadable(
        (),
        secrets,
        "secret that signs the requests to webhook_url and request_url; list two while you replace it",
        True,
    )
    max_webhooks: int = _reloadable(
        100_000,
        whole(1, 10_000_000),
        "maximum number of events that wait for webhook_url, and for request_url",
    )
    request_url: str = _reloadable(
        "", http_url, "URL to which the relay sends the requests of pages, with their cookies, for PHP to answer"
    )
    request_timeout: float = _reloadable(10.0, seconds(0.1, 120), "seconds within which request_url must answer")
    request_concurrency: int = _reloadable(8, whole(1, 64), "maximum number of requests to request_url at a time")
    max_requests: int = _reloadable(
        1000, whole(1, 100_000), "maximum number of requests of pages that wait to be sent to request_url"
    )
    max_answer: int = _reloadable(
        1 << 20, size(1024, 64 << 20), "maximum size of an answer of request_url in bytes; also 100K"
    )
    origins: tuple[str, ...] = _reloadable(
        ("same-host",),
        origin_list,
        "sites whose pages may connect: same-host, https://example.com, or * for all",
    )
    trusted_proxies: tuple[Network, ...] = _reloadable(
        (), networks, "addresses or networks of proxies whose X-Forwarded-For the relay believes"
    )
    demo: bool = _reloadable(False, switch, "yes: show the demo page to everybody, not only to callers on this machine")

    drain_spread: float = _reloadable(
        5.0, seconds(0, 300), "maximum number of seconds over which clients reconnect after a stop"
    )
    max_connections: int = _reloadable(20_000, whole(1, 1_000_000), "maximum number of clients")
    max_per_address: int = _reloadable(
        1000, whole(1, 1_000_000), "maximum number of clients from one address; those on this machine do not count"
    )
    register_timeout: float = _reloadable(
        120.0, seconds(0.1, 86400), "seconds within which a client must register a destination"
    )
    max_event_rate: int = _reloadable(
        100, whole(1, 1_000_000), "maximum number of events per second from one client, on average"
    )
    max_waiting: int = _reloadable(
        1000, whole(0, 100_000), "maximum number of pushes that wait for an acknowledgement at a time"
    )
    ping_interval: float = _fixed(25.0, seconds(0.1, 3600), "seconds between two pings to a client")
    ping_timeout: float = _fixed(20.0, seconds(0.1, 3600), "seconds within which a client must answer a ping")

    max_body: int = _reloadable(1_000_000, size(1024, 1 << 30), "maximum size of a push in bytes; also 10M")
    body_timeout: float = _reloadable(
        60.0, seconds(0.1, 3600), "seconds within which the body of a request must be complete"
    )
    max_header: int = _reloadable(32768, size(1024, 1 << 20), "maximum size of a request's header in bytes")
    header_timeout: float = _reloadable(
        10.0, seconds(0.1, 3600), "seconds within which the header of a request must be complete"
    )
    idle_timeout: float = _reloadable(
        75.0, seconds(0.1, 3600), "seconds after which a connection without a request is closed"
    )
    send_timeout: float = _reloadable(
        60.0, seconds(0.1, 3600), "seconds after which a client that reads nothing of its response is closed"
    )
    # A page that is slow for some seconds stays within this. One that does not read at all takes no more memory, and
    # gets the rest from the history when it returns.
    max_outbox: int = _reloadable(
        1 << 20, size(65536, 1 << 30), "maximum number of bytes that wait for one client; beyond it, it is closed"
    )
    max_outboxes: int = _reloadable(
        256 << 20, size(1 << 20, 1 << 40), "maximum number of bytes that wait for all clients together"
    )
    max_message: int = _reloadable(100_000, size(1024, 1 << 30), "maximum size of a message from a browser in bytes")
    max_id_length: int = _reloadable(256, whole(1, 4096), "maximum length of a destination's name in characters")
    max_ids: int = _reloadable(100, whole(1, 1_000_000), "maximum number of destinations that one socket may register")
    presence_grace: float = _reloadable(
        5.0, seconds(0, 3600), "seconds after which a user is no longer a member if no page of theirs comes back"
    )
    max_members: int = _reloadable(5000, whole(1, 100_000), "maximum number of members (users) of one destination")
    socket_push: bool = _reloadable(
        False, switch, "yes: any connected browser may push to any destination, without PHP"
    )
    log_level: str = _reloadable(
        "info",
        one_of(*LOG_LEVELS),
        "what is logged: debug (also each client), info, warning or error",
    )
    log_format: str = _reloadable(
        "text", one_of("text", "json"), "format of the log: text, or json, an object per line"
    )
    access_log: bool = _reloadable(False, switch, "yes: log a line for each HTTP request")

    def __post_init__(self) -> None:
        if (self.socket_mode is not None or self.socket_group) and not self.host.startswith("unix:"):
            raise SettingsError("socket_mode and socket_group are for a Unix socket: set host to unix: and a path too")
        cookies = next((name for name in ("id_cookie", "auth_url", "request_url") if getattr(self, name)), None)
        if cookies and (open_to_all := {"*", "null"}.intersection(self.origins)):
            raise SettingsError(
                f"origins = {open_to_all.pop()} and {cookies} cannot be together: any website could connect with your "
                "visitors' cookies and read their messages; list the origins of your own pages"
            )
        for name in ("webhook_url", "request_url"):
            if getattr(self, name) and not self.webhook_secret:
                raise SettingsError(
                    f"{name} needs webhook_secret, with which the relay signs what it sends there: set it to random "
                    "characters, such as the output of  openssl rand -hex 32, and give it to PHP too"
                )
        for name in ("max_body", "max_answer") if self.request_url else ("max_body",):
            if getattr(self, name) + self.max_outbox > self.max_outboxes:
                raise SettingsError(
                    f"max_outboxes = {self.max_outboxes} is less than {name} and max_outbox together, which a single "
                    "client may need; raise max_outboxes"
                )
        if self.max_body > self.history_bytes:
            raise SettingsError(
                f"max_body = {self.max_body} is more than history_bytes = {self.history_bytes}: a push of that size "
                "could not be kept; lower max_body or raise history_bytes"
            )


class Setting(NamedTuple):
    """The declaration of one setting."""

    name: str
    default: Any  # of the attribute's own type
    parse: Callable[[str], Any]  # raises ValueError with the end of the sentence "NAME must be …"
    help: str
    secret: bool  # its value must never be written anywhere
    reloadable: bool  # SIGHUP applies a changed value


TABLE = tuple(
    Setting(each.name, each.default, **each.metadata) for each in dataclasses.fields(Settings) if each.metadata
)
NAMES = {setting.name: setting for setting in TABLE}
