"""`python relay.py` starts and stops cleanly, and ends with one sentence if it cannot start."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ, free_port, own_only, wait_for
from measures import seconds_to_end
from starting import assert_stops_with_a_sentence, run

from pushrelay.lifecycle import FINISH_SECONDS
from pushrelay.settings import TABLE, SettingsError, load


def test_the_start_tells_the_address_and_a_line_to_try(start_relay):
    relay = start_relay(port=0)
    said = relay.log.read_text()
    assert relay.port and f"http://127.0.0.1:{relay.port}" in said
    assert "programs on this machine" in said
    line = next(line.strip() for line in said.splitlines() if line.strip().startswith("curl "))
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert '"destination":"demo"' in ran.stdout


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_at_once_with_clients_connected(start_relay, connect, sent):
    relay = start_relay()
    connect(relay.url, "a")
    connect(relay.url, "b", transport="polling")
    relay.process.send_signal(sent)
    assert relay.process.wait(DEADLINE) == 0
    assert seconds_to_end(relay) < FINISH_SECONDS
    assert "Traceback" not in relay.log.read_text()


@own_only
def test_a_signal_that_another_thread_receives_stops_the_relay(start_relay):
    """Python runs signal handlers in the main thread, which a signal to another thread does not wake."""
    relay = start_relay()
    relay.push("42", "so that all threads are there, and the main thread sleeps")
    pid = relay.process.pid
    threads = pathlib.Path(f"/proc/{pid}/task")
    wait_for(
        lambda: (threads / f"{pid}/stat").read_text().rpartition(") ")[2].startswith("S"), "the main thread's sleep"
    )
    other = next(int(each.name) for each in threads.iterdir() if int(each.name) != pid)
    assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
    assert relay.process.wait(DEADLINE) == 0


def test_it_starts_again_on_its_port_at_once(start_relay, connect):
    relay = start_relay()
    connect(relay.url, "a")
    relay.stop()
    relay.start()
    assert relay.push("a", "x")["connections"] == 0


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert_stops_with_a_sentence(run("--port", port), port, "taken", "--port")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "http"], ["--port", "whole number", "'http'"]),
        (["--port", "70000"], ["--port", "65535"]),
        (["--port", "-1"], ["--port"]),
        (["--port"], ["--port"]),
        (["--prot", "80"], ["prot", "did you mean port"]),
        (["--ping-interval", "nan"], ["--ping-interval", "seconds"]),
        (["--ping_timeout=0"], ["--ping-timeout", "seconds"]),
        (["--socket-push", "perhaps"], ["--socket-push", "yes or no"]),
        (["--host", "http://example.com"], ["--host", "address"]),
        (["--host", "no-such-host.invalid"], ["no-such-host.invalid", "--host"]),
        (["--host", "192.0.2.1"], ["192.0.2.1", "--host"]),
        (["serve"], ["serve", "--help"]),
        (["--config", "/no/such/file.ini"], ["/no/such/file.ini", "--config"]),
    ],
)
def test_a_bad_flag_stops_the_start(flags, words):
    assert_stops_with_a_sentence(run(*flags), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[relay]\nport = eighty\n", ["port", "whole number"]),
        ("[relay]\nhistori_size = 5\n", ["histori_size", "--help"]),
        ("[relay]\nporto = 5\n", ["porto", "did you mean port"]),
        ("port = 80\n", ["section"]),
        ("[relay]\nport = 80\nport = 81\n", ["port", "already exists"]),
        ("[relay]\n\xff", ["UTF-8"]),
    ],
)
def test_a_bad_line_in_the_ini_file_stops_the_start(tmp_path, text, words):
    file = tmp_path / "bad.ini"
    file.write_bytes(text.encode("latin-1"))
    assert_stops_with_a_sentence(run("--check", "--config", str(file)), "bad.ini", *words)


@pytest.mark.parametrize(("name", "value"), [("RELAY_PORT", "x"), ("RELAY_PROT", "80"), ("RELAY_", "1")])
def test_a_bad_variable_stops_the_start(name, value):
    assert_stops_with_a_sentence(run("--check", env={name: value}), name)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[uwsgi]\nlogto = %n\n[relay]\nport = 1\nhost = 127.0.0.2\nmax_ids = 7\n")
    environ = {"RELAY_CONFIG": str(file), "RELAY_PORT": "2", "RELAY_HOST": "127.0.0.3", "OTHER_PORT": "4"}
    settings = load(environ, {"port": "3"})
    assert (settings.port, settings.host, settings.max_ids) == (3, "127.0.0.3", 7)
    assert settings.file == file


def test_the_file_next_to_relay_py_is_read_from_any_folder(tmp_path):
    assert str(ROOT / "wsgi.ini") in run("--check", cwd=tmp_path).stdout


def test_every_setting_has_its_default_if_none_is_given(tmp_path):
    file = tmp_path / "empty.ini"
    file.touch()
    settings = load({"RELAY_CONFIG": str(file)})
    assert {setting.name: getattr(settings, setting.name) for setting in TABLE} == {s.name: s.default for s in TABLE}


@pytest.mark.parametrize("name", ["secret", "push_keys"])
@pytest.mark.parametrize("value", ["hushhh", "hushhh, another-one-that-is-long", "web:hush hh", "hushhh\xe9"])
def test_a_secret_that_is_wrong_is_never_written_into_the_error(tmp_path, name, value):
    file = tmp_path / "wsgi.ini"
    file.write_text(f"[relay]\n{name} = {value}\n")
    for environ, flags in (
        ({"RELAY_CONFIG": str(file)}, {}),
        ({f"RELAY_{name.upper()}": value}, {}),
        ({}, {name: value}),
    ):
        with pytest.raises(SettingsError, match=f"{name}.* must be") as error:
            load({"RELAY_CONFIG": os.devnull, **environ}, flags)
        assert "hush" not in str(error.value)


def test_check_prints_who_can_do_what_and_starts_nothing():
    port = free_port()
    ran = run("--check", "--port", str(port))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "push" in ran.stdout and "register" in ran.stdout
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0


def test_check_names_a_store_whose_folder_is_missing_as_the_start_does(tmp_path):
    folder = tmp_path / "missing"
    flags = ("--port", "0", "--broker", f"sqlite:{folder}/relay.db")
    for ran in (run("--check", *flags), run(*flags)):
        assert_stops_with_a_sentence(ran, f"there is no folder {folder}", "create it", "the setting broker")
    file = tmp_path / "file"
    file.touch()
    assert_stops_with_a_sentence(run("--check", "--broker", f"sqlite:{file}/relay.db"), f"there is no folder {file}")
    folder.mkdir()
    assert run("--check", *flags).returncode == 0 and list(folder.iterdir()) == []


def test_the_check_and_the_start_warn_of_risky_settings(start_relay):
    ran = run("--check", "--origins", "*", "--secret", "x" * 10)
    assert len([line for line in ran.stdout.splitlines() if line.startswith("warning: ")]) == 2
    assert ran.returncode == 0 and "warning" not in run("--check").stdout
    assert "\nwarning: origins = *" in start_relay(origins="*").log.read_text()


def test_check_names_other_machines_if_the_relay_is_open_to_them():
    assert "other machines" in run("--check", "--host", "0.0.0.0").stdout
    assert "other machines" not in run("--check").stdout


def test_a_missing_dependency_is_named_with_what_to_do():
    # -S leaves out the site-packages, so nothing seems to be installed.
    ran = run(python=(sys.executable, "-S"), env={"PYTHONPATH": ""})
    assert_stops_with_a_sentence(ran, "flask", f"-m pip install -r {ROOT}/requirements.txt")


def test_importing_the_app_starts_nothing(tmp_path):
    code = (
        "import os, sys, threading; before = len(os.listdir('/proc/self/fd')); import relay;"
        "assert threading.active_count() == 1, threading.enumerate();"
        "assert len(os.listdir('/proc/self/fd')) == before; assert relay.app.url_map"
    )
    environ = {**clean_environ(), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE, env=environ, cwd=tmp_path)
    assert not os.listdir(tmp_path)


NOT_OPEN = """
import os, sys, time
os.environ["RELAY_BROKER"] = f"sqlite:{sys.argv[1]}/relay.db"
import relay
client = relay.app.test_client()

def show(*answers):
    for answer in answers:
        print(answer.status_code, answer.json or answer.content_type, flush=True)

push = {"destination": "a", "data": "x"}
show(client.get("/"), client.get("/socket.io/socket.io.js"), client.get("/health/live"))
show(client.get("/health/ready"), client.post("/push", data=push), client.get("/history?destination=a"))
os.mkdir(sys.argv[1])
end = time.monotonic() + 40
while client.post("/push", data=push).status_code != 200 and time.monotonic() < end:
    time.sleep(0.1)
show(client.get("/health/ready"), client.post("/push", data=push))
relay.relay.maintenance.close()
"""


def test_under_another_server_a_store_that_cannot_be_opened_is_reported_and_tried_again(tmp_path):
    folder = tmp_path / "none"
    ran = subprocess.run(
        [sys.executable, "-c", NOT_OPEN, str(folder)], cwd=ROOT, env=clean_environ(), capture_output=True, text=True
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 8, ran.stderr
    assert [line[:3] for line in lines] == ["200", "200", "200", "503", "503", "503", "200", "200"], lines
    assert all(f"there is no folder {folder}" in line for line in lines[3:6])
    assert ran.stderr.count("pushes are refused") == 1 and "the store is back" in ran.stderr


def test_nothing_in_the_package_knows_of_flask_or_of_the_app():
    for file in (ROOT / "pushrelay").rglob("*.py"):
        for line in file.read_text().splitlines():
            assert not line.lstrip().startswith(("import flask", "from flask", "import relay", "from relay")), file


def test_it_serves_on_a_unix_socket(tmp_path, start_relay):
    path = tmp_path / "relay.sock"
    relay = start_relay(server="own", host=f"unix:{path}")
    line = next(line.strip() for line in relay.log.read_text().splitlines() if line.strip().startswith("curl "))
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert '"destination":"demo"' in ran.stdout, ran
    relay.stop()
    assert not path.exists()


def test_with_access_log_each_request_is_a_line(start_relay):
    relay = start_relay(server="own", access_log="yes")
    relay.push("logged", "x")
    wait_for(lambda: '"POST /push HTTP/1.1" 200' in relay.log.read_text(), "the line")


def test_the_start_reports_that_it_runs_on_werkzeug(start_relay, server):
    assert ("runs on Werkzeug" in start_relay().log.read_text()) == (server == "werkzeug")
