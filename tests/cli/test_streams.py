"""Started with closed streams or in an odd folder, the relay serves or ends with one sentence, never a traceback."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, Relay, clean_environ, free_port, own_only, wait_for

from pushrelay.settings import SettingsError, load

SECRET = "af779e2c5b1d4038a6f0e2d4c8b19357"
RELAY = shlex.join([sys.executable, str(ROOT / "relay.py")])
pytestmark = own_only  # the start is the same on both servers


def shell(line, folder, **environ):
    """Run a line of shell in which `relay` stands for the program."""
    ran = subprocess.run(
        ["bash", "-c", line.replace("relay ", f"{RELAY} ", 1)],
        cwd=folder,
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr, ran.stderr
    return ran


class Shelled(Relay):
    """A relay that a shell starts with other streams or in another folder. It may have nowhere to print to."""

    def __init__(self, log, line, **settings):
        self.line = line
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(log, port=self.port, **settings)

    def start(self):
        flags = shlex.join(f"--{name}={value}" for name, value in self.settings.items())
        line = self.line.replace("relay", f"exec {RELAY} {flags}")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", line], stdout=output, stderr=output, env=clean_environ(), cwd=self.log.parent
            )
        wait_for(lambda: self.serves() or self.process.poll() is not None, "the start")
        assert self.process.poll() is None, self.log.read_text()

    def serves(self):
        try:
            return self.request("GET", "/health/ready")[0] == 200
        except OSError:
            return False


@pytest.mark.parametrize(
    "line",
    [
        "mkdir gone; cd gone; rmdir ../gone; unset HOME USER PATH LANG; relay",
        "export RELAY_SERVICE_HOST=10.43.0.7 RELAY_PORT=tcp://10.43.0.7:8080; relay >/dev/full 2>&1",
        "relay <&- >&- 2>&-",
    ],
)
def test_the_relay_serves_wherever_it_is_started_and_whatever_its_streams_are(server, tmp_path, line):
    relay = Shelled(tmp_path / "log", line)
    try:
        assert relay.push("42", "hello")["id"]
        streams = [os.readlink(f"/proc/{relay.process.pid}/fd/{fd}") for fd in range(3)]
        assert not any("socket" in each or "log.db" in each for each in streams), streams
        assert relay.stop() == 0
    finally:
        relay.kill()
    assert "Traceback" not in relay.log.read_text()


def test_a_relative_store_in_a_folder_that_is_gone_stops_the_start_with_a_sentence(server, tmp_path):
    ran = shell("mkdir gone; cd gone; rmdir ../gone; relay --port=0", tmp_path)
    assert ran.returncode == 2 and "is gone" in ran.stderr and "setting broker" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("relay --check >/dev/full", 2, "No space left"),
        ("relay --check | true; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("relay --help >/dev/full", 0, ""),
        ("relay --port=x >&- 2>/dev/full", 2, ""),
        ("relay token --ids=a >/dev/full", 1, "No space left"),
        ("relay push a - <&-", 2, "standard input cannot be read"),
    ],
)
def test_streams_that_cannot_be_used_are_reported_without_a_traceback(server, tmp_path, line, code, words):
    ran = shell(line, tmp_path, RELAY_SECRET=SECRET)
    assert ran.returncode in (code if isinstance(code, tuple) else (code,)) and words in ran.stderr, ran
    assert len(ran.stderr.splitlines()) == bool(words)


def test_ctrl_c_during_the_start_ends_it_without_a_traceback(server, tmp_path):
    """The INI file is a pipe without a writer, so the start waits for it."""
    fifo = tmp_path / "my.ini"
    os.mkfifo(fifo)
    command = [sys.executable, ROOT / "relay.py", "--config", fifo]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environ())
    try:
        writing = wait_for(lambda: has_reader(fifo), "the start to read the file")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE)[1] == ""
        assert process.returncode == -signal.SIGINT
        os.close(writing)
    finally:
        process.kill()


def has_reader(fifo):
    """Return the pipe, opened for writing, once somebody reads it."""
    with contextlib.suppress(OSError):
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    return None


# Files that are not settings.


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/", "Is a directory"),
        ("/no/such/my.ini", "No such file"),
        ("/etc/passwd/my.ini", "Not a directory"),
        ("/dev/zero", "not a settings file"),
        ("x" * 300, "too long"),
        ("a\0b", "no file can have this name"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(server, name, words):
    with pytest.raises(SettingsError, match=words) as refused:
        load({}, {"config": name})
    assert "--config names the file" in str(refused.value)


@pytest.mark.parametrize("is_in_closed_folder", [True, False])
def test_a_file_that_the_user_may_not_read_is_named_with_the_reason(server, tmp_path, is_in_closed_folder):
    folder = tmp_path / "closed"
    folder.mkdir()
    file = folder / "my.ini"
    file.write_text(f"[relay]\nsecret = {SECRET}\n")
    file.chmod(0)
    folder.chmod(0 if is_in_closed_folder else 0o755)
    me = os.geteuid()
    if me == 0:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(SettingsError, match="Permission denied"):
            load({}, {"config": str(file)})
    finally:
        os.seteuid(me)
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[relay]\nsecret = \xff\xfe", "line 2 is not UTF-8"),
        (b"[relay]\r\n\r\nsecret = \xe9t\xe9", "line 3 is not UTF-8"),
        (b"[relay]\nsecret = a\0b", "not UTF-8 text"),
        ("[relay]\n".encode("utf-16"), "save it as UTF-8"),
        (b"\x7fELF\x02\x01\x01", "invisible"),
    ],
)
def test_a_file_that_is_not_text_is_named_with_the_reason(server, tmp_path, data, words):
    file = tmp_path / "my.ini"
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=words):
        load({}, {"config": str(file)})


# Secrets on the command line.


def test_secrets_among_the_flags_are_warned_of_and_those_in_the_environment_are_not(server, tmp_path):
    relay = Relay(tmp_path / "log", secret=SECRET, push_keys=f"web:{SECRET[::-1]}")
    try:
        said = relay.log.read_text()
        assert "warning: every user of this machine can see --push-keys and --secret" in said.replace(
            "--secret and --push-keys", "--push-keys and --secret"
        )
        assert "RELAY_SECRET" in said and SECRET not in said
    finally:
        relay.stop()
    ran = shell("relay token --ids=a", tmp_path, RELAY_SECRET=SECRET)
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = shell(f"relay token --ids=a --secret={SECRET}", tmp_path)
    assert ran.returncode == 0 and "can see --secret" in ran.stderr and SECRET not in ran.stderr


# deploy/


def test_the_shipped_unit_starts_the_relay_with_the_shipped_settings(server, tmp_path):
    """The relay as docs/systemd.md installs it: wsgi.ini is copied, and secrets are in the environment file."""
    unit = (ROOT / "deploy/relay.service").read_text()
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).partition("=")[2]
    (tmp_path / "relay.ini").write_text((ROOT / "wsgi.ini").read_text())
    python, program, *flags = start.split()
    assert python.endswith(".venv/bin/python") and program.endswith("/relay.py")
    said = (ROOT / "docs/systemd.md").read_text()
    variables = [line.strip().partition("=")[0] for line in said.splitlines() if line.startswith("    RELAY_")]
    assert variables == ["RELAY_PUSH_KEYS", "RELAY_SECRET"]
    line = f"relay {shlex.join(flags)} --check".replace("/etc/relay.ini", "relay.ini")
    ran = shell(line, tmp_path, RELAY_PUSH_KEYS=f"web:{SECRET[::-1]}", RELAY_SECRET=SECRET)
    assert (ran.returncode, ran.stderr) == (0, "") and "warning" not in ran.stdout
    address = next(line for line in (ROOT / "deploy/relay.socket").read_text().splitlines() if "ListenStream" in line)
    settings = load({}, {"config": str(tmp_path / "relay.ini")})
    assert address == f"ListenStream={settings.host}:{settings.port}", "the socket has the address of the settings"


def test_no_secret_and_no_key_gets_into_the_log_whatever_is_tried_with_them(start_relay, connect, tmp_path):
    key, wrong, token = SECRET[::-1], "b54f0c9a2d7e4416", "eyJhbGciOiJIUzI1NiJ9.eyJpZHMiOlsiYSJdfQ.c2lnbmF0dXJlc2ln"
    file = tmp_path / "my.ini"
    file.write_text(f"[relay]\nsecret = {SECRET}\npush_keys = web:{key}\naccess_log = yes\n")
    relay = start_relay(config=file)
    form = b"destination=a&data=x"
    elsewhere = {"X-Forwarded-For": "192.0.2.7", "Content-Type": "application/x-www-form-urlencoded"}
    for given in (wrong, f"{key}x", f"{key}, {wrong}", key):
        status = relay.request("POST", "/push", form, {**elsewhere, "Authorization": f"Bearer {given}"})[0]
        assert status == (200 if given == key else 403 if given != f"{key}, {wrong}" else status)
    relay.request("POST", "/push", form, {**elsewhere, "Authorization": f"Basic {key}"})
    client = connect(relay.url)
    for each in (token, SECRET, f"{token}x", {"secret": SECRET}, 7):
        assert not client.call("register", {"id": "a", "token": each})["ok"]
    assert relay.stop() == 0
    said = relay.log.read_text()
    assert "POST /push" in said and "refused" in said
    for each in (SECRET, key, wrong, token):
        assert each not in said, said
