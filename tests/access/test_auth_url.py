"""The setting auth_url: PHP decides which ids a browser may register, and other clients do not wait for it."""

import contextlib
import json
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest
import socketio
from conftest import ROOT, fds, free_port, need, wait_for

from pushrelay.access import auth_url
from pushrelay.access.tokens import sign
from pushrelay.access.visitor import Visitor
from pushrelay.client import workers
from pushrelay.errors import NotYet, Refused
from pushrelay.register.registrations import Registrations
from pushrelay.rooms.manager import RoomManager
from pushrelay.settings import Settings
from pushrelay.store import open_broker

LATER = 4_000_000_000


class Site(socketserver.ThreadingTCPServer):
    """The site behind auth_url. The cookie `do` chooses its answer. It keeps requests and counts concurrent ones."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 100

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Answerer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/auth.php?from=relay"
        self.asked = []
        self.now = self.slow = self.most = 0
        self.brief_ends = 0.0
        self.lock = threading.Lock()
        self.go_on = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def asked_with(self, cookies):
        return sum(f"Cookie: {cookies}\r\n" in each for each in self.asked)


class Answerer(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head += line
        site = self.server
        with site.lock:
            site.asked.append(head.decode("latin-1"))
            site.now += 1
        act = re.search(r"do=([\w-]*)", site.asked[-1])
        with contextlib.suppress(OSError):
            getattr(self, "do_" + (act[1] if act else "list").replace("-", "_"))()
        with site.lock:
            site.now -= 1

    def say(self, body, status="200 OK", headers=""):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def do_list(self):
        self.say(["42", 43, "room-*"])

    def do_object(self):
        self.say({"ids": ["42"], "push": ["chat"], "exp": LATER})

    def do_brief(self):
        self.say({"ids": ["brief"], "exp": self.server.brief_ends})

    def do_past(self):
        self.say({"ids": ["42"], "exp": 1})

    def do_wait(self):
        self.server.go_on.wait(60)
        self.say(["*"])

    def do_slow(self):
        site = self.server
        with site.lock:
            site.slow += 1
            site.most = max(site.most, site.slow)
        time.sleep(0.2)
        with site.lock:
            site.slow -= 1
        self.say(["*"])

    def do_nobody(self):
        self.say([])

    def do_401(self):
        self.say(b"", "401 Unauthorized")

    def do_403(self):
        self.say(b"", "403 Forbidden")

    def do_500(self):
        self.say(["42"], "500 Internal Server Error")

    def do_204(self):
        self.say(b"", "204 No Content")

    def do_redirect(self):
        self.say(b"", "302 Found", "Location: http://site.example/login.php?PHPSESSID=abc\r\n")

    def do_warning(self):
        self.say(b"<b>Warning</b>: Undefined variable in auth.php\n[]")

    def do_empty(self):
        self.say(b"")

    def do_number(self):
        self.say(42)

    def do_other_object(self):
        self.say({"id": "42"})

    def do_keyed(self):
        self.say({"ids": {"1": "42"}})

    def do_exp_text(self):
        self.say({"ids": ["42"], "exp": "tomorrow"})

    def do_deep(self):
        self.say(b"[" * 60_000)

    def do_huge(self):
        self.say([f"id-{n}" for n in range(10_000)])

    def do_no_http(self):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    def do_cut(self):
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n["42"')

    def do_short(self):
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n["42"]')

    def do_short_chunks(self):
        self.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n["42"]\r\n')

    def do_future(self):
        self.say({"ids": ["42"], "nbf": LATER})

    def do_nbf_text(self):
        self.say({"ids": ["42"], "nbf": "tomorrow"})

    def do_hang_up(self):
        pass

    def do_hang(self):
        self.connection.recv(1)

    def do_drip_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.drip(b"X-Drip: 1\r\n")

    def do_drip_body(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n[")
        self.drip(b" ")

    def drip(self, drop):
        while True:
            self.wfile.write(drop)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def site():
    with Site() as site:
        yield site
        site.shutdown()


@pytest.fixture(autouse=True)
def begin_anew(site):
    site.asked.clear()
    site.go_on.clear()
    site.most = 0
    yield
    site.go_on.set()


@pytest.fixture(scope="module")
def relay(relay_with, site):
    """Return a relay that waits for PHP longer than any test takes."""
    return relay_with(auth_url=site.url, auth_timeout=60, auth_cache=600)


@pytest.fixture(scope="module")
def hasty(relay_with, site):
    """Return a relay whose auth_timeout is one second."""
    return relay_with(auth_url=site.url, auth_timeout=1, auth_cache=60)


@pytest.fixture
def visit(connect, relay):
    """Return a function that connects a client with cookies: visit("do=list; user=1")."""

    def visit(cookies, url=relay.url, **options):
        return connect(url, headers={"Cookie": cookies, "Authorization": "Bearer browser's"}, **options)

    return visit


def register(client, *ids):
    return client.call("register", {"id": list(ids)})


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_php_decides_which_ids_a_browser_may_register(relay, visit, site, transport):
    client = visit(f"do=list; by={transport}", transport=transport)
    assert register(client, "42", "43", "room-7")["ok"]
    refused = register(client, "42", "44")
    assert refused["error"] == "not_allowed" and "'44'" in refused["message"]
    assert client.call("push", {"destination": "42", "data": 1})["error"] == "not_allowed"
    assert relay.push("42", "hello")["connections"] >= 1
    assert client.data(1) == ["hello"]
    assert site.asked_with(f"do=list; by={transport}") == 1, "the answer counts for a while"


def test_php_gets_the_cookies_and_nothing_else_of_the_browser(visit, site):
    assert register(visit("do=list; s=5%3D"), "42")["ok"]
    head = next(each for each in site.asked if "s=5%3D" in each).splitlines()
    assert head[0] == "GET /auth.php?from=relay HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in head[1:] if line}
    assert names == {"host", "accept-encoding", "accept", "connection", "cookie"}
    assert "Cookie: do=list; s=5%3D" in head and "Accept: application/json" in head


def test_a_browser_without_cookies_is_asked_about_as_well(connect, relay):
    assert register(connect(relay.url), "42")["ok"]


def test_php_decides_which_browsers_may_push(relay, visit):
    sender = visit("do=object")
    assert register(sender, "42")["ok"]
    assert sender.call("push", {"destination": "chat", "data": 1})["ok"]
    assert sender.call("push", {"destination": "42", "data": 1})["error"] == "not_allowed"


def test_ids_that_php_allows_until_a_time_are_left_then(clocked_relay, visit, site):
    relay = clocked_relay(auth_url=site.url, auth_timeout=60, auth_cache=600)
    client = visit("do=brief", relay.url)
    site.brief_ends = relay.now() + 60
    assert register(client, "brief")["ok"]
    assert relay.push("brief", "early")["connections"] == 1
    relay.advance(61)
    assert client.wait(2)[1][1]["ids"] == ["brief"]
    assert relay.push("brief", "late")["connections"] == 0
    assert register(client, "brief")["error"] == "token_expired"


REFUSED = {
    "401": ("not_allowed", "401"),
    "403": ("not_allowed", "403"),
    "nobody": ("not_allowed", "'42'"),
    "past": ("token_expired", "exp"),
    "redirect": ("not_allowed", "http://site.example/login.php (302)"),
    "500": ("auth_not_available", "status 500"),
    "204": ("auth_not_available", "status 204"),
    "warning": ("auth_not_available", "not JSON"),
    "empty": ("auth_not_available", "not JSON"),
    "number": ("auth_not_available", "not a list"),
    "other-object": ("auth_not_available", "not a list"),
    "keyed": ("auth_not_available", "array_values"),
    "exp-text": ("auth_not_available", "exp is a time"),
    "deep": ("auth_not_available", "not JSON"),
    "huge": ("auth_not_available", "65536 bytes"),
    "no-http": ("auth_not_available", "not HTTP"),
    "short": ("auth_not_available", "cut short"),
    "short-chunks": ("auth_not_available", "cut short"),
    "future": ("auth_not_available", "nbf"),
    "nbf-text": ("auth_not_available", "nbf is a time"),
    "cut": ("auth_not_available", "cut short"),
    "hang-up": ("auth_not_available", "without an answer"),
    "hang": ("auth_not_available", "within 1 s"),
    "drip-headers": ("auth_not_available", "within 1 s"),
    "drip-body": ("auth_not_available", "within 1 s"),
}


def test_each_failure_names_the_step_and_shows_no_cookie(relay, hasty, visit):
    clients = {}
    for name, (_, part) in REFUSED.items():
        asked = hasty if part == "within 1 s" else relay
        clients[name] = visit(f"do={name}; PHPSESSID=s3cr3t", asked.url)
    answers = {}
    for name, client in clients.items():
        client.socket.emit("register", {"id": "42"}, callback=lambda answer, name=name: answers.update({name: answer}))
    wait_for(lambda: len(answers) == len(REFUSED), "all answers")
    for name, (error, part) in REFUSED.items():
        answer = answers[name]
        assert answer["error"] == error and part in answer["message"], (name, answer)
        assert "s3cr3t" not in str(answer) and "abc" not in str(answer)
    assert "s3cr3t" not in relay.log.read_text() + hasty.log.read_text()


def test_while_the_site_cannot_be_reached_registers_are_refused(start_relay, visit):
    port = free_port()
    relay = start_relay(auth_url=f"http://127.0.0.1:{port}/")
    client = visit("do=list", relay.url)
    answer = register(client, "42")
    assert answer["error"] == "auth_not_available" and "refused" in answer["message"]
    with Site(port) as late:
        wait_for(lambda: register(client, "42")["ok"], "the site to be found")
        late.shutdown()


def test_a_certificate_of_an_unknown_ca_is_refused(start_relay, visit, tmp_path):
    need(shutil.which("openssl"), "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Site() as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        relay = start_relay(auth_url=f"https://localhost:{secure.server_address[1]}/")
        answer = register(visit("do=list", relay.url), "42")
        assert answer["error"] == "auth_not_available" and "secure" in answer["message"]
        assert secure.asked == []
        secure.shutdown()


def test_browsers_of_one_session_share_a_request_and_others_do_not_wait_for_it(relay, visit, site):
    listener = visit("do=list; user=listener")
    assert register(listener, "42")["ok"]
    answers, order = [], []
    same = [visit("do=wait; session=same") for _ in range(10)]
    for client in same:
        client.socket.emit("register", {"id": "one"}, callback=answers.append)
    wait_for(lambda: site.asked_with("do=wait; session=same"), "the question")
    # Later packets of the same client wait as well, in order.
    behind = same[0].socket
    for event, message in (("register", {"id": "two"}), ("unregister", {"id": "two"}), ("nonsense", None)):
        behind.emit(event, message, callback=lambda answer, event=event: order.append((event, answer.get("error"))))
    # Other clients are served in the meantime.
    for n in range(20):
        assert relay.push("42", n)["connections"] >= 1
        assert register(listener, "42")["ok"]
    assert listener.data(20) == [str(n) for n in range(20)]
    assert answers == [] and order == [], "PHP has not answered, and all others were served"
    site.go_on.set()
    wait_for(lambda: len(answers) == 10 and len(order) == 3, "all answers")
    assert all(answer["ok"] for answer in answers)
    assert order == [("register", None), ("unregister", None), ("nonsense", "unknown_event")]
    assert site.asked_with("do=wait; session=same") == 1
    assert relay.push("one", "x")["connections"] == 10 and relay.push("two", "x")["connections"] == 0


def test_at_most_auth_concurrency_requests_are_open_at_a_time(start_relay, connect, site):
    relay = start_relay(auth_url=site.url, auth_concurrency=2)
    clients = [connect(relay.url, headers={"Cookie": f"do=slow; n={n}"}) for n in range(8)]
    answers = []
    for client in clients:
        client.socket.emit("register", {"id": "42"}, callback=answers.append)
    wait_for(lambda: len(answers) == 8, "all answers")
    assert all(answer["ok"] for answer in answers) and site.most == 2


def test_without_a_cache_each_register_asks_and_is_answered(start_relay, connect, site):
    relay = start_relay(auth_url=site.url, auth_cache=0)
    client = connect(relay.url, headers={"Cookie": "do=list; cache=none"})
    for _ in range(3):
        assert register(client, "42")["ok"]
    assert site.asked_with("do=list; cache=none") == 3


def test_with_a_secret_and_a_token_php_is_not_asked(start_relay, connect, site):
    relay = start_relay(auth_url=site.url, secret="0123456789" * 4)
    client = connect(relay.url, headers={"Cookie": "do=nobody; secret=too"})
    assert client.call("register", {"id": "42", "token": sign({"ids": ["42"]}, "0123456789" * 4)})["ok"]
    assert site.asked_with("do=nobody; secret=too") == 0
    assert register(client, "42")["error"] == "not_allowed"


def test_a_client_that_leaves_while_php_is_asked_leaves_nothing(relay, visit, site):
    for number in range(3):
        client = visit(f"do=wait; gone={number}")
        for _ in range(3):
            client.socket.emit("register", {"id": "gone"})
        wait_for(lambda number=number: site.asked_with(f"do=wait; gone={number}"), "the question")
        client.drop()
    site.go_on.set()
    wait_for(lambda: site.now == 0, "the answers")
    assert register(visit("do=wait; gone=0"), "gone")["ok"], "they were of use for others"
    wait_for(lambda: relay.push("gone", "x")["connections"] == 1, "the others to be gone")


def test_php_is_not_asked_for_clients_that_left_and_a_visitor_does_not_wait_for_them(start_relay, connect, site):
    relay = start_relay(server="own", auth_url=site.url, auth_concurrency=1, auth_timeout=60)
    first = connect(relay.url, headers={"Cookie": "do=wait; first=1"})
    first.socket.emit("register", {"id": "42"})
    wait_for(lambda: site.asked_with("do=wait; first=1") == 1)
    before = fds(relay)
    gone = [connect(relay.url, headers={"Cookie": f"do=wait; gone={n}"}) for n in range(10)]
    for each in gone:
        each.socket.emit("register", {"id": "42"})
        each.drop()
    wait_for(lambda: fds(relay) <= before, "their end")
    none = b'relay_queue_length{queue="auth"} 0.0\n'
    wait_for(lambda: none in relay.request("GET", "/metrics")[2], "the end of their questions")
    visitor = connect(relay.url, headers={"Cookie": "do=list; visitor=1"})
    site.go_on.set()
    assert register(visitor, "42")["ok"]
    assert not any("gone=" in each for each in site.asked)


def test_a_client_that_sends_too_much_while_it_waits_for_php_is_closed_with_a_reason(start_relay, connect, site):
    relay = start_relay(server="own", auth_url=site.url, auth_timeout=20)
    client = connect(relay.url, headers={"Cookie": "do=wait; flood=1"})
    for _ in range(150):
        with contextlib.suppress(Exception):  # python-socketio's, for a client that is closed
            client.socket.emit("register", {"id": "42"})
    wait_for(lambda: not client.socket.connected, "the end")
    assert [message["error"] for _, message in client.got] == ["too_many_events"]


def test_phps_own_server_is_asked_with_the_example_of_the_documentation(start_relay, connect, tmp_path):
    need(shutil.which("php"), "PHP (apt-get install php-cli)")
    text = (ROOT / "docs/socket-api.md").read_text()
    start = text.index("    <?php // relay-auth.php")
    (tmp_path / "relay-auth.php").write_text(
        "\n".join(line[4:] for line in text[start : text.index("\n\n", start)].splitlines())
    )
    (tmp_path / "login.php").write_text("<?php session_start(); $_SESSION['user'] = 42;")
    port = free_port()
    php = subprocess.Popen(
        ["php", "-d", f"session.save_path={tmp_path}", "-S", f"127.0.0.1:{port}", "-t", tmp_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "PHP")
        relay = start_relay(auth_url=f"http://127.0.0.1:{port}/relay-auth.php")
        stranger = connect(relay.url)
        assert register(stranger, "42")["error"] == "not_allowed"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/login.php") as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        user = connect(relay.url, headers={"Cookie": cookie})
        assert register(user, "42")["ok"]
        assert register(user, "43")["error"] == "not_allowed"
    finally:
        php.kill()
        php.wait()


# The backend alone.


@pytest.fixture
def backend(site):
    return auth_url.AuthBackend(Settings(auth_url=site.url, auth_concurrency=1))


def test_forgotten_results_are_requested_again_and_so_are_open_requests(backend, site):
    request = backend.request(Visitor("do=list; forget=1"))
    wait_for(lambda: request.is_done)
    assert backend.request(Visitor("do=list; forget=1")) is request
    backend.forget_results()
    assert backend.request(Visitor("do=list; forget=1")) is not request
    under_way = backend.request(Visitor("do=wait; forget=2"))
    wait_for(lambda: site.asked_with("do=wait; forget=2") == 1)
    backend.forget_results()
    assert backend.request(Visitor("do=wait; forget=2")) is under_way
    site.go_on.set()
    wait_for(lambda: under_way.is_done)
    assert site.asked_with("do=wait; forget=2") == 2


def test_an_answer_does_not_outlive_the_time_that_php_gives_it(backend, site):
    site.brief_ends = time.time() + 0.2  # and not the ten seconds of auth_cache
    request = backend.request(Visitor("do=brief; outlive=1"))
    wait_for(lambda: request.is_done)
    wait_for(lambda: backend.request(Visitor("do=brief; outlive=1")) is not request, "a new question", 5)
    wait_for(lambda: site.asked_with("do=brief; outlive=1") == 2)


def test_an_answer_that_nobody_fetched_yet_is_forgotten_as_well(site):
    settings, manager = Settings(auth_url=site.url), RoomManager()
    socketio.Server(client_manager=manager, async_handlers=False)
    registrations = Registrations(open_broker("memory:", lambda *_: 0), manager, settings, lambda *_: None)
    environ = {"HTTP_COOKIE": "do=list; late=1"}
    for _ in range(2):
        with pytest.raises(NotYet) as waits:
            registrations.register({"id": "42"}, "sid", environ)
        known = threading.Event()
        waits.value.call_when_ready(known.set)
        assert known.wait(5)
        registrations.close(["42"])  # before the socket went on
    assert site.asked_with("do=list; late=1") == 2


def test_a_request_that_is_not_sent_in_time_fails_and_so_does_one_that_hangs(backend, site, monkeypatch):
    stuck, waiting = backend.request(Visitor("do=wait; stuck=1")), backend.request(Visitor("do=list; stuck=2"))
    wait_for(lambda: stuck.started)
    told = []
    waiting.call_when_done(lambda: told.append(1))
    waiting.created -= 31
    stuck.started -= 4
    monkeypatch.setattr(auth_url, "FAILURE_SECONDS", 100)
    backend.fail_overdue()
    assert waiting.is_done and stuck.is_done and told == [1]
    for request, word in ((waiting, "auth_concurrency"), (stuck, "auth_timeout")):
        with pytest.raises(Refused, match=word):
            request.result()
    assert backend.request(Visitor("do=list; stuck=2")) is waiting, "a failure counts for a while"
    waiting.valid_until = 0
    site.go_on.set()
    assert backend.request(Visitor("do=list; stuck=2")) is not waiting


def test_clients_that_come_and_go_leave_at_most_max_connections_requests(site, monkeypatch):
    backend = auth_url.AuthBackend(Settings(auth_url=site.url, max_connections=3))
    monkeypatch.setattr(backend._workers, "_start", lambda: None)
    requests = [backend.request(Visitor(f"gone={n}")) for n in range(5)]
    assert len(backend._queue) == len(backend._requests) == 3
    with pytest.raises(Refused, match="auth_concurrency"):
        requests[3].result()
    assert backend.request(Visitor("gone=0")) is requests[0] and not requests[0].is_done


@pytest.mark.timed  # it measures time
def test_failing_thousands_of_overdue_requests_takes_almost_no_time(backend, monkeypatch):
    monkeypatch.setattr(backend._workers, "_start", lambda: None)
    for n in range(10_000):
        backend.request(Visitor(f"crowd={n}")).created -= 31
    began = time.thread_time()
    backend.fail_overdue()
    assert time.thread_time() - began < 0.4 and not backend._open and not backend._queue


def test_addresses_take_turns(backend, monkeypatch):
    monkeypatch.setattr(backend._workers, "_start", lambda: None)
    for n in range(5):
        backend.request(Visitor(f"crowd={n}"), "192.0.2.1")
    visitor = backend.request(Visitor("visitor=1"), "192.0.2.2")
    backend._queue.pop()
    assert backend._queue.pop() is visitor
    assert [backend._queue.pop().visitor.cookies for _ in range(4)] == [f"crowd={n}" for n in range(1, 5)]
    assert not len(backend._queue)


def test_a_request_is_dropped_with_the_last_client_that_waits_for_it(backend, monkeypatch):
    monkeypatch.setattr(backend._workers, "_start", lambda: None)
    request, other = backend.request(Visitor("shared=1")), backend.request(Visitor("other=1"))
    assert backend.request(Visitor("shared=1")) is request
    backend.release(request)
    assert len(backend._queue) == 2, "one client still waits"
    backend.release(request)
    assert backend._queue.pop() is other and not len(backend._queue)
    assert backend._open == {other} and list(backend._requests.values()) == [other]
    assert backend.request(Visitor("shared=1")) is not request


def test_cookies_that_begin_alike_are_different_browsers(backend, monkeypatch):
    monkeypatch.setattr(backend._workers, "_start", lambda: None)
    assert backend.request(Visitor("c=" + "x" * 4000 + "1")) is not backend.request(Visitor("c=" + "x" * 4000 + "2"))


def test_requests_that_found_no_thread_are_sent_by_the_next_one(backend, monkeypatch):
    start, failures = threading.Thread.start, []

    def failing(thread):
        if thread.name == "auth" and len(failures) < 2:
            failures.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    requests = [backend.request(Visitor(f"do=list; thread={n}")) for n in range(3)]
    assert len(failures) == 2
    for each in requests:
        wait_for(lambda each=each: each.is_done, "the answer")


def test_answers_are_kept_in_bounds_and_threads_leave(backend, monkeypatch):
    monkeypatch.setattr(auth_url, "MOST_RESULTS", 5)
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
    for n in range(20):
        request = backend.request(Visitor(f"do=list; n={n}"))
        wait_for(lambda request=request: request.is_done)
    assert len(backend._requests) <= 5
    wait_for(lambda: backend._workers._threads == 0, "the thread to leave")
    assert backend.request(Visitor("do=list; n=new")) and wait_for(lambda: not backend._open)
