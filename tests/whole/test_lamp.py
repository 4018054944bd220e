"""The relay behind real web servers: the chat, PHP's sessions and keys, forwarded addresses, and shutdown."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

import pytest
from clients import Wire
from conftest import DEADLINE, ROOT, need, own_only
from fronts import APACHE_PROGRAM, NGINX_PROGRAM, Apache
from pages import said, say

from tests.whole.test_apache import SOCKETS, documented, parked_poll

KEY, SECRET = "web-0123456789abcdef", "a-secret-of-thirty-two-characters"
CHAT = "DirectoryIndex index.php\nSetEnv CHAT_RELAY http://127.0.0.1:8080\n"
# For these tests only: every path of the relay can be reached from outside.
EXPOSED = 'ProxyPass "/exposed/" "http://127.0.0.1:8080/"\n'


@pytest.fixture
def start_apache(certificate, php_fpm):
    """Return a function that starts Apache with the shipped file: start_apache(relay, vhost). It serves www."""
    with contextlib.ExitStack() as started:
        yield lambda relay, vhost="": started.enter_context(
            contextlib.closing(Apache(relay, certificate, "event", php_fpm, vhost=vhost))
        )


@pytest.fixture
def people(sites):
    """Return a function that opens a page in its own browser: people(url)."""
    with contextlib.ExitStack() as opened:

        def come(url):
            context = opened.enter_context(contextlib.closing(sites.new_context()))
            context.set_default_timeout(DEADLINE * 1000)
            page = context.new_page()
            page.goto(url)
            return page

        yield come


# The chat, set up as in php/example/README.md.


def chat_on(apache, *names):
    """Copy the chat's folder and Relay.php under some names, each with a folder for messages, and return the URLs."""
    for name in names:
        folder = apache.folder / "www" / name
        shutil.copytree(ROOT / "php/example", folder)
        client = (ROOT / "php/Relay.php").read_text()
        (folder / "Relay.php").write_text(client.replace("'budget' => 0.3", "'budget' => 20"))  # for a busy machine
    return [f"{apache.url()}/{name}/" for name in names]


def chat_settings(folder, name, **environ):
    lines = "\n".join(f"SetEnv CHAT_{key} {value}" for key, value in environ.items())
    return f'<Location "/{name}/">\nSetEnv CHAT_DATA {folder}/{name}\n{lines}\n</Location>\n'


@pytest.fixture
def room():
    """Yield a folder that PHP's user can write to, and remove it after the test."""
    with tempfile.TemporaryDirectory(prefix="chat-") as folder:
        os.chmod(folder, 0o733)  # noqa: S103 PHP is another user
        yield folder


def enter(page, name):
    page.fill("#name", name)
    page.click("button")


def live(page, status="online"):
    page.locator(f"#state[data-status={status}]").wait_for()


@own_only
def test_the_chat_behind_apache_works_for_those_who_get_a_token_from_php(start_relay, start_apache, people, room):
    relay = start_relay(secret=SECRET)
    vhost = CHAT + chat_settings(room, "chat", SECRET=SECRET) + chat_settings(room, "bare")
    apache = start_apache(relay, vhost + chat_settings(room, "wrong", SECRET="another-secret-of-thirty-two-characters"))
    chat, wrong, bare = (people(url) for url in chat_on(apache, "chat", "wrong", "bare"))
    anna, ben = chat, people(chat.url)
    for page, name in ((anna, "Anna"), (ben, "Ben")):
        enter(page, name)
        live(page)
    for page, words in ((wrong, "secret"), (bare, "token")):
        enter(page, "Mallory")
        page.locator("#problem").get_by_text(words).wait_for()
        live(page, "offline")
    say(anna, "by token")
    said(ben, "by token")
    say(ben, "and back")
    said(anna, "and back")
    assert json.loads(relay.request("GET", "/presence?destination=chat")[2])["chat"]["connections"] == 2
    for page in (wrong, bare):
        assert page.locator("#messages li").count() == 0


@own_only
def test_the_chat_behind_apache_works_with_the_cookie_of_phps_session(start_relay, start_apache, people, room):
    relay = start_relay(id_cookie="CHATSESSION")
    vhost = CHAT + chat_settings(room, "chat", COOKIE="CHATSESSION") + chat_settings(room, "other", COOKIE="OTHERNAME")
    apache = start_apache(relay, vhost)
    anna, other = (people(url) for url in chat_on(apache, "chat", "other"))
    ben = people(anna.url)
    for page, name in ((anna, "Anna"), (ben, "Ben")):
        enter(page, name)
        live(page)
    enter(other, "Mallory")
    other.locator("#problem").get_by_text("CHATSESSION").wait_for()
    say(anna, "by cookie")
    said(ben, "by cookie")
    say(ben, "and back")
    said(anna, "and back")
    assert anna.evaluate("document.cookie") == ""
    assert other.locator("#messages li").count() == 0


# PHP's sessions.

SESSION_PAGE = """<?php
session_set_cookie_params(['httponly' => true]);
session_start();
if (isset($_GET['user'])) $_SESSION['user'] = $_GET['user'];
?><!doctype html>
<script src="/relay/static/relay.js"></script>
<script>
  const got = [];
  const relay = Relay.connect();
  relay.on("push", (data, { destination }) => got.push([destination, data]));
  const register = id => relay.register(id).then(() => "in", error => error.code);
</script>
"""
TELL = """<?php
session_start(['read_and_close' => true]);
require '{root}/php/Relay.php';
$relay = new Relay('{url}', ['budget' => 20]);
echo json_encode($relay->push(session_id(), $_GET['text']));
"""


def test_a_page_registers_its_session_and_what_php_allows(start_relay, start_apache, people):
    relay = start_relay(id_cookie="PHPSESSID")
    apache = start_apache(relay)
    www = apache.folder / "www"
    shutil.copy(ROOT / "php/Relay.php", www)
    (www / "session.php").write_text(SESSION_PAGE)
    (www / "tell.php").write_text(TELL.replace("{root}/php", str(www)).replace("{url}", relay.url))
    (www / "relay-auth.php").write_text(
        documented("socket-api.md", "<?php // relay-auth.php").replace("    <?php", "<?php", 1)
    )
    relay.stop()
    relay.settings["auth_url"] = f"http://127.0.0.1:{apache.port}/relay-auth.php"
    relay.start()
    anna, guest = people(f"{apache.url()}/session.php?user=anna"), people(f"{apache.url()}/session.php")
    assert [anna.evaluate("id => register(id)", id_) for id_ in ("me", "anna", "news", "ben")] == [
        *["in"] * 3,
        "not_allowed",
    ]
    assert [guest.evaluate("id => register(id)", id_) for id_ in ("me", "anna", "news")] == ["in", *["not_allowed"] * 2]
    tell = "text => fetch('/tell.php?text=' + text).then(answer => answer.json())"
    for page, text in ((anna, "to-anna"), (guest, "to-guest")):
        (cookie,) = page.context.cookies()
        answer = page.evaluate(tell, text)
        assert cookie["httpOnly"] and (answer["destination"], answer["connections"]) == (cookie["value"], 1)
        page.wait_for_function("got.length")
        assert page.evaluate("document.cookie") == "" and cookie["value"] not in page.content()
    relay.push("anna", "by name")
    anna.wait_for_function("got.length > 1")
    assert anna.evaluate("got") == [["me", "to-anna"], ["anna", "by name"]]
    assert guest.evaluate("got") == [["me", "to-guest"]]


# Keys, for PHP that does not count as local.


@own_only
def test_php_that_is_not_local_needs_a_right_key(start_relay, start_apache, php):
    apache = start_apache(start_relay(push_keys=f"web:{KEY}"), EXPOSED)
    url = f"http://127.0.0.1:{apache.port}/exposed"
    for key, error in ((KEY, None), ("a-wrong-key-of-twenty", "wrong_key (403)"), ("", "missing_key (401)")):
        (got,) = php.push(url, f"['key' => '{key}', 'budget' => 5]")
        assert (got["answer"] is None, got["error"] is None) == (error is not None, error is None), got
        assert (got["error"] or "").startswith(error or ""), got


# Addresses that a trusted proxy forwards.


@pytest.fixture(scope="module", params=["apache", "nginx"])
def proxied(request, addresses):
    return addresses[request.param]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Return the statuses from a network namespace of its own: see proxied_address.py."""
    need(APACHE_PROGRAM.exists() and NGINX_PROGRAM.exists(), "Apache and nginx (apt-get install apache2 nginx-light)")
    need(shutil.which("unshare") and shutil.which("ip"), "unshare and ip (apt-get install util-linux iproute2)")
    need(os.geteuid() == 0 and subprocess.run(["unshare", "-n", "true"]).returncode == 0, "a network namespace (root)")
    program = ROOT / "tests/proxied_address.py"
    command = ["unshare", "-n", sys.executable, str(program), str(tmp_path_factory.mktemp("proxied"))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_behind_a_trusted_proxy_a_visitor_counts_by_its_own_address_whatever_it_claims(proxied):
    assert proxied["one"] == [200, 200, 429, 429, 429]
    assert proxied["other"] == [200, 200, 429], "nobody uses up another's"


def test_through_a_trusted_proxy_no_claim_makes_a_visitor_local(proxied):
    assert set(proxied["pushes"]) == {401}
    assert set(proxied["local"] + proxied["direct"]) == {200}, "programs beside the proxy are not counted"


# Shutdown.


@own_only
def test_behind_apache_pages_are_sent_away_and_reconnect_with_all_accepted_pushes(start_relay, start_apache, visit):
    relay = start_relay(drain_spread=1, history_size=10_000)
    apache = start_apache(relay)
    pages = [visit(apache, "42", transport) for transport in ("websocket", "polling")]
    wire, poll = Wire(apache.port, path=SOCKETS), parked_poll(apache)
    taken = []

    def push():
        for number in itertools.count():
            try:
                relay.push("42", str(number))
            except (AssertionError, OSError):  # a 503 with draining, or no server
                return
            taken.append(str(number))

    pusher = threading.Thread(target=push)
    pusher.start()
    for page in pages:
        page.wait_for_function("got.length > 5")
    assert relay.stop() == 0
    pusher.join(DEADLINE)
    with contextlib.closing(wire), contextlib.closing(poll):
        for told in (wire.packet(), poll.getresponse().read().decode()):
            assert '42["relay_drain",{"reconnect_in_ms":' in told
    assert "down: 4 clients were sent away" in relay.log.read_text()
    relay.start()
    taken += [str(len(taken) + n) for n in range(5)]
    for text in taken[-5:]:
        relay.push("42", text)
    for page in pages:
        page.wait_for_function("statuses.includes('recovered')")
        page.wait_for_function("count => got.length >= count", arg=len(taken))
        assert page.evaluate("got") == taken
        assert "lost" not in page.evaluate("statuses")
