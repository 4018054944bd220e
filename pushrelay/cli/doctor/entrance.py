"""The first checks through the public address: name, port and certificate; and what it means if no answer comes."""

import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from pushrelay.addresses import is_loopback
from pushrelay.client.deadline import Reply
from pushrelay.client.dialer import Dialer
from pushrelay.client.errors import ClientError, ClientTimeout
from pushrelay.client.tls import insist_on_form, tls_context

from .hops import Relay
from .process import connected_to
from .proxies import Way
from .report import Advice, Report
from .workers import Workers, workers_of

EXPIRES_SOON = 14  # days until the end of a certificate


class Entrance:
    """The state that all checks through the public address share, and the first of these checks."""

    def __init__(self, report: Report, relay: Relay, dialer: Dialer, origin: str | None, ca: str = ""):
        self._report = report
        self._relay = relay
        self._dialer = dialer
        self._other_origin = origin  # of --origin
        self._ca = ca
        settings = relay.settings
        self._way = Way("", dialer.address, relay.dialer.address, settings.ping_interval + settings.ping_timeout)
        self._headers = {"Origin": dialer.address.origin}
        self._is_proxied = True
        self._arrived: dict[str, Any] = {}  # the relay's report on how the handshake arrived (access/instance.py)
        self._passed = ""  # the last request that worked

    def name_and_port(self) -> None:
        """Check that the host has an address and its port accepts connections. Raises Stop."""
        address = self._dialer.address
        try:
            found = self._dialer.resolve()
        except ClientError as error:
            advice = Advice("Create an A record for it, or use --connect ADDRESS to test before it exists.")
            self._report.stop("DNS", str(error), advice)
        self._report.ok("DNS", f"{address.host} is {', '.join(found)}")
        try:
            self._dialer.open_tcp().close()
        except ClientError as error:
            self._report.stop("TCP", f"port {address.port}: {error}", *self._no_connection(address.port))
        self._report.ok("TCP", f"port {address.port} takes connections")

    def _no_connection(self, port: int) -> list[Advice]:
        """Return what to do if nothing accepts connections at a port."""
        settings = self._relay.settings
        if port == settings.port and is_loopback(settings.host):
            found = f"Port {port} is the relay's own, and it listens on this machine only ({settings.host})."
            return [
                Advice(f"{found} To accept browsers on other machines, in [relay]:", ("host = 0.0.0.0",)),
                Advice("Or give it an address of your site, and check that one (docs/apache.md, docs/nginx.md)."),
            ]
        sentence = f"Check that Apache or nginx runs and listens on port {port}, and that no firewall blocks that port."
        return [Advice(f"{sentence} This lists what listens here:", ("ss -ltn",))]

    def _about_own_port(self, error: str) -> list[Advice]:
        """Return what to do about https at the relay's own port, which takes http."""
        port = self._relay.settings.port
        if self._dialer.address.port != port or "certificate" in error:  # the relay has none
            return []
        found = f"Port {port} is the relay's own, which takes http. For https, give it an address of your site"
        return [Advice(f"{found} (docs/apache.md, docs/nginx.md).")]

    def certificate(self) -> None:
        """Check the certificate, if the address is https. Raises Stop."""
        if self._dialer.address.scheme != "https":
            return
        try:
            sock = self._dialer.open_tls()
        except ClientTimeout as error:
            self._no_answer("TLS", error)
        except ClientError as error:
            self._report.stop("TLS", str(error), *self._about_own_port(str(error)), *about_tls(str(error)))
        with sock:
            until = str((sock.getpeercert() or {}).get("notAfter", ""))
        if not until:
            self._report.warn("TLS", "the certificate is not checked, because of --insecure")
            return
        ends = ssl.cert_time_to_seconds(until)
        day = time.strftime("%Y-%m-%d", time.gmtime(ends))
        found = f"the certificate is good for {self._dialer.address.host} until {day}"
        if ends - time.time() < EXPIRES_SOON * 86400:
            self._report.warn("TLS", found, Advice("If it comes from certbot:", ("certbot renew",)))
        else:
            self._report.ok("TLS", found)
        self._form_of_ca()

    def _form_of_ca(self) -> None:
        """Warn if Python 3.13 would refuse the certificate of the user's own CA, which browsers accept."""
        if not self._ca:
            return
        strict = tls_context(self._ca)
        insist_on_form(strict)
        try:
            Dialer(self._dialer.address, strict, self._dialer.connect_to).open().close()
        except ClientError as error:
            found = f"browsers, PHP and the relay accept the certificate; programs of Python 3.13 do not: {error}"
            self._report.warn("TLS", found, *about_tls(str(error)))

    def _no_reply(self, what: str, error: ClientError) -> NoReturn:
        """Report that the connection was lost or nothing came, and raise Stop."""
        if isinstance(error, ClientTimeout):
            self._no_answer(what, error)
        sentence = (
            f"Something in front ended the connection{f' ({self._passed} passed)' if self._passed else ''}: a firewall "
            "that inspects traffic, a virus scanner, or the web server itself. Read the web server's error log."
        )
        self._report.stop(what, str(error), Advice(sentence))

    def _no_answer(self, what: str, error: ClientError) -> NoReturn:
        """Report that a connection is accepted and no answer comes, and raise Stop."""
        apache = self._workers()
        count = f" Apache has {apache.limit} here, and {self._connected()} connections to the relay." if apache else ""
        sentence = (
            "Probably the web server has no free worker: look for AH00484 (Apache) or “worker_connections are not "
            f"enough” (nginx) in its error log.{count} Each open tab holds one (docs/apache.md, The cost of a client). "
            "A firewall that drops packets looks the same."
        )
        self._report.stop(what, f"connected, but {error}", Advice(sentence))

    def _workers(self) -> Workers | None:
        """Return the workers of the Apache that answers, if it is on this machine."""
        with contextlib.suppress(ClientError):
            if any(_is_here(each) for each in self._dialer.resolve()):
                return workers_of(self._dialer.address.port)
        return None

    def _connected(self) -> int:
        try:
            return connected_to(self._relay.settings)
        except OSError:
            return 0

    def _ask(self, method: str, rest: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Return the response to a request. Raises Stop if there is none."""
        try:
            return self._dialer.ask(method, rest, body, headers)
        except ClientError as error:
            self._no_reply(f"{method} {self._dialer.address.url}{rest}", error)


def about_tls(error: str) -> list[Advice]:
    """Return what to do about a failed TLS handshake. `error` has OpenSSL's message."""
    if "expired" in error:
        return [Advice("If it comes from certbot:", ("certbot renew",))]
    # Python 3.13 and later set VERIFY_X509_STRICT.
    if any(words in error for words in ("extension", "Key Identifier", "Basic Constraints")):
        sentence = (
            "From 3.13 on, Python refuses certificates without the extensions that RFC 5280 requires. Browsers may "
            "accept them. Make your CA again with these extensions, and sign the certificate with it:"
        )
        ca = "openssl req -x509 -key ca.key -out ca.pem -subj '/CN=My CA' -addext keyUsage=critical,keyCertSign,cRLSign"
        return [Advice(sentence, (ca, "printf 'authorityKeyIdentifier=keyid\\n' >> EXTENSIONS-OF-THE-CERTIFICATE"))]
    if "NO_APPLICATION_PROTOCOL" in error:
        sentence = "The web server speaks HTTP/2 only, and the WebSockets of browsers need HTTP/1.1. In Apache:"
        return [Advice(sentence, ("Protocols h2 http/1.1",))]
    if "certificate" in error:
        return [Advice("Use a certificate that names this host, with its intermediates. For your own CA: --ca FILE.")]
    return [Advice("If the server takes plain http there, write the public address with http://.")]


def _is_here(address: str) -> bool:
    """Return whether an IP address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True
