"""The reasons that a page gets: why it has no connection, and when its rights end. And no part of it harms another."""

import json
import time

import pytest
from conftest import own_only, wait_for

from pushrelay.access.tokens import sign
from tests.browser.test_page import HIDE
from tests.browser.test_relay_js import SECRET, TRANSPORTS

pytestmark = own_only  # it depends on the script only


@pytest.fixture
def lines(page):
    """The lines of relay.js on the console."""
    found = []
    page.page.on("console", lambda message: message.text.startswith("relay:") and found.append(message.text))
    return found


def with_policy(page, relay, policy, script="", count=1):
    """Open a page of another port that has a Content Security Policy and loads relay.js, maybe several times."""
    tags = f'<script src="{relay.url}/static/relay.js"></script>' * count
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else ""
    page.site.html = f"<!doctype html>{meta}{tags}<script>{script}</script>".encode()
    page.page.goto(page.site.url)


LISTEN = "var seen = []; var listen = (relay) => relay.on('error', (error) => seen.push(error));"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_whose_origin_is_refused_gets_the_reason_over_each_transport(start_relay, page, lines, transport):
    relay = start_relay(origins="https://shop.example")
    page.open(relay.url)
    options = f"{{transports: '{transport}', reconnectDelay: 1}}"
    page.run(f"() => {{ listen(window.relay = Relay.connect(undefined, {options})); }}")
    page.until("seen.filter(([what, status]) => status === 'offline').length >= 3")
    [[error]] = page.seen("error")
    assert error["error"] == "origin_not_allowed" and "origins" in error["message"]
    assert lines == [f"relay: {error['message']}"]


def test_a_page_that_a_full_relay_refuses_gets_the_reason_and_waits_as_long_as_it_asks(
    start_relay, page, connect, lines
):
    relay = start_relay(max_connections=1)
    connect(relay.url, "only")
    page.open(relay.url).run("() => { listen(window.relay = Relay.connect(undefined, {reconnectDelay: 1})); }")
    page.hears("status", "offline")
    [[error]] = page.seen("error")
    assert error["error"] == "too_many_connections" and error["status"] == 503 and error["retryAfter"] >= 1
    assert page.seen("status")[-1][1]["retryIn"] >= 1000 * error["retryAfter"]
    assert lines == [f"relay: {error['message']}"]


def test_a_policy_that_blocks_the_relay_is_one_error_with_the_address_to_add(relay, page, lines):
    connect = "listen(window.relay = Relay.connect(undefined, {reconnectDelay: 1, reconnectDelayMax: 1}));"
    with_policy(
        page, relay, "connect-src 'self'", LISTEN + connect + "var tries = 0; relay.on('status', () => tries++);"
    )
    page.page.wait_for_function("tries > 8 && seen.length")
    [error] = page.page.evaluate("seen")
    assert error["error"] == "blocked" and "connect-src" in error["message"]
    assert error["url"] == relay.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket" and len(lines) == 1


def test_a_policy_without_websocket_is_one_error_however_often_websocket_is_tried(relay, page, lines):
    connect = "listen(window.relay = Relay.connect(undefined, {probeDelay: 10}));"
    count = "var tries = 0; addEventListener('securitypolicyviolation', () => tries++);"
    with_policy(page, relay, f"connect-src {relay.url}", LISTEN + count + connect)
    page.page.wait_for_function("tries > 3")
    [error] = page.page.evaluate("seen")
    assert error["error"] == "blocked" and relay.url.replace("http", "ws") in error["message"] and len(lines) == 1


def test_the_script_needs_no_exception_from_trusted_types(relay, page):
    policy = "require-trusted-types-for 'script'; trusted-types 'none'"
    with_policy(page, relay, policy, "var data; Relay.connect().on('push', (it) => { data = it; }).register('typed');")
    wait_for(lambda: relay.push("typed", "hello")["connections"], "the registration")
    # wait_for_function() tries again in the page by eval(), which the policy forbids.
    wait_for(lambda: page.page.evaluate("data") == "hello", "the push")


def test_a_script_that_is_loaded_twice_and_a_second_relay_do_not_disturb_each_other(relay, start_relay, page):
    other = start_relay()
    script = f"""
    var seen = [];
    var hold = (url, name) => Relay.connect(url).on("push", (data) => seen.push(name + data)).register("both");
    var ready = Promise.all([hold(undefined, "a"), hold("{relay.url}", "b"), hold("{other.url}", "c")]);
    """
    with_policy(page, relay, "", script, count=2)
    page.page.evaluate("() => ready.then(() => true)")
    assert relay.push("both", 1)["connections"] == 2 and other.push("both", 2)["connections"] == 1
    page.page.wait_for_function("seen.length === 3")
    assert sorted(page.page.evaluate("seen")) == ["a1", "b1", "c2"]
    assert len(page.page.evaluate("Object.keys(sessionStorage)")) == 3


def test_a_page_gets_a_handle_with_the_answer_and_leaves_with_it(relay, page):
    page.open(relay.url).connect(ids=None)
    page.run(
        "async () => { window.first = await relay.register('seat'); window.second = await relay.register('seat'); }"
    )
    assert page.run("[first.ok, Object.keys(first.ids), JSON.stringify(first).includes('leave')]") == [
        True,
        ["seat"],
        False,
    ]
    assert page.run("() => first.leave()") == {"ok": True} and relay.push("seat", 1)["connections"] == 1
    assert page.run("() => second.leave()") == {"ok": True} and relay.push("seat", 2)["connections"] == 0


def test_a_token_is_renewed_before_it_expires_and_the_page_notices_nothing(start_relay, page):
    relay = start_relay(secret=SECRET)
    # Nine tenths of 600 seconds pass at once; other timers run as usual.
    hurry = """
    const real = setTimeout;
    window.setTimeout = (fn, ms, ...args) => real(fn, ms > 5e5 && ms < 6e5 ? 50 : ms, ...args);
    """
    page.open(relay.url, before=hurry).connect(ids=None)
    token = json.dumps(sign({"ids": ["timed"], "exp": time.time() + 600}, SECRET))
    page.run(f"() => {{ window.asked = 0; window.token = async () => {{ asked++; return {token}; }}; }}")
    assert page.run("() => relay.register('timed', {token})")["expires_in"] > 500
    page.until("asked >= 4")
    assert relay.push("timed", "x")["connections"] == 1 and page.pushed(1) == ["x"]
    assert page.seen("status") == [["connecting"], ["online"]] and page.seen("error") == []


def test_after_a_login_a_page_reconnects_as_the_user_and_keeps_what_it_registered(relay_with, page):
    relay = relay_with(id_cookie="PHPSESSID")
    visitor, user = "visitor-" + "1" * 20, "user-" + "1" * 20
    cookie = {"name": "PHPSESSID", "url": relay.url, "httpOnly": True}
    page.page.context.add_cookies([{**cookie, "value": visitor}])
    page.open(relay.url).connect("{reconnectDelay: 1e8, reconnectDelayMax: 1e8}", ids='"me"')
    page.page.context.add_cookies([{**cookie, "value": user}])
    page.run("() => { relay.reconnect(); }")
    wait_for(lambda: relay.push(user, "for the user")["connections"], "the registration")
    assert page.pushed(1)[0] == "for the user" and relay.push(visitor, "x")["connections"] == 0
    assert [status for status, *_ in page.seen("status")][:4] == ["connecting", "online", "connecting", "online"]


def test_all_that_a_page_did_before_it_was_online_is_accepted_up_to_100_ids(start_relay, page):
    relay = start_relay(socket_push="yes")
    page.open(relay.url)
    answers = page.run(
        """() => {
          window.relay = Relay.connect();
          const all = [...Array(100).keys()];
          return Promise.all([...all.map((n) => relay.register(`id-${n}`)), ...all.map((n) => relay.push("x", n))]);
        }"""
    )
    assert [answer["ok"] for answer in answers] == [True] * 200
    assert page.run("() => relay.register('more').catch(({code}) => code)") == "too_many_ids"
    page.run("() => relay.unregister('id-7')")
    assert page.run("() => relay.register('more')")["ok"] and relay.push("more", 1)["connections"] == 1


def test_a_clock_that_is_set_costs_one_reconnect_at_most_and_no_publication(start_relay, page):
    relay = start_relay()
    clock = "let shift = 0; const now = Date.now; Date.now = () => now() + shift;"
    page.open(relay.url, before=HIDE + clock).connect("{reconnectDelay: 10, reconnectDelayMax: 10}")
    page.run("() => { shift = 3.6e6; hide(false); }")
    page.hears("status", "recovered")
    relay.push("42", 1)
    page.pushed(1)
    before = len(page.seen("status"))
    page.run("() => { shift = -3.6e6; hide(false); }")
    relay.push("42", 2)
    assert page.pushed(2) == ["1", "2"] and len(page.seen("status")) == before
