"""The way that browsers take: from the public address, through whatever is in front of the relay, one hop at a time."""

import email.utils
import re
import shlex
import ssl
import threading
import time
from collections.abc import Mapping

from ..answers import read_object
from ..visitor import Visitor
from ..web import Dialer, Reply, Trouble
from . import proxies
from .hops import NAMES, Relay, opened, round_trip, some_id
from .proxies import Way
from .report import Advice, Report

SCRIPT = "static/relay.js"
SCRIPT_BEGINS = b"// The relay's browser client"
HANDSHAKE = "socket.io/?EIO=4&transport=polling"
LONGEST_WAIT = 60.0  # seconds: a relay that pings less often is not waited for
EXPIRES_SOON = 14  # days
CLOCKS_APART = 60  # seconds


class Public:
    """The hops, in their order. Each method raises Stop where it fails."""

    def __init__(self, report: Report, relay: Relay, dialer: Dialer, origin: str | None):
        self._report = report
        self._relay = relay
        self._dialer = dialer
        self._elsewhere = origin
        settings = relay.settings
        self._way = Way("", dialer.address, relay.dialer.address, settings.ping_interval + settings.ping_timeout)
        self._headers = {"Origin": dialer.address.origin}
        self._is_proxied = True

    def follow(self, quick: bool) -> None:
        """All hops. Raises Stop at the first that fails."""
        self.name_and_port()
        self.certificate()
        self.script()
        self.origin()
        self.transport("polling")
        self.transport("websocket")
        if self._is_proxied:
            self.private()
            self.addresses()
        if quick:
            self._report.warn("staying connected", "not looked at, because of --quick")
        else:
            self.pings()

    def name_and_port(self) -> None:
        address = self._dialer.address
        try:
            found = self._dialer.resolve()
        except Trouble as error:
            advice = Advice("Make an A record for it; or, to try before there is one, --connect ADDRESS.")
            self._report.stop("DNS", str(error), advice)
        self._report.ok("DNS", f"{address.host} is {', '.join(found)}")
        try:
            self._dialer.open_tcp().close()
        except Trouble as error:
            advice = Advice(
                f"Is Apache or nginx running, does it listen on port {address.port}, and does every firewall on the "
                "way let that in? What listens here:",
                ("ss -ltn",),
            )
            self._report.stop("TCP", f"port {address.port}: {error}", advice)
        self._report.ok("TCP", f"port {address.port} takes connections")

    def certificate(self) -> None:
        if self._dialer.address.scheme != "https":
            return
        try:
            sock = self._dialer.open()
        except Trouble as error:
            self._report.stop("TLS", str(error), *about_tls(str(error)))
        with sock:
            until = sock.getpeercert().get("notAfter", "")
        if not until:
            self._report.warn("TLS", "any certificate is taken, because of --insecure")
            return
        ends = ssl.cert_time_to_seconds(until)
        day = time.strftime("%Y-%m-%d", time.gmtime(ends))
        found = f"the certificate is good for {self._dialer.address.host} until {day}"
        if ends - time.time() < EXPIRES_SOON * 86400:
            self._report.warn("TLS", found, Advice("Where certbot has got it:", ("certbot renew",)))
        else:
            self._report.ok("TLS", found)

    def script(self) -> None:
        """Whether the path leads to the relay: there is its script."""
        reply = self._ask("GET", SCRIPT)
        self._way = self._way._replace(proxy=proxies.proxy_of(reply) or self._proxy_itself())
        found = f"{self._dialer.address.url}{SCRIPT}"
        if reply.status == 200 and reply.body.startswith(SCRIPT_BEGINS):
            self._is_proxied = self._has_proxy(reply)
            through = self._way.proxy or "a proxy" if self._is_proxied else "no proxy: the relay itself"
            self._report.ok("relay.js", f"{found}, through {through}")
            self._compare_clocks(reply)
            return
        if 300 <= reply.status < 400:
            target = reply.headers.get("Location", "").removesuffix(SCRIPT)
            asking = shlex.join(["python", "relay.py", "doctor", target]) if target.isprintable() else ""
            advice = Advice("Ask for that one:", (asking,))
            self._report.stop("relay.js", f"{found} leads on to {target}", advice)
        self._report.stop(
            "relay.js", f"{found} is not the relay's: {_described(reply)}", *proxies.passing_on(self._way)
        )

    def _proxy_itself(self) -> str:
        """Which web server answers where the relay is not: Apache passes the Server header of what is behind it on."""
        beside = Dialer(self._dialer.address._replace(path="/"), self._dialer.context, self._dialer.connect_to)
        try:
            return proxies.proxy_of(beside.ask("GET", some_id()))
        except Trouble:
            return ""

    def _has_proxy(self, reply: Reply) -> bool:
        """Whether somebody passes requests on, and it is not the relay's own address that was given."""
        public, own = self._dialer.address, self._relay.dialer.address
        if (public.scheme, public.port, public.path) != (own.scheme, own.port, own.path) or "Via" in reply.headers:
            return True
        return reply.server != self._relay.dialer.ask("GET", "health/live").server

    def origin(self) -> None:
        """Whether pages may connect: this host's own, and those of `--origin`."""
        own = self._dialer.address.origin
        reply = self._ask("GET", HANDSHAKE, {"Origin": own})
        if reply.status == 403:
            advice = [*proxies.naming_host(self._way), self._allowing(own)]
            found = f"pages of {own} are refused: the relay is not told that they asked for this very host"
            self._report.stop("origin", found, *advice)
        if reply.status != 200 or not reply.body.startswith(b"0{"):
            self._report.stop("handshake", f"no Socket.IO: {_described(reply)}", *proxies.passing_on(self._way))
        self._report.ok("origin", f"pages of {own} may connect")
        self._forget(reply)
        if self._elsewhere is None:
            return
        reply = self._ask("GET", HANDSHAKE, {"Origin": self._elsewhere})
        if reply.status == 403:
            self._report.stop("origin", f"pages of {self._elsewhere} are refused", self._allowing(self._elsewhere))
        self._report.ok("origin", f"pages of {self._elsewhere} may connect")
        self._forget(reply)

    def _allowing(self, origin: str) -> Advice:
        origins = dict.fromkeys((*self._relay.settings.origins, origin))
        file = self._relay.settings.file or "wsgi.ini"
        sentence = f"To let them in, in [relay] of {file}; then {self._relay.restart}:"
        return Advice(sentence, (f"origins = {', '.join(origins)}",))

    def _forget(self, reply: Reply) -> None:
        """Close the session that a handshake opened."""
        if found := re.search(rb'"sid":"([\w-]+)"', reply.body):
            self._ask("POST", f"{HANDSHAKE}&sid={found[1].decode()}", body=b"1")

    def transport(self, transport: str) -> None:
        """A push, seen by a browser out there."""
        what = NAMES[transport]
        try:
            with opened(self._dialer, transport, self._headers) as visitor:
                took = round_trip(self._relay, visitor)
        except Trouble as error:
            self._report.stop(what, _with_reply(error), *self._about(transport, error))
        if self._relay.may_register():
            self._report.ok(what, f"a push arrives, {took * 1000:.1f} ms after it was sent")
        else:
            self._report.ok(what, "connects")

    def _about(self, transport: str, error: Trouble) -> list[Advice]:
        if transport == "websocket":
            return proxies.upgrading(self._way)
        if "did not arrive" in str(error):
            return proxies.without_buffering(self._way)
        return proxies.waiting_longer(self._way) if error.reply is None else proxies.passing_on(self._way)

    def private(self) -> None:
        """Whether strangers reach what is for programs on the relay's machine. Nothing is pushed: there is no body."""
        replies = {rest: self._ask("POST", rest) for rest in ("push", "")}
        answered = [rest for rest, reply in replies.items() if _is_of_relay(reply)]
        if not answered:
            status = replies["push"].status
            self._report.ok("/push", f"closed to the outside ({status}, not by the relay)")
            return
        reply = replies[answered[0]]
        advice = proxies.closing(self._way, "" in answered)
        url = self._dialer.address.url + answered[0]
        if reply.status not in (401, 403):
            advice = [*advice, *proxies.forwarding_addresses(self._way)]
            found = f"anyone can push at {url}: the relay takes strangers for programs on its own machine"
        elif self._relay.settings.push_keys:
            self._report.warn("/push", f"{url} can be reached, and asks for a key; if only PHP here pushes:", *advice)
            return
        else:
            found = f"the proxy passes {url} on to the relay, which refuses it; nobody out there has any use for it"
        self._report.stop("/push", found, *advice)

    def addresses(self) -> None:
        """What the relay knows of who connects."""
        settings = self._relay.settings
        if settings.trusted_proxies:
            self._report.ok("addresses", "X-Forwarded-For is believed (trusted_proxies)")
            return
        found = "all clients have the proxy's address, so max_per_address counts nobody"
        advice = Advice(f"In [relay], if the proxy sets X-Forwarded-For; then {self._relay.restart}:", _TRUSTED)
        self._report.warn("addresses", found, advice)

    def pings(self) -> None:
        """Whether connections that are quiet live until the relay's ping: on both transports at once."""
        interval = self._relay.settings.ping_interval
        if interval > LONGEST_WAIT:
            self._report.warn("staying connected", f"not looked at: the relay pings only every {interval:g} s")
            return
        # Daemons, which neither Ctrl+C nor the end of the doctor's time waits for.
        found_by: dict[str, tuple[bool, float, str]] = {}
        waits = [
            threading.Thread(target=self._wait_for_ping, args=(each, found_by), daemon=True)
            for each in ("polling", "websocket")
        ]
        for wait in waits:
            wait.start()
        for wait in waits:
            wait.join()
        for transport in ("polling", "websocket"):
            what, (survived, seconds, error) = NAMES[transport], found_by[transport]
            if not survived:
                found = f"cut after {seconds:.1f} s ({error}), and the relay pings every {interval:g} s"
                self._report.stop(what, found, *proxies.waiting_longer(self._way))
            self._report.ok(what, f"lives until the relay's ping, {seconds:.1f} s")

    def _wait_for_ping(self, transport: str, found_by: dict[str, tuple[bool, float, str]]) -> None:
        """Note whether a ping came, after how many seconds, and else what happened."""
        began = time.monotonic()
        try:
            with opened(self._dialer, transport, self._headers) as visitor:
                came = self._pinged(visitor)
            found_by[transport] = came, time.monotonic() - began, "nothing came"
        except Trouble as error:
            found_by[transport] = False, time.monotonic() - began, _with_reply(error)

    def _pinged(self, visitor: Visitor) -> bool:
        return visitor.wait_for_ping(visitor.hello["pingInterval"] / 1000 + 5)

    def _compare_clocks(self, reply: Reply) -> None:
        """Where tokens end by the clock, those of the machines must agree."""
        said = email.utils.parsedate_tz(reply.headers.get("Date", ""))
        try:
            apart = round(email.utils.mktime_tz(said) - time.time()) if said else 0
        except (ValueError, OverflowError):  # the year 99999, say
            apart = 0
        if self._relay.settings.secret and abs(apart) > CLOCKS_APART:
            advice = Advice("On both machines, or tokens end too early or too late:", ("timedatectl set-ntp true",))
            self._report.warn("clock", f"the web server's is {apart:+d} s from this machine's", advice)

    def _ask(self, method: str, rest: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Ask, where no answer at all ends everything."""
        try:
            return self._dialer.ask(method, rest, body, headers)
        except Trouble as error:
            advice = proxies.passing_on(self._way)
            self._report.stop("HTTP", f"{method} {self._dialer.address.url}{rest}: {error}", *advice)


_TRUSTED = ("trusted_proxies = 127.0.0.1, ::1",)


def about_tls(error: str) -> list[Advice]:
    """Return what to do about a TLS handshake that failed, by OpenSSL's message."""
    if "expired" in error:
        return [Advice("Where certbot has got it:", ("certbot renew",))]
    # Python 3.13 and later set VERIFY_X509_STRICT.
    if any(words in error for words in ("extension", "Key Identifier", "Basic Constraints")):
        sentence = (
            "From 3.13 on, Python refuses certificates without the extensions that RFC 5280 requires. Browsers may "
            "accept them. Make your CA again with these extensions, and sign the certificate with it:"
        )
        ca = "openssl req -x509 -key ca.key -out ca.pem -subj '/CN=My CA' -addext keyUsage=critical,keyCertSign,cRLSign"
        return [Advice(sentence, (ca, "printf 'authorityKeyIdentifier=keyid\\n' >> EXTENSIONS-OF-THE-CERTIFICATE"))]
    if "certificate" in error:
        return [Advice("Its certificate must name this host and come with its intermediates. Your own CA: --ca FILE.")]
    return [Advice("Is it http there? Then the public address begins with http://.")]


def _is_of_relay(reply: Reply) -> bool:
    """Whether it is the relay that answers: it has a word for programs, and a sentence."""
    return {"error", "message"} <= read_object(reply).keys() or "Relay-Id" in reply.headers


def _described(reply: Reply) -> str:
    """An answer that is not the relay's, in some words."""
    title = re.search(rb"<title>\s*(.{1,60}?)\s*</title>", reply.body, re.DOTALL | re.IGNORECASE)
    by = f" by {reply.server}" if reply.server else ""
    page = f", the page “{title[1].decode('utf-8', 'replace')}”" if title else ""
    return f"{reply.status} {reply.reason}{by}{page}"


def _with_reply(error: Trouble) -> str:
    if error.reply is None:
        return str(error)
    why = read_object(error.reply).get("message") if error.reply.status != 403 else None
    return f"{error}{f' ({why})' if why else ''}"
