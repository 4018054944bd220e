"""Access over HTTP: local callers, keys, proxies, addresses and origins, tested with raw sockets."""

import contextlib
import http.client
import json
import os
import re
import socket

import pytest
from conftest import DEADLINE, Relay, wait_for
from werkzeug.test import Client, EnvironBuilder

import relay as relay_app
from pushrelay.access.callers import Access
from pushrelay.errors import Refused
from pushrelay.settings import load

WEB, SHOP = "the-key-of-the-website", "the-key-of-the-web-shop"
KEYS = f"web:{WEB}, shop:{SHOP}"
FORM = "application/x-www-form-urlencoded"
PLAIN = b"destination=a&data=x"


def settings_of(**settings):
    return load({"RELAY_CONFIG": os.devnull}, settings)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, server):
    """Return a relay with keys that trusts a proxy on this machine."""
    settings = {"server": server, "push_keys": KEYS, "trusted_proxies": "127.0.0.1"}
    relay = Relay(tmp_path_factory.mktemp("keyed") / "log", **settings)
    yield relay
    assert relay.stop() == 0
    log = relay.log.read_text()
    assert "Traceback" not in log
    assert not [key for key in (WEB, SHOP, "a-wrong-key") if key in log], "no key may get into the log"


class Raw:
    """A connection that sends exactly what it is given, on the same socket as long as that is open."""

    def __init__(self, relay):
        self._port = relay.port
        self._sock = None

    def ask(self, *headers, method="POST", path="/push", body=PLAIN, host="localhost", version="1.1", kind=FORM):
        """Send one request. Return the status, the headers and the decoded answer."""
        lines = [f"{method} {path} HTTP/{version}", *([] if host is None else [f"Host: {host}"]), *headers]
        length = [f"Content-Length: {len(body)}", f"Content-Type: {kind}"] if body else []
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), DEADLINE)
        self._sock.sendall("\r\n".join([*lines, *length, "", ""]).encode("latin-1") + body)
        answer = http.client.HTTPResponse(self._sock, method=method)
        answer.begin()
        text = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, answer.headers, json.loads(text) if text[:1] in (b"{", b"[") else text

    def close(self):
        if self._sock is not None:
            self._sock.close()
        self._sock = None


@pytest.fixture
def raw(request):
    """Return a function that makes such connections: raw(relay).ask("Via: 1.1 x")."""
    with contextlib.ExitStack() as stack:
        yield lambda relay: stack.enter_context(contextlib.closing(Raw(relay)))


# Local callers.

FORWARDING = """
    Forwarded X-Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Server X-Forwarded-Port
    X-Real-IP Via X-Via Client-IP X-Client-IP X-Cluster-Client-IP True-Client-IP CF-Connecting-IP CF-Connecting-IPv6
    Fastly-Client-IP Fly-Client-IP X-Original-For X-Original-Host X-Original-URL X-ProxyUser-Ip X-Azure-ClientIP
    X-Envoy-External-Address X-Appengine-User-IP X-Appengine-Remote-Addr X-Remote-IP X-Remote-Addr Proxy-Client-IP
    WL-Proxy-Client-IP X-Originating-IP Ali-CDN-Real-IP Cdn-Src-Ip CDN-Loop X-Source-IP X-NF-Client-Connection-IP
"""


def test_a_request_with_a_proxys_header_is_not_local_however_it_is_spelt(relay, raw):
    connection = raw(relay)
    for name in FORWARDING.split():
        for spelt in (name, name.lower(), name.upper()):
            for value in ("127.0.0.1", ""):
                status, _, answer = connection.ask(f"{spelt}: {value}")
                assert (status, answer["error"]) == (401, "missing_key"), spelt
    assert connection.ask("User-Agent: curl", "Max-Forwards: 1", "X-Trivia: x", "Accept: */*")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "shop.localhost:1", "127.0.0.1:8080", "[::1]:8080", "192.0.2.1", socket.gethostname()],
)
def test_a_local_caller_may_use_any_name_of_this_machine(relay, raw, host):
    assert raw(relay).ask(host=host)[0] == 200


def test_a_local_caller_may_leave_the_host_out(relay, raw):
    assert raw(relay).ask(host=None, version="1.0")[0] == 200


def test_a_caller_on_the_unix_socket_is_local_by_any_host_name_but_not_through_a_proxy():
    access = Access(settings_of())
    environ = {"REMOTE_ADDR": "", "HTTP_HOST": "any.example"}
    assert access.may_push(environ).name == "local" and access.client_address(environ) is None
    with pytest.raises(Refused, match="through a proxy"):
        access.may_push({**environ, "HTTP_VIA": "1.1 proxy"})


@pytest.mark.parametrize("names", [{}, {"HTTP_HOST": "localhost"}, {"HTTP_HOST": "127.0.0.1", "REMOTE_HOST": "x"}])
def test_nobody_is_local_under_a_server_that_does_not_name_the_peer(names):
    access = Access(settings_of())
    with pytest.raises(Refused) as refused:
        access.may_push(names)
    assert (refused.value.status, refused.value.error) == (401, "missing_key")
    with pytest.raises(Refused, match="demo = yes"):
        access.may_see_demo(names)


FOREIGN_NAMES = """
    evil.example evil.example:8080 localhost.evil.example 127.0.0.1.evil.example xlocalhost localhostx
    [::1].evil.example 127.0.0.1:80:80 evil.example:localhost 127.0.0.1@evil.example [evil.example] ::1 127.1 2130706433
"""
GUARDED = [("POST", "/push"), ("GET", "/history?destination=a"), ("DELETE", "/connections?destination=a")]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_page_whose_host_name_resolves_to_this_machine_gets_nothing(relay, raw, method, path):
    connection = raw(relay)
    for name in FOREIGN_NAMES.split():
        body = PLAIN if method == "POST" else b""
        status, _, answer = connection.ask(method=method, path=path, body=body, host=name)
        assert (status, answer["error"]) == (401, "missing_key"), name
        assert "http://localhost" in answer["message"] and "own name" in answer["message"]


# Keys. A request with Via came through a proxy, so it is not local.

FAR = "Via: 1.1 proxy"


@pytest.mark.parametrize("key", [WEB, SHOP])
@pytest.mark.parametrize(
    "header", ["Authorization: Bearer {}", "authorization: bearer  {} ", "AUTHORIZATION: BEARER {}", "X-Relay-Key: {}"]
)
def test_each_key_lets_a_program_elsewhere_push(keyed, raw, header, key):
    assert raw(keyed).ask(FAR, header.format(key))[0] == 200


def test_the_same_key_in_both_headers_is_one_key(keyed, raw):
    assert raw(keyed).ask(FAR, f"Authorization: Bearer {WEB}", f"X-Relay-Key: {WEB}")[0] == 200
    assert raw(keyed).ask(FAR, "Authorization: Basic dTpw", f"X-Relay-Key: {WEB}")[0] == 200


def test_a_page_may_push_with_a_key_from_wherever_it_is(keyed, raw):
    assert raw(keyed).ask(FAR, f"X-Relay-Key: {WEB}", "Origin: https://elsewhere.example")[0] == 200


WRONG = [
    "a-wrong-key",
    WEB[:-1],
    WEB + "x",
    WEB.upper(),
    "web:" + WEB,
    f'"{WEB}"',
    "\xe9",
]


def test_a_wrong_key_is_refused(keyed, raw):
    connection = raw(keyed)
    for key in WRONG:
        for header in (f"Authorization: Bearer {key}", f"X-Relay-Key: {key}"):
            status, headers, answer = connection.ask(FAR, header)
            assert (status, answer["error"]) == (403, "wrong_key"), key
            assert key not in answer["message"] and "push_keys" in answer["message"]


TWICE = [
    (f"Authorization: Bearer {WEB}", f"X-Relay-Key: {SHOP}"),
    (f"Authorization: Bearer {WEB}", "X-Relay-Key: a-wrong-key"),
    (f"Authorization: Bearer {WEB}", f"Authorization: Bearer {WEB}"),
    (f"X-Relay-Key: {WEB}", f"X-Relay-Key: {WEB}"),
    (f"X-Relay-Key: {WEB}", "x-relay-key: a-wrong-key"),
]


@pytest.mark.parametrize("headers", TWICE)
def test_two_keys_are_refused(keyed, raw, headers):
    status, _, answer = raw(keyed).ask(FAR, *headers)
    assert (status, answer["error"]) == (400, "several_keys")


@pytest.mark.parametrize(
    "header", ["X: y", "Authorization: Bearer", "Authorization: Basic d2ViOnRoZS1rZXk=", "X-Relay-Key:"]
)
def test_without_a_key_the_refusal_names_what_is_needed(keyed, raw, header):
    status, headers, answer = raw(keyed).ask(FAR, header)
    assert (status, answer["error"]) == (401, "missing_key")
    assert headers["WWW-Authenticate"] == 'Bearer realm="relay"'
    assert all(word in answer["message"] for word in ("push_keys", "Authorization: Bearer", "proxy", "own machine"))


def test_without_push_keys_the_refusal_names_the_setting(relay, raw):
    status, headers, answer = raw(relay).ask(FAR)
    assert status == 401 and "set push_keys" in answer["message"] and headers["WWW-Authenticate"]
    assert raw(relay).ask(FAR, f"X-Relay-Key: {WEB}")[0] == 403


def test_a_local_caller_is_accepted_whatever_key_it_sends(keyed, raw):
    for headers in (["X-Relay-Key: a-wrong-key"], *TWICE, [f"X-Relay-Key: {WEB}"]):
        assert raw(keyed).ask(*headers)[0] == 200


def test_a_wrong_key_in_a_local_browser_opens_nothing_to_a_foreign_page(keyed, raw):
    status, _, answer = raw(keyed).ask("X-Relay-Key: a-wrong-key", "Origin: https://evil.example")
    assert (status, answer["error"]) == (403, "origin_not_allowed")


def test_keys_are_replaced_one_after_the_other(start_relay, raw):
    relay = start_relay(push_keys=f"old:{WEB}")
    both = {"old": f"X-Relay-Key: {WEB}", "new": f"X-Relay-Key: {SHOP}"}
    expected = {f"old:{WEB}": (200, 403), f"old:{WEB}, new:{SHOP}": (200, 200), f"new:{SHOP}": (403, 200)}
    for keys, statuses in expected.items():
        if keys != relay.settings["push_keys"]:
            relay.stop()
            relay.settings["push_keys"] = keys
            relay.start()
        assert tuple(raw(relay).ask(FAR, header)[0] for header in both.values()) == statuses


def test_the_access_log_has_the_keys_name_and_the_log_has_wrong_keys_once(start_relay, raw):
    relay = start_relay(server="own", push_keys=KEYS, access_log="yes")
    connection = raw(relay)
    connection.ask(FAR, f"X-Relay-Key: {SHOP}")
    connection.ask()
    for _ in range(20):
        connection.ask(FAR, "X-Relay-Key: a-wrong-key")
    wait_for(lambda: relay.log.read_text().count("POST /push") == 22, "the log")
    log = relay.log.read_text()
    assert '127.0.0.1 shop "POST /push HTTP/1.1" 200' in log and '127.0.0.1 - "POST /push HTTP/1.1" 200' in log
    assert log.count("a wrong key from 127.0.0.1") == 1
    assert SHOP not in log and "a-wrong-key" not in log


def test_the_name_of_the_key_is_in_the_access_log_below_a_path_too(start_relay):
    relay = start_relay(server="own", push_keys=KEYS, access_log="yes", base_path="/relay")
    for _ in range(2):
        assert relay.request("POST", "/push", b"destination=a&data=b", {"X-Relay-Key": SHOP})[0] == 200
    relay.request("GET", "/presence?destination=a", headers={"X-Relay-Key": SHOP})
    wait_for(lambda: "/relay/presence?destination=a HTTP/1.1" in relay.log.read_text(), "the log")
    assert relay.log.read_text().count('127.0.0.1 shop "POST /relay/push HTTP/1.1" 200') == 2
    assert '127.0.0.1 shop "GET /relay/presence?destination=a HTTP/1.1" 200' in relay.log.read_text()


def test_all_keys_are_compared_by_their_digests_whatever_was_given(monkeypatch):
    """The time depends on the number of keys alone."""
    compared = []
    compare = Access.__init__.__globals__["hmac"].compare_digest
    compare_digest = "pushrelay.access.callers.hmac.compare_digest"
    monkeypatch.setattr(compare_digest, lambda a, b: compared.append((a, b)) or compare(a, b))
    access = Access(settings_of(push_keys=KEYS))
    for key in (WEB, SHOP, "x", WEB[:-1]):
        compared.clear()
        with contextlib.suppress(Refused):
            access.may_push({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_RELAY_KEY": key})
        assert len(compared) == 2 and {len(each) for pair in compared for each in pair} == {32}


# Every route.

OPEN = {
    "/": 403,
    "/qr.svg": 403,
    "/status": 403,
    "/status.json": 403,
    "/static/<path:filename>": 404,
    "/health/live": 200,
    "/health/ready": None,
    "/docs": 302,
    "/docs/": 403,
    "/docs/<name>": 403,
    "/docs/pictures/<name>": 403,
}


def test_every_route_but_the_public_ones_needs_what_a_push_needs():
    client = Client(relay_app.app)
    asked = []
    for rule in relay_app.app.url_map.iter_rules():
        for method in rule.methods - {"OPTIONS"}:
            path = re.sub("<[^>]*>", "x", rule.rule)
            answer = client.open(EnvironBuilder(path, method=method, environ_base={"REMOTE_ADDR": "192.0.2.7"}))
            if rule.rule in OPEN and method in ("GET", "HEAD"):
                assert OPEN[rule.rule] in (None, answer.status_code), (method, rule.rule)
                continue
            asked.append((method, rule.rule))
            assert answer.status_code == 401, (method, rule.rule)
            assert method == "HEAD" or answer.json["error"] == "missing_key", (method, rule.rule)
    assert {("POST", "/push"), ("POST", "/"), ("GET", "/history"), ("GET", "/presence")} < set(asked)
    assert ("DELETE", "/connections") in asked


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/push", 200),
        ("POST", "/", 200),
        ("GET", "/push", 405),
        ("GET", "/", 200),
        ("GET", "/nothing", 404),
        ("GET", "/health/live", 200),
        ("GET", "/static/relay.js", 200),
        ("GET", "/socket.io/socket.io.js", 200),
        ("GET", "/presence", 400),
    ],
)
def test_no_answer_is_left_for_a_browser_to_guess_at(relay, raw, method, path, status):
    got, headers, _ = raw(relay).ask(method=method, path=path, body=PLAIN if method == "POST" else b"")
    assert (got, headers.get_all("X-Content-Type-Options")) == (status, ["nosniff"])


# Trusted proxies.


def test_behind_a_trusted_proxy_only_this_machine_is_local(keyed, raw):
    connection = raw(keyed)
    apache = [
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Server: localhost",
        "Via: 1.1 apache",
        "X-Forwarded-Proto: http",
    ]
    expected = {
        ("X-Forwarded-For: 127.0.0.1",): 200,
        ("X-Forwarded-For: 127.0.0.1, ::1", *apache): 200,
        ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"): 200,
        ("X-Forwarded-For: 9.9.9.9",): 401,
        ("X-Forwarded-For: 127.0.0.1, 9.9.9.9",): 401,
        ("X-Forwarded-For: 9.9.9.9, 127.0.0.1",): 401,
        ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 127.0.0.1"): 401,
        ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 9.9.9.9"): 401,
        ("X-Forwarded-For: unknown",): 401,
        ("X-Forwarded-For:",): 401,
        ("X-Forwarded-For: localhost",): 401,
        ("X_Forwarded_For: 127.0.0.1", "X-Forwarded-For: 9.9.9.9"): 401,
        ("X_Forwarded_For: 127.0.0.1", *apache): 401,
        ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 9.9.9.9"): 401,
        ("X-Forwarded-For: 127.0.0.1", "True-Client-IP: 127.0.0.1"): 401,
        ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=9.9.9.9"): 401,
        ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: evil.example"): 401,
        ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost, evil.example"): 401,
        tuple(apache): 401,
    }
    for headers, status in expected.items():
        assert connection.ask(*headers)[0] == status, headers


def address_of(peer, *chain, trusted="127.0.0.1, ::1, 10.0.0.0/8, 2001:db8::/32"):
    environ = {"REMOTE_ADDR": peer, **({"HTTP_X_FORWARDED_FOR": ",".join(chain)} if chain else {})}
    return Access(settings_of(trusted_proxies=trusted)).client_address(environ)


@pytest.mark.parametrize(
    ("peer", "chain", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["9.9.9.9"], "192.0.2.1"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("2001:DB9:0::1", [], "2001:db9::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("127.0.0.1", [], None),
        ("127.8.8.8", ["9.9.9.9"], None),
        ("", [], None),
        ("", ["9.9.9.9"], None),
        ("127.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("::ffff:127.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.1.2.3", ["1.1.1.1", "9.9.9.9"], "9.9.9.9"),
        ("10.1.2.3", ["9.9.9.9", "10.0.0.7"], "9.9.9.9"),
        ("10.1.2.3", ["junk", "9.9.9.9", " 10.0.0.7"], "9.9.9.9"),
        ("10.1.2.3", ["10.0.0.9", "10.0.0.8"], "10.0.0.9"),
        ("10.1.2.3", [], None),
        ("10.1.2.3", ["127.0.0.1"], None),
        ("10.1.2.3", ["9.9.9.9:567"], "9.9.9.9"),
        ("10.1.2.3", ["[2001:db9::8]:8"], "2001:db9::/64"),
        ("10.1.2.3", ["[2001:db9::8]"], "2001:db9::/64"),
        ("10.1.2.3", ["2001:db9::8", "[2001:db8::1]:99"], "2001:db9::/64"),
        ("10.1.2.3", ["::ffff:9.9.9.9", "::ffff:10.0.0.1"], "9.9.9.9"),
        ("10.1.2.3", ["9.9.9.9", "unknown"], None),
        ("10.1.2.3", ["9.9.9.9", ""], None),
        ("10.1.2.3", ["9.9.9.9", "10.0.0.1:"], None),
        ("10.1.2.3", ["9.9.9.9", "10.0.0.01"], None),
        ("10.1.2.3", ["9.9.9.9", "10.0.0.1 10.0.0.2"], None),
        ("10.1.2.3", ["9.9.9.9", '"10.0.0.1"'], None),
        ("10.1.2.3", ["9.9.9.9", "[10.0.0.1"], None),
        ("10.1.2.3", ["9.9.9.9", *["10.0.0.1"] * 31], "9.9.9.9"),
        ("10.1.2.3", ["9.9.9.9", "8.8.8.8", *["10.0.0.1"] * 32], None),
    ],
)
def test_a_client_is_counted_by_the_last_address_that_no_trusted_proxy_has(peer, chain, expected):
    assert address_of(peer, *chain) == expected


def test_without_trusted_proxies_forwarding_headers_are_ignored():
    assert address_of("10.1.2.3", "9.9.9.9", trusted="") == "10.1.2.3"
    assert address_of("127.0.0.1", "9.9.9.9", trusted="") is None


# Origins at the handshake; the setting alone: test_origins.py.


LISTED = "https://example.com, https://*.shop.example, http://plain.example:8000, http://[::1]:81"


@pytest.fixture(scope="module")
def listed(tmp_path_factory, server):
    relay = Relay(tmp_path_factory.mktemp("listed") / "log", server=server, origins=LISTED)
    yield relay
    assert relay.stop() == 0


UPGRADE = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]
FOREIGN = (
    "null",
    "https://evil-shop.example",
    "https://shop.example",
    "https://example.com.evil.example",
    "http://localhost",
)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_pages_of_other_origins_are_refused_at_the_handshake(listed, raw, transport):
    path = f"/socket.io/?EIO=4&transport={transport}"
    upgrade = UPGRADE if transport == "websocket" else []
    for origin in FOREIGN:
        status, headers, _ = raw(listed).ask(*upgrade, f"Origin: {origin}", method="GET", path=path, body=b"")
        if listed.settings["server"] != "own":  # python-engineio's own engine
            assert status == 400 and "Access-Control-Allow-Origin" not in headers, origin
        else:  # over WebSocket the refusal comes in frames: test_rejected_websocket.py
            assert status == (101 if transport == "websocket" else 403), origin
    with contextlib.closing(socket.create_connection(("127.0.0.1", listed.port), DEADLINE)) as sock:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Origin: https://a.shop.example", *upgrade, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 " if upgrade else b"HTTP/1.1 200 ")


def test_polling_answers_say_which_origin_may_read_them(start_relay, raw):
    relay = start_relay(server="own", origins=LISTED)
    path = "/socket.io/?EIO=4&transport=polling"
    good = "Origin: https://a.shop.example"
    credentials = "Access-Control-Allow-Credentials"

    def ask(*headers, method="GET", path=path, body=b""):
        return raw(relay).ask(*headers, method=method, path=path, body=body)

    status, headers, opened = ask(good)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://a.shop.example")
    assert (headers[credentials], headers.get_all("Vary")) == ("true", ["Origin"])
    own = path + "&sid=" + json.loads(opened[1:])["sid"]
    assert ask(good, method="POST", path=own, body=b"40")[1]["Access-Control-Allow-Origin"]
    assert ask(good, path=path + "&sid=none")[1]["Access-Control-Allow-Origin"], "it may read why it is refused"
    _, headers, _ = ask()
    assert "Access-Control-Allow-Origin" not in headers and headers["Vary"] == "Origin"
    for method, at in (("GET", path), ("GET", own), ("POST", own), ("OPTIONS", own), ("OPTIONS", path)):
        status, headers, _ = ask("Origin: https://evil.example", method=method, path=at)
        assert status == 403 and headers["Vary"] == "Origin"
        readable = "Access-Control-Allow-Origin" in headers
        assert readable == ((method, at) == ("GET", path)), "only the refusal of a handshake, which has the reason"
    preflight = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-evil"]
    status, headers, _ = ask(good, *preflight, method="OPTIONS", path=own)
    assert (status, headers["Access-Control-Allow-Methods"]) == (204, "GET, POST")
    assert headers["Access-Control-Allow-Headers"] == "content-type, x-evil"
    assert int(headers["Access-Control-Max-Age"]) > 0


def test_with_all_origins_open_each_is_named_and_none_may_push(start_relay, raw):
    relay = start_relay(server="own", origins="*")
    connection, path = raw(relay), "/socket.io/?EIO=4&transport=polling"
    for origin in ("null", "https://anything.example"):
        status, headers, _ = connection.ask(f"Origin: {origin}", method="GET", path=path, body=b"")
        assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, origin, "Origin")
        assert connection.ask(f"Origin: {origin}")[0] == 403


# Rates; the ways of a push have theirs in test_lane.py.


def test_a_key_has_its_rate_and_neither_other_keys_nor_this_machine_share_it(start_relay, raw):
    relay = start_relay(push_keys=KEYS, push_rate=2)
    connection, key = raw(relay), f"X-Relay-Key: {WEB}"
    batch = json.dumps([{"destination": "a", "data": n} for n in range(60)]).encode()
    status, _, answers = connection.ask(FAR, key, body=batch, kind="application/json")
    assert (status, len(answers)) == (200, 60), "a batch larger than the burst goes through a full bucket"
    for path in ("/push", "/"):
        status, headers, answer = connection.ask(FAR, key, path=path)
        assert (status, answer["error"]) == (429, "too_fast")
        assert 25 <= int(headers["Retry-After"]) <= 30
        assert "web" in answer["message"] and "push_rate" in answer["message"]
    assert connection.ask(FAR, f"X-Relay-Key: {SHOP}")[0] == 200
    assert [connection.ask()[0] for _ in range(10)] == [200] * 10
    assert connection.ask(method="GET", path="/history?destination=a", body=b"")[2]["position"].endswith(":71")
