"""The origins whose pages may connect: the relay's own host, listed ones, or all.

An origin is a scheme, a host and a port. `null` must be listed by itself, because any website can make a page whose
origin is `null`. An `Origin: *` is rejected: it is not an origin, and python-engineio rejects it too.
"""

import functools
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pushrelay.addresses import ip_of, is_loopback

# RFC 6454, 6.2, as browsers send it: ASCII (names in other scripts come as xn--…), without user and path.
LONGEST = 300  # characters of an origin: a host name has 253 (RFC 1035, 2.3.4)
_WEB = re.compile(r"(https?|wss?)://(\*\.)?([a-z\d_-]+(?:\.[a-z\d_-]+)*|\[[\da-f:.]+\])\.?(?::(\d{1,5}))?")
# Pages of apps and browser extensions: capacitor://localhost, chrome-extension://ID, file://. The app chooses the host,
# so it is compared as written. A listed `*` matches any host, because Firefox makes up a new one for each
# installation of an extension.
_APP = re.compile(r"([a-z][a-z\d+.-]*)://([^\s/?#@,*:]*|\*)(?::(\d{1,5}))?")
# Clients other than browsers send the address they connect to, with WebSocket's scheme (socket.io-client-swift).
# Browsers never do: they send the origin of a page, and no page has such an address.
_AS_PAGE = {"ws": "http", "wss": "https"}
_WEB_SCHEMES = ("http", "https", "ws", "wss")
_DEFAULT_PORTS = {"http": 80, "https": 443}
ALL, SAME_HOST, NONE = "*", "same-host", "null"
_KINDS = "same-host, origins such as https://example.com, https://*.example.com or capacitor://localhost, or * alone"


class Origin(NamedTuple):
    """The parts of an origin, of any scheme. `below` is set for `*.` in a setting: all subdomains of `host`."""

    scheme: str
    host: str
    port: int
    below: bool = False


class Origins:
    """The origins that the setting `origins` allows; `listed` is its value from read_origins()."""

    def __init__(self, listed: tuple[str, ...]):
        self._all = ALL in listed
        self._same_host = SAME_HOST in listed
        self._none = NONE in listed
        parsed = [_parsed(each) for each in listed if "://" in each]
        self._exact = frozenset(each for each in parsed if each and not each.below)
        self._below = tuple(each for each in parsed if each and each.below)
        self._schemes = frozenset(each.scheme for each in self._exact if each.host == "*")

    def allow(self, origin: str, environ: dict[str, Any]) -> bool:
        """Return whether a page of this origin may connect with this request.

        Sandboxed frames of any website, and pages from files, send `null`. It must be listed; `*` includes it.
        """
        if self._all or (self._same_host and is_same_host(origin, environ)):
            return True
        if origin == NONE:
            return self._none
        if not self._exact and not self._below:
            return False
        page = _parsed(origin)
        if page is None or page.below or page.host == "*":  # `*` is a pattern and not an origin
            return False
        return (
            page in self._exact
            or page.scheme in self._schemes
            or any(
                page.host.endswith("." + each.host) and page.scheme == each.scheme and page.port == each.port
                for each in self._below
            )
        )


def read_origins(texts: list[str]) -> tuple[str, ...]:
    """Return the listed origins in the form in which they are compared. Raises ValueError with what to write."""
    found = [_listed(each) for each in texts]
    if not found or (ALL in found and len(found) > 1):
        raise ValueError(_KINDS)
    return tuple(found)


def is_same_host(origin: str, environ: dict[str, Any]) -> bool:
    """Return whether an origin has the host name of the request's Host header; scheme and port may differ."""
    page, own = _host(origin, _WEB_SCHEMES), _host("//" + environ.get("HTTP_HOST", ""), ("",))
    if not page or not own:
        return False
    # localhost, 127.0.0.1 and ::1 are the same machine, and a first try often has one of them in the address bar and
    # another in the script tag.
    return page == own or (is_loopback(page) and is_loopback(own))


def _listed(text: str) -> str:
    """Return one origin of the setting in lower case. Raises ValueError with what to write."""
    origin = text.lower()
    if origin in (ALL, SAME_HOST, NONE):
        return origin
    if origin.endswith("/") and not origin.endswith("://"):
        origin = origin[:-1]  # copied from the address bar
    if _parsed(origin):
        return origin
    scheme, _, rest = origin.partition("://")
    host = rest.partition("/")[0]
    if host != rest and _parsed(f"{scheme}://{host}"):
        raise ValueError(f"{_KINDS}. An origin has no path: write {scheme}://{host}")
    if not rest and _parsed(f"https://{origin}"):
        raise ValueError(f"{_KINDS}. An origin begins with its scheme: write https://{origin}")
    if ascii_form := _ascii_form(origin):
        raise ValueError(f"{_KINDS}. Write a name in another script as browsers send it: {ascii_form}")
    raise ValueError(_KINDS)


def _ascii_form(origin: str) -> str:
    """Return an origin with its host as xn--…; empty if it is not valid even then."""
    scheme, _, rest = origin.partition("://")
    host, colon, port = rest.partition(":")
    try:
        # Python's codec implements IDNA 2003, which encodes a few letters differently from browsers.
        encoded = host.encode("idna").decode() if not re.search("[ßς\u200c\u200d]", host) else ""
    except UnicodeError:
        return ""
    found = f"{scheme}://{encoded}{colon}{port}"
    return found if encoded and _parsed(found) else ""


def _parsed(text: str) -> Origin | None:
    """Return an origin's parts; None if it is not one."""
    return _parse(text) if len(text) <= LONGEST else None


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> Origin | None:
    if not text.isascii():
        return None
    text = text.lower()
    if text.partition("://")[0] in _WEB_SCHEMES:
        parts = _WEB.fullmatch(text)
        scheme, below, host, port = parts.groups() if parts else ("", "", "", "")
        ip = ip_of(host.strip("[]"))
        host = host if ip is None else str(ip)
    else:
        parts, below = _APP.fullmatch(text), ""
        scheme, host, port = parts.groups() if parts else ("", "", "")
    if parts is None or int(port or 0) > 65535:
        return None
    scheme = _AS_PAGE.get(scheme, scheme)
    return Origin(scheme, host, int(port or _DEFAULT_PORTS.get(scheme, 0)), bool(below))


def _host(url: str, schemes: tuple[str, ...]) -> str | None:
    """Return the host name in a URL with one of these schemes: lower case, no trailing dot; None if there is none."""
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    if parts.scheme not in schemes or parts.username is not None or not port_is_sound:
        return None
    return (parts.hostname or "").removesuffix(".") or None
