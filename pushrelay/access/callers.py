"""Who may come in: who pushes, from where a client comes, whose pages connect, who sees the demo page."""

import functools
import hashlib
import hmac
import math
import re
from typing import Any, NamedTuple, NoReturn

from pushrelay.addresses import counted, hops_of, ip_of, is_loopback, names_this_machine
from pushrelay.errors import Refused
from pushrelay.origins import Origins, is_same_host
from pushrelay.server.host import set_user
from pushrelay.settings import Settings
from pushrelay.token_bucket import TokenBucket

# A proxy in front makes everyone look local, so a request that went through one never is. These are the names under
# which proxies, load balancers and CDNs tell whom they forward, in a WSGI server's spelling, one a line.
_FORWARDED = re.compile(
    r"^HTTP\w*?(?:FORWARDED|_VIA$|CLIENT_?IP|REAL_?IP|CONNECTI(?:NG|ON)_?IP|USER_?IP|ORIGINAL_|CDN_|ENVOY"
    r"|(?:REMOTE|SRC|SOURCE|ORIGINATING)_?(?:IP|ADDR))",
    re.MULTILINE,
)
_CHAIN, _ASKED_HOST, _REAL_IP = "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP"
# What a trusted proxy may add beside X-Forwarded-For without a word against who is on this machine, as Apache does.
_BESIDE = {_CHAIN, _ASKED_HOST, _REAL_IP, "HTTP_VIA"}
_BESIDE |= {"HTTP_X_FORWARDED_SERVER", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PORT"}

_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="relay"'),)  # RFC 9110, 11.6.1: a 401 has one
# Why a caller is not local.
_ELSEWHERE = "this request comes from another machine, or by this machine's network address"
_PROXIED = "this request came through a proxy"
_NAMED = "this request asks for a host that is not this machine's own name"
_HOW_LOCAL = "use http://127.0.0.1 or http://localhost with the relay's port, and no proxy"


class Caller(NamedTuple):
    """Who pushes: the name of a key, or this machine. `bucket`: the rate of a key, where it has one (push_rate)."""

    name: str
    bucket: TokenBucket | None = None

    def charge(self, pushes: int) -> None:
        """Count publications before they are made. Raises Refused (429) where the key sent too many of late."""
        if self.bucket is None or not (wait := self.bucket.take(pushes)):
            return
        message = f"the key {self.name} pushes too much (setting push_rate): send this again in {wait:.3g} seconds"
        raise Refused(429, "too_fast", message, (("Retry-After", str(math.ceil(wait))),))

    def identify(self, environ: dict[str, Any]) -> None:
        """Have the server's access log name this caller, unless it is a program on this machine."""
        if self is not LOCAL:
            set_user(environ, self.name)


LOCAL = Caller("local")


class Access:
    """Answers by the settings. Any thread may ask."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._trusted = settings.trusted_proxies
        self._origins = Origins(settings.origins)
        rate = settings.push_rate
        self._callers = [
            (_digest(each.key), Caller(each.name, TokenBucket(rate, rate) if rate else None))
            for each in settings.push_keys
        ]

    def may_push(self, environ: dict[str, Any]) -> Caller:
        """Who pushes here, or reads what was pushed. Raises Refused: 400, 401 or 403, with what to do.

        A key that is one of push_keys makes its holder the caller; without one, programs on this machine are let in,
        but no foreign page in a browser there.
        """
        given: set[str] = set()
        if "HTTP_AUTHORIZATION" in environ or "HTTP_X_RELAY_KEY" in environ:
            given = _keys_in(environ)
            if (caller := self._holder(given)) is not None:
                return caller
        if distance := self.distance(environ):
            self._refuse(given, distance)
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not is_same_host(origin, environ):
            message = "a page of another host may not push; let your server push for it"
            raise Refused(403, "origin_not_allowed", message)
        return LOCAL

    def is_local(self, environ: dict[str, Any]) -> bool:
        """Return whether a program on this machine asks, directly or through a proxy that is trusted to tell."""
        return not self.distance(environ)

    def may_see_demo(self, environ: dict[str, Any]) -> None:
        """Raise Refused (403) unless this caller may see the demo page."""
        if not self._settings.demo and (distance := self.distance(environ)):
            message = f"the demo page is for this machine ({_HOW_LOCAL}), and {distance}: demo = yes shows it to all"
            raise Refused(403, "demo_not_shown", message)

    def origin_allowed(self, origin: str | None, environ: dict[str, Any]) -> bool:
        """Whether a page of this origin may connect (setting origins).

        Not a browser at all (no `Origin` header) is allowed: the header protects browsers from foreign pages, and other
        programs can send what they like.
        """
        return origin is None or self._origins.allow(origin, environ)

    def client_address(self, environ: dict[str, Any]) -> str | None:
        """What a client's address is counted as; None where it is this machine's own or cannot be told.

        Behind trusted proxies it is what they say: of X-Forwarded-For the last address that is none of theirs.
        """
        return counted(self._origin_of(environ))

    def full_address(self, environ: dict[str, Any]) -> str | None:
        """Return a client's whole address, as client_address() finds it; None if it is this machine's own."""
        ip = ip_of(self._origin_of(environ))
        return None if ip is None or ip.is_loopback else str(ip)

    def believes(self, environ: dict[str, Any]) -> bool:
        """Return whether what this peer says of the clients that it forwards is believed (trusted_proxies)."""
        return self._is_trusted(ip_of(environ.get("REMOTE_ADDR") or ""))

    def _origin_of(self, environ: dict[str, Any]) -> str:
        peer = environ.get("REMOTE_ADDR") or ""
        if not self._trusted or not self._is_trusted(ip_of(peer)):
            return peer
        hop = None
        for hop in hops_of(environ[_CHAIN]) if _CHAIN in environ else ():
            if hop is None or not self._is_trusted(hop):
                break
        return "" if hop is None else str(hop)

    def share_of(self, environ: dict[str, Any]) -> str:
        """Return whose turn a request takes: the address of its client, this machine's own included."""
        return self.client_address(environ) or environ.get("REMOTE_ADDR") or ""

    def _is_trusted(self, ip: Any) -> bool:
        return ip is not None and any(ip in network for network in self._trusted)

    # Local or not.

    def distance(self, environ: dict[str, Any]) -> str:
        """Return why the caller is not a program on this machine that asks this very relay; empty if it is one."""
        peer = environ.get("REMOTE_ADDR")
        if peer is None or (peer and not is_loopback(peer)):  # a Unix socket's peer has no address
            return _ELSEWHERE
        # All names at once: this is asked for every push, and a look at each costs several times as much.
        if _is_forwarded("\n".join(environ)) and not self._is_forwarded_from_here(environ, peer):
            return _PROXIED
        if peer and not names_this_machine(environ.get("HTTP_HOST", "")):
            return _NAMED
        return ""

    def _is_forwarded_from_here(self, environ: dict[str, Any], peer: str) -> bool:
        """Whether a proxy that is believed says that a program on this machine asked it, and it is nobody else."""
        if _CHAIN not in environ or not self._is_trusted(ip_of(peer)):
            return False
        if any(name not in _BESIDE and _FORWARDED.search(name) for name in environ):
            return False
        hops = hops_of(environ[_CHAIN]) + ([ip_of(environ[_REAL_IP])] if _REAL_IP in environ else [])
        hosts = environ.get(_ASKED_HOST, "").split(",")
        return all(ip is not None and ip.is_loopback for ip in hops) and all(
            names_this_machine(host.strip()) for host in hosts
        )

    # Keys.

    def _holder(self, given: set[str]) -> Caller | None:
        """Whose key this is, if it is one key, and one of ours.

        Its time tells nothing of the keys, by construction: digests are compared, not what was given, so how much of a
        key was right changes nothing that could be measured; by hmac.compare_digest; and with all keys, always.
        """
        if len(given) != 1:
            return None
        digest, holder = _digest(*given), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                holder = caller
        return holder

    def _refuse(self, given: set[str], distance: str) -> NoReturn:
        if len(given) > 1 or any("," in key for key in given):  # no key holds a comma: it was a header that came twice
            raise Refused(400, "several_keys", "send one key, and once: Authorization: Bearer KEY, or X-Relay-Key: KEY")
        if given:
            raise Refused(403, "wrong_key", "this key is none of those that the relay has (setting push_keys)")
        message = "set push_keys and send one of them as Authorization: Bearer KEY"
        if self._callers:
            message = "send one of the relay's push_keys: Authorization: Bearer KEY, or X-Relay-Key: KEY"
        message += f"; only programs on the relay's own machine need none: {_HOW_LOCAL} ({distance})"
        raise Refused(401, "missing_key", message, _CHALLENGE)


@functools.lru_cache(maxsize=64)  # most requests have the same few names
def _is_forwarded(names: str) -> bool:
    return _FORWARDED.search(names) is not None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _keys_in(environ: dict[str, Any]) -> set[str]:
    """The keys that a request brings: usually one."""
    scheme, _, key = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    bearer = key.strip() if scheme.lower() == "bearer" else ""
    return {bearer, environ.get("HTTP_X_RELAY_KEY", "").strip()} - {""}
