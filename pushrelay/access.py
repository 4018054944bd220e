"""Who may come in: programs on this machine may push, pages of this host may connect."""

import functools
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from .errors import Refused
from .settings import Settings

# A proxy in front makes everyone look local, so a request that went through one never is.
_FORWARDED = ("HTTP_X_FORWARDED", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host name or an address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def is_local(environ: dict[str, Any]) -> bool:
    """Whether this request comes from a program on this machine, and not through a proxy."""
    # All names at once: this is asked for every push, and a look at each costs three times as much.
    names = "\n".join(environ)
    for name in _FORWARDED:
        if name in names:
            return False
    peer = environ.get("REMOTE_ADDR")
    return peer is not None and (peer == "" or is_loopback(peer))  # a Unix socket's peer has no address


def origin_allowed(origin: str | None, environ: dict[str, Any]) -> bool:
    """Whether a page of this origin may talk to the relay: its host name is the relay's own, on any port.

    Not a browser at all (no `Origin` header) is allowed: the header protects browsers from foreign pages,
    and other programs can send what they like. `null`, which sandboxed frames and files send, is refused.
    """
    if origin is None:
        return True
    page, own = _host(origin, ("http", "https")), _host("//" + environ.get("HTTP_HOST", ""), ("",))
    if not page or not own:
        return False
    # `localhost` and 127.0.0.1 are one machine under two names, and both are in everybody's first try.
    return page == own or (is_loopback(page) and is_loopback(own))


def may_push(environ: dict[str, Any]) -> None:
    """Raise Refused unless this request may push: from this machine, and not from a foreign page in its browser."""
    if not is_local(environ):
        message = "only programs on the relay's own machine may push, at its own address and not through a proxy"
        raise Refused(401, "not_local", message)
    if not origin_allowed(environ.get("HTTP_ORIGIN"), environ):
        message = "a page of another host may not push; let your server push for it"
        raise Refused(403, "origin_not_allowed", message)


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


def open_to(settings: Settings) -> list[str]:
    """What is open, and to whom: a line each for the start and for `--check`."""
    sockets = "any page that is connected" if settings.socket_push else "nobody (setting socket_push)"
    lines = [
        "push over HTTP    programs on this machine, not through a proxy",
        f"push from a page  {sockets}",
        "connect           pages whose host name is this server's own, on any port",
        "register          whoever is connected, any id",
    ]
    if not is_loopback(settings.host) and not settings.host.startswith("unix:"):
        lines.append(f"listens on {settings.host}: other machines can connect and register, but not push")
    return lines
