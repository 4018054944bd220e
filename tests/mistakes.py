"""Mistakes that people make with a relay, again and again, and the lines about them in its log.

    .venv/bin/python tests/mistakes.py [--seconds 600] [--minute 60] [--every 2]

The log must contain each cause with what to do, and no cause more than once a minute. Prints the lines and their
counts.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from clients import WebSocketClient, event  # noqa: E402
from conftest import DEADLINE, Relay, wait_for  # noqa: E402

from pushrelay.access.tokens import sign  # noqa: E402

SECRET = "the-secret-of-this-relay-is-long-enough"
SETTINGS = {
    "secret": SECRET,
    "id_cookie": "PHPSESSID",
    "push_keys": "web:2bd806c97f0e00af1a1fc332",
    "max_connections": 2,
    "max_header": 4096,
    "max_message": 2048,
    "max_body": 2048,
    "max_outbox": 65536,
    "max_event_rate": 2,
    "register_timeout": 1,
}
AT = "/socket.io/?EIO=4&transport="
SHOP = "http://shop.test"
FAR = {"X-Forwarded-For": "203.0.113.9"}  # as a proxy would add it
FORM = b"destination=42&data=hello"

# Patterns in the line about each mistake: the subject, and what to do.
LINES = {
    "wrong_origin": (SHOP, "setting origins"),
    "no_origin": ("'null'", "setting origins"),
    "wrong_secret": ("register", "both sides need the same"),
    "expired_token": ("register", "register again with a new token"),
    "no_token": ("missing_token", "your server signs one"),
    "id_not_in_claim": ("register", "claim ids"),
    "missing_cookie": ("register", "have PHP set it"),
    "wrong_key": ("a wrong key", "push_keys"),
    "no_key": ("a request without a key", "push_keys"),
    "push_by_a_page": ("POST /push", "let your server push"),
    "bad_push": ("POST /push", "field destination"),
    "push_too_large": ("POST /push|413", "max_body"),
    "old_client": ("EIO='3'", "socket.io-client 3 or 4"),
    "wrong_path": ("GET /relay/socket.io/", "base_path = /relay$|base_path = /relay "),
    "reused_key": ("POST /push", "Use a new key for each push"),
    "push_by_get": ("GET /push", "POST"),
    "unknown_transport": ("Transport unknown", "polling or"),
    "unknown_session": ("Session ID unknown", "several relays"),
    "no_upgrade": ("Connection: Upgrade", "docs/apache.md"),
    "unknown_namespace": ("'/chat'", "namespace /"),
    "full": ("connected already", "max_connections"),
    "too_many_events": ("events", "max_event_rate"),
    "message_too_large": ("2048 bytes", "max_message"),
    "header_too_large": ("431", "max_header"),
    "registers_nothing": ("registered nothing", "register_timeout"),
    "reads_nothing": ("does not read", "max_outbox"),
    "demo_from_elsewhere": ("demo page", "demo = yes"),
}


SLOW = ("registers_nothing", "reads_nothing")  # they take a second or more


class Mistakes:
    """Makes each mistake, once for each call of its method."""

    def __init__(self, relay):
        self.relay = relay

    @contextlib.contextmanager
    def client(self, connect=True):
        """Connect a client. There is room for two, and the last one may not have left yet."""

        def entered():
            client = WebSocketClient(self.relay.port)
            if " 101 " in client.status:
                return client
            client.close()

        client = wait_for(entered, "a place")
        with contextlib.closing(client):
            client.receive()
            if connect:
                client.send("40")
                assert client.receive().startswith("40")
            yield client

    def register(self, **message):
        with self.client() as client:
            client.send(event("register", message, 1))
            assert '"ok":false' in client.receive()

    def handshake(self, query="polling", **headers):
        return self.relay.request("GET", AT + query, headers=headers)[0]

    def push(self, body=FORM, expected=(401, 403), **headers):
        status = self.relay.request("POST", "/push", body, headers)[0]
        assert status in expected, status

    # The mistakes.

    def wrong_origin(self):
        assert self.handshake(Origin=SHOP) == 403

    def no_origin(self):
        assert self.handshake(Origin="null") == 403

    def wrong_secret(self):
        self.register(id="42", token=sign({"ids": ["42"]}, "another-secret-that-is-long-enough-too"))

    def expired_token(self):
        self.register(id="42", token=sign({"ids": ["42"], "exp": 1}, SECRET))

    def no_token(self):
        self.register(id="42")

    def id_not_in_claim(self):
        self.register(id="43", token=sign({"ids": ["42"]}, SECRET))

    def missing_cookie(self):
        self.register(id="me")

    def wrong_key(self):
        self.push(**FAR, **{"X-Relay-Key": "not-the-key-of-this-relay"})

    def no_key(self):
        self.push(**FAR)

    def push_by_a_page(self):
        self.push(Origin=SHOP)

    def bad_push(self):
        self.push(b"data=hello", (400,))

    def reused_key(self):
        for data, expected in ((b"paid", (200,)), (b"shipped", (422,))):
            self.push(b"destination=orders&id=7&data=" + data, expected)

    def push_too_large(self):
        self.push(FORM + b"x" * 3000, (413,))

    def old_client(self):
        assert self.relay.request("GET", "/socket.io/?EIO=3&transport=polling")[0] == 400

    def wrong_path(self):
        assert self.relay.request("GET", "/relay" + AT + "polling")[0] == 404

    def push_by_get(self):
        assert self.relay.request("GET", "/push?destination=42&data=hello")[0] == 405

    def unknown_transport(self):
        assert self.handshake("flashsocket") == 400

    def unknown_session(self):
        assert self.handshake("polling&sid=of-the-other-relay") == 400

    def no_upgrade(self):
        assert self.handshake("websocket") == 400

    def unknown_namespace(self):
        with self.client() as client:
            client.send("40/chat,")
            assert client.receive().startswith("44/chat,")

    def full(self):
        with self.client(), self.client():
            assert self.handshake() == 503

    def too_many_events(self):
        with self.client() as client:
            for number in range(40):
                client.send(event("ack", {}, number))
            while "too_many_events" not in client.receive():
                pass

    def message_too_large(self):
        with self.client() as client:
            client.send("4" * 3000)
            assert client.receive() is None

    def header_too_large(self):
        assert self.relay.request("GET", "/health/live", headers={"Cookie": "x" * 5000})[0] == 431

    def registers_nothing(self):
        with self.client() as client:
            while client.receive() is not None:
                pass

    def reads_nothing(self):
        token = sign({"ids": ["slow"]}, SECRET)
        with self.client() as client:
            client.send(event("register", {"id": "slow", "token": token}, 1))
            assert '"ok":true' in client.receive()
            form = b"destination=slow&data=" + b"x" * 2000
            wait_for(
                lambda: b'"connections":0' in self.relay.request("POST", "/push", form)[2], "its end", 2 * DEADLINE
            )

    def demo_from_elsewhere(self):
        assert self.relay.request("GET", "/", headers=FAR)[0] == 403


def lines_of(relay):
    """Return (seconds since 1970, line) for each line about a refusal."""
    found = re.findall(r"^(\S+ \S+),(\d+) WARNING pushrelay\.refused: (.*)$", relay.log.read_text(), re.MULTILINE)
    return [(datetime.datetime.fromisoformat(at).timestamp() + int(ms) / 1000, line) for at, ms, line in found]


def check(lines, minute, names):
    """Return for each mistake its lines. Raises AssertionError if one has none, or two within a minute."""
    found = {}
    for name in names:
        what, advice = LINES[name]
        mine = [(at, line) for at, line in lines if re.search(what, line) and re.search(advice, line)]
        assert mine, f"{name}: no line"
        kinds = {re.sub(r" \(and \d+ more.*", "", line) for _, line in mine}
        for kind in kinds:
            times = [at for at, line in mine if line.startswith(kind)]
            gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
            assert all(gap > minute - 0.1 for gap in gaps), (name, gaps)
        found[name] = [line for _, line in mine]
    return found


def run(relay, seconds, minute, every, names=tuple(LINES)):
    """Make all mistakes for `seconds`, and return the result of check()."""
    mistakes, end, rounds = Mistakes(relay), time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds < 3:
        rounds += 1
        for name in names:
            getattr(mistakes, name)()
            if name not in SLOW:
                getattr(mistakes, name)()
        time.sleep(every)
    wait_for(lambda: len(lines_of(relay)) >= len(names), "the log")
    return check(lines_of(relay), minute, names)


def start(log, minute):
    os.environ["MINUTE"] = str(minute)
    return Relay(log, program="tests/hasty_relay.py", **SETTINGS)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--minute", type=float, default=60)
    parser.add_argument("--every", type=float, default=2)
    parser.add_argument("--old-client", help="a folder with socket.io-client 2 in node_modules")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        relay = start(pathlib.Path(folder) / "log", given.minute)
        program = f'require("socket.io-client")({relay.url!r}, {{reconnectionDelay: 1000}})'
        node = subprocess.Popen(["node", "-e", program], cwd=given.old_client) if given.old_client else None
        try:
            found = run(relay, given.seconds, given.minute, given.every)
        finally:
            if node is not None:
                node.kill()
                node.wait()
            relay.stop()
            print(relay.log.read_text())
    for name, lines in found.items():
        print(f"{len(lines):4} {name}: {lines[-1]}")


if __name__ == "__main__":
    main()
