"""The most telling tests of relay.js in Firefox: those of Chromium, and some of its own."""
# ruff: noqa: F401, F811 (tests and fixtures of other files)

import contextlib

import pytest
from conftest import Relay, wait_for
from firefox import Firefox
from network import Network
from pages import Page, Server, Site
from tcp_proxy import TcpProxy

from tests.browser.test_away import (
    LONG,
    Tab,
    publish,
    test_a_page_that_is_left_and_opened_again_receives_everything_once_and_in_order,
)
from tests.browser.test_page import (
    test_a_page_receives_what_only_its_frame_has_received,
    test_a_policy_without_websocket_means_polling_at_once_and_a_line_on_the_console,
    test_a_token_function_that_fails_harms_no_other_id,
    test_each_of_two_connections_in_a_page_receives_what_only_the_other_has_received,
)
from tests.browser.test_relay_js import (
    test_200_pushes_arrive_in_order,
    test_a_handler_that_throws_stops_nothing_and_the_page_hears_its_error,
)
from tests.browser.test_tabs import (
    test_eight_tabs_without_websocket_load_are_live_when_looked_at_and_miss_nothing,
)


@pytest.fixture(scope="session")
def server():
    """These tests depend on the script and not on the server."""
    return "own"


@pytest.fixture(scope="module")
def relay(tmp_path_factory, server):
    relay = Relay(tmp_path_factory.mktemp("relay") / "log")
    yield relay
    assert relay.stop() == 0 and "Traceback" not in relay.log.read_text(), relay.log.read_text()


@pytest.fixture(scope="module")
def firefox():
    with contextlib.closing(Firefox()) as firefox:
        yield firefox


@pytest.fixture
def new_tab(firefox):
    tabs = []

    def new_tab():
        tabs.append(firefox.open())
        return tabs[-1]

    yield new_tab
    for tab in tabs:
        tab.close()


@pytest.fixture
def site():
    with Server(("127.0.0.1", 0), Site) as site:
        yield site


@pytest.fixture
def page(new_tab, site):
    return Page(new_tab(), site)


@pytest.fixture
def open_tab(new_tab, site, request):
    """Open a tab with relay.js as test_away.py does, or an empty one as test_tabs.py does."""
    if "tabs" in request.node.name:
        return new_tab

    def open_tab(url, options="{}", **named):
        tab = Tab(new_tab(), site, url, options, **named)
        tab.open()
        return tab

    return open_tab


def test_after_kill_9_a_page_recovers_everything_on_websocket(start_relay, open_tab, publish):
    relay = start_relay(**LONG)
    # The page polls until the probe if the relay comes back between the attempts with WebSocket and with polling.
    tab = open_tab(relay.url, "{reconnectDelay: 100, reconnectDelayMax: 500, probeDelay: 200}")
    publisher = publish(relay)
    publisher.during()
    relay.kill()
    tab.page.wait_for_function("relay.status !== 'online'")
    relay.start()
    tab.page.wait_for_function("relay.transport === 'websocket'")
    publisher.during()
    last, everything = publisher.stop()
    assert tab.pushes(last) == everything
    assert "recovered" in tab.statuses() and "lost" not in tab.statuses()


def test_a_page_whose_websocket_was_blocked_returns_to_it_and_misses_nothing(start_relay, open_tab, publish):
    relay = start_relay(**LONG)
    with TcpProxy(relay.port) as proxy:
        proxy.refuse_websocket()
        tab = open_tab(proxy.url, "{probeDelay: 200}")
        assert tab.page.evaluate("relay.transport") == "polling"
        publisher = publish(relay)
        publisher.during()
        proxy.allow()
        tab.page.wait_for_function("relay.transport === 'websocket'")
        publisher.during()
        last, everything = publisher.stop()
        assert tab.pushes(last) == everything
        assert set(tab.statuses()) <= {"connecting", "online", "recovered"} and "offline" not in tab.statuses()


def test_a_page_without_a_network_is_offline_at_once_and_misses_nothing(start_relay, open_tab, publish):
    relay = start_relay(**LONG)
    with Network(relay.port) as network:
        tab = open_tab(network.url, "{reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
        publisher = publish(relay)
        publisher.during()
        network.drop()
        tab.page.set_offline(True)
        tab.page.wait_for_function("relay.status === 'offline'")
        publisher.during()
        network.come_back(resume=False)
        tab.page.set_offline(False)
        tab.page.wait_for_function("relay.status === 'online'")
        publisher.during()
        last, everything = publisher.stop()
        assert tab.pushes(last) == everything
        assert tab.stored("status")[2][1]["reason"] == "offline"


def test_what_an_inbox_has_not_handled_when_its_tab_crashes_comes_again(relay, open_tab, firefox):
    handler = """() => {
      relay.on("push", async (data, {destination}) => {
        if (destination === "crash mail") log("mail", data);
        if (data === window.bad) await new Promise(() => {});
      });
      return relay.register("crash mail", {inbox: true});
    }"""
    first = open_tab(relay.url, key="first")
    first.page.evaluate("() => { window.bad = '3'; }")
    first.page.evaluate(handler)
    for n in (1, 2, 3, 4):
        relay.push("crash mail", n)
    wait_for(lambda: first.stored("mail") == ["1", "2", "3", "4"], "the mail")
    unhandled = """() => {
      const other = Relay.connect();
      return other.register("crash mail", {since: "acked"}).then(
        ({ids}) => other.close() && ids["crash mail"].replayed);
    }"""
    wait_for(lambda: first.page.evaluate(unhandled) == 2, "the acknowledgement")
    first.page.crash()
    wait_for(lambda: relay.push("crash mail", 5)["connections"] == 0, "the server to know")
    second = open_tab(relay.url, key="second")
    answer = second.page.evaluate(handler)
    assert answer["ids"]["crash mail"]["recovered"]
    wait_for(lambda: second.stored("mail")[-1:] == ["5"], "the rest")
    assert second.stored("mail")[4:6] == ["3", "4"] and set(second.stored("mail")[6:]) == {"5"}


def test_the_console_shows_what_arrives(relay, new_tab):
    tab = new_tab()
    tab.goto(f"{relay.url}/?id=firefox-console")
    wait_for(lambda: relay.push("firefox-console", "the quick brown fox")["connections"] > 0, "the registration")
    tab.wait_for_function("document.body.innerText.includes('the quick brown fox')")
