"""GET /status.json of relays that really run: it tells what happened, in every state, and to strangers not too much."""

import contextlib
import gzip
import http.client
import json
import signal
import socket
import sqlite3
import time

import pytest
from conftest import DEADLINE, own_only, wait_for

from pushrelay.status.kept import Kept
from pushrelay.status.rings import Rings


def status(relay, headers=None):
    """Return the status, and check what holds for each answer."""
    code, got, body = relay.request("GET", "/status.json", headers=headers or {})
    assert (code, got["Content-Type"], got["Cache-Control"]) == (200, "application/json", "no-store"), body
    assert len(body) < 64 << 10
    found = json.loads(body)
    assert {len(each) for each in found["history"]["series"].values()} == {found["history"]["length"]}
    return found


def when(relay, condition, what):
    """Wait until the status, which is up to a second old, fulfils a condition; return it."""
    found = {}

    def fulfils():
        found.update(status(relay))
        return condition(found)

    wait_for(fulfils, what)
    return found


@pytest.fixture(scope="module")
def busy(relay_with):
    return relay_with(push_keys="web:a-key-of-enough-characters", origins="same-host,https://shop.example")


def test_browsers_and_pushes_are_counted(busy, connect):
    connect(busy.url, "42", "7"), connect(busy.url, "42")
    busy.push("42", "to both")
    for _ in range(3):
        busy.push("nobody-here", "unheard")
    busy.request("POST", "/push", b"data=no-destination", {"Content-Type": "application/x-www-form-urlencoded"})
    found = when(busy, lambda found: found["pushes"]["hour"] >= 4 and found["pushes"]["refused"], "the pushes")
    pushes, clients = found["pushes"], found["clients"]
    assert (pushes["hour"], pushes["refused"], pushes["failed"]) == (4, 1, 0)
    assert (pushes["publications"], pushes["nobody"], pushes["nobody_percent"]) == (4, 3, 75)
    assert pushes["nobody_to"] == [{"name": "nobody-here", "count": 3}]
    assert found["busiest"]["pushes"][0] == {"name": "nobody-here", "count": 3}
    assert found["busiest"]["connections"] == [{"name": "42", "count": 2}, {"name": "7", "count": 1}]
    assert pushes["refusals"][0]["code"] == "missing_destination"
    assert (clients["now"], clients["websocket"], clients["polling"], clients["registrations"]) == (2, 2, 0, 3)
    assert found["deliveries"]["hour"] == 2 and 0 < found["latency"]["p50"] <= found["latency"]["p99"] < DEADLINE
    assert found["verdict"]["sentence"].startswith("Ready. 2 browsers, all by WebSocket. 1 of 5 pushes in the last ")
    assert found["state"] == {"ready": True, "reason": None, "draining": False, "since": found["relay"]["started"]}
    assert found["store"]["kind"] == "sqlite" and found["store"]["bytes"] > 0 and found["process"]["memory"] > 1 << 20
    assert [each["what"] for each in found["access"]["lines"]][:2] == ["push over HTTP", "push from a page"]
    assert found["access"]["origins"] == ["same-host", "https://shop.example"]


def test_problems_are_there_with_what_to_do(busy):
    for _ in range(3):
        busy.request("GET", "/socket.io/?EIO=4&transport=polling", headers={"Origin": "https://evil.example"})

    def of_page(found):
        return [each for each in found["problems"] if "evil.example" in each["text"] and each["count"] == 3]

    [problem] = of_page(when(busy, of_page, "the refusals"))
    assert problem["level"] == "warning"
    assert problem["todo"].startswith("Add 'https://evil.example' to the setting origins")


def test_the_answer_is_compressed_and_small(busy):
    _, headers, body = busy.request("GET", "/status.json", headers={"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in headers["Vary"]
    assert len(body) < 16 << 10 and json.loads(gzip.decompress(body))["local"]


def test_the_page_is_there_under_the_rules_of_the_demo_page(busy):
    code, headers, body = busy.request("GET", "/status")
    assert code == 200 and b"<h1" in body and headers["Content-Security-Policy"].startswith("default-src 'none'")
    proxied = {"X-Forwarded-For": "192.0.2.7"}
    code, _, body = busy.request("GET", "/status.json", headers=proxied)
    assert (code, json.loads(body)["error"]) == (403, "demo_not_shown")
    code, headers, body = busy.request("GET", "/status", headers={**proxied, "Accept": "text/html"})
    assert code == 403 and b"<!doctype html>" in body


def test_strangers_get_no_names_no_texts_and_no_paths(relay_with, connect):
    relay = relay_with(demo="yes")
    connect(relay.url, "alice@example.com", headers={"X-Forwarded-For": "192.0.2.7"})
    relay.push("bob@example.com", "nobody there")
    relay.request("GET", "/history", headers={"X-Forwarded-For": "192.0.2.8", "X-Relay-Key": "guessed"})
    local = when(relay, lambda found: found["problems"] and found["clients"]["now"], "the refusal")
    assert "alice@example.com" in str(local) and "a wrong key" in str(local["problems"])
    found = status(relay, {"X-Forwarded-For": "192.0.2.9"})
    assert not found["local"] and found["access"] is None and found["problems"][0]["text"] is None
    assert found["busiest"]["connections"] == [{"name": "a…", "count": 1}]
    for secret in ("example.com", "192.0.2", str(relay.log), "guessed", "curl"):
        assert secret not in json.dumps(found), secret
    assert found["clients"]["now"] == 1


def test_cookies_that_are_ids_are_shown_to_nobody(relay_with):
    relay = relay_with(id_cookie="PHPSESSID")
    relay.push("0123456789abcdef0123456789", "to a session")
    found = when(relay, lambda found: found["busiest"]["pushes"], "the push")
    assert found["local"] and "0123456789abcdef" not in json.dumps(found)


@own_only
def test_a_locked_store_is_told_and_the_status_does_not_wait_for_it(start_relay):
    relay = start_relay()
    relay.push("42", "first")
    path = relay.settings["broker"].removeprefix("sqlite:")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
        wait_for(lambda: locked(lock), "the lock")
        code, _ = relay.push_json(destination="42", data="refused")
        assert code == 503
        slowest = 0.0
        for _ in range(2):
            began = time.monotonic()
            found = when(relay, lambda found: not found["state"]["ready"], "the trouble")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(1.05)  # the answer is used again for a second
        assert slowest < 10, "it would wait until the lock is gone"
        verdict = found["verdict"]
        assert (verdict["level"], verdict["code"]) == ("bad", "store") and path in verdict["command"]
        assert found["store"]["trouble"] and found["pushes"]["failed"] == 1
        assert found["history"]["marks"][-1]["kind"] == "trouble"
        lock.execute("ROLLBACK")
    found = when(relay, lambda found: found["state"]["ready"], "the end of the trouble")
    assert found["verdict"]["sentence"].startswith("Ready again. The store did not accept 1 push in the last ")
    assert "The store is back" not in str(found["problems"])


def locked(connection):
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True


@own_only
def test_a_relay_that_drains_still_answers_on_an_open_connection(start_relay):
    relay = start_relay()
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE)
    connection.request("GET", "/status.json")
    assert json.loads(connection.getresponse().read())["state"]["ready"]
    slow = relay_waits(relay)
    relay.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "going down" in relay.log.read_text(), "the shutdown")
    time.sleep(1.05)
    connection.request("GET", "/status.json")
    found = json.loads(connection.getresponse().read())
    assert (found["state"]["draining"], found["verdict"]["code"]) == (True, "draining")
    slow.close()
    assert relay.process.wait(DEADLINE) == 0


def relay_waits(relay):
    """Send half a request, for which the relay waits while it drains."""
    sock = socket.create_connection(("127.0.0.1", relay.port))
    sock.sendall(b"POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nhalf")
    return sock


@own_only
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_is_told_with_who_came_back(start_relay, connect, how):
    relay = start_relay()
    clients = [connect(relay.url, "42") for _ in range(2)]
    position = relay.push("42", "before")["id"]
    when(relay, lambda found: found["clients"]["now"] == 2, "the clients")
    hour = relay.log.with_name(relay.log.name + ".db-hour")
    wait_for(lambda: hour.exists() and noted(hour) == 2, "the clients in the file of the hour")
    relay.stop() if how == "stop" else relay.kill()
    [each.drop() for each in clients]
    relay.start()
    back = connect(relay.url)
    assert back.call("register", {"id": "42", "since": position})["ids"]["42"]["recovered"]
    found = when(relay, lambda found: found["restart"] and found["restart"]["recovered"], "the restart")
    restart = found["restart"]
    assert (restart["clients_before"], restart["came_back"]) == (2, 1)
    assert (restart["recovered"], restart["lost"], restart["clean"]) == (1, 0, how == "stop")
    assert 0 <= restart["away"] < DEADLINE
    assert found["verdict"]["more"].endswith("1 of 2 browsers came back, 1 recovered, 0 lost.")
    assert found["history"]["marks"][0]["kind"] == "restart"


def noted(hour):
    """Return how many clients the file of the hour has. The relay goes on using it."""
    kept = Kept(str(hour))
    before = kept.open(Rings())
    kept.close()
    return before and before.clients


@own_only
def test_what_was_lost_is_a_warning(start_relay, connect):
    relay = start_relay(history_size=1)
    position = relay.push("42", "missed")["id"]
    for each in range(3):
        relay.push("42", each)
    answer = connect(relay.url).call("register", {"id": "42", "since": position.rpartition(":")[0] + ":1"})
    assert answer["ids"]["42"]["recovered"] is False
    found = when(relay, lambda found: found["recoveries"]["lost"], "the loss")
    assert (found["recoveries"]["lost"], found["verdict"]["level"], found["verdict"]["code"]) == (1, "warn", "lost")


@own_only
def test_it_works_below_a_base_path(start_relay):
    relay = start_relay(base_path="/relay")
    code, _, body = relay.request("GET", "/status.json")
    assert code == 200 and json.loads(body)["verdict"]["command"].endswith("/relay/push")
    assert relay.request("GET", "/status")[0] == 200


@own_only
def test_a_damaged_file_of_the_hour_changes_nothing(start_relay):
    relay = start_relay()
    relay.stop()
    relay.log.with_name(relay.log.name + ".db-hour").write_bytes(b"garbage")
    relay.start()
    assert relay.push("42", "taken")["id"] and status(relay)["restart"] is None
