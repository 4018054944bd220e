"""Parsers for the values of settings, one for each kind of value, and what no value may contain.

A parser returns the value of a text. It raises ValueError with the end of the sentence "NAME must be …".
"""

import configparser
import ipaddress
import os
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from pushrelay.origins import read_origins

from .host_names import UNIX_PATH_BYTES, is_host, is_host_or_ip
from .redis_url import SCHEMES, redis_url

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# As in php.ini and PostgreSQL, a unit of size is a power of 1024, however it is written.
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"

_BLANKS = " \t\r\n"
_QUOTES = "\"'`´“”„‟‘’‚‛«»‹›"  # editors and web pages turn straight quotes into the others
_COMMENT = re.compile(r"(?:^|[\s,])[#;]")
_REFERENCE = re.compile(r"\$\{|\$\(|\{\{|%\(\w*\)s|^\$[A-Z_][A-Z0-9_]*$|^%\w+%$")
# References to a secret in other programs: <placeholder>, env(NAME), env:NAME, file:/run/secrets/relay, a path.
_STANDS_FOR_SECRET = re.compile(r"<.*>|\[.*\]|(env|getenv|file|vault|secret|arn)[:(].*|@?/(run|etc|var|home|root)/.*")


class SettingsError(ValueError):
    """A setting that the relay cannot use. The message contains what to write instead."""


def oddity(text: str) -> str | None:
    """Return the rest of a sentence if `text` contains something that other programs read differently; else None.

    The sentence never repeats the value, because it may be a secret.
    """
    if found := invisible(text):
        return f"has an invisible character ({found}): type the value again"
    if _COMMENT.search(text):
        return "has a # or ; that begins a comment: put the comment on a line of its own, or remove it"
    if any(item[0] in _QUOTES or item[-1] in _QUOTES for item in re.split(r"[,\s:]+", text) if item):
        # Not removed: PHP's parse_ini_file removes them, but uWSGI and Docker's --env-file keep them. If one side reads
        # a secret with quotes and the other without, every token is invalid.
        return "has quotes around it, or at one end: write the value without quotes"
    if text.endswith("\\"):
        return "ends with a backslash: write the whole value on one line, without it"
    if text.endswith(";"):
        return "ends with a semicolon: remove it"
    if _REFERENCE.search(text):
        return "refers to a variable, which the relay does not replace: write the value itself"
    return None


def invisible(text: str) -> str | None:
    """Return the name of the first invisible character except plain spaces, tabs and line ends; None if none."""
    for each in text:
        kind = unicodedata.category(each)
        if each not in _BLANKS and (kind in ("Cc", "Cf", "Zl", "Zp") or (kind == "Zs" and each != " ")):
            return unicodedata.name(each, "").lower() or f"U+{ord(each):04X}"
    return None


def without_password(text: str) -> str:
    """Return a value as an error may show it: without the names and passwords of a URL, even of a broken one."""
    text = re.sub(r"(:?//|:).*@", r"\1…@", text, flags=re.DOTALL)
    text = re.sub(r"//:(?!…).*", "//:…", text, flags=re.DOTALL)
    return re.sub(r"(passw\w*=).*", r"\1…", text, flags=re.DOTALL | re.IGNORECASE)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def size(low: int, high: int) -> Callable[[str], int]:
    """Return a parser for numbers of bytes, such as 65536 or 10M."""

    def parse(text: str) -> int:
        found = re.fullmatch(r"([0-9]{1,18}) ?([kmgt]?)(?:i?b)?", text, re.ASCII | re.IGNORECASE)
        value = int(found[1]) * _SIZES[found[2].lower()] if found else -1
        if not low <= value <= high:
            raise ValueError(f"a number of bytes from {low} to {high} or a size such as 512K or 10M")
        return value

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Return a parser for times: seconds, with or without a fraction, or texts such as 90s, 15m, 1h30m and 7d."""

    def parse(text: str) -> float:
        # float() also reads "1_0" and digits of other scripts, so the shape is checked first.
        if re.fullmatch(_NUMBER, text):
            value = float(text)
        elif re.fullmatch(rf"(?:{_NUMBER} ?(?:{'|'.join(_TIMES)}) ?)+", text):
            parts = re.findall(rf"({_NUMBER}) ?([a-z]+)", text)
            value = sum(float(number) * _TIMES[unit] for number, unit in parts)
        else:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:.15g} to {high:.15g} or a time such as 15m or 1h")
        return value

    return parse


def _is_store_file(rest: str) -> bool:
    # SQLite's special notations, and the shell's for the home folder, would be mistaken for file names.
    return bool(rest) and not re.match(r"//|\s|:memory:|file:|~|.*\$|.*[\t\r\n]", rest)


def _is_redis(scheme: str) -> Callable[[str], bool]:
    return lambda rest: bool(redis_url(f"{scheme}:{rest}"))


class BrokerKind(NamedTuple):
    """A kind of broker in the setting `broker`."""

    # accepts(rest): whether `rest` may follow the colon; ValueError with the end of "broker must be …" says more.
    accepts: Callable[[str], bool]
    usage: str  # in --help
    advice: str = ""  # in the error message


# store/open.py creates them.
BROKERS = {
    "memory": BrokerKind(lambda rest: not rest, "memory:", "memory:"),
    "sqlite": BrokerKind(
        _is_store_file,
        "sqlite:FILE",
        "sqlite: and a file, such as sqlite:relay.db or sqlite:/var/lib/relay/relay.db",
    ),
    "redis": BrokerKind(_is_redis("redis"), "redis://HOST:PORT/DB", "the address of a Redis: redis://127.0.0.1:6379/0"),
    "rediss": BrokerKind(_is_redis("rediss"), "rediss://HOST:PORT/DB"),
    "unix": BrokerKind(_is_redis("unix"), "unix:///PATH"),
    "redis+sentinel": BrokerKind(_is_redis("redis+sentinel"), "redis+sentinel://HOST:PORT,HOST:PORT/NAME/DB"),
    "rediss+sentinel": BrokerKind(_is_redis("rediss+sentinel"), "rediss+sentinel://HOST:PORT,HOST:PORT/NAME/DB"),
}
BROKER_HELP = f"the store of publications: {', or '.join(kind.usage for kind in BROKERS.values())}"


def broker_url(text: str) -> str:
    """Parse the name of a broker: its kind, a colon, and what that kind needs, such as a file or an address."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in BROKERS or not BROKERS[kind].accepts(rest):
        raise ValueError(", or ".join(each.advice for each in BROKERS.values() if each.advice))
    return text


def path_prefix(text: str) -> str:
    """Parse the path that all addresses begin with. The result begins with a slash and does not end with one."""
    path = text.removesuffix("/")
    path = path if path.startswith("/") or not path else f"/{path}"
    # Only plain characters, because proxies write the others in more than one way.
    if not re.fullmatch(r"(/(?!\.)[\w.~-]+)*", path, re.ASCII):
        raise ValueError("a path such as /relay, of letters, digits and . _ ~ -, or empty")
    return path


def is_redis(broker: str) -> bool:
    """Return whether the setting `broker` names a Redis."""
    return broker.partition(":")[0] in SCHEMES


def name_of_at_most(most: int, empty: bool) -> Callable[[str], str]:
    """Return a parser for names of at most `most` characters, which other programs and URLs take as they are."""

    def parse(text: str) -> str:
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{{0 if empty else 1},{most}}}", text):
            raise ValueError(f"at most {most} letters (a-z, A-Z), digits, - and _{', or empty' if empty else ''}")
        return text

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser for one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


durability_of = one_of("process", "power")  # parses what an accepted push must survive


def file_mode(text: str) -> int | None:
    """Parse a file's permissions in octal, as chmod takes them; None for an empty text."""
    if text and not re.fullmatch(r"0?[67][0-7]{2}", text):
        raise ValueError("a mode such as 660 or 666, whose first digit (the owner's) is 6 or 7")
    return int(text, 8) if text else None


def folder_path(text: str) -> str:
    """Parse the whole path of a folder, or an empty text."""
    if text and (not text.startswith("/") or text.strip("/") == "" or os.name != "posix"):
        raise ValueError("the whole path of a folder, such as /var/spool/relay (on Linux), or empty")
    return text.rstrip("/")


def group_name(text: str) -> str:
    """Parse the name or the number of a group of users."""
    if text and not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,63}\$?", text, re.ASCII):
        raise ValueError("the name or the number of a group, such as www-data")
    return text


def switch(text: str) -> bool:
    """Parse yes and no, in all the spellings that INI files use."""
    try:
        return configparser.ConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ValueError("yes or no") from None


def address(text: str) -> str:
    """Parse the address to listen on: a host name or an IP address without a port, or `unix:` and a path."""
    if text.startswith("unix:") and len(text) > 5:
        if len(os.fsencode(text[5:])) > UNIX_PATH_BYTES:
            raise ValueError(f"unix: and a path of at most {UNIX_PATH_BYTES} bytes")
        if "?" in text or text[5].isspace():
            raise ValueError("unix: and a path such as unix:/run/relay/relay.sock; its mode is the setting socket_mode")
        return text
    if not is_host_or_ip(text):
        raise ValueError("a host name or an address such as 127.0.0.1, ::1 or 0.0.0.0; the port has its own setting")
    return text


class Key(NamedTuple):
    """A key that allows pushes. `name` is for the log."""

    name: str
    key: str

    def __repr__(self) -> str:
        return f"Key({self.name!r}, …)"  # a traceback or a log shows no key


def keys(text: str) -> tuple[Key, ...]:
    """Parse keys, each with or without a name in front of it: `web:KEY, KEY`."""
    found = []
    for number, each in enumerate(_by_commas(text), 1):
        name, colon, key = each.rpartition(":")
        name = name if colon else f"key{number}"
        # An Authorization header can carry these keys (RFC 6750, 2.1), and no program reads them differently.
        if not re.fullmatch(r"[\w.-]{1,32}", name, re.ASCII) or not re.fullmatch(r"[!-~]{8,200}", key):
            raise ValueError(
                "keys of 8 to 200 visible characters without spaces, separated by commas, with names or without: "
                "web:KEY"
            )
        found.append(Key(name, key))
    if text and not found:
        raise ValueError("at least one key, or empty")
    _check_meant([each.key for each in found])
    if len({key.name for key in found}) < len(found) or len({key.key for key in found}) < len(found):
        raise ValueError("keys that all differ, and whose names all differ")
    return tuple(found)


def secrets(text: str) -> tuple[str, ...]:
    """Parse one secret that signs tokens, or several."""
    found = _by_commas(text)
    if any(re.search(r"\s", each) for each in found):
        raise ValueError("secrets without spaces in them; separate several secrets with commas")
    if (text and not found) or not all(8 <= len(each) <= 1000 for each in found):
        raise ValueError("secrets of 8 characters or more, separated by commas")
    _check_meant(found)
    return tuple(found)


def _check_meant(texts: list[str]) -> None:
    """Raise ValueError if a text is only a reference to a secret: the relay would use the reference itself."""
    if any(_STANDS_FOR_SECRET.fullmatch(each) for each in texts):
        raise ValueError("the value itself, not the name of a file or a variable that contains it")


def networks(text: str) -> tuple[Network, ...]:
    """Parse addresses and networks, such as 10.0.0.5 or 10.0.0.0/8."""
    try:
        return tuple(ipaddress.ip_network(each) for each in _listed(text))
    except ValueError:
        raise ValueError("addresses or networks such as 127.0.0.1, ::1, 10.0.0.0/8") from None


def origin_list(text: str) -> tuple[str, ...]:
    """Parse the origins of pages that may connect: `same-host`, origins, `https://*.example.com`, or `*` alone."""
    return read_origins(_listed(text))


def http_url(text: str) -> str:
    """Parse a URL that the relay sends requests to, or an empty text."""
    try:
        parts = urlsplit(text)
        has_host = parts.hostname and is_host(parts.hostname) and parts.port != 0
        sound = parts.scheme in ("http", "https") and has_host and parts.username != ""
    except ValueError:
        sound = False
    if text and (not sound or parts.fragment or not re.fullmatch(r"[!-~]+", text)):
        raise ValueError("a URL such as http://127.0.0.1/relay-auth.php, or empty")
    return text


class Hook(NamedTuple):
    """A URL that gets events, and those that it gets."""

    url: str
    events: tuple[str, ...] = ()  # their kinds; empty: all
    names: tuple[str, ...] = ()  # of destinations, or their beginnings with a * at the end; empty: all


HOOK_EVENTS = ("online", "offline", "join", "leave", "expired", "lost")
_HOOK = "URLs separated by commas, with filters or without: https://example.com/hook.php events=join|leave ids=room-*"


def hooks(text: str) -> tuple[Hook, ...]:
    """Parse URLs that get events: `URL [events=KIND|KIND] [ids=NAME|BEGINNING*]`, separated by commas."""
    text, found = text.strip().rstrip(", "), []
    for each in re.split(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)", text) if text else []:
        url, *filters = each.split()
        try:
            http_url(url)
        except ValueError:
            raise ValueError(_HOOK) from None
        given = {}
        for word in filters:
            name, equals, value = word.partition("=")
            if name not in ("events", "ids") or not equals or name in given or not all(value.split("|")):
                raise ValueError(_HOOK)
            if "," in value:  # it would be part of a name, which is hardly ever meant
                raise ValueError(f"{_HOOK}; a vertical bar separates the values of a filter")
            given[name] = tuple(dict.fromkeys(value.split("|")))
        if not set(given.get("events", ())) <= set(HOOK_EVENTS):
            raise ValueError(f"{_HOOK}; the events are {', '.join(HOOK_EVENTS)}")
        found.append(Hook(url, given.get("events", ()), given.get("ids", ())))
    if len({each.url for each in found}) < len(found):
        raise ValueError("URLs that all differ: give one URL all its filters in one place")
    return tuple(found)


def ca_file(text: str) -> str:
    """Parse the name of a file with certificates of CAs in PEM form, which must be readable, or an empty text."""
    if text:
        import ssl  # here, because its import takes longer than all the others, and few relays have this setting

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            why = getattr(error, "strerror", None) or str(error)
            if isinstance(error, ssl.SSLError):
                why = "it contains no certificate in PEM form"
            raise ValueError(f"a file with a CA's certificate that the relay can read ({why})") from None
    return text


def cookie_name(text: str) -> str:
    """Parse the name of a cookie (RFC 6265, 4.1.1), or an empty text."""
    if text and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError("the name of a cookie, such as PHPSESSID, or empty")
    return text


def _listed(text: str) -> list[str]:
    """Return the items of a list that is separated by commas, spaces or line ends."""
    return text.replace(",", " ").split()


def _by_commas(text: str) -> list[str]:
    """Return the items of a list that is separated by commas only, because a space may belong to a secret."""
    return [each.strip() for each in text.split(",") if each.strip()]
