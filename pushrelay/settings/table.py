"""Every setting in one table, read from `[relay]` in an INI file, then `RELAY_*`, then flags."""

import difflib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pushrelay.places import SETTINGS_FILE

from . import ini
from .values import (
    Key,
    SettingsError,
    address,
    broker_url,
    ca_file,
    cookie_name,
    file_mode,
    group_name,
    http_url,
    keys,
    networks,
    oddity,
    one_of,
    origins,
    path_prefix,
    seconds,
    secrets,
    size,
    switch,
    whole,
)


class Setting(NamedTuple):
    """One row of the table: `parse` raises ValueError with the end of the sentence "NAME must be …"."""

    name: str
    default: Any
    parse: Callable[[str], Any]
    help: str
    secret: bool = False  # its value is never written anywhere


TABLE = (
    Setting("host", "127.0.0.1", address, "the address to listen on; 0.0.0.0 for every network this machine is in"),
    Setting("port", 8080, whole(0, 65535), "the TCP port to listen on; 0 lets the system choose one"),
    Setting("socket_mode", None, file_mode, "who may open the Unix socket, as for chmod: 660; unset: by the umask"),
    Setting("socket_group", "", group_name, "the group of the Unix socket, such as www-data"),
    Setting(
        "base_path", "", path_prefix, "the path that all addresses begin with, for a proxy that does not remove it"
    ),
    Setting(
        "server", "auto", one_of("auto", "own", "werkzeug"), "own, or werkzeug for systems without epoll; auto decides"
    ),
    Setting("threads", 8, whole(2, 64), "threads that handle requests and events, at most"),
    Setting("broker", "sqlite:relay.db", broker_url, "where publications are kept: sqlite:FILE, or memory:"),
    Setting(
        "durability",
        "process",
        one_of("process", "power"),
        "what an accepted push survives: a crash of the process, or a power failure (slower)",
    ),
    Setting("history_size", 100, whole(0, 100_000), "publications kept for each destination"),
    Setting(
        "history_ttl", 3600.0, seconds(0, 366 * 86400), "seconds for which a publication is kept; also 15m, 1h, 7d"
    ),
    Setting("history_bytes", 256 << 20, size(1 << 20, 1 << 40), "maximum size of the history in bytes; also 512M, 2G"),
    Setting(
        "push_keys",
        (),
        keys,
        "keys with which programs on other machines push: KEY or name:KEY, separated by commas",
        True,
    ),
    Setting("push_rate", 0, whole(0, 10_000_000), "maximum publications per second for each key; 0: unlimited"),
    Setting("secret", (), secrets, "secret that signs tokens for register (HS256); list two while you change it", True),
    Setting("id_cookie", "", cookie_name, "the cookie whose value is a browser's id, registered as me: PHPSESSID"),
    Setting("auth_url", "", http_url, "the URL that is asked, with the browser's cookies, which ids it may register"),
    Setting("auth_ca", "", ca_file, "a file with the certificate of your own CA (PEM), for an auth_url with https"),
    Setting("auth_timeout", 3.0, seconds(0.1, 60), "seconds that auth_url has to answer"),
    Setting("auth_concurrency", 4, whole(1, 64), "maximum number of requests to auth_url at a time"),
    Setting(
        "auth_cache", 10.0, seconds(0, 3600), "seconds for which an answer of auth_url counts for the same cookies"
    ),
    Setting("origins", ("same-host",), origins, "sites whose pages may connect: same-host, origins, or *"),
    Setting("trusted_proxies", (), networks, "addresses or networks of proxies whose X-Forwarded-For is believed"),
    Setting("demo", False, switch, "yes: show the demo page to everybody, not only to callers on this machine"),
    Setting("drain_spread", 5.0, seconds(0, 300), "maximum seconds over which clients come back after a stop"),
    Setting("max_connections", 20_000, whole(1, 1_000_000), "maximum number of clients"),
    Setting(
        "max_per_address",
        1000,
        whole(1, 1_000_000),
        "maximum number of clients from one address; this machine's own are not counted",
    ),
    Setting("register_timeout", 120.0, seconds(0.1, 86400), "seconds within which a client must register something"),
    Setting("max_event_rate", 100, whole(1, 1_000_000), "maximum events per second of one client, in the long run"),
    Setting("max_waiting", 1000, whole(0, 100_000), "maximum number of pushes that wait for an acknowledgement"),
    Setting("ping_interval", 25.0, seconds(0.1, 3600), "seconds between two pings to a client"),
    Setting("ping_timeout", 20.0, seconds(0.1, 3600), "seconds a client has to answer a ping"),
    Setting("max_body", 1_000_000, size(1024, 1 << 30), "maximum size of a push in bytes; also 10M"),
    Setting("body_timeout", 60.0, seconds(0.1, 3600), "seconds within which a request's body must be complete"),
    Setting("max_header", 32768, size(1024, 1 << 20), "maximum size of a request's header in bytes"),
    Setting("header_timeout", 10.0, seconds(0.1, 3600), "seconds within which a request's header must be complete"),
    Setting("idle_timeout", 75.0, seconds(0.1, 3600), "seconds for which a connection may wait for its next request"),
    Setting("send_timeout", 60.0, seconds(0.1, 3600), "seconds for which a client may read nothing of its response"),
    Setting(
        "max_outbox", 1 << 20, size(65536, 1 << 30), "bytes that may wait for one client before it is closed as slow"
    ),
    Setting("max_outboxes", 256 << 20, size(1 << 20, 1 << 40), "bytes that may wait for all clients together"),
    Setting("max_message", 100_000, size(1024, 1 << 30), "maximum size of a message from a browser in bytes"),
    Setting("max_id_length", 256, whole(1, 4096), "maximum length of a destination's name in characters"),
    Setting("max_ids", 100, whole(1, 1_000_000), "maximum number of destinations for one socket"),
    Setting("socket_push", False, switch, "yes: any connected browser may push to any destination, without PHP"),
    Setting("access_log", False, switch, "yes: write a line for each HTTP request to the standard error output"),
)
NAMES = {setting.name: setting for setting in TABLE}
GUARDS = ("secret", "id_cookie", "auth_url")  # one of these decides who may register what


class Settings:
    """The settings in force, one attribute for each row of the table; `file` is the INI file they came from."""

    host: str
    port: int
    socket_mode: int | None
    socket_group: str
    base_path: str
    server: str
    threads: int
    broker: str
    durability: str
    history_size: int
    history_ttl: float
    history_bytes: int
    push_keys: tuple[Key, ...]
    push_rate: int
    secret: tuple[str, ...]
    id_cookie: str
    auth_url: str
    auth_ca: str
    auth_timeout: float
    auth_concurrency: int
    auth_cache: float
    origins: tuple[str, ...]
    trusted_proxies: tuple[Any, ...]
    demo: bool
    drain_spread: float
    max_connections: int
    max_per_address: int
    register_timeout: float
    max_event_rate: int
    max_waiting: int
    ping_interval: float
    ping_timeout: float
    max_body: int
    body_timeout: float
    max_header: int
    header_timeout: float
    idle_timeout: float
    send_timeout: float
    max_outbox: int
    max_outboxes: int
    max_message: int
    max_id_length: int
    max_ids: int
    socket_push: bool
    access_log: bool

    def __init__(self, file: pathlib.Path | None = None, **values: Any):
        self.file = file
        self.given: dict[str, str] = {}  # the settings that were given, and where
        for setting in TABLE:
            setattr(self, setting.name, values.pop(setting.name, setting.default))
        if values:
            raise SettingsError(unknown("the settings", next(iter(values))))
        self._check_together()

    def _check_together(self) -> None:
        """Raise SettingsError for what no two settings may say."""
        if (self.socket_mode is not None or self.socket_group) and not self.host.startswith("unix:"):
            raise SettingsError("socket_mode and socket_group are for a Unix socket: set host to unix: and a path too")
        cookies = next((name for name in ("id_cookie", "auth_url") if getattr(self, name)), None)
        if cookies and (open_to_all := {"*", "null"}.intersection(self.origins)):
            raise SettingsError(
                f"origins = {open_to_all.pop()} and {cookies} cannot be together: any website could connect with your "
                "visitors' cookies and read what is theirs; list the origins of your own pages"
            )
        if self.max_body + self.max_outbox > self.max_outboxes:
            raise SettingsError(
                f"max_outboxes = {self.max_outboxes} is less than max_body and max_outbox together, which a single "
                "client may need; raise max_outboxes"
            )
        if self.max_body > self.history_bytes:
            raise SettingsError(
                f"max_body = {self.max_body} is more than history_bytes = {self.history_bytes}: a push of that size "
                "could not be kept; lower max_body or raise history_bytes"
            )


def load(environ: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None) -> Settings:
    """Read the three sources, the later over the earlier, and check them. Raises SettingsError."""
    flags = dict(flags or {})
    config = flags.pop("config", environ.get("RELAY_CONFIG"))
    if config == "":
        raise SettingsError("--config or RELAY_CONFIG is empty; name a file, or leave it out")
    file = SETTINGS_FILE if config is None else pathlib.Path(config)
    lines = ini.read(file, set(NAMES), named=config is not None)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for source, name, text in (*_from_file(file, lines or ()), *_from_environ(environ), *_from_flags(flags)):
        values[name] = _parsed(source, name, text)
        given[name] = source
    settings = Settings(None if lines is None else file, **values)
    settings.given = given
    return settings


def unknown(where: str, name: str) -> str:
    """The sentence for a name that is in no row of the table."""
    plain = re.sub(r"^relay[_.-]", "", name.lower().replace("-", "_"))
    near = difflib.get_close_matches(plain, NAMES, 1)
    # A name that is no word may be a part of a secret.
    is_word = re.fullmatch(r"[\w. -]{0,20}", name) and len(re.findall(r"\d", name)) < 3
    called = f"there is no setting called {name}" if is_word else "this is no setting"
    hint = f"did you mean {near[0]}?" if near else "take it out"
    return f"{where}: {called}; {hint} (python relay.py --help lists them all)"


def _parsed(source: str, name: str, text: str) -> Any:
    if name not in NAMES:
        raise SettingsError(unknown(source, name))
    if not _is_text(text):
        raise SettingsError(f"{source}: {name} has a byte that is no UTF-8 text; write it as plain text")
    text = text.strip(" \t\r\n")
    if found := oddity(text):
        raise SettingsError(f"{source}: {name} {found}")
    try:
        return NAMES[name].parse(text)
    except ValueError as error:
        given = "" if NAMES[name].secret else f", not {_without_password(text)!r}"
        raise SettingsError(f"{source}: {name} must be {error}{given}") from None


def _is_text(text: str) -> bool:
    """Whether this is Unicode. Bytes that are not come from the environment and the command line as half surrogates."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def _without_password(text: str) -> str:
    """A value as an error may show it, also one that is no URL: without what stands before an @."""
    return re.sub("//.*@", "//…@", text)


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: without a name and a password, and without its query."""
    return re.sub("//[^/]*@", "//", url.partition("?")[0])


def check_not_empty(source: str, name: str, text: str) -> None:
    """Raise SettingsError for an empty value, often a variable that is not set, which would let everybody register."""
    if name in GUARDS and not text.strip():
        raise SettingsError(f"{source}: {name} is empty, and everybody could register any id; set it, or take it out")


def _from_file(file: pathlib.Path, lines: Iterable[ini.Line]) -> Iterable[tuple[str, str, str]]:
    for line in lines:
        source = f"{file}, line {line.number}"
        check_not_empty(source, line.name, line.text)
        yield source, line.name, line.text


def _from_environ(environ: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    seen: dict[str, str] = {}
    for key, text in environ.items():
        _check_spelling(key)
        if not key.startswith("RELAY_") or key == "RELAY_CONFIG" or _is_of_a_container(key, text):
            continue
        name = key[6:].lower()
        source = f"{key} in the environment"
        if name in seen:
            raise SettingsError(f"{source} and {seen[name]} are the same setting; keep one of them")
        seen[name] = key
        check_not_empty(source, name, text)
        yield source, name, text


def _check_spelling(key: str) -> None:
    """Raise SettingsError for relay_secret, RELAY-SECRET and the like, which would be passed over in silence."""
    letters = re.sub("[^A-Z]", "", key.upper())
    for name in (*GUARDS, "push_keys"):
        if not key.startswith("RELAY_") and letters == f"RELAY{name.replace('_', '').upper()}":
            raise SettingsError(f"{key} in the environment is not read; write RELAY_{name.upper()}")


# Kubernetes makes variables of each Service, and Docker of each link. A Service called relay, or relay-something, is
# nobody's mistake. Their values have a shape as well, so that a setting that is misspelt is still an error.
_OF_CONTAINERS = (
    (r"SERVICE_HOST", r"[0-9a-fA-F.:]+"),
    (r"SERVICE_PORT(_\w+)?", r"[0-9]+"),
    (r"PORT(_[0-9]+_(TCP|UDP|SCTP))?", r"(tcp|udp|sctp)://\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_(START|END)", r"(tcp|udp|sctp)://\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", r"\S+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PORT(_START|_END)?", r"[0-9]+"),
    (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"NAME", r"/\S+"),
    (r"ENV_\w+", r"(?s:.*)"),
)


def _is_of_a_container(key: str, text: str) -> bool:
    """Whether Kubernetes or Docker has put this into the environment."""
    return any(
        re.fullmatch(rf"RELAY_(\w+_)?({name})", key) and re.fullmatch(value, text) for name, value in _OF_CONTAINERS
    )


def _from_flags(flags: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    return [(flag_of(name), name, text) for name, text in flags.items()]


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"
