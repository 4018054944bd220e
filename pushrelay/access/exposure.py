"""A summary of who can do what with these settings, and of risky ones.

It is printed at the start and by `--check`, and is on the page /status.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from pushrelay.addresses import is_loopback
from pushrelay.settings import NAMES, Settings, without_secrets
from pushrelay.settings.values import Key, Network

from .guessing import is_guessable

PROXIED = "and visitors that come through a web server here (Apache, nginx)"
ENOUGH_SECRET = 32  # bytes: RFC 7518, 3.2, for HS256
ENOUGH_KEY = 20  # characters: with letters and digits more than 100 bits


def open_to(settings: Settings) -> list[str]:
    """Return who can push, connect and register, and on which address the relay listens: five lines, or six."""
    return [f"{what:<16}  {who}" for what, who in reach(settings)]


def reach(settings: Settings) -> list[tuple[str, str]]:
    """Return what can be done with the relay, and who can do it."""
    by_file = [("push by file", f"users of this machine who may write to {settings.spool} (setting spool)")]
    return [
        ("push over HTTP", _pushing(settings)),
        *(by_file if settings.spool else []),
        ("push from a page", _pushing_from_pages(settings)),
        ("connect", _connecting(settings)),
        ("register", _registering(settings)),
        ("listens on", _listening(settings)),
    ]


def warnings(settings: Settings) -> list[str]:
    """Return a line for each risky setting, with what to do about it."""
    return [f"warning: {each}" for each in (*_risky_reach(settings), *_weak_words(settings))]


def _pushing(settings: Settings) -> str:
    who = "programs on this machine, not through a proxy"
    if settings.trusted_proxies:
        proxies = written(settings.trusted_proxies)
        who = f"programs on this machine, and through a proxy if {proxies} reports an address of this machine"
    if settings.push_keys:
        rate = f", {settings.push_rate} a second with each" if settings.push_rate else ""
        names = ", ".join(key.name for key in settings.push_keys)
        who += f"; programs anywhere that have a key ({names}{rate})"
    return who


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
    who = []
    if "same-host" in settings.origins:
        who.append("pages whose host name is the relay's own, on any port")
    if listed := [each for each in settings.origins if each != "same-host"]:
        who.append("pages of " + ", ".join(listed))
    return "; ".join([*who, "programs"])


def _registering(settings: Settings) -> str:
    ways = []
    if settings.secret:
        ways.append("the ids in a token signed with the secret")
    if settings.id_cookie:
        ways.append(f"me, which is the id in the cookie {settings.id_cookie}")
    if settings.auth_url:
        ways.append(f"the ids that {without_secrets(settings.auth_url)} allows")
    return "only " + "; ".join(ways) if ways else "anybody who is connected, for any id"


def _listening(settings: Settings) -> str:
    demo = "the demo page is for everybody" if settings.demo else "the demo page is for this machine"
    if settings.host.startswith("unix:"):
        return f"{settings.host}: programs that may open this file, {PROXIED}; {demo}"
    if is_loopback(settings.host):
        return f"{settings.host}: this machine, {PROXIED}; {demo}"
    push = "push with a key" if settings.push_keys else "not push"
    return f"{settings.host}: other machines can connect and register as above, and {push}; {demo}"


def _is_reachable(settings: Settings) -> bool:
    """Return whether other machines can connect, directly or through a proxy that the settings show.

    trusted_proxies and base_path are set only for a proxy, and a site in origins shows that there are visitors.
    """
    is_local = settings.host.startswith("unix:") or is_loopback(settings.host)
    return bool(settings.trusted_proxies or settings.base_path or _sites(settings)) or not is_local


def _sites(settings: Settings) -> list[str]:
    """Return the listed origins that are not on this machine."""
    hosts = {each: urlsplit(each).hostname for each in settings.origins if "://" in each}
    return [each for each, host in hosts.items() if not (host and is_loopback(host))]


def _risky_reach(settings: Settings) -> list[str]:
    found = []
    if _is_reachable(settings) and not (settings.secret or settings.id_cookie or settings.auth_url):
        found.append(
            "other machines can register any id and receive what is pushed to it: set secret, id_cookie or auth_url, "
            "or choose ids that nobody can guess"
        )
    if _is_reachable(settings) and settings.socket_push:
        found.append(
            "socket_push = yes lets every connected page push to everybody: set it to no, and push from your server"
        )
    if "*" in settings.origins:
        found.append("origins = * lets pages of any website connect in your visitors' browsers: list your own origins")
    elif "null" in settings.origins:
        found.append(
            "null in origins lets any website connect from a sandboxed frame: remove it, and list the pages of apps as "
            "capacitor://localhost or file://"
        )
    if _includes_all(settings.trusted_proxies):
        found.append(
            "trusted_proxies includes the whole internet, so anybody can claim any address: list only your own proxies"
        )
    return found


def seen_in_ps(flags: Sequence[str]) -> str:
    """Return the warning about flags whose values are secret."""
    return (
        f"every user of this machine can see {' and '.join(flags)} in the list of processes (ps): "
        "use wsgi.ini, or variables of the environment such as RELAY_SECRET"
    )


def on_command_line(settings: Settings) -> list[str]:
    """Return the warning about secrets among the flags of this process, if there are any."""
    urls = {
        "auth_url": (settings.auth_url,),
        "request_url": (settings.request_url,),
        "webhook_url": [hook.url for hook in settings.webhook_url],
        "broker": (settings.broker,),
    }
    secret = [name for name in settings.given if NAMES[name].secret or any("@" in url for url in urls.get(name, ()))]
    flags = [settings.given[name] for name in secret if settings.given[name].startswith("--")]
    return [f"warning: {seen_in_ps(flags)}"] if flags else []


def _weak_words(settings: Settings) -> list[str]:
    found = []
    for setting, secrets in (("secret", settings.secret), ("webhook_secret", settings.webhook_secret)):
        found += _weak_secrets(setting, secrets)
    for setting, keys in (("push_keys", settings.push_keys), ("metrics_keys", settings.metrics_keys)):
        found += _weak_keys(setting, keys)
    for setting, url in (("auth_url", settings.auth_url), ("request_url", settings.request_url)):
        site = urlsplit(url)
        if site.scheme == "http" and not is_loopback(site.hostname or ""):
            found.append(f"cookies go to {without_secrets(url)} unencrypted: set {setting} to an address with https://")
    return found


def _weak_secrets(setting: str, secrets: Sequence[str]) -> list[str]:
    shortest = min((len(each.encode()) for each in secrets), default=ENOUGH_SECRET)
    if shortest < ENOUGH_SECRET:
        return [
            f"a {setting} of {shortest} bytes can be found by trying: use at least {ENOUGH_SECRET} bytes (RFC 7518, "
            "3.2), such as the output of  openssl rand -hex 32"
        ]
    if any(is_guessable(each) for each in secrets):
        return [
            f"a {setting} made of words, or of a pattern, can be guessed: set {setting} to random characters, such as "
            "the output of  openssl rand -hex 32"
        ]
    return []


def _weak_keys(setting: str, keys: Sequence[Key]) -> list[str]:
    if short := [key.name for key in keys if len(key.key) < ENOUGH_KEY]:
        return [
            f"a short key can be guessed: make {', '.join(short)} in {setting} at least {ENOUGH_KEY} characters "
            "long, such as the output of  openssl rand -hex 20"
        ]
    if plain := [key.name for key in keys if is_guessable(key.key)]:
        return [
            f"a key made of words, or of a pattern, can be guessed: replace {', '.join(plain)} in {setting} with "
            "random characters, such as the output of  openssl rand -hex 20"
        ]
    return []


def _includes_all(networks: Sequence[Network]) -> bool:
    """Return whether the networks together hold every address of IPv4 or of IPv6, even if they list it in parts."""
    v4 = ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv6Network))
    return any(each.prefixlen == 0 for each in v4) or any(each.prefixlen == 0 for each in v6)


def written(networks: Sequence[Network]) -> str:
    """Return networks as the setting trusted_proxies has them."""
    return ", ".join(str(net).removesuffix("/32").removesuffix("/128") for net in networks)
