"""A page that may not connect can read why, and gets nothing else; the log names the setting to change."""

import contextlib
import json
import shutil
import subprocess
import threading
import time

import pytest
from clients import WebSocketClient, enter, event
from conftest import DEADLINE, ROOT, need, own_only, wait_for
from pages import Server, Site

HERE = ROOT / "tests"
EVIL = "https://evil.example"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
POLLING = "/socket.io/?EIO=4&transport=polling"

pytestmark = own_only


class Foreign(WebSocketClient):
    """A WebSocket of a page of another origin."""

    def __init__(self, port, path=WEBSOCKET, origin=EVIL):
        super().__init__(port, f"{path} HTTP/1.1\r\nOrigin: {origin}\r\nX-Rest:")


@pytest.fixture
def foreign():
    with contextlib.ExitStack() as opened:
        yield lambda *args, **more: opened.enter_context(contextlib.closing(Foreign(*args, **more)))


def packets_and_code(client):
    """Return the packets until the relay closes the WebSocket, and the code of its close frame."""
    packets = []
    while (frame := client.frame())[0] == 1:
        packets.append(frame[1].decode())
    return packets, int.from_bytes(frame[1][:2], "big")


def test_a_page_of_a_refused_origin_can_read_why_over_its_websocket(relay, foreign):
    client = foreign(relay.port)
    assert " 101 " in client.status
    (opened, refused), code = packets_and_code(client)
    assert opened.startswith("0{") and refused.startswith("44{") and code == 1008
    reason = json.loads(refused[2:])
    assert reason["data"]["error"] == "origin_not_allowed" and "setting origins" in reason["message"]


def test_a_page_of_a_refused_origin_gets_no_slot_no_data_and_no_session(start_relay, foreign):
    relay = start_relay(max_connections=1)
    client = foreign(relay.port)
    sid = json.loads(client.receive()[1:])["sid"]
    with contextlib.suppress(OSError):
        client.send("40")
        client.send(event("register", {"id": "42"}, 1))
    inside = enter(relay, "42")  # the only slot
    for method, path, body in (("GET", POLLING, None), ("POST", POLLING, b"40"), ("GET", WEBSOCKET, None)):
        for headers in ({}, {"Origin": EVIL}):
            status, _, answer = relay.request(method, f"{path}&sid={sid}", body, headers)
            assert status in (400, 403), answer
    assert relay.push("42", "for those inside")["connections"] == 1
    assert "for those inside" in inside.receive()
    assert "for those inside" not in "".join(packets_and_code(client)[0])
    inside.close()


@pytest.mark.parametrize("path", [f"{WEBSOCKET}&sid=x", "/socket.io/?EIO=3&transport=websocket"])
def test_other_requests_than_handshakes_get_the_http_error(relay, foreign, path):
    assert " 403 " in foreign(relay.port, path).status


def test_few_pages_at_a_time_get_a_websocket_and_the_others_get_the_http_error(start_relay, foreign):
    relay = start_relay()
    clients = [foreign(relay.port) for _ in range(40)]
    first = [" 101 " in client.status for client in clients]
    assert 0 < sum(first) < 40 and all(" 403 " in client.status for client in clients if " 101 " not in client.status)
    for client in clients:
        client.close()
    wait_for(lambda: " 101 " in foreign(relay.port).status, "a free slot")


def test_the_connection_of_a_refused_page_that_stays_is_dropped(relay, foreign):
    client = foreign(relay.port)
    packets_and_code(client)
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while client.sock.recv(100) or client.sock.send(b"\x8a\x80\0\0\0\0"):
            pass
    assert time.monotonic() - began < DEADLINE


@pytest.fixture
def official():
    """Return a function that starts the official client in Node, over WebSocket alone; it returns a list of events."""
    need(shutil.which("node") and (HERE / "node_modules/socket.io-client").exists(), "Node and socket.io-client")
    with contextlib.ExitStack() as started:

        def start(url, origin):
            command = ["node", str(HERE / "refused_client.js"), url, origin]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE)
            started.callback(process.wait, DEADLINE)
            started.callback(process.kill)
            lines = []

            def read():
                for line in process.stdout:
                    lines.append(json.loads(line))

            threading.Thread(target=read, daemon=True).start()
            return lines

        yield start


def test_the_official_client_gets_the_reason_once_and_does_not_come_back(start_relay, official):
    relay = start_relay(access_log="yes")
    lines = official(relay.url, EVIL)
    wait_for(lambda: lines, "the refusal")
    assert lines[0]["data"]["error"] == "origin_not_allowed" and "setting origins" in lines[0]["refused"]
    assert lines[0]["active"] is False  # it will not try again
    time.sleep(1)  # ten of its delays
    assert len(lines) == 1


def test_the_official_client_reconnects_automatically_once_there_is_room(start_relay, official):
    """It takes a CONNECT_ERROR for final, so refusals that pass are HTTP errors."""
    relay = start_relay(max_connections=1)
    inside = enter(relay, "42")
    lines = official(relay.url, relay.url)
    wait_for(lambda: len(lines) > 1, "two refusals")
    inside.close()
    wait_for(lambda: "connected" in lines[-1], "a free slot")


@pytest.fixture
def elsewhere():
    """Return the address of a page on another port of this machine."""
    with Server(("127.0.0.1", 0), Site) as site:
        site.html = b"<!doctype html><title>elsewhere</title>"
        yield site.url


def test_a_page_in_chromium_can_read_why_it_is_refused(start_relay, context, elsewhere):
    relay = start_relay(origins="https://shop.example")
    page = context.new_page()
    page.goto(elsewhere)
    packets, code = page.evaluate(
        """url => new Promise((done) => {
            const packets = [], socket = new WebSocket(url);
            socket.onmessage = ({data}) => packets.push(data);
            socket.onclose = ({code}) => done([packets, code]);
        })""",
        f"ws://127.0.0.1:{relay.port}{WEBSOCKET}",
    )
    assert [packet[:2] for packet in packets] == ["0{", "44"] and code == 1008
    status, answer = page.evaluate(
        """async url => {
            const response = await fetch(url, {credentials: "include"});
            return [response.status, await response.json()];
        }""",
        relay.url + POLLING,
    )
    assert (status, answer["error"]) == (403, "origin_not_allowed")
    others = page.evaluate(
        "([url, ...paths]) => Promise.all(paths.map((path) => fetch(url + path).then(() => path, () => null)))",
        [relay.url, POLLING + "&sid=x", "/push", "/health/ready", "/history?destination=a", "/"],
    )
    assert others == [None] * 5  # that page can read nothing else


def test_a_page_with_relay_js_can_read_why_it_is_refused_and_does_not_reconnect_in_a_loop(start_relay, page):
    relay = start_relay(origins="https://shop.example")
    page.open(relay.url).run("() => { window.relay = listen(Relay.connect()); relay.register('42').catch(() => {}); }")
    page.until("seen.some(([what, error]) => what === 'error' && error.error === 'origin_not_allowed')")
    time.sleep(1)
    assert "setting origins" in page.run("seen.find(([what]) => what === 'error')[1].message")
    assert page.run("seen.filter(([what, status]) => what === 'status' && status === 'connecting').length") < 6


def test_a_page_that_may_connect_can_read_when_to_try_again(start_relay):
    relay = start_relay(max_connections=1, origins="https://shop.example")
    inside = enter(relay, "42")
    status, headers, _ = relay.request("GET", POLLING, headers={"Origin": "https://shop.example"})
    assert (status, headers["Access-Control-Allow-Origin"]) == (503, "https://shop.example")
    assert int(headers["Retry-After"]) > 0 and headers["Access-Control-Expose-Headers"] == "Retry-After"
    inside.close()


def test_the_log_names_the_setting_once_a_minute_for_each_cause_and_origin(start_relay, foreign):
    relay = start_relay(max_connections=1)
    origins = [EVIL, "https://other.example"]
    for origin in origins * 3:
        foreign(relay.port, origin=origin)
        relay.request("GET", POLLING, headers={"Origin": origin})
    inside = enter(relay, "42")
    for _ in range(3):
        assert relay.request("GET", POLLING)[0] == 503
    wait_for(lambda: "clients are connected already" in relay.log.read_text(), "the line about the full relay")
    lines = relay.log.read_text().splitlines()
    for origin in origins:
        (line,) = [each for each in lines if origin in each]
        assert "setting origins" in line
    (line,) = [each for each in lines if "clients are connected already" in each]
    assert "max_connections" in line
    inside.close()


def test_any_number_of_origins_adds_a_bounded_number_of_lines_to_the_log(start_relay):
    relay = start_relay()
    before = len(relay.log.read_text().splitlines())
    for i in range(200):
        relay.request("GET", POLLING, headers={"Origin": f"https://{i}.example"})
    assert 10 < len(relay.log.read_text().splitlines()) - before < 100
