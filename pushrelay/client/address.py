"""The address of a relay, as people write it: a URL, or a Unix socket."""

from typing import NamedTuple
from urllib.parse import urlsplit

from .deadline import DEFAULT_PORTS, netloc_of


class Address(NamedTuple):
    """The address of a relay: a port or a Unix socket, and the path below which it answers.

    `path` begins and ends with a slash. `unix` is the socket's path, or empty.
    """

    scheme: str
    host: str
    port: int
    path: str
    unix: str = ""

    @property
    def netloc(self) -> str:
        """Return the host, and the port unless it is the scheme's default: the header Host (RFC 9110, 7.2)."""
        return netloc_of(self.scheme, self.host, self.port)

    @property
    def origin(self) -> str:
        """Return the origin of pages at this address."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def url(self) -> str:
        """Return the address as people write it."""
        return f"unix:{self.unix}" if self.unix else self.origin + self.path


def address_of(url: str) -> Address:
    """Return the address that `url` names; the URL of relay.js names its relay. Raises ValueError with a sentence."""
    if url.startswith("unix:") and len(url) > 5:
        return Address("http", "localhost", 80, "/", url.removeprefix("unix:"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_plain = url.isascii() and url.isprintable() and " " not in url and parts.username is None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0 or not is_plain:
        raise ValueError(f"{url!r} is not the address of a relay; write it as https://example.com/relay/")
    path = parts.path.removesuffix("static/relay.js").rstrip("/") + "/"
    return Address(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], path)
