"""Faults of auth_url are shown by the doctor and in the log, with the advice that fixes them."""

import base64
import contextlib
import io
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT, Client, free_port, need, wait_for
from fronts import openssl

from pushrelay.access.auth_site import AuthSite
from pushrelay.access.auth_url import AuthBackend
from pushrelay.access.tokens import Rights
from pushrelay.access.visitor import Visitor
from pushrelay.cli.doctor.entrance import Entrance
from pushrelay.cli.doctor.hops import Relay
from pushrelay.cli.doctor.report import Report
from pushrelay.cli.doctor.site import ask_site
from pushrelay.client.address import address_of
from pushrelay.client.dialer import Dialer
from pushrelay.client.tls import client_context, insist_on_form, tls_context
from pushrelay.errors import Refused
from pushrelay.settings import Settings, SettingsError, load, without_secrets


class Php(ThreadingHTTPServer):
    """The site. `says` is the status, headers and body of every answer; `asked` has the headers of each request."""

    def __init__(self, says=(200, {}, '["42"]')):
        super().__init__(("127.0.0.1", 0), Page)
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/relay-auth.php"
        self.says, self.asked = says, []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def secure(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.port}/relay-auth.php"


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.headers)
        status, headers, body = self.server.says
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def php():
    with Php() as php:
        yield php
        php.shutdown()


def doctor_on(url, **settings):
    """Return the doctor's text about this auth_url, and its report."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        report = Report()
        ask_site(report, Settings(auth_url=url, **settings))
    return " ".join(said.getvalue().split()), report


HTTPS = "https://127.0.0.1/relay-auth.php"
# name: (the answer of the site, whether the check fails, words of the finding or of the advice)
FAULTS = {
    "https": ((301, {"Location": HTTPS}, ""), True, ["(301)", f"rite auth_url = {HTTPS}"]),
    "www": ((302, {"Location": "http://www.shop.test/relay-auth.php"}, ""), True, ["auth_url = http://www.shop.test/"]),
    "slash": (
        (308, {"Location": "/relay-auth.php/"}, ""),
        True,
        ["/relay-auth.php/", "rite auth_url = http://127.0.0.1"],
    ),
    "login": ((302, {"Location": "/login.php?sid=abc"}, ""), False, ["/login.php", "answer 401"]),
    "404": (
        (404, {}, "<title>Another shop</title>"),
        True,
        ["404", "Check the path", "for 127.0.0.1 with the first"],
    ),
    "410": ((410, {}, ""), True, ["410", "Several sites"]),
    "500": ((500, {}, ""), True, ["500", "error logs"]),
    "503": ((503, {}, ""), True, ["503", "error logs"]),
    "warning": ((200, {}, "<b>Warning</b>: x in y\n[]"), True, ["not JSON", "curl"]),
    "page": ((200, {}, "<!doctype html>"), True, ["not JSON", "first of them"]),
    "shape": ((200, {}, '{"id": "42"}'), True, ["not a list of ids", "curl"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_checks_auth_url_and_prints_what_to_write(name, php):
    php.says, fails, words = FAULTS[name]
    said, report = doctor_on(php.url)
    assert (report.failures, report.warnings) == ((1, 0) if fails else (0, 1)), said
    assert all(word in said for word in words), said
    assert "abc" not in said


@pytest.mark.parametrize("name", FAULTS)
def test_the_log_names_once_a_minute_what_keeps_visitors_out_and_what_to_do(name, php, caplog):
    php.says, _, words = FAULTS[name]
    backend = AuthBackend(Settings(auth_url=f"{php.url}?key=hidden"))
    with caplog.at_level(logging.WARNING):
        for n in range(3):
            request = backend.request(Visitor(f"visitor={n}; PHPSESSID=s3cr3t"))
            wait_for(lambda request=request: request.is_done)
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith(f"visitors were refused, {php.url}: ")
    assert all(word.lower() in line.lower() for word in words), line
    assert not any(each in line for each in ("s3cr3t", "hidden", "abc"))


def test_each_cause_has_its_own_line(php, caplog):
    backend = AuthBackend(Settings(auth_url=php.url))
    for n, name in enumerate(("404", "warning", "https", "404")):
        php.says = FAULTS[name][0]
        request = backend.request(Visitor(f"visitor={n}"))
        wait_for(lambda request=request: request.is_done)
    assert len(caplog.records) == 3


def test_a_site_that_denies_or_allows_is_well_and_nothing_is_logged(php, caplog):
    for says, words in (
        ((401, {}, ""), "lets nobody register who is not logged in"),
        ((403, {}, ""), "lets nobody register"),
        ((200, {}, "[]"), "without ids"),
        ((200, {}, '{"ids": ["news"]}'), "has ids for visitors who are not logged in"),
    ):
        php.says = says
        said, report = doctor_on(php.url)
        assert words in said and not report.failures + report.warnings, said
        AuthSite(Settings(auth_url=php.url)).fetch(Visitor())
    php.says = (200, {}, '["*"]')
    said, report = doctor_on(php.url)
    assert report.warnings == 1 and "lets anybody register any id" in said
    assert not caplog.records


def test_a_site_that_is_down_or_hangs_is_named(php):
    said, report = doctor_on(f"http://127.0.0.1:{free_port()}/a.php")
    assert report.failures == 1 and "refused" in said and "its web server is running" in said
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        said, report = doctor_on(f"http://127.0.0.1:{silent.getsockname()[1]}/", auth_timeout=0.3)
    assert report.failures == 1 and "within 0.3 s" in said and "read_and_close" in said


def test_a_redirect_to_the_same_page_is_not_a_denial(php):
    site = AuthSite(Settings(auth_url=php.url))
    for name, error in (("https", "auth_not_available"), ("slash", "auth_not_available"), ("login", "not_allowed")):
        php.says = FAULTS[name][0]
        assert site.fetch(Visitor()).outcome.error == error


# A name and a password in the URL.


def test_a_site_behind_a_password_gets_it_and_no_message_shows_it(php, caplog):
    php.says = (500, {}, "")
    url = php.url.replace("//", "//shop:p%40ss:w%C3%B6rd@")
    found = AuthSite(Settings(auth_url=url)).fetch(Visitor("a=1"))
    assert isinstance(found.outcome, Refused)
    given = php.asked[-1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(given).decode() == "shop:p@ss:wörd"
    request = AuthBackend(Settings(auth_url=url)).request(Visitor("b=1"))
    wait_for(lambda: request.is_done)
    said, _ = doctor_on(url)
    for text in (caplog.text, said, found.outcome.message, found.advice, without_secrets(url)):
        assert "shop" not in text and "p%40ss" not in text and "p@ss" not in text
    assert php.url in caplog.text and php.url in said


@pytest.mark.parametrize("url", ["ftp://u:hidden@h/", "http://u:hid/den@h/", "http://u:hidden@/", "http://:hidden@h/x"])
def test_a_password_is_not_shown_by_the_sentence_about_a_wrong_url(url):
    with pytest.raises(SettingsError) as error:
        load({}, {"auth_url": url})
    assert "auth_url must be a URL" in str(error.value)
    assert "hid" not in str(error.value) and "den" not in str(error.value)


def test_check_shows_no_password():
    command = ["--auth-url=https://shop:hidden@shop.test/a.php?key=also", "--check"]
    ran = subprocess.run(
        [sys.executable, ROOT / "relay.py", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "https://shop.test/a.php" in ran.stdout
    assert "hidden" not in ran.stdout + ran.stderr and "also" not in ran.stdout


# Private CAs.


@pytest.fixture(scope="module")
def own_ca(tmp_path_factory):
    """Return a CA as older instructions make it, without key usage, and its certificate for localhost."""
    need(shutil.which("openssl"), "openssl")
    folder = tmp_path_factory.mktemp("ca")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca, key, request, cert = (folder / name for name in ("ca.pem", "key.pem", "request.pem", "cert.pem"))
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=Old CA", "-keyout", folder / "ca.key", "-out", ca)
    openssl("req", *new, "-subj", "/CN=localhost", "-keyout", key, "-out", request)
    (folder / "extensions").write_text("subjectAltName=DNS:localhost\n")
    signing = (
        "-CA",
        ca,
        "-CAkey",
        folder / "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        folder / "extensions",
    )
    openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return ca, cert, key


@pytest.fixture(scope="module")
def secure(own_ca):
    with Php() as secure:
        secure.secure(*own_ca[1:])
        yield secure
        secure.shutdown()


def test_a_site_with_its_own_ca_is_trusted_if_the_setting_names_the_ca(secure, own_ca, caplog):
    found = AuthSite(Settings(auth_url=secure.url)).fetch(Visitor())
    assert "secure" in found.outcome.message and "auth_ca" in found.advice and not secure.asked
    assert "auth_ca" in doctor_on(secure.url)[0]
    assert isinstance(AuthSite(Settings(auth_url=secure.url, auth_ca=str(own_ca[0]))).fetch(Visitor()).outcome, Rights)
    other = secure.url.replace("localhost", "127.0.0.1")
    found = AuthSite(Settings(auth_url=other, auth_ca=str(own_ca[0]))).fetch(Visitor())
    assert "a host name that its certificate names" in found.advice


def test_the_systems_variable_for_cas_is_honored(secure, own_ca, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(own_ca[0]))
    assert isinstance(AuthSite(Settings(auth_url=secure.url)).fetch(Visitor()).outcome, Rights)


def test_a_ca_without_key_usage_is_accepted_on_every_python(own_ca, secure):
    def handshake(context):
        with socket.create_connection(("localhost", secure.port)) as sock:
            context.wrap_socket(sock, server_hostname="localhost").close()

    context = client_context(str(own_ca[0]))
    handshake(context)
    insist_on_form(context)
    with pytest.raises(ssl.SSLCertVerificationError):  # as Python does from 3.13 on, by default
        handshake(context)


def test_the_doctor_warns_about_a_ca_that_stricter_programs_refuse(own_ca, secure):
    def examined(ca, context, port):
        dialer = Dialer(address_of(f"https://localhost:{port}/"), context)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            Entrance(Report(), Relay(Settings(), dialer, ""), dialer, None, ca).certificate()
        return " ".join(said.getvalue().split())

    said = examined(str(own_ca[0]), tls_context(str(own_ca[0])), secure.port)
    assert "TLS: the certificate is good for localhost" in said
    assert "warn TLS: browsers, PHP and the relay accept the certificate" in said and "keyCertSign" in said


@pytest.mark.parametrize(("text", "word"), [(None, "PEM"), ("/no/such/ca.pem", "No such file")])
def test_a_ca_that_cannot_be_read_stops_the_start_with_a_sentence(text, word, tmp_path):
    if text is None:
        (tmp_path / "ca.pem").write_text("hello")
        text = str(tmp_path / "ca.pem")
    with pytest.raises(SettingsError, match=word):
        load({}, {"auth_ca": text})


# The headers of the request.


def test_the_site_gets_the_browsers_user_agent_and_address_and_nothing_else(start_relay, php):
    php.says = (200, {}, '["42"]')
    relay = start_relay(auth_url=php.url, trusted_proxies="127.0.0.1")
    headers = {"User-Agent": "Firefox/1", "X-Forwarded-For": "198.51.100.9, 127.0.0.1", "X-Other": "no"}
    client = Client(relay.url, headers={**headers, "Cookie": "bound=1", "Authorization": "Bearer browser's"})
    try:
        assert client.call("register", {"id": "42"})["ok"]
    finally:
        client.drop()
    asked = next(each for each in php.asked if each["Cookie"] == "bound=1")
    assert asked["User-Agent"] == "Firefox/1" and asked["X-Forwarded-For"] == "198.51.100.9"
    names = {name.lower() for name in asked}
    assert names == {"host", "accept", "accept-encoding", "connection", "cookie", "user-agent", "x-forwarded-for"}


def test_an_answer_for_one_browser_is_not_anothers_with_the_same_cookies(php):
    backend = AuthBackend(Settings(auth_url=php.url))
    first = backend.request(Visitor("a=1", "Firefox", "198.51.100.9"))
    assert backend.request(Visitor("a=1", "Firefox", "198.51.100.9")) is first
    assert backend.request(Visitor("a=1", "curl", "198.51.100.9")) is not first
    assert backend.request(Visitor("a=1", "Firefox", "203.0.113.5")) is not first


@pytest.mark.parametrize("agent", ["a\r\nX-Admin: yes", "x" * 5000, "\x00\x7f", "Grüße"])
def test_an_odd_user_agent_adds_no_header_and_does_not_fail_the_request(agent, php):
    php.says = (200, {}, '["42"]')
    found = AuthSite(Settings(auth_url=php.url)).fetch(Visitor("odd=1", agent))
    assert isinstance(found.outcome, Rights)
    assert php.asked[-1]["X-Admin"] is None and len(php.asked[-1]["User-Agent"] or "") <= 512
