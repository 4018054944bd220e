"""The site that browser_chaos.py breaks: a relay, the network before it, a token endpoint, and tabs of Chromium."""

import contextlib
import http.client
import http.server
import json
import random
import signal
import threading
import time

from browser_verdict import Kind, Ledger
from chromium import Chromium, Gone
from conftest import DEADLINE, ROOT, Relay, wait_for
from pages import Server
from tcp_proxy import DOWN, UP, TcpProxy

from pushrelay.access.tokens import sign

SECRET = "a-secret-that-only-this-chaos-knows-and-nobody-else"
RELAY = {"secret": SECRET, "history_size": 200, "ping_interval": 1, "ping_timeout": 2, "drain_spread": 0.3}
IDS = ["feed", "mail", "guarded"]  # each push goes to all of them
BURST = 300  # pushes: more than the history keeps, and to all ids not more than the relay takes in a batch

# The connections of each tab, and their ids with what they do from page to page. A frame is another page in its tab.
PLAIN, FRAME, INBOX = Kind(), Kind(keeps=False), Kind(repeats=True)
TABS = {
    "plain": {"plain": {"feed": PLAIN}, "frame": {"feed": FRAME}},
    "double": {"first": {"feed": PLAIN}, "second": {"feed": PLAIN, "guarded": PLAIN}},
    "inbox": {"inbox": {"mail": INBOX}},
    "polling": {"polling": {"feed": PLAIN}},
    "tokens": {"tokens": {"feed": PLAIN, "guarded": PLAIN}},
}
KINDS = {(key, id_): kind for tab in TABS.values() for key, ids in tab.items() for id_, kind in ids.items()}

PAGE = """<!doctype html><title>{tab}</title><script src="/relay.js"></script><script>
const life = Math.random().toString(36).slice(2);
const noted = [];
function note(key, what, id, value) {{
  noted.push(JSON.stringify([noted.length, key, life, what, id, value]));
  record(noted[noted.length - 1]);
}}
// Records may get lost while the page is left. The next page of the tab sends the last ones again.
const own = "noted" + location.pathname;
JSON.parse(sessionStorage.getItem(own) || "[]").forEach((text) => record(text));
addEventListener("pagehide", () => sessionStorage.setItem(own, JSON.stringify(noted.slice(-100))));
addEventListener("pageshow", ({{persisted}}) => persisted && noted.slice(-100).forEach((text) => record(text)));
function hold(key, register, options) {{
  note(key, "start");
  const relay = Relay.connect({url}, {{
    timeout: 2000, reconnectDelay: 100, reconnectDelayMax: 1000, probeDelay: 500, rest: 2, ...options,
  }});
  relay.on("status", (status, detail) => {{
    note(key, "status", "", [status, detail]);
    if (status === "lost") for (const id of detail) note(key, "lost", id);
  }});
  relay.on("error", (error) => note(key, "error", "", error.error));
  relay.on("push", async (data, {{destination}}) => {{
    if (options?.takes) await new Promise((done) => setTimeout(done, options.takes));
    note(key, "push", destination, +data); // from here on it is handled
  }});
  for (const [id, more] of register) {{
    relay.register(id, {{token: {token}, ...more}}).then(({{ids}}) => {{
      note(key, "registered", id, +ids[id].position.split(":")[1] - 1);
    }});
  }}
}}
const textOf = (answer) => answer.ok ? answer.text() : Promise.reject(answer.status);
const fetched = {{token: () => fetch("/token").then(textOf)}};
{script}
</script>"""
SCRIPTS = {
    "plain": 'hold("plain", [["feed"]]); document.write("<iframe src=/frame></iframe>");',
    "frame": 'hold("frame", [["feed"]]);',
    "double": 'hold("first", [["feed"]]); hold("second", [["feed"], ["guarded"]]);',
    "inbox": 'hold("inbox", [["mail", {inbox: true}]], {takes: 50});',
    "polling": 'hold("polling", [["feed"]], {transports: ["polling"]});',
    "tokens": 'hold("tokens", [["feed"], ["guarded", fetched]]);',
}


class Handler(http.server.BaseHTTPRequestHandler):
    """The pages, the client, and the token endpoint."""

    def do_GET(self):
        site = self.server.site
        name = self.path.strip("/")
        if name == "relay.js":
            self._answer("text/javascript", site.script)
        elif name == "token":
            self._answer("text/plain", site.token, 200 if site.gives_tokens else 503)
        else:
            self._answer("text/html", site.page(name))

    def _answer(self, kind, text, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Publisher:
    """Push 0, 1, 2 … to all ids at this rate, each until it is accepted."""

    def __init__(self, relay, rate):
        self.relay = relay
        self.rate = rate
        self.count = 0  # numbers that were accepted
        self._burst = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        due = time.monotonic()
        while not self._end.is_set():
            size, self._burst = max(1, self._burst), 0
            while not self._end.is_set() and not self._publish(range(self.count, self.count + size)):
                time.sleep(0.05)
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            self._end.wait(max(0, due - time.monotonic()))

    def _publish(self, numbers):
        lines = [json.dumps({"destination": IDS, "data": str(n), "id": f"push {n}"}) for n in numbers]
        body, headers = "\n".join(lines).encode(), {"Content-Type": "application/x-ndjson"}
        try:
            status, _, answer = self.relay.request("POST", "/push", body, headers)
        except (OSError, http.client.HTTPException):  # it is being killed
            return False
        assert status in (200, 503), answer
        if status == 200:
            self.count = numbers[-1] + 1
        return status == 200

    def burst(self):
        """Push more at once than the history keeps, and wait until it is accepted."""
        goal = self.count + BURST
        self._burst = BURST
        wait_for(lambda: self.count >= goal or not self._thread.is_alive(), "the burst", 3 * DEADLINE)

    def stop(self):
        self._end.set()
        self._thread.join()


class BrowserSite:
    """All of it. Its methods are the incidents of browser_chaos.py; each leaves everything as it was before."""

    def __init__(self, folder, seed, script=None, rate=20):
        self._stack = contextlib.ExitStack()
        self.script = script or (ROOT / "static" / "relay.js").read_text()
        self.token = sign({"ids": ["*"]}, SECRET)
        self.gives_tokens = True
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.violations = []  # what an incident itself notices
        try:
            self.relay = Relay(folder / "log", **RELAY)
            self._stack.callback(lambda: self.relay.kill())
            self.network = self._stack.enter_context(TcpProxy(self.relay.port))
            self.server = self._stack.enter_context(Server(("127.0.0.1", 0), Handler))
            self.server.site = self
            self.chromium = self._stack.enter_context(contextlib.closing(Chromium(folder / "profile")))
            self.publisher = Publisher(self.relay, rate)
            self._stack.callback(self.publisher.stop)
            self.tabs = {name: self._open(name) for name in TABS}
            self.front = list(TABS)[-1]
        except BaseException:
            self.close()
            raise

    def close(self):
        self._stack.close()

    def page(self, name):
        if name not in SCRIPTS:
            return "<!doctype html><title>another page</title>"
        return PAGE.format(
            tab=name, url=json.dumps(self.network.url), token=json.dumps(self.token), script=SCRIPTS[name]
        )

    def _open(self, name):
        tab = self.chromium.open()
        tab.call("Network.enable")
        tab.call("Page.enable")
        self.chromium.on(
            tab.session, "Runtime.bindingCalled", lambda event: self.ledger.note(*json.loads(event["payload"]))
        )
        tab.call("Runtime.enable")
        tab.call("Runtime.addBinding", name="record")
        tab.goto(f"{self.server.url}/{name}")
        for key, ids in TABS[name].items():
            for id_ in ids:
                wait_for(lambda key=key, id_=id_: self.ledger.has(key, id_, 0), f"{key} {id_}")
        return tab

    def _note(self, event):
        self.ledger.note(*json.loads(event["payload"]))

    def show(self, name):
        self.tabs[name].show()
        self.front = name

    def hide(self, name):
        if self.front == name:
            self.show(next(each for each in TABS if each != name))

    def is_complete(self, name):
        """Return whether all connections of a tab have everything."""
        count = self.publisher.count
        return all(self.ledger.has(key, id_, count - 1) for key, ids in TABS[name].items() for id_ in ids)

    # Incidents. `name` is a tab, `seconds` the duration.

    def wifi(self, name, seconds):
        """Switch the network off and on, which the browser notices at once."""
        self.network.stall()
        self._set_offline(True)
        time.sleep(seconds)
        self._forget_connections()
        self._set_offline(False)

    def dead_network(self, name, seconds):
        """Let the network die unnoticed, and come back without its connections."""
        self.network.stall()
        time.sleep(2 * seconds)
        self._forget_connections()

    def slow_network(self, name, seconds):
        self.network.stall()
        time.sleep(seconds)
        self.network.allow()

    def cut(self, name, seconds):
        self.network.cut(reset=True)

    def torn(self, name, seconds):
        """Cut some of the connections for a while, and then load a page again of which one may be among them."""
        self.network.refuse()
        for _ in range(self.network.connections() // 2):
            self.network.cut(one_of=self.chance)
        time.sleep(seconds)
        self.reload(name if name == "double" else "plain", 0)
        self.network.allow()

    def blocked(self, name, seconds):
        """Refuse WebSocket for a while."""
        self.network.refuse_websocket()
        self.network.cut()
        time.sleep(2 * seconds)
        self.network.allow()

    def freeze(self, name, seconds):
        with self._frozen(name):
            time.sleep(seconds)

    def long_freeze(self, name, seconds):
        """Freeze a page until the history does not reach back to it."""
        with self._frozen(name):
            self.publisher.burst()

    def sleep(self, name, seconds):
        """Stop the whole browser, as the sleep of a laptop does."""
        self.chromium.stop(2 * seconds)

    def stopped_relay(self, name, seconds):
        self.relay.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.relay.process.send_signal(signal.SIGCONT)

    def deploy(self, name, seconds):
        self.relay.stop()
        self.relay.start()

    def kill(self, name, seconds):
        self.relay.kill()
        time.sleep(seconds)
        self.relay.start()

    def back_forward(self, name, seconds):
        self._leave(name)
        time.sleep(seconds)
        self._return(name)

    def long_away(self, name, seconds):
        """Stay on another page until the history does not reach back."""
        self._leave(name)
        self.publisher.burst()
        self._return(name)

    def reload(self, name, seconds):
        self.tabs[name].call("Page.reload")

    def crash(self, name, seconds):
        self.tabs[name].crash()
        for key in TABS[name]:
            self.ledger.note_crash(key)
        time.sleep(seconds)
        self.tabs[name].call("Page.reload")

    def token_down(self, name, seconds):
        """Let the token endpoint fail. The ids whose tokens are there must go on."""
        self.gives_tokens = False
        self.network.cut()
        count = self.publisher.count
        self.show("tokens")
        try:
            wait_for(lambda: self.ledger.has("tokens", "feed", count), "feed", DEADLINE)
        except AssertionError:
            self.violations.append("tokens feed: away while only the token endpoint was down")
        before = self._cuts("tokens")
        time.sleep(1 + seconds)
        if self._cuts("tokens") > before:
            self.violations.append("tokens: offline because the token endpoint was down")
        self.gives_tokens = True

    def switch(self, name, seconds):
        self.show(name)
        time.sleep(seconds)

    def heal(self):
        """Look at each tab until it has everything. If something is still missing then, that is a violation."""
        count, front = self.publisher.count, TABS[self.front]
        try:
            ids = [(key, id_) for key, ids in front.items() for id_ in ids]
            wait_for(lambda: all(self.ledger.has(*each, count) for each in ids), "the tab in front", 2 * DEADLINE)
        except AssertionError:
            self.violations.append(f"{self.front}: not live by itself, although it is in front")
        for name in TABS:
            self.show(name)
            with contextlib.suppress(AssertionError):
                wait_for(lambda name=name: self.is_complete(name), name, 2 * DEADLINE)
        self.publisher.stop()
        for name in TABS:
            self.show(name)
            with contextlib.suppress(AssertionError):
                wait_for(lambda name=name: self.is_complete(name), name, DEADLINE)

    # Parts of incidents.

    def _cuts(self, key):
        """Return how often a connection ended, except by silence, which a busy machine may cause."""
        statuses = [each.value for each in self.ledger.records if each.key == key and each.what == "status"]
        return sum(status == "offline" and detail["reason"] != "ping timeout" for status, detail in statuses)

    def _set_offline(self, is_offline):
        for tab in self.tabs.values():
            tab.set_offline(is_offline)

    def _forget_connections(self):
        """Let everything pass again, except on the connections of before, of whose end no side ever hears."""
        self.network.half_open(UP)
        self.network.half_open(DOWN)
        self.network.allow()

    @contextlib.contextmanager
    def _frozen(self, name):
        self.hide(name)
        self.tabs[name].wait_for_function("document.hidden")
        self.tabs[name].set_state("frozen")
        yield
        self.tabs[name].set_state("active")

    def _leave(self, name):
        self.tabs[name].goto(f"{self.server.url}/another")

    def _return(self, name):
        with contextlib.suppress(Gone):  # the page may be gone before it answers
            self.tabs[name].evaluate("history.back()")
        self.tabs[name].wait_for_function(f"document.title === '{name}'")
