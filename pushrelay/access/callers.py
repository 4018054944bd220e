"""Access control for requests: callers that may push, the addresses of clients, the origins of pages, the demo page."""

import functools
import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from pushrelay.addresses import IP, counted, hops_of, ip_of, is_loopback, names_this_machine
from pushrelay.errors import Refused
from pushrelay.log.access_log import note
from pushrelay.origins import Origins, is_same_host
from pushrelay.settings import Settings
from pushrelay.settings.values import Network
from pushrelay.token_bucket import TokenBucket

from .proxies_seen import ProxiesSeen

# Behind a proxy every client seems to be local, so a request that went through one is never a local one. These are the
# headers in which proxies, load balancers and CDNs name the client, in the spelling of WSGI, one in each line.
_FORWARDED = re.compile(
    r"^HTTP\w*?(?:FORWARDED|_VIA$|CLIENT_?IP|REAL_?IP|CONNECTI(?:NG|ON)_?IP|USER_?IP|ORIGINAL_|CDN_|ENVOY"
    r"|(?:REMOTE|SRC|SOURCE|ORIGINATING)_?(?:IP|ADDR))",
    re.MULTILINE,
)
_CHAIN, _ASKED_HOST, _REAL_IP = "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP"
# Headers that a trusted proxy such as Apache may add to a local program's request, besides X-Forwarded-For.
_BESIDE = {_CHAIN, _ASKED_HOST, _REAL_IP, "HTTP_VIA"}
_BESIDE |= {"HTTP_X_FORWARDED_SERVER", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PORT"}

A_SOCKET = "a Unix socket"  # in place of the address of a proxy that connects to one
_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="relay"'),)  # a 401 needs one (RFC 9110, 11.6.1)
# The reasons why a caller is not local.
_ELSEWHERE = "this request comes from another machine, or through this machine's network address"
_PROXIED = "this request came through a proxy"
_NAMED = "this request asks for a host that is not this machine's own name"
_HOW_LOCAL = "use http://127.0.0.1 or http://localhost with the relay's port, and no proxy"


class Caller(NamedTuple):
    """A program that may push, by the name of its key, or LOCAL. `bucket` limits a key's rate (setting push_rate)."""

    name: str
    bucket: TokenBucket | None = None

    def charge(self, pushes: int) -> None:
        """Count publications before they are made. Raises Refused (429) if the key is over its rate."""
        if self.bucket is None or not (wait := self.bucket.take(pushes)):
            return
        message = f"the key {self.name} pushes too much (setting push_rate): send this again in {wait:.3g} seconds"
        raise Refused(429, "too_fast", message, (("Retry-After", str(math.ceil(wait))),))

    def identify(self, environ: dict[str, Any]) -> None:
        """Have the access log name this caller, unless it is a program on this machine."""
        if self is not LOCAL:
            note(environ, user=self.name)


LOCAL = Caller("local")


class Access:
    """Decides by the settings. Any thread may call it.

    Each method reads an attribute at most once, so that a reload takes effect between two decisions.
    """

    def __init__(self, settings: Settings):
        self.proxies_seen = ProxiesSeen()
        self._push_rate = 0
        self._callers: list[tuple[bytes, Caller]] = []  # by the digests of their keys
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Decide by these settings from now on. A key that stays keeps what is left of its rate."""
        rate = settings.push_rate
        known = {(digest, caller.name): caller for digest, caller in self._callers if rate == self._push_rate}
        callers = []
        for each in settings.push_keys:
            digest = _digest(each.key)
            caller = known.get((digest, each.name)) or Caller(each.name, TokenBucket(rate, rate) if rate else None)
            callers.append((digest, caller))
        self._callers, self._push_rate = callers, rate
        self._is_demo_open = settings.demo
        self._trusted = settings.trusted_proxies
        self._origins = Origins(settings.origins)
        self._metrics_readers = [(_digest(each.key), Caller(each.name)) for each in settings.metrics_keys]

    def may_push(self, environ: dict[str, Any]) -> Caller:
        """Return the caller of a request that pushes, or reads what was pushed. Raises Refused (400, 401 or 403).

        The holder of one of push_keys is the caller. Programs on this machine are accepted without a valid key,
        whatever key they send, so that a program that moves to this machine keeps working. Pages of other hosts are
        refused: a browser on this machine also sends the forms of foreign pages, and their `Origin` shows it.
        """
        given: set[str] = set()
        if "HTTP_AUTHORIZATION" in environ or "HTTP_X_RELAY_KEY" in environ:
            given = _keys_in(environ)
            if (caller := _caller_of(given, self._callers)) is not None:
                return caller
        if reason := self.why_not_local(environ):
            self._refuse(given, reason)
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not is_same_host(origin, environ):
            message = "a page of another host may not push; let your server push for it"
            raise Refused(403, "origin_not_allowed", message)
        return LOCAL

    def may_read_metrics(self, environ: dict[str, Any]) -> Caller:
        """Return the caller of a request for the metrics: one that may push, or one with a key of metrics_keys.

        Raises Refused (400, 401 or 403).
        """
        return _caller_of(_keys_in(environ), self._metrics_readers) or self.may_push(environ)

    def is_local(self, environ: dict[str, Any]) -> bool:
        """Return whether the caller is a program on this machine, directly or through a trusted proxy that names it."""
        return not self.why_not_local(environ)

    def may_see_demo(self, environ: dict[str, Any]) -> None:
        """Raise Refused (403) unless this caller may see the demo page."""
        if not self._is_demo_open and (reason := self.why_not_local(environ)):
            message = f"the demo page is for this machine ({_HOW_LOCAL}), and {reason}: demo = yes shows it to all"
            raise Refused(403, "demo_not_shown", message)

    def origin_allowed(self, origin: str | None, environ: dict[str, Any]) -> bool:
        """Return whether a page of this origin may connect (setting origins).

        A client without the header `Origin` is not a browser and is allowed: the header protects browsers from foreign
        pages, and other programs can send any.
        """
        return origin is None or self._origins.allow(origin, environ)

    def client_address(self, environ: dict[str, Any]) -> str | None:
        """Return what a client's address is counted as; None if it is this machine's own or unknown.

        Behind trusted proxies, it is the last address in X-Forwarded-For that does not belong to such a proxy.
        """
        return counted(self._address_of(environ))

    def newcomer_address(self, environ: dict[str, Any]) -> str | None:
        """Return client_address() for a client that connects, and count the proxy through which it came."""
        if _is_forwarded("\n".join(environ)):
            self.proxies_seen.add(environ.get("REMOTE_ADDR") or A_SOCKET)
        return self.client_address(environ)

    def trusts(self, address: str) -> bool:
        """Return whether an address, or A_SOCKET, belongs to one of trusted_proxies."""
        return _is_in(ip_of("" if address == A_SOCKET else address), self._trusted)

    def full_address(self, environ: dict[str, Any]) -> str | None:
        """Return a client's whole address, as client_address() finds it; None if it is this machine's own."""
        ip = ip_of(self._address_of(environ))
        return None if ip is None or ip.is_loopback else str(ip)

    def logged_address(self, environ: dict[str, Any]) -> str:
        """Return a client's whole address for the access log; that of its peer if a proxy names none."""
        return self._address_of(environ) or environ.get("REMOTE_ADDR") or "-"

    def is_trusted_proxy(self, environ: dict[str, Any]) -> bool:
        """Return whether the request comes from one of trusted_proxies, whose X-Forwarded-For is believed."""
        return _is_in(ip_of(environ.get("REMOTE_ADDR") or ""), self._trusted)

    def _address_of(self, environ: dict[str, Any]) -> str:
        peer, trusted = environ.get("REMOTE_ADDR") or "", self._trusted
        if not trusted or not _is_in(ip_of(peer), trusted):
            return peer
        hop = None
        for hop in hops_of(environ[_CHAIN]) if _CHAIN in environ else ():
            if hop is None or not _is_in(hop, trusted):
                break
        return "" if hop is None else str(hop)

    def share_of(self, environ: dict[str, Any]) -> str:
        """Return the share of a request in a FairQueue: the address of its client, this machine's own included."""
        return self.client_address(environ) or environ.get("REMOTE_ADDR") or ""

    # Local or not.

    def why_not_local(self, environ: dict[str, Any]) -> str:
        """Return why the caller is not a program on this machine; an empty string if it is one.

        The request must name this machine as its host, because a foreign page may have its own host name resolve to
        127.0.0.1. The requests of such a page have no foreign `Origin`.
        """
        peer = environ.get("REMOTE_ADDR")
        if peer is None or (peer and not is_loopback(peer)):  # a Unix socket's peer has no address
            return _ELSEWHERE
        # All names are searched at once: this runs for every push, and searching each name takes several times as long.
        if _is_forwarded("\n".join(environ)) and not self._is_forwarded_from_here(environ, peer):
            return _PROXIED
        if peer and not names_this_machine(environ.get("HTTP_HOST", "")):
            return _NAMED
        return ""

    def _is_forwarded_from_here(self, environ: dict[str, Any], peer: str) -> bool:
        """Return whether a trusted proxy names a program on this machine, and nothing else, as its client."""
        if _CHAIN not in environ or not _is_in(ip_of(peer), self._trusted):
            return False
        if any(name not in _BESIDE and _FORWARDED.search(name) for name in environ):
            return False
        hops = hops_of(environ[_CHAIN]) + ([ip_of(environ[_REAL_IP])] if _REAL_IP in environ else [])
        hosts = environ.get(_ASKED_HOST, "").split(",")
        return all(ip is not None and ip.is_loopback for ip in hops) and all(
            names_this_machine(host.strip()) for host in hosts
        )

    # Keys.

    def _refuse(self, given: set[str], reason: str) -> NoReturn:
        if len(given) > 1 or any("," in key for key in given):  # no key has a comma: the header came twice
            raise Refused(400, "several_keys", "send exactly one key: Authorization: Bearer KEY, or X-Relay-Key: KEY")
        if given:
            raise Refused(403, "wrong_key", "this key is not one of the relay's (setting push_keys)")
        message = "set push_keys and send one of them as Authorization: Bearer KEY"
        if self._callers:
            message = "send one of the relay's push_keys: Authorization: Bearer KEY, or X-Relay-Key: KEY"
        message += f"; only programs on the relay's own machine need none: {_HOW_LOCAL} ({reason})"
        raise Refused(401, "missing_key", message, _CHALLENGE)


def _is_in(ip: IP | None, networks: Sequence[Network]) -> bool:
    return ip is not None and any(ip in network for network in networks)


@functools.lru_cache(maxsize=64)  # most requests have the same few header names
def _is_forwarded(names: str) -> bool:
    return _FORWARDED.search(names) is not None


def _caller_of(given: set[str], callers: list[tuple[bytes, Caller]]) -> Caller | None:
    """Return the caller whose key was given; None if it is not exactly one key, or not one of theirs.

    The time that this takes reveals nothing about the keys. It compares digests and not keys, so a key that is
    partly right takes as long as any other; it uses hmac.compare_digest; and it compares all keys every time.
    """
    if len(given) != 1:
        return None
    digest, found = _digest(*given), None
    for known, caller in callers:
        if hmac.compare_digest(known, digest):
            found = caller
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _keys_in(environ: dict[str, Any]) -> set[str]:
    """Return the keys that a request has; usually one."""
    scheme, _, key = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    bearer = key.strip() if scheme.lower() == "bearer" else ""
    return {bearer, environ.get("HTTP_X_RELAY_KEY", "").strip()} - {""}
