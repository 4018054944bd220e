"""A page with relay.js in Chromium, and the server of that page."""

import http.server
import json
import re
import socketserver
import threading

from conftest import DEADLINE, wait_for

HANDSHAKE = '0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000}'

# The tests read these afterwards: `relay`, and its events in order.
LISTEN = """
var seen = [], keep = (what) => (...args) => seen.push([what, ...args.filter((it) => it !== undefined)]);
function listen(relay) {
  for (const what of ["status", "error", "push"]) relay.on(what, keep(what));
  return relay;
}
"""


class Page:
    """A page on another port of the relay's host, as Apache would serve it, with the script tag that people embed."""

    def __init__(self, page, site):
        self.page = page
        self.site = site

    def open(self, url, script="/static/relay.js", before=""):
        html = f'<!doctype html><script>{before}</script><script src="{url}{script}"></script><script>{LISTEN}</script>'
        self.site.html = html.encode()
        self.page.goto(self.site.url)
        return self

    def run(self, javascript):
        """Return the value of an expression or a function call. A promise that does not settle fails the test."""
        late = f"new Promise((_, reject) => setTimeout(() => reject(new Error('no answer')), {1000 * DEADLINE:g}))"
        value = f"(async () => {{ const it = ({javascript}); return typeof it === 'function' ? it() : it; }})()"
        return self.page.evaluate(f"() => Promise.race([{value}, {late}])")

    def connect(self, options="{}", ids='"42"'):
        """Connect, register, and wait until the registration is answered."""
        self.run(f"() => {{ window.relay = listen(Relay.connect(undefined, {options})); }}")
        return self.run(f"() => relay.register({ids})") if ids else self.until("relay.status === 'online'")

    def until(self, javascript):
        try:
            return self.page.wait_for_function(javascript).json_value()
        except Exception as error:
            raise AssertionError(f"{javascript}; seen: {self.run('seen')!r:.1000}") from error

    def hears(self, what, argument=None):
        """Wait until the page has received this event, with this first argument if one is given."""
        is_it = f"what === '{what}'" + (f" && argument === '{argument}'" if argument else "")
        self.until(f"seen.some(([what, argument]) => {is_it})")

    def seen(self, what):
        return [rest for kind, *rest in self.run("seen") if kind == what]

    def pushed(self, count):
        """Wait for `count` pushes, and return their data."""
        self.until(f"seen.filter(([what]) => what === 'push').length >= {count}")
        return [data for data, *_ in self.seen("push")]


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.html)

    def log_message(self, *_):
        pass


class Files(http.server.BaseHTTPRequestHandler):
    """The files of a site: server.files has (contents, headers) by path. A path that ends with / is a page."""

    TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}

    def do_GET(self):
        path = self.path.partition("?")[0]
        text, headers = self.server.files.get(path, (None, {}))
        self.send_response(200 if text is not None else 404)
        self.send_header("Content-Type", self.TYPES.get(path[path.rfind(".") :], "text/html"))
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_):
        pass


def as_written(register):
    """Return the payload of a register as a person would write it."""
    (first, *others) = register["id"]
    payload = register | {"id": [first, *others] if others else first}
    return {name: value for name, value in payload.items() if value != {}}


class Fake:
    """A server inside the test, which sends messages that a relay seldom sends. `send` uses the last socket."""

    def __init__(self, page):
        self.page = page
        self.sockets = []
        self.got = []
        self.answer = '40{"sid":"s"}'
        self.replay = []  # positions of the publications before that answer
        self.positions = None  # a dict: the positions in the answer to each register, and whether they are recovered

    def accept(self, ws):
        self.sockets.append(ws)
        ws.on_message(self.receive)
        ws.send(HANDSHAKE)

    def receive(self, message):
        self.got.append(message)
        if message == "40":
            self.send(self.answer)
        elif self.positions is not None and (register := re.match(r'42(\d+)\["register",', message)):
            for position in self.replay:
                self.push(position)
            self.respond(register[1], self.positions)

    def respond(self, number, positions=None, error=None):
        """Answer a packet by its number, with {id: (position, whether it is recovered)} or a refusal."""
        ids = {
            each: {"position": position, "recovered": recovered, "replayed": 0}
            for each, (position, recovered) in (positions or {}).items()
        }
        answer = {"ok": False, "error": error, "message": "no"} if error else {"ok": True, "ids": ids}
        self.send(f"43{number}{json.dumps([answer])}")

    def send(self, packet):
        self.sockets[-1].send(packet)

    def event(self, *args):
        self.send("42" + json.dumps(args))

    def push(self, position, destination="42"):
        self.event("push", {"data": position, "id": position, "destination": destination})

    def sent(self, event):
        """Return the messages that the page emitted under this name, in order. A list of one id counts as the id."""
        packets = (re.fullmatch(r"42\d*(\[.*)", message) for message in self.got if isinstance(message, str))
        messages = [args[1] for args in (json.loads(packet[1]) for packet in packets if packet) if args[0] == event]
        return [as_written(each) for each in messages] if event == "register" else messages

    def waits_for(self, event, count):
        wait_for(lambda: self.page.run("1") and len(self.sent(event)) >= count, f"{event} {count}")
        return self.sent(event)

    def reconnect(self, positions):
        """End the connection, and answer the registrations of the next one with these."""
        self.positions = positions
        count = len(self.sockets)
        self.send("41")
        self.connected(count + 1)

    def connected(self, count):
        wait_for(lambda: self.page.run("1") and len(self.sockets) >= count, f"connection {count}")


def say(page, text):
    """Write a message in the chat of php/example."""
    page.fill("#text", text)
    page.press("#text", "Enter")


def said(page, text):
    """Wait until the chat shows this text."""
    page.locator("#messages .text").get_by_text(text, exact=True).wait_for()
