"""The speed of relay.js in Chromium, beside earlier figures: run by hand.

.venv/bin/python tests/client_figures.py [names of figures, such as burst]
"""

import contextlib
import http.client
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from chromium import Chromium
from conftest import Relay, wait_for
from pages import Server, Site
from tcp_proxy import TcpProxy

PAGE = """<!doctype html><meta http-equiv="Content-Security-Policy" content="connect-src {policy}">
<script>
const acks = [], send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) {{
  if (/"ack"/.test(text)) acks.push(performance.now());
  send.call(this, text);
}};
</script><script src="{url}/static/relay.js"></script><script>
const got = [], begun = performance.now(), online = [];
const relay = Relay.connect({address}, {options}).on("push", (data) => got.push(+data));
relay.on("status", (status) => status === "online" && online.push(performance.now()));
addEventListener("pageshow", ({{persisted}}) => {{ if (persisted) window.shown = performance.now(); }});
{script}
</script>"""


class Lab:
    """A relay, a site for its pages, and Chromium."""

    def __init__(self, folder, site, chromium):
        self.folder, self.site, self.chromium = folder, site, chromium
        self._count = 0

    @contextlib.contextmanager
    def relay(self, **settings):
        self._count += 1
        relay = Relay(self.folder / f"log{self._count}", **settings)
        try:
            yield relay
        finally:
            relay.kill()

    @contextlib.contextmanager
    def page(self, relay, script="relay.register('42')", options="{}", address="undefined", policy="* ws:"):
        fields = {"url": relay.url, "options": options, "address": address, "policy": policy, "script": script}
        self.site.html = PAGE.format(**fields).encode()
        tab = self.chromium.open()
        tab.goto(self.site.url)
        tab.wait_for_function("online.length > 0")
        yield tab
        tab.close()


def show(what, then, now):
    print(f"{what:<66}{then:<15}{now}", flush=True)


def size(lab):
    with lab.relay() as relay:
        for name, then in (("relay.js", "19,743"), ("relay.min.js", "-")):
            connection = http.client.HTTPConnection("127.0.0.1", relay.port)
            connection.request("GET", f"/static/{name}", headers={"Accept-Encoding": "gzip"})
            length = len(connection.getresponse().read())
            show(f"{name} over the wire", then, f"{length:,} bytes")


def dead_network(lab):
    script = """() => {
      const begun = performance.now();
      dispatchEvent(new Event("offline"));
      return [performance.now() - begun, relay.status];
    }"""
    with lab.relay() as relay, TcpProxy(relay.port) as proxy, lab.page(relay, address=f'"{proxy.url}"') as tab:
        proxy.stall()
        took, status = tab.evaluate(script)
        assert status == "offline"
        show("dead network, the browser knows it: offline after", "44.5 s", f"{took:.1f} ms")


def back_button(lab):
    with lab.relay() as relay, lab.page(relay) as tab:
        away = []
        for _ in range(5):
            before = tab.evaluate("online.length")
            page, lab.site.html = lab.site.html, b"<!doctype html><title>another</title>"
            tab.goto(lab.site.url + "/another")
            wait_for(lambda: relay.push("42", "1")["connections"] == 0, "the server to know")
            lab.site.html = page
            with contextlib.suppress(AssertionError):
                tab.evaluate("history.back()")
            tab.wait_for_function(f"typeof online === 'object' && online.length > {before}")
            assert tab.evaluate("window.shown > 0"), "the page was loaded again"
            away.append(tab.evaluate("online.at(-1) - shown"))
        show("back button: online again after, the longest of 5", "7.8 s", f"{max(away):.0f} ms")


def policy(lab):
    with lab.relay() as relay, lab.page(relay, policy=relay.url) as tab:
        show("policy without ws: online after", "10.0 s", f"{tab.evaluate('online[0] - begun') / 1000:.2f} s")


def acks(lab):
    with lab.relay(history_size=10_000) as relay:
        for rate, then in ((60, "2.6 s"), (200, "2.7 s")):
            with lab.page(relay, "relay.register('42', {inbox: true})") as tab:
                begun = time.monotonic()
                for n in range(3 * rate):
                    relay.push("42", n)
                    time.sleep(max(0, begun + (n + 1) / rate - time.monotonic()))
                times = tab.evaluate("acks")
                gap = max(after - before for before, after in zip(times, times[1:], strict=False))
                show(
                    f"inbox at {rate}/s for 3 s: longest time without an acknowledgement",
                    then,
                    f"{gap:.0f} ms ({len(times)} acks)",
                )


def registrations(lab):
    with lab.relay() as relay, TcpProxy(relay.port) as proxy:
        options = '{transports: ["polling"]}'
        with lab.page(relay, "", options, f'"{proxy.url}"') as tab:
            proxy.delay(0.2)
            took = tab.evaluate(
                """async () => {
                  const begun = performance.now();
                  await Promise.all([...Array(30).keys()].map((n) => relay.register(`id-${n}`)));
                  return performance.now() - begun;
                }"""
            )
            show("30 registrations by polling at 400 ms latency", "14.0 s", f"{took / 1000:.1f} s")


def restart(lab):
    with lab.relay() as relay, lab.page(relay) as tab:
        tab.evaluate(
            "() => { relay.on('status', (it) => { if (it === 'offline') window.left ||= performance.now(); }); }"
        )
        away, restarts = [], []
        for _ in range(5):
            before = tab.evaluate("() => { window.left = 0; return online.length; }")
            begun = time.monotonic()
            relay.stop()
            relay.start()
            restarts.append(time.monotonic() - begun)
            tab.wait_for_function(f"online.length > {before}")
            away.append(tab.evaluate("online.at(-1) - left") / 1000)
        now = f"{statistics.median(away):.1f} s ({statistics.median(restarts):.1f} s)"
        show("restart with one client: away (the restart takes), median of 5", "3.8 s (0.3 s)", now)


def publication(lab):
    script = """(count) => {
      const ids = [...Array(count).keys()].map((n) => "id-" + n);
      const event = (n) => ["push", {data: String(n), id: "x:" + (n + 1), destination: ids[n % count]}];
      const packets = [...Array(5000).keys()].map((n) => "42" + JSON.stringify(event(n)));
      const begun = performance.now();
      packets.forEach((packet) => relay._wire._receive(packet));
      dispatchEvent(new Event("pagehide"));
      return (performance.now() - begun) / 5;
    }"""
    with lab.relay() as relay:
        for count, then in ((1, "23 µs"), (100, "74 µs")):
            with lab.page(relay, "") as tab:
                took = tab.evaluate(f"() => ({script})({count})")
                show(f"a publication parsed, handed over and stored, {count} ids", then, f"{took:.0f} µs")


def burst(lab):
    with lab.relay(history_size=10_000) as relay, lab.page(relay) as tab:
        lab.chromium.open().goto("about:blank")  # the page is hidden
        pushes = [{"destination": "42", "data": str(n)} for n in range(5000)]
        begun = time.monotonic()
        for n in range(0, 5000, 500):
            body = json.dumps(pushes[n : n + 500]).encode()
            status, *_ = relay.request("POST", "/push", body, {"Content-Type": "application/json"})
            assert status == 200
        tab.wait_for_function("got.length >= 5000")
        took = time.monotonic() - begun
        assert tab.evaluate("got") == list(range(5000))
        show("5,000 pushes to a hidden page: all handed over after", "1.6 s", f"{took:.1f} s")


def probe(lab):
    with lab.relay(history_size=10_000) as relay, TcpProxy(relay.port) as proxy:
        proxy.refuse_websocket()
        with lab.page(relay, options="{probeDelay: 1000}", address=f'"{proxy.url}"') as tab:
            count, is_over = 0, threading.Event()

            def push():
                nonlocal count
                while not is_over.wait(0.02):
                    relay.push("42", count)
                    count += 1

            thread = threading.Thread(target=push)
            thread.start()
            time.sleep(2)
            proxy.allow()
            tab.wait_for_function("relay.transport === 'websocket'")
            time.sleep(2)
            is_over.set()
            thread.join()
            tab.wait_for_function(f"got.length >= {count}")
            is_complete = tab.evaluate("got") == list(range(count))
            show(
                "from polling back to WebSocket under 50 pushes/s",
                "never",
                f"{count} of {count}, once, in order" if is_complete else "LOST",
            )


FIGURES = [size, dead_network, back_button, policy, acks, registrations, restart, publication, burst, probe]


def main(*names):
    show("", "then", "now")
    with tempfile.TemporaryDirectory() as folder, Server(("127.0.0.1", 0), Site) as site:
        folder = pathlib.Path(folder)
        with contextlib.closing(Chromium(folder / "profile")) as chromium:
            lab = Lab(folder, site, chromium)
            for figure in FIGURES:
                if not names or figure.__name__ in names:
                    figure(lab)


if __name__ == "__main__":
    main(*sys.argv[1:])
