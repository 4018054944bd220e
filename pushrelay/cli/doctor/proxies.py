"""The lines that put Apache or nginx right, with the user's own path and port in them.

They come from the files in deploy/, so what the doctor prints is what is shipped there and explained in docs/.
"""

import functools
import re
from typing import NamedTuple

from pushrelay.client.address import Address
from pushrelay.client.deadline import Reply
from pushrelay.places import HOME

from .report import Advice

APACHE, NGINX = "Apache", "nginx"
SHORTEST_TIMEOUT = 60  # seconds: that of the shipped files
# What has no business behind the proxy, where the relay has a whole host name to itself or shares it with a site.
PRIVATE = "push|history|presence|connections|metrics"
# Apache's ProxyPass knows upgrade= from this version on.
FIRST_UPGRADE = (2, 4, 47)


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


def is_old_apache(reply: Reply) -> bool:
    """Whether an answer is from an Apache that cannot upgrade by ProxyPass."""
    found = re.match(r"Apache/(\d+)\.(\d+)\.(\d+)", reply.server)
    return bool(found) and tuple(map(int, found.groups())) < FIRST_UPGRADE


def passing_on(way: Way, *parts: str) -> list[Advice]:
    """What the proxy needs if it does not know the relay at this path. `parts`: what of it is missing, if not all."""
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
    """Lead to the relay in place of another program."""
    lines = tuple(line for line in _location(way) if line.strip().startswith("proxy_pass "))
    return _for(
        way,
        Advice(f"{_IN_APACHE}, in place of those that name {way.public.path}:", _proxy_passes(way)),
        Advice(_in_location(way), tuple(line.strip() for line in lines)),
    )


def upgrading(way: Way) -> list[Advice]:
    """Let WebSockets through."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (Apache 2.4.47 or later):", (_proxy_pass(way),)),
        Advice(_in_location(way), _directives(way, "proxy_http_version", "proxy_set_header")),
    )


def waiting_longer(way: Way) -> list[Advice]:
    """Do not cut connections that are quiet between two pings."""
    return _for(
        way,
        Advice(f"{_IN_APACHE} (it is its ProxyTimeout, or timeout= there):", (_proxy_pass(way),)),
        Advice(_in_location(way), _directives(way, "proxy_read_timeout", "proxy_send_timeout")),
    )


def without_buffering(way: Way) -> list[Advice]:
    """Pass answers on as they come. Apache does."""
    return [] if way.proxy == APACHE else [Advice(f"nginx: {_in_location(way)}", _directives(way, "proxy_buffering"))]


def naming_host(way: Way) -> list[Advice]:
    """Tell the relay the host name that the browser asked for."""
    host = tuple(line for line in _directives(way, "proxy_set_header") if line.startswith("proxy_set_header Host "))
    return _for(
        way,
        Advice("Put this into the <VirtualHost>:", _section(way)),
        Advice(_in_location(way), host),
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
    forwarded = [line for line in _directives(way, "proxy_set_header") if "X-Forwarded-For" in line]
    return _for(
        way,
        Advice("Take this out of Apache's configuration, where it is:", ("ProxyAddHeaders Off",)),
        Advice(_in_location(way), tuple(forwarded)),
    )


def opening(way: Way) -> list[Advice]:
    """Ask for no password and no login at the relay's path."""
    path = way.public.path
    return _for(
        way,
        Advice(
            "Put this into the <VirtualHost>, behind its other <Location> sections:",
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
    """What the proxy that it is needs; for both, where that is not known."""
    if way.proxy:
        return [apache if way.proxy == APACHE else nginx]
    return [
        Advice(f"Where it is Apache: {apache.sentence}", apache.lines),
        Advice(f"Where it is nginx: {nginx.sentence}", nginx.lines),
    ]


# The shipped files.


@functools.cache
def _shipped(name: str) -> tuple[str, ...]:
    """Return the directives of a file in deploy/, without comments; none if somebody left that folder out."""
    file = HOME / "deploy" / name
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return tuple(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _fitted(way: Way, line: str) -> str:
    """A shipped line for this path, this relay and its ping."""
    line = line.replace("http://127.0.0.1:8080/", _apache_url(way.relay))
    line = line.replace("http://relay/", _nginx_url(way.relay)).replace("$relay_connection", '"upgrade"')
    line = re.sub(r'(?<=[\s"])/relay/', way.public.path, line)
    return re.sub(r"(timeout[= ])60\b", rf"\g<1>{way.seconds}", line)


def _apache_lines(way: Way) -> list[str]:
    """The shipped lines that pass requests on, without the sections for what may be there or not.

    Apache and nginx may serve the script themselves (docs/apache.md, docs/nginx.md). Passing it on works everywhere.
    """
    found: list[str] = []
    left_out: list[bool] = []  # for each of these sections around a line
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
    return tuple(line for line in _apache_lines(way) if line.startswith("ProxyPass "))


def _proxy_pass(way: Way) -> str:
    return next((line for line in _proxy_passes(way) if "socket.io/" in line), "")


def _section(way: Way) -> tuple[str, ...]:
    return (f'<Location "{way.public.path}">', "  ProxyPreserveHost On", "</Location>")


def _nginx_blocks(way: Way) -> list[list[str]]:
    """The shipped locations that pass requests on. One for the relay's whole path is left out if that is the site's."""
    blocks: list[list[str]] = []
    for line in _shipped("nginx-relay-location.conf"):
        if line.startswith("location "):
            blocks.append([])
        if line.strip() != "internal;":
            blocks[-1].append(_fitted(way, line.replace("/relay-itself.js", "/relay.js")))
    serving = [block for block in blocks if any(line.strip().startswith("alias ") for line in block)]
    return [block for block in blocks if block not in serving and not block[0].startswith("location / ")]


def _location(way: Way) -> list[str]:
    location = f"location {way.public.path}socket.io/"
    return next((block for block in _nginx_blocks(way) if block[0].startswith(location)), [])


def _directives(way: Way, *names: str) -> tuple[str, ...]:
    """The shipped lines with these names, of the location that passes Socket.IO on."""
    lines = [line.strip() for line in _location(way)]
    return tuple(line for line in lines if line.split()[0] in names)


def _apache_url(relay: Address) -> str:
    return f"unix:{relay.unix}|http://localhost{relay.path}" if relay.unix else relay.url


def _nginx_url(relay: Address) -> str:
    return f"http://unix:{relay.unix}:{relay.path}" if relay.unix else relay.url
