"""The clients that people use: PHP's cURL to push, the official socket.io-client and a page in Chromium to listen."""

import http.server
import json
import shutil
import subprocess
import threading

import pytest
from conftest import DEADLINE, ROOT, need, wait_for

HERE = ROOT / "tests"
# cURL waits this long for an answer before it sends a large body, a second by default: longer than DEADLINE.
WAITS = "CURLOPT_EXPECT_100_TIMEOUT_MS => 60000"
OLD_PAGE = """<!doctype html><title>old</title><ul id="list"></ul>
<script src="{url}/socket.io/socket.io.js"></script>
<script>
  var socket = io.connect('{url}');
  socket.on('push', ({{data}}) => {{
    var item = document.createElement('li');
    item.textContent = data;
    document.getElementById('list').appendChild(item);
  }});
  socket.emit('register', {{id: 12345}});
</script>"""


def php(*args, deadline=DEADLINE):
    need(shutil.which("php"), "PHP (apt-get install php-cli php-curl)")
    ran = subprocess.run(["php", *args], capture_output=True, text=True, timeout=deadline, check=True)
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_php_reaches_the_official_client(relay, official, transport):
    ids = f"official-{transport}", f"second-{transport}"
    client = official(relay.url, transport, *ids)
    assert set(client.of("registered")[0]["registered"]["ids"]) == set(ids)
    answer = json.loads(php(str(HERE / "push.php"), relay.url + "/push", ids[0], "Grüße aus PHP 🐘"))
    assert (answer["destination"], answer["connections"]) == (ids[0], 1)
    relay.push_json(destination=ids[1], data={"a": [1, None, "ü"]}, event="order")
    first, second = client.wait("event", 2)
    message = {"data": "Grüße aus PHP 🐘", "id": answer["id"], "destination": ids[0]}
    assert first == {"event": "push", "message": message, "transport": transport}
    assert (second["event"], second["message"]["data"]) == ("order", {"a": [1, None, "ü"]})


def test_php_gets_an_empty_answer_from_the_root_address(relay, connect):
    client = connect(relay.url, "php-root")
    assert php(str(HERE / "push.php"), relay.url, "php-root", "hello") == ""
    assert client.data(1) == ["hello"]


def test_php_pushes_to_an_array_of_destinations(relay, connect):
    client = connect(relay.url, "php-a", "php-b")
    script = f"""
        $curl = curl_init('{relay.url}/push');
        $fields = ['destination' => ['php-a', 'php-b'], 'data' => 'both'];
        curl_setopt_array($curl, [CURLOPT_POSTFIELDS => http_build_query($fields), CURLOPT_RETURNTRANSFER => true]);
        echo curl_exec($curl);"""
    assert [answer["connections"] for answer in json.loads(php("-r", script))] == [1, 1]
    assert client.data(2) == ["both", "both"]


def test_php_pushes_an_array_as_multipart(relay, connect):
    client = connect(relay.url, "php-multipart")
    script = f"""
        $curl = curl_init('{relay.url}/push');
        curl_setopt_array($curl, [CURLOPT_POSTFIELDS => ['destination' => 'php-multipart', 'data' => 'ü'],
                                  CURLOPT_RETURNTRANSFER => true]);
        echo curl_exec($curl);"""
    assert json.loads(php("-r", script))["connections"] == 1
    assert client.data(1) == ["ü"]


@pytest.mark.parametrize("expect", ["as PHP sends it", "without Expect"])
def test_php_gets_the_answer_to_a_body_that_is_too_large_at_once(relay, expect):
    header = "CURLOPT_HTTPHEADER => ['Expect:']," if expect == "without Expect" else ""
    script = f"""
        $curl = curl_init('{relay.url}/push');
        curl_setopt_array($curl, [{header} {WAITS}, CURLOPT_RETURNTRANSFER => true,
            CURLOPT_POSTFIELDS => http_build_query(['destination' => 'a', 'data' => str_repeat('x', 3000000)])]);
        echo curl_exec($curl), "\\n", curl_getinfo($curl, CURLINFO_HTTP_CODE);"""
    answer, status = php("-r", script).splitlines()
    assert status == "413"
    assert json.loads(answer)["error"] == "too_large" and "1000000 bytes" in json.loads(answer)["message"]


def test_php_does_not_wait_with_a_large_body_that_fits(relay, connect):
    client = connect(relay.url, "php-large")
    script = f"""
        $curl = curl_init('{relay.url}/push');
        curl_setopt_array($curl, [{WAITS}, CURLOPT_RETURNTRANSFER => true,
            CURLOPT_POSTFIELDS => http_build_query(['destination' => 'php-large', 'data' => str_repeat('x', 900000)])]);
        echo curl_exec($curl);"""
    assert json.loads(php("-r", script))["connections"] == 1
    assert client.data(1) == ["x" * 900000]


@pytest.fixture
def serve_page():
    """Serve one page of HTML on another port, as Apache does beside the relay."""
    servers = []

    def serve(html):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(html.encode())

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_old_servers_page_works_unchanged_in_chromium(relay, context, serve_page):
    page = context.new_page()
    page.goto(serve_page(OLD_PAGE.format(url=relay.url)))
    wait_for(lambda: relay.push("12345", "are you there?")["connections"] == 1, "the page's registration")
    php(str(HERE / "push.php"), relay.url, "12345", "<b>from PHP</b> 🐘")
    page.get_by_text("<b>from PHP</b> 🐘", exact=True).wait_for()


def test_the_old_servers_page_registers_again_after_the_relay_was_down(start_relay, context, serve_page):
    relay = start_relay()
    page = context.new_page()
    page.goto(serve_page(OLD_PAGE.format(url=relay.url)))
    wait_for(lambda: relay.push("12345", "before")["connections"] == 1, "the page's registration")
    relay.kill()
    relay.start()
    wait_for(lambda: relay.push("12345", "after")["connections"] == 1, "the page to come back")
    page.get_by_text("after", exact=True).first.wait_for()


def test_a_page_of_another_host_cannot_listen(relay, context, serve_page):
    # Every name ending in .localhost is loopback to Chromium, and another host than 127.0.0.1 to the relay.
    page = context.new_page()
    html = OLD_PAGE.format(url=relay.url).replace("12345", "54321")  # the page of another test may not have left yet
    page.goto(serve_page(html).replace("127.0.0.1", "other.localhost"))
    page.wait_for_function("typeof io === 'function'")
    page.evaluate(
        """url => new Promise(done => {
            const socket = io.connect(url);
            socket.on('connect_error', done);
            socket.on('connect', () => { throw new Error('it connected'); });
        }).then(() => null)""",
        relay.url,
    )
    assert relay.push("54321", "secret")["connections"] == 0
