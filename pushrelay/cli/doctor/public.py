"""The checks of the path that browsers take: from the public address, through every proxy, to the relay."""

import contextlib
import email.utils
import gzip
import os
import re
import shlex
import threading
import time
import zlib
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

from pushrelay.access.instance import HEADER
from pushrelay.client.deadline import Reply
from pushrelay.client.errors import ClientError
from pushrelay.client.replies import read_object
from pushrelay.client.socketio_client import SocketIOClient
from pushrelay.places import HOME

from . import proxies
from .exposed import Exposure
from .hops import TRANSPORT_NAMES, NotArrived, NotRegistered, about_registering, opened, report_in, round_trip, some_id
from .machine import closed_to_others
from .report import Advice
from .verdicts import Asked, described, is_of_relay, not_sticky, several_relays, verdict

SCRIPT = "static/relay.js"
SCRIPT_BEGINS = b"// The relay's browser client"
SCRIPT_HAS = re.compile(rb"relay_drain")  # also in a minified script
HANDSHAKE = "socket.io/?EIO=4&transport=polling"
LONGEST_WAIT = 60.0  # seconds; if the relay pings less often, the doctor does not wait for a ping
PONG = b"3"  # a packet without effect
CLOCKS_APART = 60  # seconds of difference that tokens tolerate
ROUNDS = 6  # requests that are sent to detect several relays behind one address
_CHANGED = Advice(
    "Find out what changes or truncates scripts (mod_pagespeed, a minifier, a CDN, a full disk) and exempt this "
    "file. Or find the cache or the other clone that has an old version."
)
COOKIE = {"Cookie": "relay_doctor=1"}


class Public(Exposure):
    """The checks through the public address, in their order. Each method raises Stop if later checks depend on it."""

    def follow(self, quick: bool) -> None:
        """Run all checks. `quick` leaves out the wait for a ping. Raises Stop."""
        self.name_and_port()
        self.certificate()
        self.script()
        self.origin()
        self.transport("polling")
        self.transport("websocket")
        if self._is_proxied:
            self.site()
            self.strangers()
            self.private()
            self.addresses()
            self.workers()
        if quick:
            self._report.warn("staying connected", "not checked, because of --quick")
        else:
            self.pings()

    def script(self) -> None:
        """Check that the path leads to the relay: its script is there, unchanged."""
        reply = self._ask("GET", SCRIPT)
        self._way = self._way._replace(proxy=proxies.proxy_of(reply) or self._proxy_itself())
        url = f"{self._dialer.address.url}{SCRIPT}"
        body = _decoded(reply)
        if reply.status == 200 and body.startswith(SCRIPT_BEGINS):
            self._is_proxied = self._has_proxy(reply)
            through = self._way.proxy or "a proxy" if self._is_proxied else "no proxy: the relay itself"
            if changed := self._change_of_script(body):
                self._report.fail("relay.js", f"{url}: {changed}", _CHANGED)
            else:
                self._report.ok("relay.js", f"{url}, through {through}")
            self._compare_clocks(reply)
        elif reply.status == 200 and SCRIPT_HAS.search(body):
            found = f"{url}: a file came, but a changed one or one of another version: it begins with {body[:40]!r}"
            self._report.fail("relay.js", found, _CHANGED)
        else:
            self._no_script(reply, url)
        self._passed = "GET of relay.js"

    def _change_of_script(self, body: bytes) -> str:
        """Return how the script differs from the relay's own and from the file here; empty if it equals one of them."""
        originals = [(HOME / SCRIPT).read_bytes()]  # a web server may serve it from the clone
        with contextlib.suppress(ClientError):
            originals.append(_decoded(self._relay.dialer.ask("GET", SCRIPT)))
        if body in originals:
            return ""
        if any(each.startswith(body) for each in originals):
            return f"the file ends after {len(body)} bytes, so its end is missing"
        place = max(len(os.path.commonprefix([body, each])) for each in originals)
        came = body[place : place + 40]
        return f"a file came, but a changed one or one of another version: at byte {place} it has {came!r}"

    def _no_script(self, reply: Reply, url: str) -> NoReturn:
        """Report that something else is there, and raise Stop."""
        if 300 <= reply.status < 400 and (target := _same_file(reply, url)):
            command = shlex.join(["python", "relay.py", "doctor", target]) if target.isprintable() else ""
            self._report.stop("relay.js", f"{url} leads on to {target}", Advice("Examine that address:", (command,)))
        if elsewhere := self._elsewhere_on_host():
            found = f"{url} is not the relay's: {described(reply)}; it is at {elsewhere}"
            command = shlex.join(["python", "relay.py", "doctor", elsewhere])
            self._report.stop("relay.js", found, Advice("Examine that address, and use it in your pages:", (command,)))
        parts: tuple[str, ...] = ()
        with contextlib.suppress(ClientError):
            socket_io = self._dialer.ask("GET", HANDSHAKE)
            if _is_handshake(socket_io):
                parts = ("static/",)  # only this path is not forwarded
                self._forget(socket_io)
        found, advice = verdict(reply, Asked(SCRIPT, parts=parts), self._way)
        if reply.status == 403:
            advice = [*_about_file(is_rest_passed=bool(parts)), *advice]
        self._report.stop("relay.js", f"{url} is not the relay's: {found}", *advice)

    def _elsewhere_on_host(self) -> str:
        """Return the relay's address if its script is at another usual path of this host; else empty."""
        path, base = self._dialer.address.path, self._relay.settings.base_path
        for other in dict.fromkeys(("/relay/", f"{base}/", f"{path}relay/", "/")):
            if other == path:
                continue
            with contextlib.suppress(ClientError):
                found = self._dialer.at(other)
                if _decoded(found.ask("GET", SCRIPT)).startswith(SCRIPT_BEGINS):
                    return found.address.url
        return ""

    def _proxy_itself(self) -> str:
        """Return which web server answers at other paths. Apache passes the Server header of the relay on."""
        try:
            return proxies.proxy_of(self._dialer.at("/").ask("GET", some_id()))
        except ClientError:
            return ""

    def _has_proxy(self, reply: Reply) -> bool:
        """Return whether a proxy forwards requests, so that PUBLIC_URL is not the relay's own address."""
        public, own = self._dialer.address, self._relay.dialer.address
        if (public.scheme, public.port, public.path) != (own.scheme, own.port, own.path) or "Via" in reply.headers:
            return True
        return reply.server != self._relay.dialer.ask("GET", "health/live").server

    def origin(self) -> None:
        """Check that it is this relay, and that pages of this host and of `--origin` may connect."""
        own = self._dialer.address.origin
        headers = {"Origin": own, **COOKIE, **self._marked()}
        reply = self._ask("GET", HANDSHAKE, headers)
        self._arrived = report_in(reply)
        if not _is_of_node(reply):
            self._is_this_one()
        if reply.status == 403 and is_of_relay(reply):
            self._refused_origin(own)
        if not _is_handshake(reply):
            asked = Asked("Socket.IO", passed=self._passed, parts=("socket.io/",))
            found, advice = verdict(reply, asked, self._way)
            self._report.stop("handshake", found, *advice)
        self._report.ok("origin", f"pages of {own} may connect")
        self._passed = "a GET of Socket.IO"
        if _is_of_node(reply):
            self._stickiness(reply)
        self._forget(reply)
        self._look_at_arrival(own)
        if self._other_origin is None:
            return
        reply = self._ask("GET", HANDSHAKE, {"Origin": self._other_origin})
        if reply.status == 403:
            self._report.stop(
                "origin", f"pages of {self._other_origin} are refused", self._allowing(self._other_origin)
            )
        self._report.ok("origin", f"pages of {self._other_origin} may connect")
        self._forget(reply)

    def _marked(self) -> dict[str, str]:
        """Return the header by which the examined relay recognizes the doctor and adds a report to its response."""
        return {HEADER: self._relay.word} if self._relay.word else {}

    def _is_this_one(self) -> None:
        """Check that every request reaches the relay that answered above. Raises Stop."""
        seen = [self._arrived.get("same")]
        for _ in range(ROUNDS - 1 if seen[0] is not None else 0):  # OPTIONS opens no session
            with contextlib.suppress(ClientError):
                seen.append(report_in(self._dialer.ask("OPTIONS", HANDSHAKE, headers=self._marked())).get("same"))
        own, others = seen.count(True), seen.count(False)
        url = self._dialer.address.url
        if own and others:
            found = f"several relays answer at {url}: {own} of {own + others} requests reached this one"
            self._report.stop("one relay", found, several_relays())
        if others:
            found = f"another relay answers at {url}, and not the one at {self._relay.dialer.address.url}"
            elsewhere = Advice("If you mean that other relay, run the doctor on its machine, with its settings.")
            self._report.stop("one relay", found, *proxies.leading_elsewhere(self._way), elsewhere)

    def _stickiness(self, reply: Reply) -> None:
        """Check that all requests of the session that a handshake opened reach its node. Raises Stop."""
        target = f"{HANDSHAKE}&sid={_sid_in(reply)}"
        answers = [self._ask("POST", target, body=PONG) for _ in range(ROUNDS)]
        wrong = sum("belongs to node" in _reason(answer) for answer in answers)
        if wrong:
            found = f"{wrong} of {ROUNDS} requests of a session reached another node than its own"
            self._report.stop("stickiness", found, not_sticky())
        self._report.ok("stickiness", f"{ROUNDS} requests of a session reached its node")

    def _refused_origin(self, own: str) -> NoReturn:
        """Report that the relay refuses pages of its own host, and raise Stop."""
        found, arrived = f"pages of {own} are refused", self._arrived
        host, origin = arrived.get("host", "nothing"), arrived.get("origin", "nothing")
        if not arrived:
            advice = [*proxies.naming_host(self._way), self._allowing(own)]
            self._report.stop(
                "origin", f"{found}: the web server does not pass on the host name that they asked for", *advice
            )
        if origin != own:
            sentence = (
                "Remove what sets or removes the header Origin: RequestHeader in Apache, proxy_set_header in nginx, "
                "or a rule of the CDN."
            )
            found += f": the header Origin arrives changed, as {origin}"
            self._report.stop("origin", found, Advice(sentence))
        if _host_in(host) != _host_in(self._dialer.address.netloc):
            found += f": the web server passes on {host} as the host name that they asked for"
            self._report.stop("origin", found, *proxies.naming_host(self._way))
        self._report.stop("origin", f"{found}: the setting origins of the relay leaves them out", self._allowing(own))

    def _look_at_arrival(self, own: str) -> None:
        """Check that the headers Origin and Cookie arrive as browsers send them."""
        arrived, settings = self._arrived, self._relay.settings
        if arrived.get("same") is not True:
            return
        if arrived.get("origin") != own:
            found = f"the header Origin arrives as {arrived.get('origin', 'nothing')}, so any website may connect"
            self._report.warn("origin", found, Advice("Remove what sets or removes Origin in the web server."))
        if (settings.id_cookie or settings.auth_url) and "cookie" not in arrived:
            advice = Advice("Remove what drops the header Cookie there (RequestHeader unset, proxy_set_header).")
            found = "the cookies of browsers do not arrive, so nobody can register by id_cookie or auth_url"
            self._report.fail("cookies", found, advice)

    def _allowing(self, origin: str) -> Advice:
        origins = dict.fromkeys((*self._relay.settings.origins, origin))
        file = self._relay.settings.file or "wsgi.ini"
        sentence = f"To allow them, in [relay] of {file}; then {self._relay.restart}:"
        return Advice(sentence, (f"origins = {', '.join(origins)}",))

    def _forget(self, reply: Reply) -> None:
        """Close the session that a handshake opened."""
        if sid := _sid_in(reply):
            self._ask("POST", f"{HANDSHAKE}&sid={sid}", body=b"1")

    def transport(self, transport: str) -> None:
        """Check that a push arrives at a client that connects as browsers do. Raises Stop."""
        what = TRANSPORT_NAMES[transport]
        try:
            with opened(self._dialer, transport, {**self._headers, **self._marked()}) as client:
                took = round_trip(self._relay, client)
        except ClientError as error:
            self._failed(transport, error)
        if self._relay.may_register():
            self._report.ok(what, f"a push arrives, {took * 1000:.1f} ms after it was sent")
        else:
            self._report.ok(what, "connects")
        self._passed = "long polling"

    def _failed(self, transport: str, error: ClientError) -> NoReturn:
        """Report what the failure of a transport means, and raise Stop."""
        what, upgrade = TRANSPORT_NAMES[transport], transport == "websocket"
        if isinstance(error, NotArrived):
            self._report.stop(what, str(error), *self._about_arrival(error))
        if isinstance(error, NotRegistered):
            self._report.stop(what, str(error), *about_registering(error, self._relay))
        if error.reply is None:
            self._no_reply(what, error)
        asked = Asked(what, error.method, upgrade, self._passed, ("socket.io/",))
        found, advice = verdict(error.reply, asked, self._way)
        if upgrade and "upgrade" in report_in(error.reply):
            found, advice = f"{error}, though the Upgrade header reaches the relay ({_reason(error.reply)})", []
        self._report.stop(what, found, *advice)

    def _about_arrival(self, error: NotArrived) -> list[Advice]:
        if error.clients == 0:
            sentence = (
                f"0 clients means that another relay answers at {self._dialer.address.url}: that one has the doctor's "
                "connection, and this one took the push. Check the address in ProxyPass or proxy_pass."
            )
            return [Advice(sentence)]
        sentence = (
            "Something in front may hold responses back until more has come: a CDN, a virus scanner, a filter that "
            "compresses. Exempt this path from it."
        )
        return [*proxies.without_buffering(self._way), Advice(sentence)]

    def pings(self) -> None:
        """Check that quiet connections stay open until the relay's ping, on both transports at once. Raises Stop."""
        interval = self._relay.settings.ping_interval
        if interval > LONGEST_WAIT:
            self._report.warn("staying connected", f"not checked, because the relay pings only every {interval:g} s")
            return
        # Daemon threads, because neither Ctrl+C nor the end of the doctor's time may wait for them.
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
            what, (survived, seconds, error) = TRANSPORT_NAMES[transport], found_by[transport]
            if not survived:
                found = f"cut after {seconds:.1f} s ({error}), and the relay pings every {interval:g} s"
                self._report.stop(what, found, *proxies.waiting_longer(self._way))
            self._report.ok(what, f"stays open until the relay's ping, {seconds:.1f} s")

    def _wait_for_ping(self, transport: str, found_by: dict[str, tuple[bool, float, str]]) -> None:
        """Record in `found_by` whether a ping came, after how many seconds, and what happened if none did."""
        began = time.monotonic()
        try:
            with opened(self._dialer, transport, self._headers) as client:
                came = self._pinged(client)
            found_by[transport] = came, time.monotonic() - began, "nothing came"
        except ClientError as error:
            found_by[transport] = False, time.monotonic() - began, _with_reply(error)

    def _pinged(self, client: SocketIOClient) -> bool:
        return client.wait_for_ping(client.handshake["pingInterval"] / 1000 + 5)

    def _compare_clocks(self, reply: Reply) -> None:
        """Check that the web server's clock agrees with this one, because tokens end by the clock."""
        date = email.utils.parsedate_tz(reply.headers.get("Date", ""))
        try:
            apart = round(email.utils.mktime_tz(date) - time.time()) if date else 0
        except (ValueError, OverflowError):  # the year 99999, for example
            apart = 0
        if self._relay.settings.secret and abs(apart) > CLOCKS_APART:
            advice = Advice(
                "Run this on both machines, or tokens end too early or too late:", ("timedatectl set-ntp true",)
            )
            self._report.warn("clock", f"the web server's is {apart:+d} s from this machine's", advice)


def _about_file(is_rest_passed: bool) -> list[Advice]:
    """Return what to do if the web server itself serves relay.js, and may not read it."""
    closed = closed_to_others(HOME / SCRIPT)
    if not closed and not is_rest_passed:
        return []
    why = f"its user may not enter or read {closed}" if closed else "check the path in its Alias (alias in nginx)"
    sentence = f"If the web server serves the file itself: {why}. Keep the clone in a folder that all users may read"
    return [Advice(f"{sentence}, such as /opt/relay.")]


def _decoded(reply: Reply) -> bytes:
    """Return the body without gzip, which a filter in front may add although the request did not ask for it."""
    if reply.headers.get("Content-Encoding", "").lower() != "gzip":
        return reply.body
    try:
        return gzip.decompress(reply.body)
    except (OSError, EOFError, zlib.error):
        return reply.body


def _same_file(reply: Reply, url: str) -> str:
    """Return the address to which a redirect of relay.js leads; empty if it leads to another file."""
    try:
        target = urljoin(url, reply.headers.get("Location", ""))
        found = urlsplit(target)
    except ValueError:
        return ""
    return target.removesuffix(SCRIPT) if found.path.endswith(f"/{SCRIPT}") and target != url else ""


def _is_handshake(reply: Reply) -> bool:
    """Return whether an Engine.IO server has opened a session."""
    return reply.status == 200 and reply.body.startswith(b"0{")


def _sid_in(reply: Reply) -> str:
    """Return the sid of the session that a handshake opened; empty if it opened none."""
    found = re.search(rb'"sid":"([\w.-]+)"', reply.body)
    return found[1].decode() if found else ""


def _is_of_node(reply: Reply) -> bool:
    """Return whether a handshake was answered by a relay that has a name, and so may be one of several."""
    return "." in _sid_in(reply)


def _host_in(netloc: str) -> str:
    """Return the host in a Host header, without its port, as the relay compares it."""
    return re.sub(r":\d+$", "", netloc).lower().removesuffix(".")


def _reason(reply: Reply) -> str:
    return str(read_object(reply).get("message", "")) or described(reply)


def _with_reply(error: ClientError) -> str:
    if error.reply is None:
        return str(error)
    why = read_object(error.reply).get("message") if error.reply.status != 403 else None
    return f"{error}{f' ({why})' if why else ''}"
