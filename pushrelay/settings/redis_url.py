"""The address of a Redis in the setting `broker`: its grammar, and how the address may be shown.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]
    rediss://[[USER]:PASSWORD@]HOST[:PORT][/DB][?ca=FILE][&cert=FILE&key=FILE]
    unix://[[USER]:PASSWORD@]/PATH[?db=DB]
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/NAME[/DB][?sentinel_user=…&sentinel_password=…]
    rediss+sentinel://… with the options of both

The grammar is stricter than redis-py's, which ignores what it does not understand: a password with an unencoded
character would be cut short without a word.
"""

import dataclasses
import os
import re

from .host_names import ENCODE, UNIX_PATH_BYTES, percent_decoded, split_address

PORT = 6379
SENTINEL_PORT = 26379
MOST_SENTINELS = 16
MOST_DB = 65535  # redis.conf sets the number of databases: 16 by default

_EXAMPLES = {
    "redis": "redis://127.0.0.1:6379/0",
    "rediss": "rediss://redis.example.com:6379/0",
    "unix": "unix:///run/redis/redis-server.sock",
    "redis+sentinel": "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379/mymaster/0",
    "rediss+sentinel": "rediss+sentinel://a.example.com,b.example.com,c.example.com/mymaster/0",
}
_FILES = {"ca", "cert", "key"}
_OF_SENTINEL = {"sentinel_user", "sentinel_password"}
_OPTIONS: dict[str, set[str]] = {
    "redis": set(),
    "rediss": _FILES,
    "unix": {"db"},
    "redis+sentinel": _OF_SENTINEL,
    "rediss+sentinel": _FILES | _OF_SENTINEL,
}
SCHEMES = tuple(_EXAMPLES)


@dataclasses.dataclass(frozen=True, repr=False)
class RedisURL:
    """A Redis, or the Sentinels that know it. Everything is percent-decoded."""

    scheme: str
    addresses: tuple[tuple[str, int], ...] = ()  # hosts and ports: one, or those of the Sentinels
    path: str = ""  # of a Unix socket
    db: int = 0
    user: str = ""
    password: str = ""
    name: str = ""  # of the master that the Sentinels watch
    ca: str = ""  # a file with certificates of CAs (PEM), instead of the system's
    cert: str = ""  # a file with this relay's own certificate (PEM), if Redis demands one
    key: str = ""  # a file with the key of `cert` (PEM); empty if `cert` contains it
    sentinel_user: str = ""
    sentinel_password: str = ""

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.startswith("rediss")

    @property
    def is_sentinel(self) -> bool:
        """Whether `addresses` are those of Sentinels."""
        return self.scheme.endswith("+sentinel")

    def __str__(self) -> str:
        """Return the address as it may be shown, without names, passwords and options."""
        if self.path:
            return f"{self.scheme}://{self.path}" + (f"?db={self.db}" if self.db else "")
        hosts = ",".join(host_and_port(*each) for each in self.addresses)
        return "/".join([f"{self.scheme}://{hosts}", *([self.name] if self.name else []), str(self.db)])

    def __repr__(self) -> str:
        return f"RedisURL({str(self)!r}, …)"  # a traceback or a log shows no password


def host_and_port(host: str, port: int) -> str:
    """Return an address as URLs contain it: 127.0.0.1:6379, [::1]:6379."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redis_url(text: str) -> RedisURL:
    """Parse an address with one of SCHEMES. Raises ValueError with the end of the sentence "broker must be …"."""
    scheme, _, rest = text.partition(":")
    try:
        return _parsed(scheme, rest)
    except ValueError as error:
        raise ValueError(f"an address such as {_EXAMPLES[scheme]}: {error}") from None


def _parsed(scheme: str, rest: str) -> RedisURL:
    if not rest.startswith("//"):
        raise ValueError("two slashes follow the colon")
    if not re.fullmatch(r"[!-~]+", rest):
        raise ValueError("it is one word of plain ASCII; percent-encode the UTF-8 bytes of other characters")
    main, _, query = rest[2:].partition("?")
    userinfo, at, place = main.rpartition("@")
    if re.search("[/@]", userinfo) or "@" in query or "#" in rest:
        raise ValueError(ENCODE)
    user, password = _credentials(userinfo) if at else ("", "")
    options = _options(scheme, query)
    if scheme == "unix":
        return RedisURL(scheme, (), _path(place), _db(options.get("db", "")), user, password)
    hosts, *parts = place.split("/")
    name = _name(parts.pop(0) if parts else "") if scheme.endswith("+sentinel") else ""
    if len(parts) > 1:
        raise ValueError("nothing follows the number of the database")
    return RedisURL(
        scheme,
        _addresses(hosts, SENTINEL_PORT if name else PORT, MOST_SENTINELS if name else 1),
        "",
        _db(parts[0] if parts else ""),
        user,
        password,
        name,
        **options,
    )


def _credentials(userinfo: str) -> tuple[str, str]:
    user, colon, password = userinfo.partition(":")
    if not colon or not password:
        raise ValueError("write USER:PASSWORD@, or :PASSWORD@ for a password without a user name (requirepass)")
    if ":" in password:
        raise ValueError(ENCODE)
    return percent_decoded(user), percent_decoded(password)


def _options(scheme: str, query: str) -> dict[str, str]:
    known = _OPTIONS[scheme]
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in known:
            others = f"known options are {', '.join(sorted(known))}" if known else f"{scheme}:// has no options"
            raise ValueError(f"this option does not exist after the ?; {others}")
        if name in found or not value:
            raise ValueError(f"{name}= appears once after the ?, with a value")
        found[name] = percent_decoded(value)
    if "key" in found and "cert" not in found:
        raise ValueError("key= is the key of a certificate: add cert=FILE")
    if "sentinel_user" in found and "sentinel_password" not in found:
        raise ValueError("sentinel_user= needs sentinel_password=")
    return found


def _addresses(hosts: str, default: int, most: int) -> tuple[tuple[str, int], ...]:
    listed = hosts.split(",")
    if len(listed) > most:
        raise ValueError("one host and port" if most == 1 else f"at most {most} Sentinels")
    found = tuple(split_address(each, default) for each in listed)
    if len(set(found)) < len(found):
        raise ValueError("each Sentinel appears once")
    return found


def _db(text: str) -> int:
    if text and (not re.fullmatch("[0-9]{1,5}", text) or int(text) > MOST_DB):
        raise ValueError(f"the database is a number from 0 to {MOST_DB}, usually 0")
    return int(text or 0)


def _name(text: str) -> str:
    # Redis accepts these characters in the names that Sentinels monitor.
    if not re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII):
        raise ValueError("the name that the Sentinels use for the Redis follows the hosts, such as /mymaster")
    return text


def _path(text: str) -> str:
    path = percent_decoded(text)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("the path of the socket begins with a slash, so there are three slashes")
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise ValueError(f"the path of the socket has at most {UNIX_PATH_BYTES} bytes")
    return path
