"""Host names, IP addresses, and what else the grammars of addresses in settings share."""

import ipaddress
import re
from urllib.parse import unquote

UNIX_PATH_BYTES = 107  # Linux's sockaddr_un has 108, with the zero at the end
_HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")
ENCODE = (
    "in a user name or a password, write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %26 for & and %25 for %"
)
_HOST = re.compile(r"\w([\w-]*\w)?(\.\w([\w-]*\w)?)*\.?")


def is_host_or_ip(text: str) -> bool:
    """Return whether a text is a host name that can be looked up, or an IP address."""
    return bool(_HOST.fullmatch(text) and is_host(text)) or is_ip(text)


def is_host(name: str) -> bool:
    """Return whether a name can be looked up. For others, getaddrinfo() would raise UnicodeError and not OSError."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def is_ip(text: str) -> bool:
    """Return whether a text is an IP address, which may have a zone: fe80::1%eth0."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def split_address(text: str, default: int) -> tuple[str, int]:
    """Return the host and the port in HOST or HOST:PORT. Raises ValueError with what to write."""
    shape = _HOST_AND_PORT.fullmatch(text)
    if not shape:
        raise ValueError(f"write HOST or HOST:PORT, and an IPv6 address in brackets: [::1]:{default}")
    host, port = shape[1] or shape[2], int(shape[3] or default)
    if not is_host_or_ip(host):
        raise ValueError("the host is a host name or an IP address")
    if not 1 <= port <= 65535:
        raise ValueError("the port is a number from 1 to 65535")
    return host, port


def percent_decoded(text: str) -> str:
    """Return a part of an address without its percent-encoding (RFC 3986, 2.1). Raises ValueError."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(ENCODE)
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("percent-encode the UTF-8 bytes of characters that are not ASCII") from None
