"""Fixtures of all tests: relays that really run, clients that really connect, and a browser."""

import contextlib
import functools
import inspect
import itertools
import json
import os
import pathlib
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.parse
import urllib.request

import engineio
import pytest
import socketio
import starter

# Tests that import the app must not see the settings of whoever runs them, nor make a relay.db in the working folder.
for name in [each for each in os.environ if each.startswith("RELAY_")]:
    del os.environ[name]
os.environ["RELAY_BROKER"] = "memory:"

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A shell starts background programs with SIGINT ignored, and nohup with SIGHUP. The programs that tests start would
# inherit that, but not a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
DEADLINE = 20.0  # seconds after which a test fails if its condition has not become true
# The headless shell is Chromium without windows. It opens a page in a third of the time.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def need(condition, what):
    """Skip the test if something that it needs is missing on this machine. In CI, fail instead."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not on this machine")


def wait_for(condition, what="the condition", deadline=DEADLINE):
    """Wait until condition() is true, and return its result. Fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {deadline:g} s")


PORTS, PORT_RANGES = 1_700, 10  # the ports of a range; each worker has its own
port_numbers = itertools.count(secrets.randbelow(PORTS))


def free_port():
    """Return a free port that neither the system nor another worker of pytest gives to anybody else, also later.

    A port of the system's own range may be given to a client or to another server before the test uses it. A client
    that tries to connect to such a port again and again may even get it as its own, and is then connected to itself.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % PORT_RANGES
    while True:
        port = 15_000 + worker * PORTS + next(port_numbers) % PORTS
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Relay:
    """A relay in its own process. Settings are passed as flags.

    Its port is not one of the system's own range: while the relay is down, another program could get such a port.
    """

    def __init__(self, log, program="relay.py", **settings):
        self.program = program
        self.settings = {"port": free_port(), "broker": f"sqlite:{log}.db", **settings}
        self.log = log
        self.start()

    def start(self):
        """Start it, on the same port as before, and wait until it serves."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        output = self.log.open("ab")
        seen = output.tell()
        with output:
            self.process = self.run([*self.command(), *flags], output, self.log.parent)
        try:
            wait_for(lambda: self._has_started(seen), "the start", 3 * DEADLINE)
        except BaseException:
            self.kill()  # no fixture can do this, because none has the object yet
            raise
        assert self.process.poll() is None, self.log.read_text()
        line = next(li for li in self.log.read_bytes()[seen:].decode().splitlines() if "serves on" in li)
        self.url = line.split()[-1]
        self.port = self.settings["port"] = urllib.parse.urlsplit(self.url).port

    def command(self):
        """Return the command that runs it, without its flags."""
        return [sys.executable, str(ROOT / self.program)]

    def run(self, command, output, folder):
        """Run a command in a process of its own and return its Popen, or what serves as one."""
        if starter.FORKS and starter.can_start(command):
            return starter.of_this_process().start(command[1:], output, clean_environ(), folder)
        return subprocess.Popen(command, stdout=output, stderr=output, env=clean_environ(), cwd=folder)

    def _has_started(self, seen):
        return b"serves on" in self.log.read_bytes()[seen:] or self.process.poll() is not None

    def stop(self):
        """Send SIGTERM, as systemd does, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE)

    def request(self, method, path, body=None, headers=None):
        """Send an HTTP request; return (status, headers, body as bytes)."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def push(self, destination, data, **fields):
        """Push with a form, as PHP does; return the decoded answer."""
        form = urllib.parse.urlencode({"destination": destination, "data": data, **fields}).encode()
        status, _, body = self.request("POST", "/push", form)
        assert status == 200, body
        return json.loads(body)

    def push_json(self, **fields):
        """Push with JSON; return the status and the decoded answer."""
        body = json.dumps(fields).encode()
        status, _, answer = self.request("POST", "/push", body, {"Content-Type": "application/json"})
        return status, json.loads(answer)


def fds(relay):
    """Return the number of its open files and sockets, without the store, which keeps more open for its readers."""
    folder = f"/proc/{relay.process.pid}/fd"
    targets = []
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"{folder}/{fd}"))
    return sum(".db" not in target for target in targets)


def clean_environ():
    return {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}


@pytest.fixture(scope="session", params=["own", "werkzeug"])
def server(request):
    """The server that the relay runs on. Its promises hold on both."""
    return request.param


# The files that take longest, longest first. If one of them began last, the other workers would wait for it.
LONG_FILES = [
    *("snippets", "hosts", "alerts", "chaos", "image", "delivery", "doctor", "accessibility", "load_balancing"),
    *("firefox", "install", "bench", "page", "relay_js", "demo", "console", "edges", "redis_losses", "away"),
    *("recovery", "model", "apache", "metrics", "base_path", "attacks", "registration", "nodes", "fairness", "cuts"),
    *("auth_url", "walls", "startup", "registrations", "leaves", "lane", "publishing", "redis_errors", "options"),
    *("push", "callers", "words", "node_servers", "lamp", "clients", "nginx", "verdicts", "packet_dispatch"),
    *("lifecycle", "frameworks", "systemd", "requests", "answers", "backend_nodes", "werkzeug", "fuzz", "fields"),
    *("body", "outbox", "auth_site", "dependencies", "listen", "damage", "streams", "backup", "worlds", "example"),
    *("status_page", "limits", "people", "slow_clients", "compose", "rolling", "garbage", "commands", "spool"),
]


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="only tests that start no process and need no system package")


SLOW = {"browser", "php", "whole", "test_fuzz.py"}
HELPERS = {each.stem for each in (ROOT / "tests").glob("*.py")}


def pytest_ignore_collect(collection_path, config):
    return True if config.getoption("quick") and collection_path.name in SLOW else None


def is_quick(item):
    """Return whether a test is one for `--quick`: it starts no program, neither itself nor by its fixtures."""
    if any(item.iter_markers("timed")):
        return False
    fixtures = [each.func for name in item.fixturenames for each in item._fixtureinfo.name2fixturedefs.get(name, ())]
    return not any(starts_programs(function) for function in [item.function, *fixtures])


@functools.cache
def starts_programs(function):
    """Return whether a function of the tests uses `subprocess`, or a function or class of the tests that does."""
    reached = [function]
    for each in reached:
        for value in globals_of(each):
            if value is subprocess:
                return True
            methods = [m for base in value.__mro__ for m in vars(base).values()] if isinstance(value, type) else [value]
            functions = [inspect.unwrap(each) for each in methods if isinstance(each, types.FunctionType)]
            reached += [each for each in functions if is_of_tests(each) and each not in reached]
    return False


@functools.cache
def globals_of(function):
    """Return the values of the global names that a function uses, with names of the helper modules of the tests."""
    codes, names = [function.__code__], set()
    for code in codes:
        names.update(code.co_names)
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = [each for each in values if isinstance(each, types.ModuleType) and each.__name__ in HELPERS]
    return [*values, *(vars(module)[name] for module in modules for name in names if name in vars(module))]


def is_of_tests(function):
    return str(ROOT / "tests") in function.__code__.co_filename


def pytest_collection_modifyitems(config, items):
    """Put long files first. Run tests with the fixture `fake` once, because the relay only sends the script to them."""
    left_out = {item for item in items if "fake" in item.fixturenames and "werkzeug" in item.callspec.params.values()}
    if config.getoption("quick"):
        left_out |= {item for item in items if not is_quick(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
    rank = {f"test_{name}": number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


# For promises that only the relay's own server keeps.
own_only = pytest.mark.parametrize("server", ["own"], indirect=True, scope="session")


@pytest.fixture(scope="module")
def relay(tmp_path_factory, server):
    """One relay for the tests of a file that only push and listen. A test that stops its relay uses `start_relay`.

    It has no clients and publications of other files, which run in any order.
    """
    relay = Relay(tmp_path_factory.mktemp("relay") / "log", server=server)
    yield relay
    assert relay.stop() == 0, relay.log.read_text()
    assert "Traceback" not in relay.log.read_text(), relay.log.read_text()


@pytest.fixture
def start_relay(tmp_path, server):
    """Start relays that end with the test: start_relay(ping_interval=1)."""
    with contextlib.ExitStack() as started:

        def start(**settings):
            relay = Relay(tmp_path / f"log{time.monotonic_ns()}", **{"server": server, **settings})
            started.callback(relay.kill)
            return relay

        yield start


@pytest.fixture(scope="module")
def relay_with(tmp_path_factory, server):
    """Start relays that end with the file's tests, cleanly and without a traceback: relay_with(secret="…")."""
    started = []

    def start(**settings):
        started.append(Relay(tmp_path_factory.mktemp("relay") / "log", server=server, **settings))
        return started[-1]

    yield start
    for relay in started:
        assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


class ClockedRelay(Relay):
    """A relay whose wall clock the test moves, so that no test has to wait for a time or finish before it."""

    def __init__(self, log, **settings):
        self._ahead = 0.0
        super().__init__(log, program="tests/clocked_relay.py", **settings)

    def now(self):
        """Return the time of the relay's clock, in seconds since 1970."""
        return time.time() + self._ahead

    def advance(self, seconds):
        self._ahead += seconds
        ahead = self.log.parent / "ahead"
        ahead.with_suffix(".new").write_text(str(self._ahead))
        ahead.with_suffix(".new").replace(ahead)


@pytest.fixture(scope="module")
def clocked_relay(tmp_path_factory, server):
    """Start relays with a clock that the test moves; they end with the file's tests: clocked_relay(secret="…")."""
    started = []

    def start(**settings):
        started.append(ClockedRelay(tmp_path_factory.mktemp("relay") / "log", **{"server": server, **settings}))
        return started[-1]

    yield start
    for relay in started:
        assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


class _EngineInOrder(engineio.Client):
    """Without this, each message is handled by a thread of its own, and two threads may change places."""

    def _trigger_event(self, event, *args, run_async=False, **options):
        return super()._trigger_event(event, *args, run_async=False, **options)


class SocketClient(socketio.Client):
    """python-socketio's client, whose handlers are called one after another, in the order of the messages.

    So a handler must not wait for the relay.
    """

    def __init__(self, **options):
        super().__init__(reconnection=False, **options)

    def _engineio_client_class(self):
        return _EngineInOrder


class Client:
    """A SocketClient that is registered for its ids. `got` is a list of (event, message), in their order."""

    def __init__(self, url, *ids, transport="websocket", headers=None):
        self.got = []
        self.socket = SocketClient()
        self.socket.on("*", lambda event, message=None: self.got.append((event, message)))
        self.socket.connect(url, transports=[transport], headers=headers or {}, wait_timeout=DEADLINE)
        if ids:
            answer = self.call("register", {"id": list(ids)})
            assert answer["ok"], answer

    def call(self, event, message=None):
        return self.socket.call(event, message, timeout=DEADLINE)

    def wait(self, count):
        """Wait for at least `count` messages, and return all."""
        wait_for(lambda: len(self.got) >= count, f"message {count}, got {self.got!r:.300}")
        return self.got

    def data(self, count):
        return [message["data"] for _, message in self.wait(count)]

    def drop(self):
        """Disconnect at once: disconnect() would wait seconds for the close of a WebSocket."""
        with contextlib.suppress(OSError, AttributeError):
            if self.socket.transport() == "websocket":
                self.socket.eio.ws.sock.shutdown(socket.SHUT_RDWR)
            else:
                self.socket.eio.disconnect(abort=True)


@pytest.fixture
def connect(request):
    """Connect clients that end with the test: connect(relay.url, "42")."""
    clients = []

    def connect(url, *ids, **options):
        clients.append(Client(url, *ids, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.drop()


@pytest.fixture
def many_files():
    """Let this process, and the relay that it starts, open as many files as the system allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(params=["memory:", "sqlite"])
def open_desk(request, tmp_path):
    """Return a function that opens a desk (see desk.py) on a store of this kind: open_desk(history_size=10)."""
    from desk import desks  # here: programs that tests start import this file, and not the relay

    with desks("memory:" if request.param == "memory:" else f"sqlite:{tmp_path}/relay.db") as open_desk:
        yield open_desk


@pytest.fixture
def desk(open_desk):
    return open_desk(history_size=1000)


@pytest.fixture
def open_at():
    """Open SQLite brokers that are closed with the test: open_at(path, history_size=5)."""
    from pushrelay.store import open_broker

    with contextlib.ExitStack() as opened:

        def open_at(path, **options):
            broker = open_broker(f"sqlite:{path}", lambda publication, skip_sid: 1, **options)
            broker._store._files.busy_seconds = 0.1
            broker.start()
            opened.callback(broker.close)
            return broker

        yield open_at


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of 2 MiB, which is mounted for one test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    need(mounted, "the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without windows."""
    playwright = pytest.importorskip("playwright.sync_api")
    need(CHROMIUM, "Chromium (apt-get install chromium-headless-shell)")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for the web servers in front of the relay."""
    from fronts import Certificate

    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def sites(browser, certificate):
    """A second Chromium, which resolves the test's host name and trusts its certificate and no other."""
    from fronts import HOST

    args = [f"--host-resolver-rules=MAP {HOST} 127.0.0.1", f"--ignore-certificate-errors-spki-list={certificate.pin}"]
    knowing = browser.browser_type.launch(executable_path=CHROMIUM, args=[*CHROMIUM_FLAGS, *args])
    yield knowing
    knowing.close()


@pytest.fixture(scope="session")
def php_fpm():
    from fronts import PhpFpm

    with contextlib.closing(PhpFpm()) as php:
        yield php


@pytest.fixture
def page_errors():
    """The errors that pages report to window.onerror. A test that expects errors checks and clears the list."""
    return []


@pytest.fixture(scope="session")
def profile(browser):
    """One browser profile for all tests, because a new one takes Chromium half a second of processor time."""
    profile = browser.new_context()
    profile.set_default_timeout(DEADLINE * 1000)
    return profile


@pytest.fixture
def context(profile, page_errors):
    """The browser profile, without cookies. Its pages end with the test, which fails if they have errors.

    Pages share localStorage and the HTTP cache with those of other tests of their origin: see `own_context`.
    """
    with watched(profile, page_errors) as context:
        yield context
        for page in context.pages:
            page.close()
        context.clear_cookies()
        context.clear_permissions()


@pytest.fixture
def own_context(browser, page_errors):
    """A separate browser profile, for tests that fill its storage or take it offline."""
    with contextlib.closing(browser.new_context()) as context, watched(context, page_errors):
        context.set_default_timeout(DEADLINE * 1000)
        yield context


@contextlib.contextmanager
def watched(context, page_errors):
    """Collect the errors of a profile's pages, and fail if the test leaves some in the list."""

    def note(error):
        page_errors.append(str(error.error))

    context.on("weberror", note)
    yield context
    context.remove_listener("weberror", note)
    assert not page_errors, page_errors


@pytest.fixture
def page(context):
    """A page with relay.js: page.open(relay.url)."""
    from pages import Page, Server, Site

    with Server(("127.0.0.1", 0), Site) as site:
        yield Page(context.new_page(), site)


@pytest.fixture
def fake(page):
    """A server inside the test for that page: fake.send(packet)."""
    from pages import Fake

    fake = Fake(page)
    page.page.route_web_socket(re.compile("socket.io"), fake.accept)
    return fake


@pytest.fixture
def visit(sites):
    """Open the PHP page in a browser that knows HOST, and register: visit(front, "42", "polling")."""
    context = sites.new_context()
    context.set_default_timeout(DEADLINE * 1000)

    def visit(front, id_, transport, scheme="http", **fields):
        page = context.new_page()
        query = urllib.parse.urlencode({"id": id_, "transport": transport, **fields})
        page.goto(f"{front.url(scheme)}/page.php?{query}")
        page.evaluate("registered")
        return page

    yield visit
    context.close()


@pytest.fixture
def official():
    """Start socket.io-client in Node: official(relay.url, "websocket", "42")."""
    from clients import OfficialClient

    with contextlib.ExitStack() as started:
        yield lambda *args: started.enter_context(contextlib.closing(OfficialClient(*args)))


@pytest.fixture
def poller():
    """A poller with four threads."""
    from pushrelay.server.poller import Poller

    poller = Poller(threads=4)
    poller.start()
    yield poller
    poller.close()


@pytest.fixture
def serve():
    """Serve WSGI apps inside this process, and return a client for each: serve(app, limits=…)."""
    from clients import ServedClient

    from pushrelay.server.server import Server

    with contextlib.ExitStack() as stack:

        def start(app, **options):
            server = Server(app, "127.0.0.1", 0, **options)
            server.start()
            stack.callback(server.close)
            client = ServedClient(server)
            stack.callback(client.close)
            return client

        yield start


@pytest.fixture
def php(tmp_path):
    """PHP with its own folder for temporary files."""
    from phplab import Php

    return Php(tmp_path)


@pytest.fixture
def stranger():
    """Start servers that are not a relay: stranger(hang)."""
    from phplab import Stranger

    started = []

    def start(behave):
        started.append(Stranger(behave))
        return started[-1]

    yield start
    for each in started:
        each.end()
