"""The log of a relay to which everything happens: each event is one line, and no line has a secret."""

import contextlib
import json
import re
import socket

import pytest
from clients import PATH, WebSocketClient, enter, event
from conftest import DEADLINE, Relay, own_only, wait_for
from posting import post

SECRET, KEY = "c6a1e72b90f34d58a7b1c02e9f4d63aa", "4e0b97d1c35fa8260be9"
WRONG, TOKEN = "f00dfacec0ffee1234", "eyJhbGciOiJIUzI1NiJ9.eyJpZHMiOlsiYSJdfQ.c2lnbmF0dXJlc2ln"
DATA, COOKIE, QUERY = "d4t4-0f-4-pu5h", "0123456789abcdef0123456789", "qu3ry-t0k3n"
FORGED = "2026-01-01 00:00:00,000 ERROR pushrelay: forged"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def everything(relay):
    """Have a relay log one of each kind of event, with secrets in all the places that requests have for them."""
    far = {"X-Forwarded-For": "203.0.113.9", "Cookie": f"PHPSESSID={COOKIE}"}
    keyed = {**far, "X-Relay-Key": KEY}
    push = f"destination=42&data={DATA}".encode()
    for headers in (keyed, far, {**far, "Authorization": f"Bearer {WRONG}"}, {**far, "X-Relay-Key": f"{KEY}, {WRONG}"}):
        relay.request("POST", "/push", push, {**headers, **FORM})
    post(relay, [{"destination": "42", "data": DATA}, {"destination": 7, "data": DATA}, {"data": DATA}])
    post(relay, f'{{"destination": "42", "data": "{DATA}", "my {DATA}": 1}}')
    post(relay, f'{{"destination": "42", "data": "{DATA}')
    post(relay, {"destination": "42\n" + FORGED, "data": DATA})
    relay.request("GET", f"/history?destination=42&since={QUERY}", headers=keyed)
    relay.request("GET", f"/nowhere/%0a{FORGED.replace(' ', '%20')}?token={QUERY}", headers=far)
    relay.request("GET", f"/boom/%0d%0a{FORGED.replace(' ', '%20')}?key={QUERY}", headers=keyed)
    relay.request("GET", f"{PATH}polling&token={QUERY}", headers={**far, "Origin": f"http://x\\n{FORGED}"[:100]})
    relay.request("GET", f"/socket.io/?EIO=3&transport=polling&t={QUERY}", headers=far)
    relay.request("GET", f"{PATH}polling&sid={QUERY}", headers=far)
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(f"GET /\0 HTTP/1.1\r\nCookie: a={COOKIE}; {QUERY}\r\n\r\n".encode())
        sock.recv(1000)
    talk(relay)


def talk(relay):
    """Have a relay log what clients do over Socket.IO."""
    client = WebSocketClient(relay.port, f"{PATH}websocket&token={QUERY}")
    client.receive()
    client.send("40")
    for number, (name, message) in enumerate(
        [
            ("register", {"id": "42", "token": TOKEN}),
            ("register", {"id": "42", "token": f"{SECRET}{TOKEN}"}),
            ("register", {"id": ["42", "b\n" + FORGED], "token": TOKEN}),
            ("register", f"{DATA}"),
            ("push", {"destination": "42", "data": DATA}),
            ("ack", {"id": "42", "position": DATA}),
            ("boom", f"{FORGED}"),
            ("unheard\n" + FORGED, DATA),
        ]
    ):
        client.send(event(name, message, number))
    client.send(f'42["push",{{"destination":"42","data":"{DATA}')
    client.send("40")  # a second one closes the client
    while client.receive() is not None:
        pass
    client.close()


def lines_of(folder, kind, server):
    """Return the log of a relay to which everything has happened, at the level debug, without the banner."""
    file = folder / "my.ini"
    file.write_text(f"[relay]\nsecret = {SECRET}\npush_keys = web:{KEY}\nid_cookie = PHPSESSID\n")
    settings = {"log_format": kind, "log_level": "debug", "access_log": "yes", "trusted_proxies": "127.0.0.1"}
    relay = Relay(folder / "log", "tests/logged_relay.py", config=file, server=server, **settings)
    try:
        everything(relay)
        wait_for(lambda: "disconnected" in relay.log.read_text(), "the end of the client")
        assert relay.stop() == 0
    finally:
        with contextlib.suppress(OSError):
            relay.kill()
    text = relay.log.read_text()
    banner = text[text.index("The relay serves") : text.index("Ctrl+C stops")]
    return [line for line in text.replace(banner, "", 1).splitlines() if "Ctrl+C stops" not in line]


@pytest.fixture(scope="module")
def in_json(server, tmp_path_factory):
    return lines_of(tmp_path_factory.mktemp("logging"), "json", server)


@pytest.fixture(scope="module")
def in_text(server, tmp_path_factory):
    return lines_of(tmp_path_factory.mktemp("logging"), "text", server)


EXPECTED = {("pushrelay.clients", "debug"), ("pushrelay.refused", "warning"), ("pushrelay.lifecycle", "info")}


def check_secrets(lines):
    for each in (SECRET, KEY, WRONG, TOKEN, DATA, COOKIE, QUERY, *TOKEN.split(".")[1:]):
        assert not [line for line in lines if each in line]


def test_each_event_is_one_line_that_can_be_parsed(in_json, server):
    parsed = [json.loads(line) for line in in_json]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in parsed)
    levels = {(line["logger"], line["level"]) for line in parsed}
    assert levels >= EXPECTED and any("Traceback" in line.get("exception", "") for line in parsed)
    assert (("pushrelay.access_log", "info") in levels) == (server == "own")


def test_no_secret_and_no_data_is_in_the_log(in_json):
    check_secrets(in_json)


@own_only
def test_no_stranger_forges_a_line(in_text):
    heads = [re.match(r"\d{4}-\S+ \S+ ([A-Z]+) (pushrelay\S*|relay|py\.warnings): ", each) for each in in_text]
    assert all(head or line.startswith("    ") for head, line in zip(heads, in_text, strict=True)), in_text
    assert {(head[2], head[1].lower()) for head in heads if head} >= EXPECTED
    assert "forged" in "\n".join(in_text) and not [line for line in in_text if line.startswith("2026-01-01")]
    check_secrets(in_text)


@own_only
def test_a_client_connects_and_leaves_without_a_line_above_debug(start_relay):
    relay = start_relay(log_format="json", log_level="info")
    for _ in range(5):
        enter(relay, "42").close()
    assert relay.stop() == 0
    lines = [json.loads(line) for line in relay.log.read_text().splitlines() if line.startswith("{")]
    said = [line["message"].split(":")[0].split(" at ")[0] for line in lines]
    assert said == ["the relay serves", "going down", "down"]
