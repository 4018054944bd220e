"""The meaning of an unexpected response: which program sent it, why, and what to do.

The verdict depends on the status and on whether the relay answered (in its JSON) or something in front of it. Lines for
ProxyPass are printed only if the response shows that they are missing.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pushrelay.client.deadline import Reply
from pushrelay.client.replies import engineio_message, refusal_message

from . import proxies
from .proxies import Way
from .report import Advice

# Headers of services in front that do not write their own name into Server.
_SERVICES = {
    "CF-RAY": "Cloudflare",
    "X-Amz-Cf-Id": "CloudFront",
    "X-Sucuri-ID": "Sucuri",
    "X-Akamai-Request-ID": "Akamai",
    "X-Varnish": "Varnish",
}
_POLLING_WORKS = "long polling still works, so pages get their pushes, with more load"


class Asked(NamedTuple):
    """A request: `what` people call it, its method, and whether it asks for an upgrade to WebSocket.

    `passed` names an earlier request that worked on the same path. `parts` are the paths for which
    proxies.passing_on gives lines; empty: all.
    """

    what: str
    method: str = "GET"
    upgrade: bool = False
    passed: str = ""
    parts: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """A finding with its likely causes, and the advice."""

    found: str
    advice: list[Advice]


def verdict(reply: Reply, asked: Asked, way: Way) -> Verdict:
    """Return what this response means."""
    for rule in _RULES:
        if (found := rule(reply, asked, way)) is not None:
            return found
    advice = Advice("Read the error log of the server that answered.")
    return Verdict(f"{_got(reply, asked)}, which is not the relay's answer", [advice])


def described(reply: Reply) -> str:
    """Return the status, the server and the title of a response that is not the relay's."""
    title = re.search(rb"<title>\s*(.{1,60}?)\s*</title>", reply.body, re.DOTALL | re.IGNORECASE)
    page = f", the page “{title[1].decode('utf-8', 'replace')}”" if title else ""
    return f"{reply.status} {reply.reason}{_by(reply)}{page}"


def is_of_relay(reply: Reply) -> bool:
    """Return whether a relay sent this refusal."""
    return bool(refusal_message(reply) or engineio_message(reply)) or "Relay-Id" in reply.headers


def _by(reply: Reply) -> str:
    service = next((name for header, name in _SERVICES.items() if header in reply.headers), "")
    names = [each for each in dict.fromkeys((service, reply.server)) if each]
    return f" by {' or '.join(names)}" if names else ""


def _got(reply: Reply, asked: Asked) -> str:
    request = f"{asked.method} with Upgrade: websocket" if asked.upgrade else asked.method
    return f"the answer to {request} is {described(reply)}"


def _passed(asked: Asked) -> str:
    return f"; {asked.passed} passed on the same way" if asked.passed else ""


# The rules. Each is about one kind of response, and returns None for all others.


def _by_relay(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The relay itself refuses."""
    if not (message := refusal_message(reply) or engineio_message(reply)):
        return None
    found = f"the relay itself answers {reply.status} to {asked.method}: {message}"
    if message.startswith("Session ID unknown"):
        is_named = "belongs to node" in message
        return Verdict(f"{found}. Another relay opened that session", [not_sticky() if is_named else several_relays()])
    if asked.upgrade and reply.status in (400, 426):
        return _no_upgrade(reply, asked, way)
    if message in ("Transport unknown", "Unsupported protocol version"):
        advice = Advice(
            "Look for a rewrite rule or a cache that drops the query string (?EIO=4&transport=…), and remove it."
        )
        return Verdict(f"{found}. The query string does not arrive as it was sent", [advice])
    if reply.status == 404:
        found += ". So the proxy leads to the relay, but to another path of it"
        return Verdict(found, proxies.leading_elsewhere(way))
    return Verdict(found, [Advice("Follow this message.")])


def several_relays() -> Advice:
    """Return what to do if requests of one client reach different relays."""
    return Advice(
        "Run one relay, as one process, and let the proxy or load balancer forward only to that one: all requests of a "
        "client, and all pushes, must reach the same. Take the other out of the list (upstream, BalancerMember)."
    )


def not_sticky() -> Advice:
    """Return what to do if requests of one session reach different nodes, which have names."""
    return Advice(
        "Let the load balancer send all requests of a session to the node that the parameter sid ends with: "
        "docs/load-balancing.md, with a file for nginx, Apache and HAProxy in deploy/."
    )


def _no_upgrade(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The request for a WebSocket arrived without its Upgrade header."""
    if not asked.upgrade or reply.status not in (400, 426, 505):
        return None
    found = f"{_got(reply, asked)} in place of 101: the Upgrade header does not reach the relay"
    if proxies.is_old_apache(reply):
        sentence = f"{reply.server} needs mod_proxy_wstunnel for it: docs/apache.md, Apache before 2.4.47."
        return Verdict(found, [Advice(sentence)])
    return Verdict(found, proxies.upgrading(way))


def _plain_to_tls(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The request was http, and the port is for https."""
    if reply.status not in (400, 497) or way.public.scheme != "http":
        return None
    if not re.search(rb"HTTP(?: request was sent)? to (?:an SSL-enabled|HTTPS)", reply.body):
        return None
    url = way.public._replace(scheme="https").url
    advice = Advice("Use https, as your pages must:", (f"python relay.py doctor {url}",))
    return Verdict(f"{_got(reply, asked)}: port {way.public.port} is for https", [advice])


def _password(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """Something in front asks for a password."""
    if reply.status not in (401, 407):
        return None
    challenge = reply.headers.get("WWW-Authenticate", "") or reply.headers.get("Proxy-Authenticate", "")
    scheme = challenge.split(" ")[0][:30] or "no scheme"
    realm = re.search(r'realm="([^"]{1,60})"', challenge)
    named = f" for “{realm[1]}”" if realm else ""
    found = f"{_got(reply, asked)}: a password is asked for here{named} (WWW-Authenticate: {scheme}), not by the relay"
    go_on = Advice(
        "Or, if your visitors have a password and their browsers send it, give the doctor one:", ("--user NAME",)
    )
    more = [go_on] if scheme.lower() == "basic" else []
    return Verdict(found, [*proxies.opening(way), *more])


def _moved(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """A redirect, but not to the same file elsewhere, which Public reports itself."""
    if not 300 <= reply.status < 400:
        return None
    target = reply.headers.get("Location", "nowhere")[:200]
    found = f"{_got(reply, asked)}, which redirects to {target}; Socket.IO clients do not follow that{_passed(asked)}"
    advice = Advice(
        f"If that is a login page, or one for https or www, exempt {way.public.path} from that rule. In the "
        "<VirtualHost> of Apache, before the rules that redirect:",
        (f"RewriteRule ^{way.public.path} - [END]",),
    )
    return Verdict(found, [advice])


def _forbidden(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """A rule in front forbids the request."""
    if reply.status not in (403, 405, 406, 409, 418, 451, 501):
        return None
    what = "WebSocket" if asked.upgrade else asked.method
    found = (
        f"{_got(reply, asked)}, not the relay's: something in front forbids {what}{_passed(asked)}. It is probably "
        "a web application firewall (mod_security, or that of a CDN or host), or a rule for addresses or methods "
        "(Require, Limit, deny)"
    )
    if asked.upgrade:
        found += f"; {_POLLING_WORKS}"
    advice = Advice(
        f"Exempt {way.public.path} from that rule, which its error log names. If the log names mod_security:",
        (f'<Location "{way.public.path}">', "  SecRuleEngine Off", "</Location>"),
    )
    return Verdict(found, [advice])


def _limited(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """Something in front limits the rate of requests."""
    if reply.status != 429:
        return None
    found = f"{_got(reply, asked)}, not the relay's: something in front limits how many requests an address may send"
    sentence = (
        f"Clients that poll send some requests each second. Exempt {way.public.path} from that limit (limit_req in "
        "nginx, mod_evasive in Apache, a rule of the CDN), or raise it."
    )
    return Verdict(found, [Advice(sentence)])


def _not_there(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The path is not forwarded to the relay."""
    if reply.status not in (404, 410):
        return None
    found = f"{_got(reply, asked)}: not the relay's, so this path is not passed on to it{_passed(asked)}"
    return Verdict(found, proxies.passing_on(way, *asked.parts))


def _down(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The proxy cannot reach the relay, or is configured not to."""
    if reply.status not in (502, 503, 504, 508) and not 520 <= reply.status <= 530:
        return None
    found = (
        f"{_got(reply, asked)}: the proxy says that what is behind it is down, but the relay itself answered above, "
        f"at {way.relay.url}{_passed(asked)}"
    )
    sentence = (
        f"Compare {way.relay.url} with the address in the proxy's error log: is it another port, a container's own "
        "127.0.0.1, or is there a firewall between them? It may also be a maintenance page, or Apache's pause after a "
        "failure (retry=0 ends that). If SELinux is on:"
    )
    return Verdict(found, [Advice(sentence, ("setsebool -P httpd_can_network_connect 1",))])


def _broken(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """Something in front fails on its own."""
    if reply.status != 500:
        return None
    advice = Advice(
        "Read the error log of the server that answered. Typical reasons are a rewrite loop and the site's PHP."
    )
    return Verdict(f"{_got(reply, asked)}, not the relay's: it fails before the relay is asked", [advice])


def _other_page(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The site itself or a cache answers in place of the relay."""
    if not 200 <= reply.status < 300:
        return None
    begins = reply.body[:40].decode("utf-8", "replace")
    found = f"{_got(reply, asked)}: not the relay's, it begins with {begins!r}{_passed(asked)}"
    rewrite = Advice(
        "Probably the site's own script takes every path before ProxyPass does. Put this into Apache's <VirtualHost>, "
        "before its other rewrite rules; in nginx the location below is enough:",
        (f"RewriteRule ^{way.public.path} - [END]",),
    )
    if asked.passed:  # the path is forwarded, so something answers only this kind of request
        sentence = (
            f"Look for a cache, a filter or a rule that answers {way.public.path} by itself, and exempt that path."
        )
        return Verdict(found, [Advice(sentence)])
    return Verdict(found, [rewrite, *proxies.passing_on(way, *asked.parts)])


def _too_large(reply: Reply, asked: Asked, way: Way) -> Verdict | None:
    """The request is too large for something in front."""
    if reply.status not in (413, 414, 431, 494):
        return None
    advice = Advice(
        "Send fewer or smaller cookies, or raise its limit (LimitRequestFieldSize, large_client_header_buffers)."
    )
    return Verdict(f"{_got(reply, asked)}, not the relay's: the request is too large for something in front", [advice])


_RULES: tuple[Callable[[Reply, Asked, Way], Verdict | None], ...] = (
    _by_relay,
    _plain_to_tls,
    _no_upgrade,
    _password,
    _moved,
    _forbidden,
    _limited,
    _not_there,
    _down,
    _broken,
    _other_page,
    _too_large,
)
