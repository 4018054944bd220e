"""The relay behind a real Apache with deploy/apache-relay.conf. test_nginx.py runs the same tests behind nginx."""

import contextlib
import http.client
import json
import re
import statistics
import subprocess
import threading
import time
import urllib.parse

import pytest
from clients import Follower, Wire
from conftest import DEADLINE, ROOT, Relay, wait_for
from fronts import HOST, Apache

SOCKETS = "/relay/socket.io/"
# Quick pings: a poll of a dead proxy is noticed when its session times out.
SETTINGS = {"server": "own", "ping_interval": 1, "ping_timeout": 3, "history_size": 10_000}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# For a proxy that does not remove the path.
KEEPS_PATH = [(":8080/", ":8080/relay/")]


@pytest.fixture(scope="module", params=["event", "prefork"])
def front(request, tmp_path_factory, certificate, php_fpm):
    """mpm_event and php-fpm, with the path taken off; prefork and mod_php, with it kept and base_path set."""
    keeps = request.param == "prefork"
    relay = Relay(tmp_path_factory.mktemp("relay") / "log", base_path="/relay" if keeps else "", **SETTINGS)
    options = {"changes": KEEPS_PATH} if keeps else {"php": php_fpm}
    with contextlib.closing(Apache(relay, certificate, request.param, **options)) as apache:
        yield apache
    assert relay.stop() == 0
    assert "Traceback" not in relay.log.read_text()


def push_by_php(page, to, data):
    """Have the site's PHP push, and return the relay's answer."""
    script = (
        "body => fetch('/push.php', {method: 'POST', body: new URLSearchParams(body)}).then(answer => answer.json())"
    )
    return page.evaluate(script, {"to": to, "data": data})


def ask(front, method, path, body=None, headers=None):
    """Send one request to the web server, with its path unchanged, and return (status, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Host": f"{HOST}:{front.port}", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Pusher:
    """Pushes numbers to an id, one after another, straight to the relay as PHP does."""

    def __init__(self, relay, to):
        self.connections = 0  # sockets that received the last push
        self.count = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(relay, to))
        self._thread.start()

    def _run(self, relay, to):
        while not self._stopped.wait(0.005):
            self.connections = relay.push(to, str(self.count))["connections"]
            self.count += 1

    def more(self, count):
        """Wait until `count` more numbers were pushed."""
        until = self.count + count
        wait_for(lambda: self.count >= until, "more pushes")

    def stop(self):
        """Return all numbers that were pushed."""
        self._stopped.set()
        self._thread.join(DEADLINE)
        return [str(number) for number in range(self.count)]


class Promises:
    """Tests that pass behind every web server. Each subclass has a fixture `front`."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    def test_a_page_of_php_receives_what_php_pushes(self, front, visit, transport, scheme):
        page = visit(front, transport + scheme, transport, scheme)
        assert front.sapi in page.title()
        assert page.evaluate("relay.transport") == transport
        texts = ["one", "zwei ü €", "x" * 20_000]  # the last is long enough for a filter that compresses
        for text in texts:
            assert push_by_php(page, transport + scheme, text)["connections"] == 1
        page.wait_for_function("got.length >= 3")
        assert page.evaluate("got") == texts

    def test_the_tests_certificate_can_be_verified(self, front):
        command = ["curl", "-sS", "--cacert", front.certificate.ca, "--resolve", f"{HOST}:{front.tls_port}:127.0.0.1"]
        url = f"{front.url('https')}{SOCKETS}?EIO=4&transport=polling"
        answer = subprocess.run([*command, url], capture_output=True, text=True, timeout=DEADLINE, check=True)
        assert answer.stdout.startswith('0{"sid":')

    def test_only_what_browsers_need_has_an_address(self, front):
        scripts = [ask(front, "GET", f"/relay/{path}") for path in ("static/relay.js", "socket.io/socket.io.js")]
        assert scripts[0] == scripts[1] and scripts[0][0] == 200
        for path in ("push", "", "history?destination=through", "presence", "connections", "metrics", "health/ready"):
            for way in (
                "/relay/",
                "/relay/socket.io/../",
                "/relay/socket.io/%2e%2e/",
                "/relay/socket.io/..%2f",
                "/relay//",
            ):
                for method in ("GET", "POST"):
                    status, body = ask(front, method, way + path, b"destination=through&data=x", FORM)
                    assert 400 <= status < 500, (method, way + path, status, body)
                    assert b'"error"' not in body and b'"publications"' not in body, (way + path, body)
        assert json.loads(front.relay.request("GET", "/history?destination=through")[2])["publications"] == []

    def test_a_page_of_another_host_is_refused_and_one_of_this_host_is_not(self, front):
        for origin, expected in ((f"https://{HOST}", 200), ("https://example.com", 403)):
            assert ask(front, "GET", f"{SOCKETS}?EIO=4&transport=polling", headers={"Origin": origin})[0] == expected

    def test_nothing_is_lost_if_the_web_server_is_restarted_under_load(self, front, visit):
        followers = [Follower(front.port, "42", SOCKETS) for _ in range(10)]
        pages = [
            visit(front, "42", transport, scheme) for transport, scheme in (("websocket", "https"), ("polling", "http"))
        ]
        pusher = Pusher(front.relay, "42")
        try:
            wait_for(lambda: pusher.connections == 12, "all to be there")
            front.graceful()
            pusher.more(20)
            with contextlib.closing(Wire(front.port, path=SOCKETS)):
                pass  # new clients can connect
            # A graceful restart ends no WebSocket: the old processes keep them.
            assert [len(follower.answers) for follower in followers] == [1] * 10
            front.kill()
            wait_for(lambda: pusher.connections == 0, "the relay to notice that all are gone")
            front.start()
            wait_for(lambda: pusher.connections == 12, "all to be back")
            pusher.more(20)
        finally:
            pushed = pusher.stop()
        for follower in followers:
            wait_for(lambda: len(follower.messages) >= len(pushed), "all to arrive")  # noqa: B023 it is called at once
            follower.close()
            assert follower.data() == pushed
        for page in pages:
            page.wait_for_function("count => got.length >= count", arg=len(pushed))
            assert page.evaluate("got") == pushed
            assert {"offline", "recovered"} <= set(page.evaluate("statuses")) and "lost" not in page.evaluate(
                "statuses"
            )

    def test_the_detour_through_the_proxy_takes_little_time(self, front):
        """Print the times, with -s. docs/apache.md and docs/nginx.md have the numbers.

        The fastest push of each way counts: on a busy machine the others have waited for a processor.
        """
        base = urllib.parse.urlsplit(front.relay.url).path
        times = {"direct": [], "through": []}
        wires = {"direct": Wire(front.relay.port, path=f"{base}/socket.io/"), "through": Wire(front.port, path=SOCKETS)}
        for way, wire in wires.items():
            wire.call("register", {"id": way})
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", front.relay.port)) as publisher:
            for _ in range(200):
                for way, wire in wires.items():
                    began = time.perf_counter()
                    publisher.request("POST", f"{base}/push", f"destination={way}&data=hello", FORM)
                    wire.events(1)
                    times[way].append(time.perf_counter() - began)
                    publisher.getresponse().read()
        for wire in wires.values():
            wire.close()
        direct, through = (statistics.median(each) * 1000 for each in times.values())
        name = f"{type(front).__name__} {getattr(front, 'mpm', '')}"
        print(f"\n{name}: push to arrival, median of 200: direct {direct:.2f} ms, through it {through:.2f} ms")
        assert min(times["through"]) < min(times["direct"]) + 0.03


class TestApache(Promises):
    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    def test_each_client_holds_one_worker(self, front, transport):
        wait_for(lambda: busy_workers(front) == 1, "the tests before to be gone")
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                if transport == "websocket":
                    stack.callback(Wire(front.port, path=SOCKETS).close)
                else:
                    stack.callback(parked_poll(front).close)
            wait_for(lambda: busy_workers(front) == 6, "a worker for each")
        wait_for(lambda: busy_workers(front) == 1, "the workers to be free again")


def test_apache_before_2_4_47_passes_websockets_on_as_documented(certificate, php_fpm, start_relay, visit):
    relay = start_relay()
    lines = documented("apache.md", "RewriteCond")
    # This Apache would use mod_proxy_http; older ones use mod_proxy_wstunnel.
    vhost = f"{lines}\nProxyWebsocketFallbackToProxyHttp Off"
    with contextlib.closing(Apache(relay, certificate, "event", php_fpm, [("ProxyPass ", "#")], vhost)) as apache:
        for transport in ("websocket", "polling"):
            page = visit(apache, "42", transport)
            assert page.evaluate("relay.transport") == transport
            assert push_by_php(page, "42", "hello")["id"]
            page.wait_for_function("got.length")


def test_a_site_that_sends_everything_to_one_script_lets_the_relay_through_as_documented(
    certificate, php_fpm, start_relay
):
    vhost = f"RewriteEngine On\n{documented('apache.md', '[END]')}\nRewriteRule . /page.php [L]"
    with contextlib.closing(Apache(start_relay(), certificate, "event", php_fpm, (), vhost)) as apache:
        assert b"A page of" in ask(apache, "GET", "/some/pretty/address?transport=polling")[1]
        assert ask(apache, "GET", f"{SOCKETS}?EIO=4&transport=polling")[1].startswith(b'0{"sid":')


def busy_workers(front):
    """Return the number of busy workers of Apache, including the one that answers this."""
    return int(re.search(rb"BusyWorkers: (\d+)", ask(front, "GET", "/server-status?auto")[1])[1])


def parked_poll(front):
    """Return a connection on which a poll waits for its answer."""
    opened = ask(front, "GET", f"{SOCKETS}?EIO=4&transport=polling")[1]
    sid = json.loads(opened[1:])["sid"]
    assert ask(front, "POST", f"{SOCKETS}?EIO=4&transport=polling&sid={sid}", b"40")[0] == 200
    assert ask(front, "GET", f"{SOCKETS}?EIO=4&transport=polling&sid={sid}")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=DEADLINE)
    connection.request("GET", f"{SOCKETS}?EIO=4&transport=polling&sid={sid}")
    return connection


def documented(name, word):
    """Return the block of code in a page of docs/ that contains a word."""
    blocks = re.findall(r"(?:^    .*\n)+", (ROOT / "docs" / name).read_text(), re.MULTILINE)
    return next(block for block in blocks if word in block)
