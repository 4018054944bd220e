"""IP addresses and host names: which ones are this machine's own, and which ones a proxy forwards for."""

import functools
import ipaddress
import re
import socket

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
# A household or a server has a whole network of IPv6 addresses (RFC 6177), which counts as one address.
IPV6_PREFIX = 64
LONGEST = 100  # characters of an address with its zone; longer ones are rejected, because strangers choose them
MOST_HOPS = 32  # entries of X-Forwarded-For that are read: nobody has more proxies than that
_PORT = r"(?::\d{1,5})?"
_HOP = re.compile(rf"\[([^\]]{{2,60}})\]{_PORT}|([\d.]+){_PORT}|([\da-fA-F:.]{{2,45}})", re.ASCII)


def ip_of(text: str) -> IP | None:
    """Return the IP address in a text, without its zone; None if it is not one. IPv4 mapped into IPv6 becomes IPv4."""
    return _ip_of(text) if len(text) <= LONGEST else None


@functools.lru_cache(maxsize=1024)
def _ip_of(text: str) -> IP | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address can only be this machine."""
    ip = ip_of(host)
    return host == "localhost" if ip is None else ip.is_loopback


def is_upstream(host: str) -> bool:
    """Return whether a `Host` header may be a proxy's name for the relay, rather than a public one."""
    name = host.partition(":")[0]  # of an IPv6 address this is the beginning, without a dot
    return "." not in name or name.replace(".", "").isdigit()


@functools.lru_cache(maxsize=4096)
def counted(text: str) -> str | None:
    """Return what a client's address counts as: itself, or its IPv6 network; None for this machine or no address."""
    ip = ip_of(text)
    if ip is None or ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))


@functools.lru_cache(maxsize=64)  # few entries, because strangers can make each as long as a header may be
def names_this_machine(host: str) -> bool:
    """Return whether a `Host` header, with its port, can be meant for this machine: its own name, or an address.

    Any other name may belong to a foreign page whose DNS resolves it to 127.0.0.1 (DNS rebinding).
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
    """Return the addresses in an `X-Forwarded-For`, which may have ports, the last one first.

    The list ends with None at an entry that cannot be read.
    """
    hops: list[IP | None] = []
    for piece in reversed(forwarded_for.rsplit(",", MOST_HOPS)):  # the rest is one piece with commas, not an address
        found = _HOP.fullmatch(piece.strip(" \t"))
        hops.append(ip_of(found[1] or found[2] or found[3]) if found else None)
        if hops[-1] is None:
            break
    return hops


def own_address() -> str:
    """Return the address at which other machines reach this one, or its host name without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but selects a route
        except OSError:
            return socket.gethostname()
        own: str = probe.getsockname()[0]
        return own
