"""What is open and to whom, and what of that is unwise: for the start and for `--check`."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from pushrelay.addresses import is_loopback
from pushrelay.settings import NAMES, Settings, without_secrets

from .guessing import is_guessable

PROXIED = "and visitors whom a web server here (Apache, nginx) passes on"
ENOUGH_SECRET = 32  # bytes: RFC 7518, 3.2, for HS256
ENOUGH_KEY = 20  # characters: with letters and digits more than 100 bits


def open_to(settings: Settings) -> list[str]:
    """What is open, and to whom: five lines."""
    return [
        f"push over HTTP    {_pushing(settings)}",
        f"push from a page  {_pushing_from_pages(settings)}",
        f"connect           {_connecting(settings)}",
        f"register          {_registering(settings)}",
        f"listens on        {_listening(settings)}",
    ]


def warnings(settings: Settings) -> list[str]:
    """A line for each thing that is unwise, with what to do about it."""
    return [f"warning: {each}" for each in (*_unwise_reach(settings), *_unwise_words(settings))]


def _pushing(settings: Settings) -> str:
    said = "programs on this machine, not through a proxy"
    if settings.trusted_proxies:
        said = f"programs on this machine, through a proxy only where {_written(settings.trusted_proxies)} says so"
    if settings.push_keys:
        rate = f", {settings.push_rate} a second with each" if settings.push_rate else ""
        names = ", ".join(key.name for key in settings.push_keys)
        said += f"; programs anywhere that have a key ({names}{rate})"
    return said


def _pushing_from_pages(settings: Settings) -> str:
    if settings.socket_push:
        return "any page that is connected, to any destination"
    if settings.secret or settings.auth_url:
        ways = [("token", settings.secret), ("answer of auth_url", settings.auth_url)]
        return f"pages whose {' or '.join(way for way, is_set in ways if is_set)} says to which destinations (push)"
    return "nobody (setting socket_push)"


def _connecting(settings: Settings) -> str:
    if "*" in settings.origins:
        return "pages of any website, and programs"
    said = []
    if "same-host" in settings.origins:
        said.append("pages whose host name is this server's own, on any port")
    if listed := [each for each in settings.origins if each != "same-host"]:
        said.append("pages of " + ", ".join(listed))
    return "; ".join([*said, "programs"])


def _registering(settings: Settings) -> str:
    ways = []
    if settings.secret:
        ways.append("the ids in a token that is signed with the secret")
    if settings.id_cookie:
        ways.append(f"me, the id in the cookie {settings.id_cookie}")
    if settings.auth_url:
        ways.append(f"the ids that {without_secrets(settings.auth_url)} allows")
    return "only " + "; ".join(ways) if ways else "anybody who is connected, any id"


def _listening(settings: Settings) -> str:
    demo = "the demo page is for everybody" if settings.demo else "the demo page is for this machine"
    if settings.host.startswith("unix:"):
        return f"{settings.host}: programs that may open this file, {PROXIED}; {demo}"
    if is_loopback(settings.host):
        return f"{settings.host}: this machine, {PROXIED}; {demo}"
    push = "push with a key" if settings.push_keys else "not push"
    return f"{settings.host}: other machines can connect and register as said above, and {push}; {demo}"


def _is_beyond(settings: Settings) -> bool:
    """Whether other machines can connect: to the relay's own address, or through a proxy that the settings know of.

    Only a proxy needs trusted_proxies or base_path, and only visitors have the page of another site.
    """
    is_local = settings.host.startswith("unix:") or is_loopback(settings.host)
    return bool(settings.trusted_proxies or settings.base_path or _sites(settings)) or not is_local


def _sites(settings: Settings) -> list[str]:
    """The origins that are listed and are not on this machine."""
    hosts = {each: urlsplit(each).hostname for each in settings.origins if "://" in each}
    return [each for each, host in hosts.items() if not (host and is_loopback(host))]


def _unwise_reach(settings: Settings) -> list[str]:
    found = []
    if _is_beyond(settings) and not (settings.secret or settings.id_cookie or settings.auth_url):
        found.append(
            "other machines can register any id and receive what is pushed to it: set secret, id_cookie or auth_url, "
            "or choose ids that nobody can guess"
        )
    if _is_beyond(settings) and settings.socket_push:
        found.append(
            "socket_push = yes lets whoever connects push to everybody: set it to no, and push from your server"
        )
    if "*" in settings.origins:
        found.append("origins = * lets pages of any website connect in your visitors' browsers: list your own origins")
    elif "null" in settings.origins:
        found.append(
            "null in origins lets any website connect from a sandboxed frame: pages of apps are listed as "
            "capacitor://localhost or file://"
        )
    if any(net.prefixlen == 0 for version in (4, 6) for net in _merged(settings, version)):
        found.append(
            "trusted_proxies holds the whole internet, so anybody can claim any address: list your own proxies alone"
        )
    return found


def seen_in_ps(flags: Sequence[str]) -> str:
    """The warning of flags whose values are secret."""
    return (
        f"every user of this machine can see {' and '.join(flags)} in the list of processes (ps): "
        "use wsgi.ini, or RELAY_SECRET and RELAY_PUSH_KEYS in the environment"
    )


def on_command_line(settings: Settings) -> list[str]:
    """The warning of secrets that this process was started with as flags, if it was."""
    secret = [
        name for name in settings.given if NAMES[name].secret or (name == "auth_url" and "@" in settings.auth_url)
    ]
    flags = [settings.given[name] for name in secret if settings.given[name].startswith("--")]
    return [f"warning: {seen_in_ps(flags)}"] if flags else []


def _unwise_words(settings: Settings) -> list[str]:
    found = []
    shortest = min((len(each.encode()) for each in settings.secret), default=ENOUGH_SECRET)
    if shortest < ENOUGH_SECRET:
        found.append(
            f"a secret of {shortest} bytes can be found by trying: set secret to {ENOUGH_SECRET} or more "
            "(RFC 7518, 3.2), as  openssl rand -hex 32  writes them"
        )
    elif any(is_guessable(each) for each in settings.secret):
        found.append(
            "a secret that is made of words, or of a pattern, can be guessed: set secret to random characters, "
            "as  openssl rand -hex 32  writes them"
        )
    if short := [key.name for key in settings.push_keys if len(key.key) < ENOUGH_KEY]:
        found.append(
            f"too short a key can be guessed: make {', '.join(short)} in push_keys {ENOUGH_KEY} characters or more, "
            "as  openssl rand -hex 20  writes them"
        )
    elif plain := [key.name for key in settings.push_keys if is_guessable(key.key)]:
        found.append(
            f"a key that is made of words, or of a pattern, can be guessed: replace {', '.join(plain)} in push_keys "
            "with random characters, as  openssl rand -hex 20  writes them"
        )
    asked = urlsplit(settings.auth_url)
    if asked.scheme == "http" and not is_loopback(asked.hostname or ""):
        found.append(
            f"cookies go to {without_secrets(settings.auth_url)} unencrypted: let auth_url begin with https://"
        )
    return found


def _merged(settings: Settings, version: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = [net for net in settings.trusted_proxies if net.version == version]
    return list(ipaddress.collapse_addresses(networks))


def _written(networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> str:
    return ", ".join(str(net).removesuffix("/32").removesuffix("/128") for net in networks)
