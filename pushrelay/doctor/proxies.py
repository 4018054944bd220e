"""The lines that put Apache or nginx right, with the user's own path and port in them.

docs/apache.md and docs/nginx.md have the whole of it; here is what one fault needs.
"""

import re
from typing import NamedTuple

from ..web import Address, Reply
from .report import Advice

APACHE, NGINX = "Apache", "nginx"
SHORTEST_TIMEOUT = 60  # seconds: what both have where nothing is said
# What has no business behind the proxy, where the relay has a whole host name to itself or shares it with a site.
PRIVATE = "push|history|presence|connections|metrics"


class Way(NamedTuple):
    """From the browsers to the relay: through `proxy` (its name, empty if unknown), from `public` to `relay`."""

    proxy: str
    public: Address
    relay: Address
    ping_seconds: float  # ping_interval + ping_timeout

    @property
    def seconds(self) -> int:
        """What a proxy must have patience for."""
        return max(SHORTEST_TIMEOUT, int(self.ping_seconds) + 15)


def proxy_of(reply: Reply | None) -> str:
    """Which web server an answer is from, by its header or by its own error page."""
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


def passing_on(way: Way) -> list[Advice]:
    """Everything that the proxy needs where it does not know the relay, or not at this path."""
    path = way.public.path
    apache = (
        _proxy_pass(way),
        f'ProxyPass "{path}static/relay.js" "{_apache_url(way.relay)}static/relay.js" retry=0 ttl=60',
        *_preserve_host(path),
    )
    location = (
        f"location {path}socket.io/ {{",
        f"  proxy_pass {_nginx_url(way.relay)}socket.io/;",
        *(f"  {line}" for line in (*_nginx_upgrade(way), *_nginx_timeouts(way))),
        "}",
        f"location = {path}static/relay.js {{",
        f"  proxy_pass {_nginx_url(way.relay)}static/relay.js;",
        "}",
    )
    return _for(
        way,
        Advice(f"{_IN_APACHE} (and run: a2enmod proxy proxy_http):", apache),
        Advice(f"{_IN_NGINX}, in place of those that name {path}:", location),
    )


def upgrading(way: Way) -> list[Advice]:
    """Let WebSockets through."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (Apache 2.4.47 or later):", (_proxy_pass(way),)),
        Advice(_in_location(way), _nginx_upgrade(way)),
    )


def waiting_longer(way: Way) -> list[Advice]:
    """Do not cut connections that are quiet between two pings."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (it is its ProxyTimeout, or timeout= there):", (_proxy_pass(way),)),
        Advice(_in_location(way), _nginx_timeouts(way)),
    )


def without_buffering(way: Way) -> list[Advice]:
    """Pass answers on as they come."""
    return _for(
        way,
        Advice(f"{_IN_APACHE}:", (_proxy_pass(way),)),
        Advice(_in_location(way), ("proxy_buffering off;",)),
    )


def naming_host(way: Way) -> list[Advice]:
    """Tell the relay the host name that the browser asked for."""
    return _for(
        way,
        Advice("Put this into the <VirtualHost>:", _preserve_host(way.public.path)),
        Advice(_in_location(way), ("proxy_set_header Host $http_host;",)),
    )


def closing(way: Way, with_root: bool) -> list[Advice]:
    """Shut what is for programs on this machine. `with_root`: where the site's own `/` is the relay's too."""
    path = way.public.path
    if path == "/":  # there may be a site beside it
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
    """Say that a request comes from elsewhere. Apache always does."""
    return _for(
        way,
        Advice("Take this out of Apache's configuration, where it is:", ("ProxyAddHeaders Off",)),
        Advice(_in_location(way), ("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",)),
    )


_IN_APACHE = "Put this into the <VirtualHost>, before every other ProxyPass"
_IN_NGINX = "Put this into the server block"


def _in_location(way: Way) -> str:
    return (
        f"Put this into the location that passes {way.public.path}socket.io/ on, in place of lines there that "
        "begin the same:"
    )


def _for(way: Way, apache: Advice, nginx: Advice) -> list[Advice]:
    """What the proxy that it is needs; for both, where that is not known."""
    if way.proxy:
        return [apache if way.proxy == APACHE else nginx]
    return [
        Advice(f"Where it is Apache: {apache.sentence}", apache.lines),
        Advice(f"Where it is nginx: {nginx.sentence}", nginx.lines),
    ]


def _proxy_pass(way: Way) -> str:
    return (
        f'ProxyPass "{way.public.path}socket.io/" "{_apache_url(way.relay)}socket.io/" '
        f"upgrade=websocket timeout={way.seconds} retry=0 ttl=60"
    )


def _preserve_host(path: str) -> tuple[str, ...]:
    return (f'<Location "{path}">', "  ProxyPreserveHost On", "</Location>")


def _nginx_upgrade(way: Way) -> tuple[str, ...]:
    return (
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        'proxy_set_header Connection "upgrade";',
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    )


def _nginx_timeouts(way: Way) -> tuple[str, ...]:
    return (f"proxy_read_timeout {way.seconds}s;", f"proxy_send_timeout {way.seconds}s;")


def _apache_url(relay: Address) -> str:
    return f"unix:{relay.unix}|http://localhost{relay.path}" if relay.unix else relay.url


def _nginx_url(relay: Address) -> str:
    return f"http://unix:{relay.unix}:{relay.path}" if relay.unix else relay.url
