"""Addresses: which are this machine's own, and whose a request is that came through proxies."""

import functools
import ipaddress
import re
import socket

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
# One household, or one server, has a whole network of IPv6 addresses (RFC 6177): they count as one.
IPV6_PREFIX = 64
LONGEST = 100  # characters of an address with its zone. Longer ones are not remembered, because strangers choose them
MOST_HOPS = 32  # entries of X-Forwarded-For that are looked at: nobody has so many proxies of their own
_PORT = r"(?::\d{1,5})?"
_HOP = re.compile(rf"\[([^\]]{{2,60}})\]{_PORT}|([\d.]+){_PORT}|([\da-fA-F:.]{{2,45}})", re.ASCII)


def ip_of(text: str) -> IP | None:
    """Return the address that a text is, without its zone, or None. IPv4 that was mapped into IPv6 is IPv4."""
    return _ip_of(text) if len(text) <= LONGEST else None


@functools.lru_cache(maxsize=1024)
def _ip_of(text: str) -> IP | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address can only mean this machine."""
    ip = ip_of(host)
    return host == "localhost" if ip is None else ip.is_loopback


def is_upstream(host: str) -> bool:
    """Return whether a `Host` header may name the relay as a proxy knows it, not as a browser does."""
    name = host.partition(":")[0]  # of an IPv6 address the beginning, without a dot
    return "." not in name or name.replace(".", "").isdigit()


@functools.lru_cache(maxsize=4096)
def counted(text: str) -> str | None:
    """What a client's address is counted as; None for this machine's own, and for what is no address."""
    ip = ip_of(text)
    if ip is None or ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))


@functools.lru_cache(maxsize=64)  # few, as a stranger can make each of them as long as a header may be
def names_this_machine(host: str) -> bool:
    """Whether a `Host` header, port and all, can have been meant for this very machine: its own name, or an address.

    Any other name may be a foreign page's own, which it has had resolved to 127.0.0.1 (DNS rebinding).
    """
    parts = re.fullmatch(rf"(\[[^\]]*\]|[^:\[\]]*){_PORT}", host, re.ASCII)
    if parts is None:
        return False
    name = parts[1].lower().removesuffix(".")
    if name.startswith("["):
        return ip_of(name[1:-1]) is not None
    return not name or ip_of(name) is not None or name.endswith(".localhost") or name in ("localhost", _own_name())


@functools.lru_cache(maxsize=1)
def _own_name() -> str:
    return socket.gethostname().lower()


def hops_of(forwarded_for: str) -> list[IP | None]:
    """The addresses in an `X-Forwarded-For`, the last one first, some with a port. None ends it: it cannot be read."""
    hops: list[IP | None] = []
    for piece in reversed(forwarded_for.rsplit(",", MOST_HOPS)):  # what is left over has commas, and is no address
        found = _HOP.fullmatch(piece.strip(" \t"))
        hops.append(ip_of(found[1] or found[2] or found[3]) if found else None)
        if hops[-1] is None:
            break
    return hops
