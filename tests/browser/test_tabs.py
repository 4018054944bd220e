"""Eight tabs of a site where WebSocket is blocked. A browser opens six connections to a host, and a poll takes one."""

import random
import threading

import pytest
from chromium import Chromium
from conftest import own_only, wait_for
from tcp_proxy import TcpProxy

TABS = 8

# A page that notes the milliseconds from each moment at which it is looked at to the first push that it gets live.
PAGE = """<!doctype html><title>tab</title><script src="/static/relay.js"></script><script>
const handed = [], told = [], looked = [];
let since;
addEventListener("visibilitychange", () => { since = document.hidden ? undefined : performance.now(); }, true);
const relay = Relay.connect("/").on("status", (status, detail) => told.push(status)).on("push", (data) => {
  handed.push(+data);
  if (since === undefined || relay.status !== "online") return;
  looked.push(performance.now() - since);
  since = undefined;
});
const registered = relay.register("tabs");
</script>"""


@pytest.fixture
def open_tab(tmp_path):
    chromium = Chromium(tmp_path / "profile")
    yield chromium.open
    chromium.close()


class Stream:
    """Push 0, 1, 2 … all the time."""

    def __init__(self, relay):
        self.relay = relay
        self.count = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end.wait(0.05):
            self.relay.push("tabs", self.count)
            self.count += 1

    def stop(self):
        self._end.set()
        self._thread.join()


@own_only
@pytest.mark.timed
def test_eight_tabs_without_websocket_load_are_live_when_looked_at_and_miss_nothing(start_relay, open_tab):
    relay = start_relay(history_size=10_000)
    with TcpProxy(relay.port) as proxy:
        proxy.serve("/page", PAGE)
        proxy.refuse_websocket()
        stream = Stream(relay)
        tabs = []
        for _ in range(TABS):
            tabs.append(open_tab())
            tabs[-1].goto(f"{proxy.url}/page")
            tabs[-1].wait_for_function("registered.then(() => true)")
            tabs[-1].first = stream.count + 1  # it gets at least everything from here on; one push may be under way
        assert all(tab.evaluate("document.hidden") for tab in tabs[:-1]) and not tabs[-1].evaluate("document.hidden")
        order = random.Random(8)
        for tab in order.sample(tabs[:-1], TABS - 1) + order.sample(tabs, TABS):
            before = tab.evaluate("looked.length")
            tab.show()
            tab.wait_for_function(f"looked.length > {before} || (relay.status === 'online' && !document.hidden)")
            wait_for(lambda before=before, tab=tab: tab.evaluate("looked.length") > before, "a push")
        stream.stop()
        for tab in tabs:
            tab.show()
            tab.wait_for_function(f"handed[handed.length - 1] === {stream.count - 1} && relay.status === 'online'")
            handed = tab.evaluate("handed")
            assert handed == list(range(handed[0], stream.count)) and handed[0] <= tab.first
            assert "lost" not in tab.evaluate("told")
            assert tab.evaluate("relay.transport") == "polling"
        slowest = max(max(tab.evaluate("looked")) for tab in tabs)
        # A second is promised, but this machine may be busy. A tab that is not woken would wait for much longer.
        assert slowest < 5000, f"a tab was live {slowest:.0f} ms after it came to the front"
