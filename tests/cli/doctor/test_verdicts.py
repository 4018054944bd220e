"""The doctor derives the fault from the status and from the program that answered, and advises only missing lines."""

import contextlib
import itertools
import os
import re
import socket
import time

import pytest
from conftest import Relay, free_port
from examination import Inside, settings_of
from misfront import Misfront, answer, page

from pushrelay.cli.doctor import hops
from pushrelay.client.dialer import Dialer

SECRET = "k7k7k7k7-5tgb6yhn7ujm8ik9-0oljnbhzgvfc"


@pytest.fixture(autouse=True)
def brief_polls(monkeypatch):
    """Shorten the time for which a poll is held, because no test here has a proxy that holds responses back."""
    monkeypatch.setattr(hops, "POLL_HELD_SECONDS", 0.01)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return a function that starts a relay until the end of this file's tests."""
    started = []

    def start(**settings):
        log = tmp_path_factory.mktemp("relay") / "log"
        started.append(Relay(log, **{"server": "own", "max_connections": 1000, "broker": "memory:", **settings}))
        return started[-1]

    yield start
    for relay in started:
        assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


@pytest.fixture(scope="module")
def relay(start):
    return start()


@pytest.fixture(scope="module")
def other(start):
    """Another relay, which the proxy must not lead to."""
    return start()


@pytest.fixture(scope="module")
def front(relay):
    with contextlib.closing(Misfront(relay.port)) as front:
        yield front


def through(front, relay, *arguments, path="/relay/", **settings):
    url = f"http://127.0.0.1:{front.port}{path}"
    return Inside(url, "--quick", *arguments, *settings_of(relay, broker="memory:", **settings))


# Faults. Each is called with a request, and returns a response or changes the request.


def for_upgrade(said):
    return lambda request: said if request.upgrades else None


def for_post(said):
    return lambda request: said if request.method == "POST" and request.is_socket else None


def for_socket(said):
    return lambda request: said if request.is_socket else None


def for_all(said):
    return lambda request: said


def setting(name, value=None):
    return lambda request: request.set(name, value)


def script(change):
    def fault(request):
        if request.target.endswith("relay.js"):
            request.edit = lambda came: (
                came.partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-L")
                + (b"\r\n\r\n" + change(came.partition(b"\r\n\r\n")[2]))
            )

    return fault


def without_query(request):
    request.target = request.target.partition("?")[0] + "?transport=polling"


def without_upgrade(request):
    request.set("Upgrade")
    request.set("Connection", "close")


def only_script_missing(request):
    return page("404 Not Found", "A shop") if request.target.endswith("relay.js") else None


WAF = page("403 Forbidden", "Access denied")
BASIC = answer("401 Unauthorized", headers=['WWW-Authenticate: Basic realm="Staging"'])
SCRIPT_PAGE = answer("200 OK", "<!doctype html><title>My shop</title>")

# name: (fault, failed check, words of the finding or of the advice, whether the advice has lines for ProxyPass)
FAULTS = {
    "upgrade-forbidden": (for_upgrade(WAF), "WebSocket", ["403", "not the relay's", "long polling still works"], False),
    "upgrade-not-acceptable": (
        for_upgrade(page("406 Not Acceptable", "Not Acceptable!")),
        "WebSocket",
        ["406", "firewall", "long polling"],
        False,
    ),
    "upgrade-cut": (for_upgrade(b""), "WebSocket", ["closed without an answer", "firewall"], False),
    "post-forbidden": (for_post(WAF), "long polling", ["POST", "403", "GET of Socket.IO passed"], False),
    "post-not-allowed": (for_post(page("405 Not Allowed", "405")), "long polling", ["POST", "405", "forbids"], False),
    "post-limited": (for_post(page("429 Too Many Requests", "Slow")), "long polling", ["429", "limit_req"], False),
    "password": (for_all(BASIC), "relay.js", ["a password is asked for", "“Staging”", "--user NAME"], False),
    "other-login": (
        for_all(answer("401 Unauthorized", headers=["WWW-Authenticate: Negotiate"])),
        "relay.js",
        ["a password is asked for", "Negotiate"],
        False,
    ),
    "login-page": (
        for_all(answer("302 Found", headers=["Location: /login.php"])),
        "relay.js",
        ["302", "/login.php", "login page", "RewriteRule ^/relay/ - [END]"],
        False,
    ),
    "down-page": (
        for_socket(page("503 Service Unavailable", "521: Web server is down")),
        "handshake",
        ["says that what is behind it is down", "the relay itself answered", "521"],
        False,
    ),
    "bad-gateway": (for_socket(page("502 Bad Gateway", "502")), "handshake", ["502", "error log", "SELinux"], False),
    "cdn-down": (
        for_socket(answer("522 ", headers=["CF-RAY: 8a"], server="")),
        "handshake",
        ["522", "Cloudflare", "is down"],
        False,
    ),
    "script-altered": (
        script(lambda body: b"/* pagespeed */" + body),
        "relay.js",
        ["a changed one", "/* pagespeed */", "minifier", "cache"],
        False,
    ),
    "script-minified": (
        script(lambda body: body.partition(b"\n")[2]),
        "relay.js",
        ["a changed one", "minifier"],
        False,
    ),
    "script-extended": (
        script(lambda body: body + b"\n/* analytics */"),
        "relay.js",
        ["a changed one", "/* analytics */", "cache"],
        False,
    ),
    "script-edited": (script(lambda body: body.replace(b"polling", b"pulling")), "relay.js", ["a changed one"], False),
    "script-cut": (script(lambda body: body[:5000]), "relay.js", ["ends after 5000 bytes", "a full disk"], False),
    "script-a-page": (
        lambda request: None if request.is_socket else SCRIPT_PAGE,
        "relay.js",
        ["200", "“My shop”", "it begins with '<!doctype"],
        True,
    ),
    "origin-set": (
        setting("Origin", "http://backend.internal"),
        "origin",
        ["Origin arrives changed", "http://backend.internal", "RequestHeader"],
        False,
    ),
    "origin-null": (setting("Origin", "null"), "origin", ["Origin arrives changed", "null"], False),
    "host-changed": (
        setting("Host", "backend:8080"),
        "origin",
        ["passes on backend:8080 as the host name", "ProxyPreserveHost On"],
        False,
    ),
    "no-such-path": (for_all(page("404 Not Found", "A shop")), "relay.js", ["404", "not passed on"], True),
    "socket-not-passed": (for_socket(page("404 Not Found", "A shop")), "handshake", ["404", "GET of relay.js"], True),
    "upgrade-removed": (
        lambda request: without_upgrade(request) if request.upgrades else None,
        "WebSocket",
        ["in place of 101", "Upgrade header does not reach the relay"],
        True,
    ),
    "apache-too-old": (
        for_upgrade(answer("400 Bad Request", server="Apache/2.4.38 (Debian)")),
        "WebSocket",
        ["Apache/2.4.38", "mod_proxy_wstunnel", "docs/apache.md"],
        False,
    ),
    "query-dropped": (
        lambda request: without_query(request) if request.is_socket else None,
        "handshake",
        ["Unsupported protocol version", "query string"],
        False,
    ),
    "php-fails": (for_socket(page("500 Internal Server Error", "500")), "handshake", ["500", "error log"], False),
    "https-port": (
        for_all(page("400 Bad Request", "The plain HTTP request was sent to HTTPS port")),
        "relay.js",
        ["is for https", "doctor https://"],
        False,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_in_front_is_named_by_its_status_and_by_who_answered(name, front, relay):
    front.fault, what, words, passes_on = FAULTS[name]
    examination = through(front, relay)
    assert examination.code == 1 and len(examination.failures) == 1, examination.said
    assert examination.failures[0].startswith(what), examination.said
    assert all(word in examination.text for word in words), examination.said
    assert ("ProxyPass " in examination.text) is passes_on, examination.said


def test_a_front_without_a_fault_is_well(front, relay):
    front.fault = lambda request: None
    examination = through(front, relay)
    examination.is_well()
    assert "anybody can register any id here" in examination.text


def test_lines_that_are_there_are_not_advised_again(front, relay):
    front.fault = only_script_missing
    examination = through(front, relay)
    assert "ProxyPass" in examination.text and "socket.io/" not in "".join(
        line for _, lines in examination.advice for line in lines
    )


def test_with_a_user_it_continues_behind_a_password(front, relay):
    def ask(request):
        given = dict(request.headers).get("Authorization")
        return None if given == "Basic c2hvcDpvcGVuOnNlc2FtZQ==" else BASIC

    front.fault = ask
    through(front, relay, "--user=shop:open:sesame").is_well()
    assert "a password is asked for" in through(front, relay, "--user=shop:wrong").text


def test_a_site_whose_pages_are_https_is_warned_of(front, relay):
    for target in ("https://shop.test/", "https://www.shop.test:8443/de/"):
        where = answer("301 Moved Permanently", headers=[f"Location: {target}"])
        front.fault = lambda request, where=where: where if request.target == "/" else None
        examination = through(front, relay)
        examination.is_well()
        assert "so its pages are https" in examination.text
        assert f"python relay.py doctor {target.rpartition('/')[0].removesuffix('/de')}/relay/" in examination.said
    front.fault = lambda request: answer("302 Found", headers=["Location: /de/"]) if request.target == "/" else None
    assert "pages are https" not in through(front, relay).text


@pytest.mark.parametrize("path", ["/", "/shop/", "/relay/socket.io/"])
def test_a_wrong_path_leads_to_the_right_one(path, front, relay):
    front.fault = lambda request: None
    examination = through(front, relay, path=path)
    ((_, (line,)),) = examination.failed_once("relay.js", f"it is at http://127.0.0.1:{front.port}/relay/")
    assert line == f"python relay.py doctor http://127.0.0.1:{front.port}/relay/"


# Another relay than the one that is examined.


def test_another_relay_at_the_public_address_is_not_taken_for_this_one(front, relay, other):
    front.fault = lambda request: setattr(request, "to", other.port)
    through(front, relay).failed_once("another relay answers", f"not the one at http://127.0.0.1:{relay.port}")


def test_another_relay_is_found_also_if_its_report_does_not_arrive(front, relay, other):
    def fault(request):
        request.set("Relay-Doctor")
        request.to = other.port

    front.fault = fault
    examination = through(front, relay)
    assert "0 clients" in examination.failures[0] and "another relay" in examination.text


@pytest.mark.parametrize("every", [2, 4])
def test_several_relays_behind_one_address_are_found(every, front, relay, other):
    turns = itertools.count(1)
    front.fault = lambda request: setattr(request, "to", other.port if next(turns) % every == 0 else relay.port)
    examination = through(front, relay)
    examination.failed_once("several relays answer")
    assert "as one process" in examination.text


def test_several_relays_are_found_also_if_their_report_does_not_arrive(front, relay, other):
    turns = itertools.count(1)

    def fault(request):
        request.set("Relay-Doctor")
        request.to = other.port if next(turns) % 2 else relay.port

    front.fault = fault
    examination = through(front, relay)
    assert "Session ID unknown" in examination.failures[0] and "Another relay opened" in examination.text


def test_a_stranger_learns_neither_the_word_nor_what_arrives(relay, other):
    def told(of, asked, **headers):
        status, answered, _ = of.request("GET", "/health/ready", None, {"Relay-Doctor": asked, **headers})
        assert status == 200
        return answered["Relay-Doctor"]

    word = re.search("[0-9a-f]{32}", told(relay, "?"))[0]
    assert told(relay, "?", **{"X-Forwarded-For": "192.0.2.7"}) == "{}"
    assert told(relay, "?", Host="evil.example") == "{}"
    assert "true" in told(relay, word) and told(other, word) == '{"same": false}'
    assert relay.request("GET", "/health/ready")[1]["Relay-Doctor"] is None


# Other settings than the relay's.


@pytest.fixture(scope="module")
def below(start):
    return start(base_path="/relay")


def test_a_relay_below_a_path_is_not_taken_for_another_program(below):
    examination = Inside(*settings_of(below, base_path="/"))
    ((_, (line,)),) = examination.failed_once("the relay", "all it has is below /relay")
    assert line == "--base-path /relay"
    Inside(*settings_of(below)).is_well()


@pytest.mark.parametrize("base_path", ["/relay", "/other"])
def test_a_base_path_that_the_relay_has_not_is_named(base_path, relay, below):
    at, words = (relay, "not below /relay") if base_path == "/relay" else (below, "below /relay")
    examination = Inside(*settings_of(at, base_path=base_path))
    examination.failed_once("the relay", words)
    assert "Stop that one" not in examination.text


@pytest.mark.parametrize(
    ("its", "doctors", "words"),
    [
        ({"secret": SECRET}, {"secret": None}, "These have no secret"),
        ({"secret": SECRET}, {"secret": "x9" + SECRET}, "Their secret is another one"),
        ({"id_cookie": "PHPSESSID"}, {"id_cookie": None}, "The relay has id_cookie or auth_url"),
    ],
)
def test_other_settings_than_the_relays_are_named_and_not_taken_for_its_fault(its, doctors, words, start):
    relay = start(**its)
    flags = [
        flag
        for flag in settings_of(relay, **{name: value for name, value in doctors.items() if value is not None})
        if not any(value is None and flag.startswith(f"--{name.replace('_', '-')}=") for name, value in doctors.items())
    ]
    examination = Inside(*flags)
    assert len(examination.failures) == 1 and "The doctor has other settings than the relay" in examination.text
    assert words in examination.text and "start it again" not in examination.text
    assert f"started with other values than the doctor for: {next(iter(its))}" in examination.text
    assert SECRET not in examination.said


def test_a_file_that_was_changed_after_the_start_is_named(start, tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\nhistory_size = 5\n")
    relay = start(config=file)
    assert "was changed after" not in Inside(*settings_of(relay)).text
    later = time.time() + 60
    os.utime(file, (later, later))
    assert f"{file} was changed after the relay was started" in Inside(*settings_of(relay)).text


# Missing answers.


def test_a_server_that_accepts_and_does_not_answer_has_no_free_worker(relay, monkeypatch):
    begin = Dialer.begin

    def impatient(dialer, *arguments, **named):
        return begin(dialer, *arguments[:4], timeout=0.5 if dialer.address.path == "/relay/" else 10)

    monkeypatch.setattr(Dialer, "begin", impatient)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        url = f"http://127.0.0.1:{busy.getsockname()[1]}/relay/"
        examination = Inside(url, "--quick", *settings_of(relay))
    examination.failed_once("connected, but there was no answer within")
    assert "AH00484" in examination.text and "ProxyPass" not in examination.text


# Headers and addresses that arrive.


def test_missing_cookies_are_a_failure_if_they_are_needed(front, start):
    relay = start(id_cookie="PHPSESSID")

    def fault(request):
        request.to = relay.port
        request.set("Cookie")

    front.fault = fault
    through(front, relay).failed_once("cookies", "do not arrive")
    front.fault = lambda request: setattr(request, "to", relay.port)
    through(front, relay).is_well()


def test_a_removed_origin_header_causes_a_warning(front, relay):
    front.fault = setting("Origin")
    examination = through(front, relay)
    examination.is_well()
    assert "Origin arrives as nothing, so any website may connect" in examination.text


@pytest.mark.parametrize(
    ("trusted", "forwards", "words"),
    [
        (None, True, "all clients have the proxy's address"),
        ("127.0.0.1", True, "X-Forwarded-For is believed"),
        ("127.0.0.1", False, "the proxy at 127.0.0.1 sends no X-Forwarded-For"),
        ("10.1.2.3", True, "the proxy is 127.0.0.1, which trusted_proxies does not name"),
    ],
)
def test_how_clients_are_counted_behind_this_very_proxy_is_named(trusted, forwards, words, front, start, relay):
    at = start(trusted_proxies=trusted) if trusted else relay

    def fault(request):
        request.to, request.forwards = at.port, forwards

    front.fault = fault
    examination = through(front, at)
    examination.is_well()
    assert words in examination.text
    if trusted == "10.1.2.3":
        assert "trusted_proxies = 10.1.2.3, 127.0.0.1, ::1" in examination.text


def test_strangers_cannot_register_guarded_ids(front, start):
    relay = start(secret=SECRET)
    front.fault = lambda request: setattr(request, "to", relay.port)
    examination = through(front, relay)
    examination.is_well()
    assert "a stranger's is refused (missing_token)" in examination.text
    assert "anybody can register" not in examination.text


# This machine.


def test_auth_url_is_asked_also_if_the_relay_is_down(front):
    front.fault = for_all(page("404 Not Found", "Another shop"))
    url = f"http://127.0.0.1:{front.port}/relay-auth.php"
    examination = Inside(f"--port={free_port()}", "--broker=memory:", f"--auth-url={url}")
    assert [each.partition(":")[0] for each in examination.failures] == ["auth_url", "the relay"]
    assert "404" in examination.failures[0] and "Several sites" in examination.text
