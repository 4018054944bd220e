"""A page in Chromium that was away receives everything, once and in order."""

import contextlib
import http.client
import json
import threading
import time

import pytest
from chromium import Chromium
from conftest import DEADLINE, own_only, wait_for
from network import Network
from pages import Server, Site

from tests.browser.test_relay_js import TRANSPORTS

PINGS = {"ping_interval": 0.5, "ping_timeout": 0.5}  # a dead network is noticed within a second
LONG = {"history_size": 10_000}  # on a slow machine the page may be away for long

# A page that stores everything it receives, for the test and for the next page.
HTML = """<!doctype html><title>the page</title><script src="{url}/static/relay.js"></script><script>
const log = (key, value) => {{
  const all = JSON.parse(localStorage.getItem(key)) || [];
  localStorage.setItem(key, JSON.stringify([...all, value]));
}};
const relay = Relay.connect(undefined, {options});
relay.on("push", (data) => log({key}, data)).on("status", (...status) => log("status", status));
const registered = relay.register("42");
addEventListener("pageshow", ({{persisted}}) => persisted && log("life", "persisted"));
for (const what of ["freeze", "resume"]) document.addEventListener(what, () => log("life", what));
</script>"""


def html(url, options="{}", key="pushes"):
    return HTML.format(url=url, options=options, key=json.dumps(key))


class Tab:
    """A page on another port of the relay's host. All its pages store what they received in localStorage."""

    def __init__(self, page, site, url, options="{}", key="pushes"):
        self.page = page
        self.site = site
        self.html = html(url, options, key)
        self.key = key

    def open(self):
        self.site.html = self.html.encode()
        self.page.goto(self.site.url)
        self.online()

    def leave(self):
        """Go to another page of the same site, which has no connection to the relay."""
        self.site.html = b"<!doctype html><title>another page</title>"
        self.page.goto(self.site.url + "/another")
        self.site.html = self.html.encode()

    def back(self):
        self.page.go_back()
        self.online()

    def online(self):
        self.page.wait_for_function("typeof registered === 'object' && registered.then(() => true)")

    def stored(self, key):
        return json.loads(self.page.evaluate(f"localStorage.getItem('{key}')") or "[]")

    def pushes(self, last):
        """All that was handed over, once the last push is there."""
        wait_for(lambda: last in self.stored(self.key), f"push {last}, got {self.stored(self.key)!r:.500}")
        return self.stored(self.key)

    def statuses(self):
        return [status for status, *_ in self.stored("status")]


class WatchedPage:
    """A page in Chromium, and a reader: a tab of the same site that knows what the page stored, whatever its state."""

    def __init__(self, chromium, site):
        self.chromium = chromium
        self.site = site

    def open(self, url, options="{reconnectDelay: 100}"):
        self.site.html = b"<!doctype html><title>reader</title>"
        self.reader = self.chromium.open()
        self.reader.goto(self.site.url + "/reader")
        self.site.html = html(url, options).encode()
        self.tab = self.chromium.open()
        self.tab.goto(self.site.url)
        wait_for(lambda: "online" in str(self.stored("status")), "the page")

    def leave(self):
        """Go to another page of the same site."""
        self.site.html = b"<!doctype html><title>another</title>"
        self.tab.goto(self.site.url + "/another")

    def back(self):
        self.tab.evaluate("history.back()")
        wait_for(lambda: "persisted" in self.stored("life"), "the page as it was")

    def stored(self, key):
        return json.loads(self.reader.evaluate(f"localStorage.getItem('{key}')") or "[]")

    def pushes(self, last):
        wait_for(lambda: last in self.stored("pushes"), f"push {last}, got {self.stored('pushes')!r:.500}")
        return self.stored("pushes")


class Publisher:
    """Push 0, 1, 2 … until stop() is called, each until it is accepted."""

    def __init__(self, relay):
        self.relay = relay
        self.count = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.02):
            with contextlib.suppress(OSError, http.client.HTTPException):  # a relay that is being killed
                self.relay.push("42", str(self.count), id=f"push {self.count}")
                self.count += 1

    def reaches(self, count):
        wait_for(lambda: self.count >= count or not self.thread.is_alive(), f"push {count}")
        assert self.thread.is_alive(), "a push was refused"

    def during(self, pushes=12):
        """Wait until some more have been accepted."""
        self.reaches(self.count + pushes)

    def stop(self):
        """The last that was pushed, and all."""
        self.stopping.set()
        self.thread.join(DEADLINE)
        return str(self.count - 1), [str(n) for n in range(self.count)]


@pytest.fixture
def site():
    with Server(("127.0.0.1", 0), Site) as site:
        yield site


@pytest.fixture
def open_tab(own_context, site):
    def open_tab(url, options="{}", **named):
        tab = Tab(own_context.new_page(), site, url, options, **named)
        tab.open()
        return tab

    return open_tab


@pytest.fixture
def watched_page(site, tmp_path):
    with contextlib.closing(Chromium(tmp_path / "profile")) as chromium:
        yield WatchedPage(chromium, site)


def unacknowledged(relay):
    """Return what nobody has acknowledged of the inbox "mail"."""
    found = json.loads(relay.request("GET", "/history?destination=mail&since=acked")[2])
    return [each["data"] for each in found["publications"]]


def registered(relay):
    """Return the number of connections that have registered the id to which publishers push."""
    return json.loads(relay.request("GET", "/presence?destination=42")[2])["42"]["connections"]


@pytest.fixture
def publish():
    publishers = []

    def publish(relay):
        wait_for(lambda: registered(relay), "the registration")
        publishers.append(Publisher(relay))
        return publishers[-1]

    yield publish
    for publisher in publishers:
        publisher.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_whose_network_was_down_receives_everything_once_and_in_order(start_relay, open_tab, publish, transport):
    relay = start_relay(**LONG, **PINGS)
    with Network(relay.port) as network:
        tab = open_tab(network.url, f'{{transports: ["{transport}"], timeout: 1000, reconnectDelay: 100}}')
        publisher = publish(relay)
        publisher.during()
        network.drop()
        tab.page.wait_for_function("relay.status === 'offline'")
        publisher.during()
        network.come_back(resume=False)
        tab.page.wait_for_function("relay.status === 'online'")
        publisher.during()
        last, everything = publisher.stop()
        assert tab.pushes(last) == everything
        assert "recovered" in tab.statuses() and "lost" not in tab.statuses()


@own_only
def test_a_page_that_chromium_takes_offline_receives_everything_once_and_in_order(
    start_relay, open_tab, publish, own_context
):
    relay = start_relay(**LONG, **PINGS)
    tab = open_tab(relay.url, "{transports: ['polling'], timeout: 1000, reconnectDelay: 100}")
    publisher = publish(relay)
    publisher.during()
    own_context.set_offline(True)
    tab.page.wait_for_function("relay.status === 'offline'")
    publisher.during()
    own_context.set_offline(False)
    publisher.during()
    last, everything = publisher.stop()
    assert tab.pushes(last) == everything


def test_a_page_whose_relay_was_killed_under_load_receives_everything_once_and_in_order(start_relay, open_tab, publish):
    relay = start_relay(**LONG)
    tab = open_tab(relay.url, "{reconnectDelay: 100, reconnectDelayMax: 500}")
    publisher = publish(relay)
    for _ in range(3):
        publisher.during()
        relay.kill()
        relay.start()
    publisher.during()
    last, everything = publisher.stop()
    assert tab.pushes(last) == everything
    assert "lost" not in tab.statuses()


@own_only
def test_a_page_that_is_left_and_opened_again_receives_everything_once_and_in_order(start_relay, open_tab, publish):
    relay = start_relay(**LONG)
    tab = open_tab(relay.url)
    publisher = publish(relay)
    for _ in range(2):
        publisher.during()
        tab.leave()
        publisher.during()
        tab.back()
        publisher.during()
        tab.page.reload()
    last, everything = publisher.stop()
    assert tab.pushes(last) == everything


@own_only
@pytest.mark.parametrize("pings", [{}, PINGS], ids=["connected", "dropped"])
def test_a_page_that_was_frozen_receives_everything_once_and_in_order(start_relay, watched_page, publish, pings):
    """For a while nothing in the page runs, as behind other tabs, or in a closed laptop."""
    relay = start_relay(**LONG, **pings)
    watched_page.open(relay.url)
    publisher = publish(relay)
    publisher.during()
    watched_page.reader.show()  # pages are frozen while they are hidden
    watched_page.tab.set_state("frozen")
    wait_for(lambda: watched_page.stored("life") == ["freeze"], "the freeze")
    before = watched_page.stored("pushes")
    until = time.monotonic() + sum(pings.values()) + 1
    wait_for(lambda: time.monotonic() > until, "the end of the freeze")
    assert watched_page.stored("pushes") == before
    watched_page.tab.set_state("active")
    publisher.during()
    last, everything = publisher.stop()
    assert watched_page.pushes(last) == everything


@own_only
def test_a_page_from_the_back_forward_cache_receives_everything_once_and_in_order(start_relay, watched_page, publish):
    relay = start_relay(**LONG)
    watched_page.open(relay.url)
    publisher = publish(relay)
    publisher.during()
    watched_page.reader.show()
    watched_page.leave()
    publisher.during()
    watched_page.back()
    publisher.during()
    last, everything = publisher.stop()
    assert watched_page.pushes(last) == everything


@own_only
def test_a_page_in_the_back_forward_cache_has_no_connection_and_reconnects_at_once(start_relay, watched_page):
    relay = start_relay()
    watched_page.open(relay.url, "{reconnectDelay: 1e8, reconnectDelayMax: 1e8}")
    wait_for(lambda: relay.push("42", "1")["connections"] == 1, "the registration")
    before = [status for status, *_ in watched_page.stored("status")].count("online")
    watched_page.leave()
    wait_for(lambda: relay.push("42", "2")["connections"] == 0, "the server to know")
    watched_page.back()
    wait_for(
        lambda: [status for status, *_ in watched_page.stored("status")].count("online") > before, "the connection"
    )
    assert "2" in watched_page.pushes("2")


@own_only
def test_if_history_is_too_short_a_page_gets_lost(start_relay, open_tab):
    relay = start_relay(history_size=5)
    tab = open_tab(relay.url)
    relay.push("42", "before")
    tab.pushes("before")
    tab.leave()
    for n in range(6):
        relay.push("42", n)
    tab.back()
    assert ["lost", ["42"]] in tab.stored("status") and "recovered" not in tab.statuses()
    relay.push("42", "after")
    assert tab.pushes("after") == ["before", "after"], "a part of what was missed would look like all of it"


@own_only
def test_two_tabs_and_a_duplicate_are_independent(start_relay, open_tab, own_context, site):
    relay = start_relay()
    first = open_tab(relay.url, key="first")
    second = open_tab(relay.url, key="second")
    relay.push("42", "1")
    assert first.pushes("1") == second.pushes("1") == ["1"]
    second.leave()
    relay.push("42", "2")
    first.pushes("2")
    site.html = second.html.replace('"second"', '"duplicate"').encode()
    # A tab that a script opens begins with a copy of its opener's sessionStorage.
    with own_context.expect_page() as opened:
        second.page.evaluate("void open('/duplicate')")
    duplicate = Tab(opened.value, site, relay.url, key="duplicate")
    duplicate.online()
    second.site.html = second.html.encode()
    assert duplicate.pushes("2") == ["2"]
    second.back()
    assert second.pushes("2") == ["1", "2"] and first.stored("first") == ["1", "2"]


@own_only
def test_an_inbox_continues_after_the_acknowledged_position_in_any_tab(start_relay, open_tab, page_errors):
    relay = start_relay()
    relay.push("mail", "0")
    inbox = """() => {
      window.relay2 = Relay.connect().on("push", async (data) => {
        await new Promise((done) => setTimeout(done, 10));
        if (data === window.bad) throw new Error(data);
        log("mail", data);
      });
      return relay2.register("mail", {inbox: true});
    }"""
    first = open_tab(relay.url)
    first.page.evaluate(inbox)
    relay.push("mail", "1")
    wait_for(lambda: first.stored("mail") == ["0", "1"], "both")
    first.page.evaluate("window.bad = '2'")
    relay.push("mail", "2")
    relay.push("mail", "3")
    wait_for(lambda: first.stored("mail") == ["0", "1", "3"], "the third")
    wait_for(
        lambda: first.page.evaluate("1") and unacknowledged(relay) == ["2", "3"], "the acknowledgement of the second"
    )
    first.page.close()
    second = open_tab(relay.url)
    answer = second.page.evaluate(inbox)
    assert answer["ids"]["mail"]["recovered"] and answer["ids"]["mail"]["replayed"] == 2
    wait_for(lambda: second.stored("mail") == ["0", "1", "3", "2", "3"], "both again")
    wait_for(
        lambda: second.page.evaluate("relay.register('mail', {since: 'acked'})")["ids"]["mail"]["replayed"] == 0,
        "the acknowledgement",
    )
    assert set(page_errors) == {"2"}
    page_errors.clear()
