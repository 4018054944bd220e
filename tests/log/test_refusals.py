"""Nobody is refused in silence: the log names each cause once a minute, with what to do. And who is not refused."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time

import engineio
import mistakes
import pytest
from clients import WebSocketClient
from conftest import DEADLINE, ROOT, Relay, clean_environ, own_only, wait_for
from pages import Server, Site

from pushrelay.access.callers import Access
from pushrelay.cli.exposure import warnings
from pushrelay.engine.engine import Engine
from pushrelay.engine.errors import origin_message
from pushrelay.engine.limits import ClientLimiter
from pushrelay.log.limiter import MOST_OF_CAUSE, LogLimiter
from pushrelay.log.refusals import RefusalLog
from pushrelay.settings import SettingsError, load
from pushrelay.wsgi.base_path import at_base_path

AT = "/socket.io/?EIO=4&transport="


def settings_of(**flags):
    return load(environ={}, flags=flags)


def allows(origin, origins="same-host", host="relay.example"):
    return Access(settings_of(origins=origins)).origin_allowed(origin, {"HTTP_HOST": host})


# Origins.

EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"


@pytest.mark.parametrize("scheme", ["ws", "wss", "WSS", "http", "https"])
def test_a_client_whose_origin_is_the_relays_own_websocket_address_connects(scheme):
    assert allows(f"{scheme}://relay.example") and allows(f"{scheme}://Relay.Example:21000")
    assert not allows(f"{scheme}://evil.example") and not allows(f"{scheme}://relay.example@evil.example")
    assert allows(f"{scheme}://127.0.0.1:21000", host="localhost:21000")


def test_a_listed_origin_may_have_websockets_scheme_on_either_side():
    for listed in ("https://example.com", "wss://example.com", "https://example.com:443/", "WSS://EXAMPLE.com"):
        assert allows("wss://example.com", listed) and allows("https://example.com:443", listed)
        assert not allows("ws://example.com", listed) and not allows("wss://example.com:444", listed)
    assert allows("wss://a.example.com", "https://*.example.com")
    assert allows("ws://example.com:80", "http://example.com") and not allows(
        "ws://example.com:443", "http://example.com"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "http://tauri.localhost",
        EXTENSION,
        "moz-extension://5f2c9ad4-9c5e-4f0e-8a55-2f6f2c0f6a11",
        "app://obsidian.md",
        "app://-",
        "app://.",
        "file://",
        "vscode-webview://1a2b3c:8",
        "null",
    ],
)
def test_a_page_of_an_app_or_an_extension_connects_if_its_origin_is_listed(origin):
    assert allows(origin, f"same-host, {origin}") and allows(origin.upper() if "://" in origin else origin, origin)
    if origin not in ("null", "file://"):
        assert allows(origin, f"{origin}/")
    assert not allows(origin) and not allows(origin, "https://example.com")
    assert not allows(f"{origin}.evil.example", origin) and not allows("https://localhost", origin)
    assert not allows("capacitor://evil", origin)


def test_a_scheme_whose_hosts_are_made_up_is_listed_as_a_whole():
    assert allows("moz-extension://5f2c9ad4-9c5e-4f0e-8a55-2f6f2c0f6a11", "moz-extension://*")
    assert allows("vscode-webview://1a2b3c", "same-host, vscode-webview://*")
    assert not allows(EXTENSION, "moz-extension://*") and not allows("moz-extension://*", "moz-extension://*")


def test_what_a_page_of_any_website_can_claim_is_not_allowed_by_another_name():
    for listed in ("file://", "capacitor://localhost", "https://example.com", "moz-extension://*"):
        assert not allows("null", listed) and not allows("*", listed)
    for cookies in ({"id_cookie": "PHPSESSID"}, {"auth_url": "http://127.0.0.1/ids.php"}):
        with pytest.raises(SettingsError, match="cannot be together"):
            settings_of(origins="same-host, null", **cookies)
        assert settings_of(origins="same-host, capacitor://localhost, file://", **cookies)
    assert any("null" in line for line in warnings(settings_of(origins="null")))


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("https://example.com/app", "https://example.com"),
        ("example.com", "https://example.com"),
        ("*.example.com", "https://*.example.com"),
        ("example.com:8080", "https://example.com:8080"),
        ("https://m\xfcnchen.example", "https://xn--mnchen-3ya.example"),
        ("https://user@example.com", "or * alone"),
        ("https://example.com:99999", "or * alone"),
        ("https://*", "or * alone"),
        ("capacitor:localhost", "or * alone"),
    ],
)
def test_an_origin_that_is_written_wrong_stops_the_start_with_the_right_one(written, right):
    with pytest.raises(SettingsError) as stopped:
        settings_of(origins=f"same-host, {written}")
    assert right in str(stopped.value) and "origins" in str(stopped.value)


def test_over_the_wire_too_a_websockets_own_address_is_no_foreign_page(relay):
    for scheme in ("ws", "wss", "http"):
        path = f"{AT}websocket HTTP/1.1\r\nOrigin: {scheme}://test:{relay.port}\r\nX-Rest:"
        with contextlib.closing(WebSocketClient(relay.port, path)) as client:
            assert " 101 " in client.status, scheme
            assert client.receive().startswith("0{")
            client.send("40")
            assert client.receive().startswith("40"), scheme


# CORS.


def answer_of(app, method, **environ):
    """Return the status and the headers with which a WSGI app answers a request to its Engine.IO path."""
    answered = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/socket.io/", "HTTP_HOST": "relay.example", **environ}
    environ = {"QUERY_STRING": "EIO=4&transport=polling", "SERVER_PROTOCOL": "HTTP/1.1", **environ}
    list(app(environ, lambda status, headers, *_: answered.append((int(status[:3]), headers))))
    (status, headers), names = answered[0], {}
    for name, value in headers:
        names[name.lower()] = f"{names[name.lower()]}, {value}" if name.lower() in names else value
    return status, names


@pytest.fixture(scope="module")
def engines():
    """The relay's engine and python-engineio's own, with the same options."""
    options = {"cors_allowed_origins": lambda origin, environ: origin == "https://shop.example"}
    ours, stock = Engine(**options), engineio.Server(async_mode="threading", **options)
    yield ours.handle_request, stock.handle_request
    ours.shutdown()


@pytest.mark.parametrize(
    "asked",
    [
        "content-type",
        "authorization",
        "baggage,sentry-trace",
        "Authorization, X-Requested-With , content-type",
        "x-a!#$%&'*+.^_`|~-",
        None,
    ],
)
def test_a_page_that_may_connect_may_send_headers_of_its_own(engines, asked):
    environ = {"HTTP_ORIGIN": "https://shop.example", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    if asked:
        environ["HTTP_ACCESS_CONTROL_REQUEST_HEADERS"] = asked
    (status, ours), (_, stock) = (answer_of(engine, "OPTIONS", **environ) for engine in engines)
    assert status == 204 and ours["access-control-allow-origin"] == "https://shop.example"
    for name, value in stock.items():
        if name.startswith("access-control") and name != "access-control-allow-methods":
            assert ours[name] == value, name
    assert {"GET", "POST"} <= {each.strip() for each in ours["access-control-allow-methods"].split(",")}
    assert "Origin" in ours["vary"] and "Access-Control-Request-Headers" in ours["vary"]
    assert int(ours["access-control-max-age"]) > 0


def test_a_preflight_answer_holds_nothing_but_names_of_headers(engines):
    for asked in ("a\r\nSet-Cookie: x", "a b", "a,,b", "", "x:y", "\xfc"):
        more = {"HTTP_ORIGIN": "https://shop.example", "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": asked}
        assert answer_of(engines[0], "OPTIONS", **more)[1]["access-control-allow-headers"] == "Content-Type"


def test_a_page_of_the_internet_may_reach_a_relay_in_a_private_network_if_it_may_connect(engines):
    asked = {"HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK": "true"}
    name = "access-control-allow-private-network"
    assert answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://shop.example", **asked)[1][name] == "true"
    assert name not in answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://shop.example")[1]
    status, headers = answer_of(engines[0], "OPTIONS", HTTP_ORIGIN="https://evil.example", **asked)
    assert status == 403 and not [each for each in headers if each.startswith("access-control")]


@own_only
def test_a_page_on_another_port_polls_with_headers_of_its_own(relay, context):
    page = context.new_page()
    with Server(("127.0.0.1", 0), Site) as site:
        site.html = b"<!doctype html><title>a shop</title>"
        page.goto(site.url)
        status = page.evaluate(
            """async (url) => {
                const headers = {Authorization: "Bearer x", baggage: "a=b"};
                return (await fetch(url, {headers, credentials: "include"})).status;
            }""",
            relay.url + AT + "polling",
        )
    assert status == 200


def test_an_origin_that_cannot_be_listed_is_in_the_log_with_what_to_do_about_it(engines, caplog):
    for origin, advice in (("*", "leave the header"), ("", "leave the header"), ("null", "web server")):
        assert answer_of(engines[0], "GET", HTTP_ORIGIN=origin)[0] == 403
        assert advice in caplog.records[-1].getMessage() and "setting origins" in caplog.records[-1].getMessage()


def test_a_page_whose_origin_cannot_be_listed_is_not_advised_to_list_it():
    for origin in ("null", "*"):
        assert origin_message(origin).startswith(f"pages of {origin} may not connect: ")
        assert "add this origin" not in origin_message(origin)
    listed = origin_message("http://shop.test")
    assert "add this origin to the relay's setting origins" in listed and "python relay.py doctor" in listed


@own_only
@pytest.mark.parametrize(
    "path",
    [
        "1/?t=1700000000000",
        "1/websocket/abc",
        "?EIO=2&transport=polling&j=0",
        "?EIO=3&transport=polling",
        "?transport=websocket",
    ],
)
def test_a_client_that_is_too_old_is_named_as_such_however_it_asks(relay, path):
    status, _, body = relay.request("GET", f"/socket.io/{path}")
    assert (status, json.loads(body)["code"]) == (400, 5)


def test_an_address_with_too_many_clients_is_in_the_log_with_the_proxy_as_a_possible_cause(caplog):
    engine = Engine(admission=ClientLimiter(10, 1, address_of=lambda environ: environ["REMOTE_ADDR"]))
    statuses = [answer_of(engine.handle_request, "GET", REMOTE_ADDR="192.0.2.1")[0] for _ in range(3)]
    engine.shutdown()
    assert statuses == [200, 429, 429] and len(caplog.records) == 1
    assert all(each in caplog.text for each in ("192.0.2.1", "max_per_address", "trusted_proxies"))


# Caches.


def test_an_answer_for_one_client_alone_is_kept_by_no_cache(relay):
    form = b"destination=cached&data=x"
    opened = relay.request("GET", AT + "polling")
    sid = json.loads(opened[2][1:])["sid"]
    answers = {
        "handshake": opened,
        "post": relay.request("POST", f"{AT}polling&sid={sid}", b"40"),
        "poll": relay.request("GET", f"{AT}polling&sid={sid}"),
        "refused": relay.request("GET", AT + "polling", headers={"Origin": "https://evil.example"}),
        "unknown": relay.request("GET", f"{AT}polling&sid=unknown"),
        "old": relay.request("GET", "/socket.io/?EIO=3&transport=polling"),
        "preflight": relay.request("OPTIONS", AT + "polling"),
        "push": relay.request("POST", "/push", form),
        "the same push by the short way": relay.request("POST", "/push", form),
        "the seed's": relay.request("POST", "/", form),
        "bad push": relay.request("POST", "/push", b"data=x"),
        "batch": relay.request("POST", "/push", b"[]", {"Content-Type": "application/json"}),
        "too large": relay.request("POST", "/push", b"destination=a&data=" + b"x" * 1_100_000),
        "no key": relay.request("POST", "/push", form, {"X-Forwarded-For": "203.0.113.9"}),
        "not here": relay.request("GET", "/nothing"),
        "not so": relay.request("GET", "/push"),
        "demo": relay.request("GET", "/"),
        "no demo": relay.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.9"}),
    }
    for path in ("/history?destination=cached", "/presence?destination=cached", "/health/live", "/health/ready"):
        answers[path] = relay.request("GET", path)
    answers["/connections"] = relay.request("DELETE", "/connections?destination=cached")
    kept = {name: headers["Cache-Control"] for name, (_, headers, _) in answers.items()}
    assert set(kept.values()) == {"no-store"}, kept
    script = relay.request("GET", "/static/relay.js")[1]["Cache-Control"]
    assert "public" in script and "no-store" not in script


@own_only
def test_the_answer_that_opens_a_websocket_and_those_before_the_app_are_kept_by_no_cache(relay):
    with contextlib.closing(WebSocketClient(relay.port)) as client:
        assert b"Cache-Control: no-store\r\n" in client.headers
    for request in (
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 40000 + b"\r\n\r\n",
    ):
        connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
        connection.connect()
        with contextlib.closing(connection):
            connection.sock.sendall(request)
            assert b"Cache-Control: no-store\r\n" in connection.sock.recv(4096), request[:20]


# The log of refusals.


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    relay = mistakes.start(tmp_path_factory.mktemp("mistaken") / "log", 3600)
    yield mistakes.Mistakes(relay)
    assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


@pytest.mark.parametrize("mistake", list(mistakes.LINES))
def test_a_refusal_is_in_the_log_once_with_what_to_do(mistaken, mistake):
    what, advice = mistakes.LINES[mistake]

    def found():
        return [
            line for _, line in mistakes.lines_of(mistaken.relay) if re.search(what, line) and re.search(advice, line)
        ]

    make = getattr(mistaken, mistake)
    make()
    wait_for(found, f"a line with {what} and {advice}")
    before = len(found())
    if mistake not in mistakes.SLOW:
        make()
        make()
    assert len(found()) == before


@pytest.mark.alone  # it waits for minutes that are two seconds long
def test_no_cause_is_in_the_log_more_than_once_a_minute_and_what_was_left_out_is_counted(tmp_path):
    relay = mistakes.start(tmp_path / "log", 2)
    names = [name for name in mistakes.LINES if name not in mistakes.SLOW]
    try:
        found = mistakes.run(relay, 5, 2, 0, names)
    finally:
        relay.stop()
    assert min(map(len, found.values())) > 1, {name: len(lines) for name, lines in found.items()}
    assert "more of the same since" in found["wrong_origin"][-1]


@pytest.mark.parametrize("server", ["werkzeug"], indirect=True, scope="session")
def test_with_werkzeug_the_same_refusals_are_in_the_log(relay_with):
    relay = relay_with(secret=mistakes.SECRET, id_cookie="PHPSESSID", push_keys="web:2bd806c97f0e00af1a1fc332")
    made = mistakes.Mistakes(relay)
    statuses = [
        relay.request("GET", f"{AT}polling", headers={"Origin": origin})[0] for origin in (mistakes.SHOP, "null")
    ]
    assert statuses == [400, 400]
    names = ["wrong_secret", "missing_cookie", "wrong_key", "no_key", "old_client", "wrong_path", "push_by_get"]
    for name in (*names, "unknown_namespace", "unknown_session", "no_upgrade", "unknown_transport") * 2:
        getattr(made, name)()
    lines = [line for _, line in mistakes.lines_of(relay)]
    for name in ("wrong_origin", "no_origin", *names, "unknown_namespace"):
        what, advice = (re.escape(each) if "|" not in each else each for each in mistakes.LINES[name])
        what = "unsupported version" if name == "old_client" else what
        assert len([line for line in lines if re.search(what, line) and re.search(advice, line)]) == 1, (name, lines)
    for advice in ("several relays", "docs/apache.md", "polling or"):
        assert len([line for line in lines if advice in line]) == 1, (advice, lines)


def test_below_a_base_path_what_is_asked_for_outside_is_in_the_log(caplog):
    app = at_base_path(
        lambda environ, start_response: [], "/relay", RefusalLog(LogLimiter(), lambda environ: None).log_request
    )
    for _ in range(2):
        assert answer_of(app, "GET", REMOTE_ADDR="192.0.2.1")[0] == 404
    (line,) = [record.getMessage() for record in caplog.records]
    assert "GET /socket.io/ from 192.0.2.1" in line and "base_path" in line


def test_a_client_that_comes_back_to_a_session_that_ended_here_is_no_trouble(engines, caplog):
    def ask(method, sid="", body=b""):
        query = f"EIO=4&transport=polling{sid and '&sid=' + sid}"
        more = {"QUERY_STRING": query, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return answer_of(engines[0], method, **more)[0]

    assert ask("GET") == 200
    (sid,) = engines[0].__self__.sockets
    assert ask("POST", sid, b"1") == 200
    assert ask("GET", sid) == 400 and not caplog.records
    assert ask("GET", f"x{sid[1:]}") == 400 and "several relays" in caplog.text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pushrelay.log.limiter.time.monotonic", lambda: now[0])
    return now


def test_what_was_left_out_is_counted_in_the_next_line(clock, caplog):
    log_limiter = LogLimiter()
    for _ in range(1000):
        log_limiter.warn("wrong key", "192.0.2.1", "a wrong key from 192.0.2.1")
    log_limiter.warn("wrong key", "192.0.2.2", "a wrong key from 192.0.2.2")
    clock[0] += 61
    log_limiter.warn("wrong key", "192.0.2.1", "a wrong key from 192.0.2.1")
    assert [record.getMessage() for record in caplog.records] == [
        "a wrong key from 192.0.2.1",
        "a wrong key from 192.0.2.2",
        "a wrong key from 192.0.2.1 (and 999 more of the same since the last such line)",
    ]


def test_strangers_fill_neither_the_log_nor_the_memory_and_hide_no_other_cause(clock, caplog):
    log_limiter = LogLimiter()
    for minute in range(3):
        for number in range(10_000):
            log_limiter.warn("origin", f"https://{minute}-{number}.example", "a page was refused")
        for cause in ("wrong key", "full"):
            log_limiter.warn(cause, "192.0.2.1", f"{cause} of minute {minute}")
        clock[0] += 61
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 3 * (MOST_OF_CAUSE + 3)
    assert {f"{cause} of minute {minute}" for cause in ("wrong key", "full") for minute in range(3)} <= set(lines)
    counted = sum(int(count) for line in lines for count in re.findall(r"(\d+) more", line))
    assert counted + sum("page" in line for line in lines) > 2 * 9_900
    assert sum(map(len, log_limiter._silences.values())) < 100


def test_what_strangers_send_makes_no_line_of_its_own(clock, caplog):
    LogLimiter().warn(
        "origin", "x", "a page of x\r\n2026-01-01 relay: all is well\x1b[2K\u2028 was refused" + "x" * 5000
    )
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable() and len(line) <= 1000


# The log itself.


def test_a_log_that_nobody_reads_costs_lines_and_no_pushes_and_ends_with_the_relay(tmp_path):
    reader, writer = os.pipe()
    command = [sys.executable, str(ROOT / "relay.py"), "--port=0", "--broker=memory:", "--access-log=yes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, env=clean_environ(), cwd=tmp_path)
    os.close(writer)
    try:
        relay = object.__new__(Relay)
        relay.url = process.stdout.readline().decode().split()[-1]
        for number in range(60):  # 1.8 MB of log, and the pipe and the queue hold less
            assert relay.request("GET", f"/{'x' * 30000}{number}")[0] == 404
        for number in range(20):
            relay.push("42", number)
        assert relay.request("POST", "/push", b"destination=a&data=b", {"X-Forwarded-For": "203.0.113.9"})[0] == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert b"/xxxx" in os.read(reader, 4096)
    finally:
        process.kill()
        process.stdout.close()
        os.close(reader)


def run_log(program, stderr):
    """Run a program that has called start_log(), with this standard error."""
    begin = "import logging, sys, threading, time\nfrom pushrelay.log.handler import start_log\nstart_log()"
    program = f"{begin}\n{program}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", program], stderr=stderr, env=environ, text=True)


def test_lines_that_were_lost_are_counted_once_the_log_is_read_again():
    program = 'for n in range(300): logging.warning("%d %s", n, "x" * 10000)\nsys.stdout.write("")\ntime.sleep(1)'
    process = run_log(program + '\nlogging.warning("afterwards")', subprocess.PIPE)
    time.sleep(0.8)
    _, told = process.communicate(timeout=DEADLINE)
    numbers = [int(number) for number in re.findall(r"^\S+ \S+ root: (\d+) x", told, re.MULTILINE)]
    lost = sum(map(int, re.findall(r"relay\.log: (\d+) lines were lost", told)))
    assert numbers == sorted(numbers) and len(numbers) > 50 and len(numbers) + lost == 300
    assert told.index("lines were lost") < told.index("afterwards") and process.returncode == 0


def test_a_stopped_terminal_keeps_no_program_from_its_end():
    ours, theirs = os.openpty()
    try:
        termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        process = run_log('logging.warning("unseen"); logging.error("x" * 100000); sys.exit(3)', theirs)
        assert process.wait(DEADLINE) == 3
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize(
    ("program", "lines", "code"),
    [
        ('logging.warning("the last")\n1 / 0', ["the last", "ZeroDivisionError"], 1),
        ("threading.Thread(target=lambda: 1 / 0).start()", ["a thread ended", "ZeroDivisionError"], 0),
        ('for n in range(50): logging.warning("number %d", n)\nsys.exit(2)', ["number 0", "number 49"], 2),
        ('logging.warning("%d", "no number")\nlogging.warning("then")', ["%d", "then"], 0),
    ],
)
def test_a_program_that_ends_gets_its_last_lines_out(program, lines, code):
    process = run_log(program, subprocess.PIPE)
    _, told = process.communicate(timeout=DEADLINE)
    assert process.returncode == code and all(line in told for line in lines), told
