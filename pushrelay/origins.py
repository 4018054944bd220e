"""Whose pages may come: the host of the relay itself, origins that the settings list, or all."""

import functools
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .addresses import ip_of, is_loopback

# RFC 6454, 6.2, as browsers write it: ASCII (a name in another script comes as xn--…), no user, no path.
LONGEST = 300  # characters of an origin: a host name has 253 (RFC 1035, 2.3.4)
_ORIGIN = re.compile(r"(https?)://(\*\.)?([a-z\d_-]+(?:\.[a-z\d_-]+)*|\[[\da-f:.]+\])\.?(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """An origin, taken apart. `below` stands for the `*.` of a setting: any name that ends in a dot and this host."""

    scheme: str
    host: str
    port: int
    below: bool = False


class Origins:
    """The setting `origins`, ready to be asked."""

    def __init__(self, listed: tuple[str, ...]):
        self._all = "*" in listed
        self._same_host = "same-host" in listed
        parsed = [_parsed(each) for each in listed if "://" in each]
        self._exact = frozenset(each for each in parsed if each and not each.below)
        self._below = tuple(each for each in parsed if each and each.below)

    def allow(self, origin: str, environ: dict[str, Any]) -> bool:
        """Whether a page of this origin may connect. `null`, which sandboxed frames and files send, only with `*`."""
        if self._all or (self._same_host and is_same_host(origin, environ)):
            return True
        if not self._exact and not self._below:
            return False
        page = _parsed(origin)
        if page is None or page.below:
            return False
        return page in self._exact or any(
            page.host.endswith("." + each.host) and page.scheme == each.scheme and page.port == each.port
            for each in self._below
        )


def is_same_host(origin: str, environ: dict[str, Any]) -> bool:
    """Whether an origin's host name is the one that the request asked for, on any port and with either scheme."""
    page, own = _host(origin, ("http", "https")), _host("//" + environ.get("HTTP_HOST", ""), ("",))
    if not page or not own:
        return False
    # `localhost` and 127.0.0.1 are one machine under two names, and both are in everybody's first try.
    return page == own or (is_loopback(page) and is_loopback(own))


def _parsed(text: str) -> Origin | None:
    return _parse(text) if len(text) <= LONGEST else None


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> Origin | None:
    parts = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    if parts is None:
        return None
    scheme, below, host, port = parts.groups()
    ip = ip_of(host.strip("[]"))
    return Origin(scheme, host if ip is None else str(ip), int(port or _DEFAULT_PORTS[scheme]), bool(below))


def _host(url: str, schemes: tuple[str, ...]) -> str | None:
    """The host name in a URL of one of the schemes, lower case, no trailing dot; None where there is none."""
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    if parts.scheme not in schemes or parts.username is not None or not port_is_sound:
        return None
    return (parts.hostname or "").removesuffix(".") or None
