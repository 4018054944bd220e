"""SIGHUP reloads the settings, and no client notices."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from clients import enter, event
from conftest import DEADLINE, ROOT, clean_environ, own_only, wait_for
from crowd import Pusher, crowd, run, until
from posting import post

from pushrelay.access.tokens import sign

OLD, NEW = "0f3c79b1e8d24a65b7c0", "9d8e7f6a5b4c3d2e1f00"
FIRST, SECOND = "a3f1c0d9e8b7465544332211ffeeddcc", "77aa66bb55cc44dd33ee22ff11009988"
FAR = {"X-Forwarded-For": "203.0.113.9"}


class Reloaded:
    """A relay with an INI file that the test changes."""

    def __init__(self, start_relay, folder, **settings):
        self.file = folder / "my.ini"
        self.write(**settings)
        self.relay = start_relay(config=self.file)

    def write(self, **settings):
        self.file.write_text("[relay]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))

    def log(self):
        return self.relay.log.read_text()

    def reload(self, *words, **settings):
        """Write these settings, send SIGHUP, and return what the relay logs about it, with all these words in it."""
        self.write(**settings)
        before = len(self.log())
        self.relay.process.send_signal(signal.SIGHUP)
        wait_for(lambda: re.search("were reloaded|were not reloaded", self.log()[before:]), "the reload")
        wait_for(lambda: all(each in self.log()[before:] for each in words), f"{words} in {self.log()[before:]}")
        return self.log()[before:]

    def push(self, key=None, headers=FAR):
        headers = {**headers, **({"X-Relay-Key": key} if key else {})}
        return self.relay.request("POST", "/push", b"destination=42&data=x", headers)[0]


def statuses_on_one_connection(relay, key):
    """Push three times with this key, each header and body in one packet, as the server remembers them."""
    head = f"POST /push HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\nX-Relay-Key: {key}\r\n"
    with contextlib.closing(socket.create_connection(("127.0.0.1", relay.port), DEADLINE)) as sock:
        answers = []
        for _ in range(3):
            sock.sendall(f"{head}Content-Length: 21\r\n\r\ndestination=42&data=x".encode())
            answers.append(sock.recv(65536).decode()[9:12])
        return answers


@pytest.fixture
def reloaded(start_relay, tmp_path):
    return lambda **settings: Reloaded(start_relay, tmp_path, **settings)


@own_only
def test_200_clients_stay_while_a_key_is_replaced_and_pushes_flow(reloaded):
    sut = reloaded(push_keys=f"web:{OLD}")
    assert [statuses_on_one_connection(sut.relay, OLD) for _ in range(2)] == [
        ["200"] * 3
    ] * 2  # its header is known now
    told = []

    async def scenario():
        async with crowd(sut.relay.port, 150, 50) as members:
            pusher, sent, going = await Pusher().open(sut.relay.port), 0, True

            async def flow():
                nonlocal sent
                while going:
                    answer = await pusher.push(f"client-{sent % 200}", sent)
                    assert answer["connections"] == 1
                    sent += 1

            flowing = asyncio.create_task(flow())
            await until(lambda: sent > 400, "the flow")
            told.append(await asyncio.to_thread(sut.reload, push_keys=f"web:{NEW}", max_event_rate=50, max_outbox="2M"))
            after = sent
            await until(lambda: sent > after + 400, "the flow after the reload")
            going = False
            await flowing
            await until(lambda: sum(len(each.got) for each in members) == sent, "every push")
            assert not [each for each in members if each.lost]

    run(scenario())
    assert "were reloaded: push_keys, max_event_rate, max_outbox" in told[0]
    assert statuses_on_one_connection(sut.relay, OLD) == ["403"] * 3
    assert statuses_on_one_connection(sut.relay, NEW) == ["200"] * 3
    assert OLD not in sut.log() and NEW not in sut.log()


def test_a_token_of_the_old_secret_is_accepted_as_long_as_the_secret_is_listed(reloaded, connect):
    sut = reloaded(secret=FIRST)
    client = connect(sut.relay.url)

    def accepted(secret):
        return client.call("register", {"id": "42", "token": sign({"ids": ["42"]}, secret)})["ok"]

    assert (accepted(FIRST), accepted(SECOND)) == (True, False)
    sut.reload(secret=f"{SECOND}, {FIRST}")
    assert (accepted(FIRST), accepted(SECOND)) == (True, True)
    assert "secret" in sut.reload(secret=SECOND)
    assert (accepted(FIRST), accepted(SECOND)) == (False, True)
    sut.relay.push("42", "still here")
    assert client.data(1) == ["still here"]


@own_only
def test_settings_that_are_wrong_change_nothing_and_the_log_has_the_reason(reloaded):
    sut = reloaded(push_keys=f"web:{OLD}", max_ids=5)
    told = sut.reload(push_keys=f"web:{NEW}", max_ids="five")
    assert "were not reloaded, and nothing has changed" in told and "my.ini, line 3: max_ids must be" in told
    assert "SIGHUP again" in told and NEW not in told
    assert (sut.push(OLD), sut.push(NEW)) == (200, 403)
    sut.file.unlink()
    sut.relay.process.send_signal(signal.SIGHUP)
    wait_for(lambda: sut.log().count("were not reloaded") == 2, "the second reload")
    assert "reloaded: push_keys" in sut.reload(push_keys=f"web:{NEW}", max_ids=5)
    assert (sut.push(OLD), sut.push(NEW)) == (403, 200)


@own_only
def test_what_needs_a_restart_is_named_and_the_rest_is_applied(reloaded):
    sut = reloaded(max_body=2000)
    told = sut.reload(
        "changed, but not reloaded: base_path, threads; restart the relay",
        "origins = * lets pages of any website connect",  # as at the start
        **{"max_body": 3000, "threads": 9, "base_path": "/x", "origins": "*"},
    )
    assert re.search("were reloaded: (origins, max_body|max_body, origins)", told)
    assert sut.relay.push("42", "x" * 2500)
    told = sut.reload(max_body=3000, origins="*")
    assert "no setting has changed" in told and "warning" not in told.lower()


@own_only
def test_ten_signals_at_once_are_as_good_as_one(reloaded):
    sut = reloaded(push_keys=f"web:{OLD}")
    client = enter(sut.relay, "42")
    sut.write(push_keys=f"web:{NEW}")
    for _ in range(10):
        sut.relay.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "were reloaded: push_keys" in sut.log(), "the reload")
    # The relay may still be reloading for one of the signals, with the settings of before.
    assert "web" not in sut.reload(push_keys=f"web:{OLD}")
    wait_for(lambda: (sut.push(OLD), sut.push(NEW)) == (200, 403), "the last settings")
    assert '"x"' in client.receive()
    client.close()


@own_only
def test_the_log_and_the_access_log_change_while_programs_push(reloaded):
    sut = reloaded()
    with contextlib.closing(socket.create_connection(("127.0.0.1", sut.relay.port), DEADLINE)) as kept:

        def push():
            kept.sendall(b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 21\r\n\r\ndestination=42&data=x")
            return kept.recv(65536)

        for _ in range(3):
            assert b" 200 OK" in push()
        assert "POST /push" not in sut.log()
        sut.reload(access_log="yes", log_format="json")
        assert b" 200 OK" in push()
        wait_for(lambda: '"path": "/push", "status": 200' in sut.log(), "the access log")
        sut.reload(log_level="error")
        before = sut.log()
        assert b" 200 OK" in push() and sut.push() == 401
        time.sleep(0.2)
        assert sut.log() == before


@own_only
def test_limits_change_for_the_clients_that_are_connected(reloaded):
    sut = reloaded()
    client = enter(sut.relay, "1")
    told = sut.reload(
        max_ids=2, max_id_length=10, max_connections=1, idle_timeout=70, max_event_rate=3, max_header=1500
    )
    assert "max_ids" in told and "not reloaded" not in told
    client.send(event("register", {"id": ["2", "3"]}, 7))
    assert "setting max_ids" in client.receive()
    assert post(sut.relay, {"destination": "a" * 11, "data": 1})[0] == 400
    assert sut.relay.request("GET", "/health/live", headers={"X-Large": "x" * 1600})[0] == 431
    assert sut.relay.request("GET", "/socket.io/?EIO=4&transport=polling")[0] == 503
    for number in range(200):  # ten seconds of the old rate would be 1,000
        client.send(event("unregister", {"id": "9"}, number))
    assert "too_many_events" in "".join(client.receive() for _ in range(100))
    client.close()


@own_only
def test_a_proxy_may_be_trusted_from_a_reload_on(reloaded):
    sut = reloaded(max_per_address=1, access_log="yes")
    clients = [enter(sut.relay, "1") for _ in range(3)]
    sut.reload(trusted_proxies="127.0.0.1", max_per_address=1, access_log="yes")
    sut.push()
    wait_for(lambda: '203.0.113.9 - "POST /push' in sut.log(), "the visitor's address")
    for each in clients:
        each.close()
    sut.reload(max_per_address=1, access_log="yes")
    enter(sut.relay, "1").close()
    assert sut.relay.stop() == 0 and "Traceback" not in sut.log()


@own_only
def test_a_page_whose_origin_was_removed_stays_and_registers_nothing_more(reloaded, connect):
    sut = reloaded(origins="same-host, https://shop.example")
    page = connect(sut.relay.url, "42", transport="polling", headers={"Origin": "https://shop.example"})
    sut.reload(origins="same-host")
    assert page.call("register", {"id": "43"})["error"] == "origin_not_allowed"
    sut.relay.push("42", "x")
    assert page.data(1) == ["x"]
    assert connect(sut.relay.url, transport="polling", headers={"Origin": sut.relay.url}).call(
        "register", {"id": "43"}
    )["ok"]


@own_only
def test_the_site_that_is_asked_for_rights_can_be_replaced(reloaded, stranger, connect):
    def allowing(name):
        body = f'["{name}"]'.encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        return lambda site, connection, request: connection.sendall(head % len(body) + body)

    first, second = (stranger(allowing(name)) for name in ("a", "b"))
    sut = reloaded(auth_url=first.url)
    client = connect(sut.relay.url, "a")
    sut.reload(auth_url=second.url)
    assert client.call("register", {"id": "b"})["ok"] and not client.call("register", {"id": "a"})["ok"]
    sut.reload()
    assert client.call("register", {"id": "c"})["ok"], "now anybody may register"


@own_only
def test_systemd_gets_the_state_of_a_reload(start_relay, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        relay = start_relay()
        assert systemd.recv(100) == b"READY=1"
        relay.process.send_signal(signal.SIGHUP)
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(100))
        assert systemd.recv(100) == b"READY=1\nSTATUS="


@own_only
@pytest.mark.parametrize("prefix", [[], ["nohup"]])
def test_closing_the_terminal_ends_the_relay_unless_nohup_keeps_it(server, tmp_path, prefix):
    command = [*prefix, sys.executable, str(ROOT / "relay.py"), "--port=0", "--broker=memory:"]
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execvpe(command[0], command, clean_environ())  # noqa: S606 (the terminal needs a fork)
    output = tmp_path / "nohup.out"
    try:
        seen = b""
        while b"serves on" not in seen:
            seen += output.read_bytes() if output.exists() else os.read(terminal, 4096)
        os.close(terminal)  # the kernel sends SIGHUP
        if prefix:
            os.kill(pid, signal.SIGHUP)
            time.sleep(0.5)
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        else:
            wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "the end of the relay")
    finally:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@own_only
def test_a_relay_in_an_app_of_your_own_reloads_too(server, tmp_path):
    (tmp_path / "app.py").write_text("from relay import app, socketio\nsocketio.run(app, port=0)\n")
    (tmp_path / "my.ini").write_text("[relay]\nbroker = memory:\n")
    environ = {**clean_environ(), "RELAY_CONFIG": "my.ini", "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=environ, stdout=output, stderr=output)
    try:
        wait_for(lambda: "serves on" in log.read_text(), "the start")
        (tmp_path / "my.ini").write_text("[relay]\nbroker = memory:\ndemo = yes\n")
        wait_for(lambda: process.send_signal(signal.SIGHUP) or "reloaded: demo" in log.read_text(), "the reload")
    finally:
        process.kill()
        process.wait(DEADLINE)
