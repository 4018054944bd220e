"""The log of clients: at debug, each connects, registers and disconnects in one line; at info, in none."""

import json

from conftest import own_only, wait_for


def events(relay):
    lines = [json.loads(line) for line in relay.log.read_text().split("\n")[:-1] if line.startswith("{")]
    return [line for line in lines if line["logger"] == "pushrelay.clients"]


def test_what_a_client_does_is_logged_with_its_address_sid_and_reason(start_relay, connect):
    relay = start_relay(log_level="debug", log_format="json", trusted_proxies="127.0.0.1", id_cookie="PHPSESSID")
    cookie = "k3jf83hd72hf7sh2k3jf83hd72hf7sh2"
    headers = {"X-Forwarded-For": "203.0.113.9", "Cookie": f"PHPSESSID={cookie}"}
    client = connect(relay.url, "me", headers=headers)
    client.call("unregister", {"id": "me"})
    sid = client.socket.get_sid()
    client.socket.disconnect()
    wait_for(lambda: len(events(relay)) == 4, "four lines")
    came, entered, left, gone = events(relay)
    for each in (came, entered, left, gone):
        assert (each["address"], each["sid"], each["level"]) == ("203.0.113.9", sid, "debug")
        assert "203.0.113.9" in each["message"] and sid in each["message"]
    assert came["event"] == "connect" and came["transport"] == "websocket"
    assert (entered["event"], entered["destinations"]) == ("register", ["me"])
    assert (left["event"], left["destinations"]) == ("unregister", ["me"])
    assert gone["event"] == "disconnect" and gone["reason"] in ("client disconnect", "transport close")
    assert cookie not in relay.log.read_text()


@own_only
def test_a_client_that_registers_many_ids_is_still_one_short_line(start_relay, connect):
    relay = start_relay(log_level="debug", log_format="json", socket_push="yes")
    client = connect(relay.url, *(f"{n}{'x' * 200}" for n in range(90)))
    assert client.call("push", {"destination": "42", "data": "SECRET"})["ok"]
    wait_for(lambda: len(events(relay)) == 3, "three lines")
    _, entered, pushed = events(relay)
    assert len(entered["destinations"]) == 10 and entered["destination_count"] == 90 and len(entered["message"]) < 1300
    assert pushed["destinations"] == ["42"] and "SECRET" not in relay.log.read_text()


@own_only
def test_by_default_clients_that_come_and_go_are_not_in_the_log(start_relay, connect):
    relay = start_relay()
    connect(relay.url, "42").socket.disconnect()
    assert relay.stop() == 0
    assert "pushrelay.clients" not in relay.log.read_text()
