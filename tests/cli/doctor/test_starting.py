"""The doctor compares its settings with those of the running relay, and prints how to start it."""

import subprocess
import sys

from conftest import DEADLINE, ROOT, clean_environ, free_port, wait_for
from examination import Examination, doctor, running, settings_of

from pushrelay.cli.doctor import process, starting


def test_a_relay_that_runs_with_other_flags_leads_to_the_same_flags(tmp_path):
    flags = ["--port", "0", "--broker", "memory:", "--drain-spread", "0.017"]
    script = str(ROOT / "relay.py")
    command = [sys.executable, script, *flags, "--push-keys", "web:not-for-the-eyes-of-others"]
    with (tmp_path / "log").open("wb") as log:
        relay = subprocess.Popen(command, cwd=tmp_path, env=clean_environ(), stdout=log, stderr=log)
    try:
        wait_for(lambda: tuple(command[2:]) in [words for _, words in process.started_from(ROOT / "relay.py")], "it")
        said = doctor("--port", "1")
        assert "for the relay that runs with these flags, run the doctor with them: " in said, said
        assert "with them: --port=0 --broker=memory: '--push-keys=…' --drain-spread=0.017" in said, said
        assert "not-for-the-eyes" not in said and "Start it:" in said
    finally:
        relay.terminate()
        relay.wait(DEADLINE)


def test_a_process_that_only_prints_its_version_does_not_end_the_doctor(tmp_path):
    command = [sys.executable, "-c", "input()", str(ROOT / "relay.py"), "--version"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE) as other:
        wait_for(lambda: (tmp_path, ("--version",)) in process.started_from(ROOT / "relay.py"), "it")
        assert "version" not in str(starting.with_other_flags({}))
        other.communicate(b"\n", DEADLINE)


def test_a_relay_that_is_down_is_started_by_the_printed_command(tmp_path):
    port = free_port()
    flags = [f"--port={port}", "--broker=memory:", "--max-connections=1000"]
    ((_, lines),) = Examination(*flags).failed_once("the relay", "not running")
    with running(port, "\n".join(lines), tmp_path):
        Examination(*flags).is_well()


def test_a_relay_that_was_started_with_other_settings_is_reported(start_relay, tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\n")
    relay = start_relay(server="own", config=file, max_connections=1000)
    told = settings_of(relay)
    assert "other" not in Examination(*told).said
    said = Examination(*(flag for flag in told if "--config" not in flag)).said
    assert f"            --config {file}\n" in said and "All is well" not in said
