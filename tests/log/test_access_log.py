"""The access log: one line for each request, without anything secret."""

import json
import logging
import socket

import pytest
from clients import PATH, enter
from conftest import DEADLINE, own_only, wait_for
from posting import post

from pushrelay.log.access_log import NOTES, AccessLog, note

KEY = "kd82hfy3ndb61mdo02jdb7"


def line_of(caplog, target, log=None, **notes):
    """Return the line and its fields for a request that was answered with 200."""
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": target, "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "192.0.2.1"}
    log = log or AccessLog()
    with caplog.at_level(logging.INFO, "pushrelay.access_log"):
        log.begin(environ)
        note(dict(environ), **notes)  # a copy, as middleware makes one
        log.end(environ, 200, 7)
    return caplog.records[-1].getMessage(), caplog.records[-1].fields


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/socket.io/?EIO=4&transport=polling&sid=SECRET", "/socket.io/?EIO=4&transport=polling&sid=…"),
        ("/?token=SECRET&key=SECRET&PHPSESSID=SECRET", "/?token=…&key=…&PHPSESSID=…"),
        ("/?SECRET", "/?…"),
        ("/?a=b=SECRET&&%20=SECRET;x=SECRET", "/?a=…&&…"),
        ("/history?destination=42&since=SECRET", "/history?destination=42&since=…"),
        ("http://user:SECRET@host/path", "/path"),
        ("/plain", "/plain"),
        ("*", "*"),
    ],
)
def test_only_harmless_parts_of_a_query_are_logged(caplog, target, shown):
    line, fields = line_of(caplog, target)
    assert f'"GET {shown.encode("unicode_escape").decode()} HTTP/1.1" 200 7' in line and fields["path"] == shown
    assert "SECRET" not in line + str(fields)


def test_the_notes_of_a_request_are_in_its_line_and_bounded(caplog):
    names = [f"{n}{'x' * 200}" for n in range(1000)]
    line, fields = line_of(caplog, "/push", user="web", destinations=names, error="invalid_id")
    assert line.startswith("192.0.2.1 web ") and line.endswith(" and 990 more invalid_id") and len(line) < 1300
    assert len(fields["destinations"]) == 10 and fields["destination_count"] == 1000
    assert fields["user"] == "web" and fields["error"] == "invalid_id" and 0 <= fields["seconds"] < 60


def test_destinations_that_are_session_ids_are_masked(caplog):
    log = AccessLog(hides_names=True)
    line, fields = line_of(caplog, "/presence?destination=k3jf83hd72hf7sh2", log, destinations=["k3jf83hd72hf7sh2"])
    assert "k3jf83hd" not in line + str(fields) and fields["destinations"] == ["k3jf…"]


def test_without_an_access_log_a_note_does_nothing():
    environ = {}
    note(environ, user="web")
    assert NOTES not in environ


@own_only
def test_a_line_has_the_visitors_address_the_destinations_and_the_result(start_relay):
    keys = {"push_keys": f"web:{KEY}", "trusted_proxies": "127.0.0.1"}
    relay = start_relay(access_log="yes", log_format="json", **keys)
    visitor = {"X-Forwarded-For": "203.0.113.9"}
    post(relay, [{"destination": ["a", "b"], "data": 1}, {"destination": "", "data": 1}])
    for _ in range(2):  # the header of the second one is known
        relay.request("POST", "/push", b"destination=42&data=hello", {**visitor, "X-Relay-Key": KEY})
    relay.request("POST", "/push", b"destination=42&data=hello", visitor)
    relay.request("GET", "/nowhere?token=abc", headers=visitor)
    client = enter(relay, "42")
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as polling:
        polling.sendall(f"GET {PATH}polling HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sid = polling.recv(65536).decode().partition('"sid":"')[2].partition('"')[0]
        polling.sendall(f"GET {PATH}polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_for(lambda: relay.log.read_text().count("transport=polling") >= 1, "the first poll")

    def lines():
        found = [json.loads(line) for line in relay.log.read_text().split("\n")[:-1] if line.startswith("{")]
        return [line for line in found if line["logger"] == "pushrelay.access_log"]

    wait_for(lambda: len(lines()) >= 8 and {101, 404, 499} <= {line["status"] for line in lines()}, "all lines")
    [batch] = [line for line in lines() if line.get("destinations") == ["a", "b"]]
    first, second = [line for line in lines() if line["status"] == 200 and line.get("user") == "web"]
    [refused] = [line for line in lines() if line["status"] == 401]
    [missing] = [line for line in lines() if line["path"].startswith("/nowhere")]
    assert batch["destinations"] == ["a", "b"] and batch["error"] and batch["address"] == "127.0.0.1"
    for each in (first, second):
        assert (each["address"], each["user"], each["method"], each["path"], each["status"]) == (
            *("203.0.113.9", "web", "POST", "/push", 200),
        )
        assert each["destinations"] == ["42"] and each["bytes"] > 20 and each["seconds"] > 0
    assert refused["status"] == 401 and refused["error"] == "missing_key" and refused["address"] == "203.0.113.9"
    assert missing["status"] == 404 and missing["path"] == "/nowhere?token=…" and missing["error"] == "not_found"
    assert sid not in relay.log.read_text()
    client.close()
