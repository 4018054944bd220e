"""The relay below a base path, for proxies that forward the whole path: setting base_path, and SCRIPT_NAME."""

import io
import json

import pytest
from conftest import DEADLINE, SocketClient
from consoles import ONLINE

from pushrelay.settings import SettingsError, load
from pushrelay.wsgi.base_path import at_base_path


@pytest.fixture
def below(start_relay):
    return start_relay(base_path="/relay/")


def test_everything_is_below_the_base_path(below):
    assert below.url.endswith("/relay")  # as printed at the start
    for path in ("", "/", "/static/relay.js", "/socket.io/socket.io.js", "/health/ready", "/history?destination=a"):
        assert below.request("GET", path)[0] == 200, path
    for path in ("/push", "/", ""):  # the lane; the last two are the old server's root
        assert below.request("POST", path, b"destination=a&data=b")[0] == 200, path
    assert below.push_json(destination="a", data=1)[0] == 200  # another header, which takes the longer way


def test_elsewhere_is_a_404_that_contains_the_base_path(below):
    below.url = below.url.removesuffix("/relay")
    for path in ("/push", "/", "/relays/push", "/relay2", "/socket.io/?EIO=4&transport=polling", "/static/relay.js"):
        status, _, body = below.request("POST" if path == "/push" else "GET", path, b"destination=a&data=b")
        assert status == 404 and "base_path" in body.decode() and "/relay/push" in json.loads(body)["message"], path


def test_repeated_pushes_take_the_short_way_below_the_base_path(below):
    ids = [below.push("again", str(number))["id"] for number in range(5)]
    assert [int(each.partition(":")[2]) for each in ids] == [1, 2, 3, 4, 5]
    assert below.request("POST", "/push", b"destination=again")[0] == 400


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_socketio_clients_connect_below_the_base_path(below, transport):
    client, got = SocketClient(), []
    client.on("push", got.append)
    url = below.url.removesuffix("/relay")
    client.connect(url, transports=[transport], socketio_path="/relay/socket.io", wait_timeout=DEADLINE)
    assert client.call("register", {"id": "42"}, timeout=DEADLINE)["ok"]
    assert below.push("42", "hello")["connections"] == 1
    client.disconnect()


def test_the_demo_page_works_below_the_base_path(below, context):
    page = context.new_page()
    for slash in ("", "/"):
        page.goto(f"{below.url}{slash}?id=42")
        page.locator(ONLINE).wait_for()
        assert f"{below.url}/static/relay.js" in page.text_content("#snippet-page")
        page.click("#push-button")
        page.locator("#arrived .data").first.wait_for()
        assert below.url in page.url


def call(app, path, script=""):
    """Return what an app sees of a request, as (SCRIPT_NAME, PATH_INFO), or the status of the answer."""
    seen = []
    environ = {"PATH_INFO": path, "SCRIPT_NAME": script, "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
    app(environ, lambda status, headers: seen.append(status))
    assert environ["PATH_INFO"] == path  # the server's own environ is unchanged
    return seen


@pytest.mark.parametrize(
    ("path", "script", "sees"),
    [
        ("/relay/push", "", ("/relay", "/push")),
        ("/relay/", "", ("/relay", "/")),
        ("/relay", "", ("/relay", "/")),
        ("/relay/relay/push", "", ("/relay", "/relay/push")),
        ("/relay/push", "/site", ("/site/relay", "/push")),
        ("/push", "/relay", ("/relay", "/push")),  # a server that knows the base path has removed it
        ("/push", "", "404 Not Found"),
        ("/relayed", "", "404 Not Found"),
        ("/", "/site", "404 Not Found"),
    ],
)
def test_script_name_and_path_info_are_as_pep_3333_defines_them(path, script, sees):
    def app(environ, start_response):
        start_response((environ["SCRIPT_NAME"], environ["PATH_INFO"]), [])
        return []

    assert call(at_base_path(app, "/relay"), path, script) == [sees]


@pytest.mark.parametrize("path", ["/re lay", "//", "/a//b", "/../b", "/relay?x", "http://example.com/relay", "/ä"])
def test_a_base_path_that_proxies_write_in_several_ways_is_refused(path):
    with pytest.raises(SettingsError, match="such as /relay"):
        load({}, {"base_path": path})


def test_a_slash_at_either_end_of_the_setting_makes_no_difference():
    assert load({}, {"base_path": "relay"}).base_path == "/relay"
    assert load({}, {"base_path": "/relay/"}).base_path == "/relay" and load({}, {"base_path": "/"}).base_path == ""
