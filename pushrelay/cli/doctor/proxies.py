"""The lines that fix the configuration of Apache or nginx, with the user's own path and port in them.

They come from the files in deploy/, so the doctor prints what is shipped there and explained in docs/. Each fix is
minimal: for Apache it goes above existing lines, for nginx it replaces some. The tests put exactly these lines into the
configuration of a real Apache or nginx and run the doctor again.
"""

import functools
import re
from typing import NamedTuple

from pushrelay.client.address import Address
from pushrelay.client.deadline import Reply
from pushrelay.places import HOME

from .report import Advice

APACHE, NGINX = "Apache", "nginx"
SHORTEST_TIMEOUT = 60  # seconds; the one in the shipped files
# Paths for programs on this machine, which no proxy should forward, even if the relay has a host name to itself.
PRIVATE = "push|history|presence|connections"
# Apache's ProxyPass knows upgrade= from this version on.
FIRST_UPGRADE = (2, 4, 47)


class Way(NamedTuple):
    """The path of browsers: from the address `public` through `proxy` (empty if unknown) to the address `relay`."""

    proxy: str
    public: Address
    relay: Address
    ping_seconds: float  # ping_interval + ping_timeout

    @property
    def seconds(self) -> int:
        """Return how many seconds a proxy must wait for the relay to send something."""
        return max(SHORTEST_TIMEOUT, int(self.ping_seconds) + 15)


def proxy_of(reply: Reply | None) -> str:
    """Return APACHE or NGINX if a response is from it, by its header or its own error page; empty if unknown."""
    if reply is None:
        return ""
    page = reply.body[:4096].decode("utf-8", "replace").lower()
    for name in (APACHE, NGINX):
        if (
            name.lower() in reply.server.lower()
            or f"<center>{name.lower()}" in page
            or f"<address>{name.lower()}" in page
        ):
            return name
    return ""


def is_old_apache(reply: Reply) -> bool:
    """Return whether a response is from an Apache whose ProxyPass cannot forward WebSockets."""
    found = re.match(r"Apache/(\d+)\.(\d+)\.(\d+)", reply.server)
    return found is not None and tuple(map(int, found.groups())) < FIRST_UPGRADE


def passing_on(way: Way, *parts: str) -> list[Advice]:
    """Return the lines that forward requests to the relay: for the paths in `parts`, or for all if it is empty."""
    path = way.public.path
    apache, nginx = _apache_lines(way), _nginx_blocks(way)
    if parts:
        apache = [line for line in apache if line.startswith("ProxyPass") and any(each in line for each in parts)]
        nginx = [block for block in nginx if any(each in block[0] for each in parts)]
    named = " and ".join(path + each for each in parts) or path
    return _for(
        way,
        Advice(f"{_IN_APACHE} (and run: a2enmod proxy proxy_http):", tuple(apache)),
        Advice(f"{_IN_NGINX}, in place of those that name {named}:", tuple(line for block in nginx for line in block)),
    )


def leading_elsewhere(way: Way) -> list[Advice]:
    """Return the lines that lead to this relay in place of another program."""
    lines = tuple(line for line in _location(way) if line.strip().startswith("proxy_pass "))
    return _for(
        way,
        Advice(f"{_IN_APACHE}, in place of those that name {way.public.path}:", _proxy_passes(way)),
        Advice(_in_location(way), tuple(line.strip() for line in lines)),
    )


def upgrading(way: Way) -> list[Advice]:
    """Return the lines that forward WebSockets."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (Apache 2.4.47 or later):", (_proxy_pass(way),)),
        Advice(_in_location(way), _directives(way, "proxy_http_version", "proxy_set_header")),
    )


def waiting_longer(way: Way) -> list[Advice]:
    """Return the lines that keep connections open while they are quiet between two pings."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (the cause is its ProxyTimeout, or timeout= there):", (_proxy_pass(way),)),
        Advice(_in_location(way), _directives(way, "proxy_read_timeout", "proxy_send_timeout")),
    )


def without_buffering(way: Way) -> list[Advice]:
    """Return the lines that forward responses as they arrive. Apache always does."""
    return [] if way.proxy == APACHE else [Advice(f"nginx: {_in_location(way)}", _directives(way, "proxy_buffering"))]


def naming_host(way: Way) -> list[Advice]:
    """Return the lines that forward the host name that the browser asked for."""
    host = tuple(line for line in _directives(way, "proxy_set_header") if line.startswith("proxy_set_header Host "))
    return _for(
        way,
        Advice("Put this into the <VirtualHost>:", _section(way)),
        Advice(_in_location(way), host),
    )


def closing(way: Way, with_root: bool) -> list[Advice]:
    """Return the lines that close the paths for programs. `with_root`: close `/` too, which leads to the relay."""
    path = way.public.path
    if path == "/":  # there may be a site at the same host
        pattern = f"^/({PRIVATE}){'?' if with_root else ''}$"
    else:
        pattern = rf"^{re.escape(path)}(?!socket\.io/|static/)"
    return _for(
        way,
        Advice(
            "Put this into the <VirtualHost>:",
            (f'<LocationMatch "{pattern}">', "  Require all denied", "</LocationMatch>"),
        ),
        Advice("Put this into the server block:", (f'location ~ "{pattern}" {{', "  return 404;", "}")),
    )


def forwarding_addresses(way: Way) -> list[Advice]:
    """Return the lines that send the client's address to the relay. Apache does by default."""
    forwarded = [line for line in _directives(way, "proxy_set_header") if "X-Forwarded-For" in line]
    return _for(
        way,
        Advice("Take this out of Apache's configuration:", ("ProxyAddHeaders Off",)),
        Advice(_in_location(way), tuple(forwarded)),
    )


def opening(way: Way) -> list[Advice]:
    """Return the lines by which the relay's path needs no password."""
    path = way.public.path
    return _for(
        way,
        Advice(
            "Put this into the <VirtualHost>, after its other <Location> sections:",
            (f'<Location "{path}">', "  AuthType None", "  Require all granted", "</Location>"),
        ),
        Advice(f"Put this into each location that begins with {path}:", ("auth_basic off;",)),
    )


_IN_APACHE = "Put this into the <VirtualHost>, before every other ProxyPass"
_IN_NGINX = "Put this into the server block"


def _in_location(way: Way) -> str:
    return (
        f"Put this into the location that passes {way.public.path}socket.io/ on, in place of lines there that "
        "begin the same:"
    )


def _for(way: Way, apache: Advice, nginx: Advice) -> list[Advice]:
    """Return the advice for the proxy that is there; for both if it is unknown."""
    if way.proxy:
        return [apache if way.proxy == APACHE else nginx]
    return [
        Advice(f"If it is Apache: {apache.sentence}", apache.lines),
        Advice(f"If it is nginx: {nginx.sentence}", nginx.lines),
    ]


# The files in deploy/.


@functools.cache
def _shipped(name: str) -> tuple[str, ...]:
    """Return the directives of a file in deploy/, without comments; none if that folder was not copied."""
    file = HOME / "deploy" / name
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return tuple(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _fitted(way: Way, line: str) -> str:
    """Return a shipped line with the path, the relay's address and the timeout of this way."""
    line = line.replace("http://127.0.0.1:8080/", _apache_url(way.relay))
    line = line.replace("http://relay/", _nginx_url(way.relay)).replace("$relay_connection", '"upgrade"')
    line = re.sub(r'(?<=[\s"^])/relay/', way.public.path, line)
    return re.sub(r"(timeout[= ])60\b", rf"\g<1>{way.seconds}", line)


def _apache_lines(way: Way) -> list[str]:
    """Return the shipped lines that forward requests, without their conditional sections.

    In those sections Apache serves relay.js itself (docs/apache.md). Forwarding it works everywhere.
    """
    found: list[str] = []
    left_out: list[bool] = []  # for each section around a line
    for line in _shipped("apache-relay.conf"):
        words = line.strip().lower()
        if words.startswith(("</ifmodule", "</iffile")):
            left_out.pop()
        elif words.startswith(("<ifmodule", "<iffile")):
            left_out.append(not words.startswith("<iffile !"))
        elif not any(left_out):
            found.append(_fitted(way, line[2:] if left_out else line))
    return found


def _proxy_passes(way: Way) -> tuple[str, ...]:
    return tuple(line for line in _apache_lines(way) if line.startswith(("ProxyPass ", "ProxyPassMatch ")))


def _proxy_pass(way: Way) -> str:
    return next((line for line in _proxy_passes(way) if "socket.io/" in line), "")


def _section(way: Way) -> tuple[str, ...]:
    return (f'<Location "{way.public.path}">', "  ProxyPreserveHost On", "</Location>")


def _nginx_blocks(way: Way) -> list[list[str]]:
    """Return the shipped locations that forward requests, without those that serve files and the one for `/`."""
    blocks: list[list[str]] = []
    for line in _shipped("nginx-relay-location.conf"):
        if line.startswith("location "):
            blocks.append([])
        if line.strip() != "internal;":
            blocks[-1].append(_fitted(way, line.replace("/relay-itself/", "/")))
    serving = [block for block in blocks if any(line.strip().startswith("alias ") for line in block)]
    return [block for block in blocks if block not in serving and not block[0].startswith("location / ")]


def _location(way: Way) -> list[str]:
    location = f"location {way.public.path}socket.io/"
    return next((block for block in _nginx_blocks(way) if block[0].startswith(location)), [])


def _directives(way: Way, *names: str) -> tuple[str, ...]:
    """Return the shipped directives with these names, from the location that forwards Socket.IO."""
    lines = [line.strip() for line in _location(way)]
    return tuple(line for line in lines if line.split()[0] in names)


def _apache_url(relay: Address) -> str:
    return f"unix:{relay.unix}|http://localhost{relay.path}" if relay.unix else relay.url


def _nginx_url(relay: Address) -> str:
    return f"http://unix:{relay.unix}:{relay.path}" if relay.unix else relay.url
