"""Every setting in one table, read from `[relay]` in an INI file, then `RELAY_*`, then flags."""

import argparse
import configparser
import difflib
import ipaddress
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

UNIX_PATH_BYTES = 107  # Linux' sockaddr_un has 108, with the zero at the end


class SettingsError(ValueError):
    """A setting nobody can work with. The text says what to write instead."""


class Setting(NamedTuple):
    """One row of the table: `parse` raises ValueError with the end of the sentence "NAME must be …"."""

    name: str
    default: Any
    parse: Callable[[str], Any]
    help: str
    secret: bool = False  # its value is never written anywhere


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from low to high."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A parser for times in seconds, fractions allowed."""

    def parse(text: str) -> float:
        # float() also reads "1_0" and digits of other scripts.
        value = float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) else float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return value

    return parse


def broker_url(text: str) -> str:
    """A parser for the kinds of broker; the broker itself looks at what comes behind the colon."""
    kind, _, rest = text.partition(":")
    if text != "memory:" and (kind != "sqlite" or not rest or rest.startswith("//")):
        raise ValueError("memory:, or sqlite: and a file, such as sqlite:relay.db or sqlite:/var/lib/relay/relay.db")
    return text


def path_prefix(text: str) -> str:
    """A parser for the path that all addresses begin with: without a slash at its end, so empty for none."""
    path = text.removesuffix("/")
    # Plain characters only: proxies write the others in more than one way.
    if not re.fullmatch(r"(/(?!\.)[\w.~-]+)*", path, re.ASCII):
        raise ValueError("a path such as /relay, of letters, digits and . _ ~ -, or empty")
    return path


def one_of(*words: str) -> Callable[[str], str]:
    """A parser for one of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


def switch(text: str) -> bool:
    """A parser for yes and no, in the words that INI files use."""
    try:
        return configparser.ConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ValueError("yes or no") from None


def address(text: str) -> str:
    """A parser for what to listen on: a host name or an IP address, without a port, or `unix:` and a path."""
    if text.startswith("unix:") and len(text) > 5:
        if len(os.fsencode(text[5:])) > UNIX_PATH_BYTES:
            raise ValueError(f"unix: and a path of at most {UNIX_PATH_BYTES} bytes")
        return text
    if (
        not text
        or not _is_host(text)
        or any(c.isspace() or c in "/@[]" for c in text)
        or (":" in text and text.count(":") < 2)
    ):
        raise ValueError("a host name or an address such as 127.0.0.1, ::1 or 0.0.0.0; the port has its own setting")
    return text


class Key(NamedTuple):
    """One key that pushes may come with. `name` is for the log."""

    name: str
    key: str


def keys(text: str) -> tuple[Key, ...]:
    """A parser for keys, each with a name before a colon or without: `web:KEY, KEY`."""
    found = []
    for number, each in enumerate(_listed(text), 1):
        name, colon, key = each.rpartition(":")
        name = name if colon else f"key{number}"
        # RFC 6750, 2.1: what an Authorization header can carry, in so far as nobody takes it for something else.
        if not re.fullmatch(r"[\w.-]{1,32}", name, re.ASCII) or not re.fullmatch(r"[!-~]{8,200}", key):
            raise ValueError("keys of 8 to 200 visible characters, separated by commas, with names or without: web:KEY")
        found.append(Key(name, key))
    if text and not found:
        raise ValueError("at least one key, or empty")
    if len({key.name for key in found}) < len(found) or len({key.key for key in found}) < len(found):
        raise ValueError("keys of which no two are the same, nor their names")
    return tuple(found)


def secrets(text: str) -> tuple[str, ...]:
    """A parser for what tokens are signed with: one secret, or several."""
    found = _listed(text)
    if (text and not found) or not all(8 <= len(each) <= 1000 for each in found):
        raise ValueError("secrets of 8 characters or more, separated by commas")
    return tuple(found)


def networks(text: str) -> tuple[Any, ...]:
    """A parser for addresses and networks, such as 10.0.0.5 or 10.0.0.0/8."""
    try:
        return tuple(ipaddress.ip_network(each) for each in _listed(text))
    except ValueError:
        raise ValueError("addresses or networks such as 127.0.0.1, ::1, 10.0.0.0/8") from None


def origins(text: str) -> tuple[str, ...]:
    """A parser for where pages may come from: `same-host`, origins, `https://*.example.com`, or `*` alone."""
    found = [each.lower().removesuffix("/") for each in _listed(text)]
    pattern = r"same-host|https?://(\*\.)?([\w-]+(\.[\w-]+)*|\[[\da-f:.]+\])(:\d{1,5})?"
    if found != ["*"] and (not found or not all(re.fullmatch(pattern, each, re.ASCII) for each in found)):
        raise ValueError("same-host, origins such as https://example.com or https://*.example.com, or * alone")
    return tuple(found)


def http_url(text: str) -> str:
    """A parser for an address that the relay asks; empty for none."""
    try:
        parts = urlsplit(text)
        has_host = parts.hostname and _is_host(parts.hostname) and parts.port != 0
        sound = parts.scheme in ("http", "https") and has_host and parts.username is None
    except ValueError:
        sound = False
    if text and (not sound or parts.fragment or not re.fullmatch(r"[!-~]+", text)):
        raise ValueError("a URL such as http://127.0.0.1/relay-auth.php, or empty")
    return text


def cookie_name(text: str) -> str:
    """A parser for the name of a cookie; empty for none (RFC 6265, 4.1.1)."""
    if text and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError("the name of a cookie, such as PHPSESSID, or empty")
    return text


def _is_host(name: str) -> bool:
    """Whether a name can be looked up. For one that cannot, getaddrinfo() raises a UnicodeError and no OSError."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _listed(text: str) -> list[str]:
    """What is separated by commas, spaces or the ends of lines."""
    return text.replace(",", " ").split()


TABLE = (
    Setting("host", "127.0.0.1", address, "the address to listen on; 0.0.0.0 for every network this machine is in"),
    Setting("port", 8080, whole(0, 65535), "the TCP port to listen on; 0 lets the system choose one"),
    Setting("base_path", "", path_prefix, "the path that all addresses begin with, where a proxy does not take it off"),
    Setting(
        "server", "auto", one_of("auto", "own", "werkzeug"), "own; or werkzeug, where there is no epoll; auto decides"
    ),
    Setting("threads", 8, whole(2, 64), "threads that handle requests and events, at most"),
    Setting("broker", "sqlite:relay.db", broker_url, "where publications are kept: sqlite:FILE, or memory:"),
    Setting("durability", "process", one_of("process", "power"), "what a stored push outlives: process; power, synced"),
    Setting("history_size", 100, whole(0, 100_000), "publications that are kept of each destination"),
    Setting("history_ttl", 3600.0, seconds(0, 366 * 86400), "seconds that a publication is kept"),
    Setting("history_bytes", 256 << 20, whole(1 << 20, 1 << 40), "bytes that all that is kept may take"),
    Setting(
        "push_keys", (), keys, "keys that let programs elsewhere push: KEY, or name:KEY, several with commas", True
    ),
    Setting("push_rate", 0, whole(0, 10_000_000), "publications a second that each key may push; 0: without end"),
    Setting("secret", (), secrets, "what tokens for register are signed with (HS256); several for a change", True),
    Setting("id_cookie", "", cookie_name, "the cookie whose value is a browser's id, registered as me: PHPSESSID"),
    Setting("auth_url", "", http_url, "the URL that is asked, with the browser's cookies, which ids it may register"),
    Setting("auth_timeout", 3.0, seconds(0.1, 60), "seconds that auth_url has to answer"),
    Setting("auth_concurrency", 4, whole(1, 64), "questions to auth_url at a time"),
    Setting("auth_cache", 10.0, seconds(0, 3600), "seconds that an answer of auth_url counts for the same cookies"),
    Setting("origins", ("same-host",), origins, "whose pages may connect: same-host, origins, or *"),
    Setting("trusted_proxies", (), networks, "addresses of proxies whose X-Forwarded-For is believed"),
    Setting("demo", False, switch, "yes: the demo page is for everybody, not only for callers on this machine"),
    Setting("drain_spread", 5.0, seconds(0, 300), "maximum seconds over which clients come back after a stop"),
    Setting("max_connections", 20_000, whole(1, 1_000_000), "clients that may be connected at a time"),
    Setting("max_per_address", 1000, whole(1, 1_000_000), "of these from one address, this machine's own not counted"),
    Setting("register_timeout", 120.0, seconds(0.1, 86400), "seconds within which a client must register something"),
    Setting("max_event_rate", 100, whole(1, 1_000_000), "events a second that one client may send, in the long run"),
    Setting("max_waiting", 1000, whole(0, 100_000), "pushes that may wait for an acknowledgement at a time"),
    Setting("ping_interval", 25.0, seconds(0.1, 3600), "seconds between two pings to a client"),
    Setting("ping_timeout", 20.0, seconds(0.1, 3600), "seconds a client has to answer a ping"),
    Setting("max_body", 1_000_000, whole(1024, 1 << 30), "bytes that the body of one push may have"),
    Setting("body_timeout", 60.0, seconds(0.1, 3600), "seconds within which a request's body must be complete"),
    Setting("max_header", 32768, whole(1024, 1 << 20), "bytes that the header of a request may have"),
    Setting("header_timeout", 10.0, seconds(0.1, 3600), "seconds within which a request's header must be complete"),
    Setting("idle_timeout", 75.0, seconds(0.1, 3600), "seconds that a connection may wait for its next request"),
    Setting("send_timeout", 60.0, seconds(0.1, 3600), "seconds that a client may take nothing of its response"),
    Setting(
        "max_outbox", 1 << 20, whole(65536, 1 << 30), "bytes that may wait for one client before it is closed as slow"
    ),
    Setting("max_outboxes", 256 << 20, whole(1 << 20, 1 << 40), "bytes that may wait for all clients together"),
    Setting("max_message", 100_000, whole(1024, 1 << 30), "bytes that one message from a browser may have"),
    Setting("max_id_length", 256, whole(1, 4096), "characters that a destination's name may have"),
    Setting("max_ids", 100, whole(1, 1_000_000), "destinations that one socket may register"),
    Setting("socket_push", False, switch, "yes: any connected browser may push to any destination, without PHP"),
    Setting("access_log", False, switch, "yes: write a line for each HTTP request to the standard error output"),
)
NAMES = {setting.name: setting for setting in TABLE}
DEFAULT_FILE = pathlib.Path(__file__).resolve().parent.parent / "wsgi.ini"


class Settings:
    """The settings in force, one attribute for each row of the table; `file` is the INI file they came from."""

    host: str
    port: int
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
        for setting in TABLE:
            setattr(self, setting.name, values.pop(setting.name, setting.default))
        if values:
            raise SettingsError(unknown("the settings", next(iter(values))))
        self._check_together()

    def _check_together(self) -> None:
        """Raise SettingsError for what no two settings may say."""
        cookies = next((name for name in ("id_cookie", "auth_url") if getattr(self, name)), None)
        if cookies and self.origins == ("*",):
            raise SettingsError(
                f"origins = * and {cookies} cannot be together: any website could connect with your visitors' cookies "
                "and read what is theirs; list the origins of your own pages"
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
    named = flags.pop("config", None) or environ.get("RELAY_CONFIG")
    file = pathlib.Path(named) if named else DEFAULT_FILE
    values: dict[str, Any] = {}
    for source, name, text in (*_from_file(file, must_exist=bool(named)), *_from_environ(environ), *_from_flags(flags)):
        values[name] = _parsed(source, name, text)
    return Settings(file if file.exists() else None, **values)


def unknown(where: str, name: str) -> str:
    """The sentence for a name that is in no row of the table."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, 1)
    hint = f"did you mean {near[0]}?" if near else "take it out"
    return f"{where}: there is no setting called {name}; {hint} (python relay.py --help lists them all)"


def _parsed(source: str, name: str, text: str) -> Any:
    if name not in NAMES:
        raise SettingsError(unknown(source, name))
    if not _is_text(text):
        raise SettingsError(f"{source}: {name} has a byte that is no UTF-8 text; write it as plain text")
    try:
        return NAMES[name].parse(text.strip())
    except ValueError as error:
        given = "" if NAMES[name].secret else f", not {text.strip()!r}"
        raise SettingsError(f"{source}: {name} must be {error}{given}") from None


def _is_text(text: str) -> bool:
    """Whether this is Unicode. Bytes that are not come from the environment and the command line as half surrogates."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def _from_file(file: pathlib.Path, must_exist: bool) -> Iterable[tuple[str, str, str]]:
    if not file.exists() and not must_exist:
        return []
    # wsgi.ini also speaks to containers that have their own use for %, so nothing is interpolated here.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(f"{file}: cannot be read ({reason}); --config names the file with the settings") from None
    except configparser.Error as error:
        raise SettingsError(f"{file}: {' '.join(str(error).split())}; correct that line") from None
    if not parser.has_section("relay"):
        if near := [each for each in parser.sections() if each.strip().lower() == "relay"]:
            raise SettingsError(f"{file}: the section [{near[0]}] is not read; write it as [relay]")
        return []
    return [(f"{file}, [relay]", name, text) for name, text in parser.items("relay")]


def _from_environ(environ: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    mine = {k: v for k, v in environ.items() if k.startswith("RELAY_") and k != "RELAY_CONFIG"}
    return [(f"{key} in the environment", key[6:].lower(), text) for key, text in mine.items()]


def _from_flags(flags: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    return [(f"--{name.replace('_', '-')}", name, text) for name, text in flags.items()]


class FlagParser(argparse.ArgumentParser):
    """argparse, but a mistake is one sentence, as everywhere else."""

    def error(self, message: str) -> None:
        raise SettingsError(f"{message} ({self.prog} --help lists the flags)")

    def add_settings(self, in_help: bool = True) -> None:
        """Take every setting as a flag, and `--config`."""
        about = "the INI file to read [relay] from (default: wsgi.ini beside relay.py)"
        self.add_argument("--config", metavar="FILE", help=about)
        for setting in TABLE:
            spellings = dict.fromkeys((f"--{setting.name.replace('_', '-')}", f"--{setting.name}"))
            about = f"{setting.help} (default: {_written(setting.default)})" if in_help else argparse.SUPPRESS
            self.add_argument(*spellings, metavar="VALUE", dest=setting.name, help=about)

    def parse(self, argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
        """What was given, and of that the settings as {name: text}. Raises SettingsError."""
        given, rest = self.parse_known_args(argv)
        if rest:
            raise SettingsError(unknown("the command line", rest[0].lstrip("-").partition("=")[0]))
        return given, {n: text for n, text in vars(given).items() if n in (*NAMES, "config") and text is not None}


def _written(default: Any) -> str:
    """A default as somebody would write it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ", ".join(default) or "none"
    return "none" if default == "" else str(default)


def parse_flags(argv: list[str]) -> tuple[dict[str, str], bool]:
    """The flags given on the command line as {name: text}, and whether `--check` is among them.

    `--help` prints and ends the process. Raises SettingsError for a flag that does not exist.
    """
    parser = FlagParser(
        prog="python relay.py",
        allow_abbrev=False,
        description="Takes a POST from PHP and puts it in front of the right browsers, at once.",
        epilog="The same names work in [relay] of the INI file, and as RELAY_NAME in the environment. "
        "Commands, each with a --help of its own: python relay.py doctor, push, listen, token.",
    )
    parser.add_argument("--check", action="store_true", help="check the settings, print what is open to whom, and end")
    parser.add_settings()
    given, flags = parser.parse(argv)
    return flags, given.check
