"""Host names and IP addresses as settings contain them."""

import ipaddress
import re

UNIX_PATH_BYTES = 107  # Linux's sockaddr_un has 108, with the zero at the end
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
