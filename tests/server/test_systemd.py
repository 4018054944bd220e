"""Socket activation and notifications, over real sockets and with the test in systemd's place."""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from clients import Wire
from conftest import DEADLINE, ROOT, Relay, clean_environ, need, wait_for

DEPLOY = ROOT / "deploy"


@pytest.fixture(params=["path", "abstract"])
def notices(request, tmp_path, monkeypatch):
    """Provide the socket for notifications to systemd; the relays of this test know its path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        address = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}"
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_systemd_is_notified_when_the_relay_serves_and_when_it_stops(notices, start_relay):
    relay = start_relay()
    assert notices.recv(100) == b"READY=1"
    assert relay.push("42", "hello")["id"]
    relay.process.send_signal(signal.SIGTERM)
    assert notices.recv(100) == b"STOPPING=1"
    assert relay.process.wait(DEADLINE) == 0


def test_a_start_that_fails_does_not_notify_systemd(notices, tmp_path):
    notices.settimeout(0.1)
    flags = ["--port=0", f"--broker=sqlite:{tmp_path}/no/such/folder/relay.db"]
    ended = subprocess.run([sys.executable, ROOT / "relay.py", *flags], cwd=tmp_path, timeout=DEADLINE, check=False)
    assert ended.returncode == 2
    with contextlib.suppress(TimeoutError):
        assert notices.recv(100) != b"READY=1"


def test_a_relay_serves_even_if_nobody_receives_its_notifications(start_relay, monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    relay = start_relay()
    assert relay.push("42", "hello")["id"]
    assert "NOTIFY_SOCKET" in relay.log.read_text()
    assert relay.stop() == 0


class Activated(Relay):
    """A relay started as by systemd: with sockets as its file descriptors from 3 on."""

    def __init__(self, log, *sockets, **settings):
        self.sockets = sockets
        self.program = "relay.py"
        self.settings = {"port": 1, "broker": f"sqlite:{log}.db", **settings}  # a port that it must not bind
        self.log = log

    def spawn(self):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        # Numbers that are free here, and out of the way of those from 3 on, which the relay's process gets.
        fds = tuple(fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 50) for each in self.sockets)
        numbers = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(fds))
        # The relay keeps the shell's process ID, as with systemd's child.
        pid = f"LISTEN_PID=$$ LISTEN_FDS={len(self.sockets)} LISTEN_FDNAMES=relay.socket"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f'{pid} exec "$@" {numbers}', "bash", sys.executable, ROOT / "relay.py", *flags],
                stdout=output,
                stderr=output,
                env=clean_environ(),
                cwd=self.log.parent,
                pass_fds=fds,
            )
        for fd in fds:
            os.close(fd)
        return self

    def serve(self):
        self.spawn()
        self.port = self.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_socket_that_systemd_holds_survives_the_relay_and_no_push_is_refused(tmp_path, listening):
    relay = Activated(tmp_path / "log", listening).serve()
    try:
        assert relay.push("42", "one")["id"].endswith(":1")
        wire = Wire(relay.port)
        assert relay.stop() == 0
        assert wire.packet().startswith('42["relay_drain",')
        with pytest.raises(OSError):
            wire.packet()
        with socket.create_connection(("127.0.0.1", relay.port)) as early:  # accepted by the kernel, without a relay
            early.sendall(b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 25\r\n")
            early.sendall(b"Content-Type: application/x-www-form-urlencoded\r\n\r\ndestination=42&data=two..")
            relay.serve()
            early.settimeout(DEADLINE)
            assert b" 200 " in early.recv(4096)
        assert relay.push("42", "three")["id"].endswith(":3")
    finally:
        relay.kill()


def test_a_socket_that_was_passed_is_not_passed_on(tmp_path, listening):
    relay = Activated(tmp_path / "log", listening).serve()
    try:
        wait_for(lambda: b"serves on" in relay.log.read_bytes(), "the start")
        flags = re.search(r"flags:\s*(\d+)", pathlib.Path(f"/proc/{relay.process.pid}/fdinfo/3").read_text())
        assert int(flags[1], 8) & os.O_CLOEXEC
    finally:
        relay.kill()


def test_sockets_for_another_process_are_left_alone(tmp_path, start_relay, monkeypatch):
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert start_relay().push("42", "hello")["id"]


@pytest.mark.parametrize("what", ["two", "datagram", "not listening"])
def test_a_socket_that_cannot_be_served_on_stops_the_start_with_a_sentence(tmp_path, listening, what):
    with socket.socket(type=socket.SOCK_DGRAM if what == "datagram" else socket.SOCK_STREAM) as other:
        relay = Activated(tmp_path / "log", *((listening, other) if what == "two" else (other,))).spawn()
        assert relay.process.wait(DEADLINE) == 2
    assert "ListenStream=" in relay.log.read_text() and "Traceback" not in relay.log.read_text()


def unit(folder):
    """Provide the shipped units unchanged, except for the program and the folder, which are this machine's."""
    service = (DEPLOY / "relay.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", service, re.MULTILINE)[1]
    service = service.replace(program, sys.executable)
    (folder / "relay.service").write_text(service)
    (folder / "relay.socket").write_text((DEPLOY / "relay.socket").read_text())


def test_systemd_finds_no_error_in_the_units(tmp_path):
    need(shutil.which("systemd-analyze"), "systemd-analyze (apt-get install systemd)")
    unit(tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "relay.service", tmp_path / "relay.socket"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert said.returncode == 0 and "relay." not in said.stderr, said.stderr


def test_systemd_rates_the_service_as_well_protected(tmp_path):
    need(shutil.which("systemd-analyze"), "systemd-analyze (apt-get install systemd)")
    unit(tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", tmp_path / "relay.service"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr
