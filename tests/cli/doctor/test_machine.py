"""The doctor checks Python, the packages, open files and the store's folder."""

import contextlib
import io
import os
import resource
import subprocess
import sys

import pytest
from conftest import ROOT, clean_environ, free_port
from examination import DOCTOR, Examination, running, settings_of

from pushrelay.cli.doctor.machine import closed_to_others, files
from pushrelay.cli.doctor.process import Process
from pushrelay.cli.doctor.report import Report
from pushrelay.settings import Settings


def test_a_system_without_limits_on_files_can_be_examined(relay):
    script = (
        "import sys; sys.modules['resource'] = None; sys.argv[:1] = []; sys.path.insert(0, '.');"
        "from pushrelay.cli.commands import run; sys.exit(run(sys.argv))"
    )
    command = [sys.executable, "-c", script, "doctor", *settings_of(relay)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean_environ())
    assert ran.returncode == 0 and "a push arrives" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize(("limit", "word"), [(20_000, "ok"), (9_000, "FAIL"), (12_000, "ok")])
def test_a_usual_limit_of_open_files_causes_no_warning_on_every_run(limit, word):
    process = Process(1, limit, None, "", "")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        files(Report(), Settings(), process)
    assert said.getvalue().startswith(word)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        files(Report(), Settings(max_connections=20_001), process)  # a number that the user set is reported
    assert said.getvalue()[:4] in ("warn", "FAIL")


def test_a_limit_of_open_files_that_is_too_low_is_found_and_each_advice_helps(tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))

    port = free_port()
    flags = [f"--port={port}", "--broker=memory:"]
    start = f"{sys.executable} {ROOT / 'relay.py'} {' '.join(flags)} --max-connections=1000"
    with running(port, start, tmp_path, preexec_fn=limited):
        advice = Examination(*flags, "--max-connections=1000").failed_once("open files", "600", "too low")
    assert [lines[0].split()[0] for _, lines in advice][0] == "LimitNOFILE=1288"
    _, ulimit, fewer = [lines[0] for _, lines in advice]
    with running(port, f"{start} --{fewer.replace(' ', '').replace('_', '-')}", tmp_path, preexec_fn=limited):
        Examination(*flags, f"--{fewer.replace(' ', '')}").is_well()
    # Start it without the low limit, because only root may raise a limit.
    with running(port, f"{ulimit}\n{start}", tmp_path):
        Examination(*flags, "--max-connections=1000").is_well()


def test_a_store_whose_folder_is_missing_is_reported(tmp_path):
    folder = tmp_path / "gone"
    flags = (f"--port={free_port()}", f"--broker=sqlite:{folder}/relay.db", "--max-connections=1000")
    examination = Examination(*flags)
    assert "there is no folder" in examination.failures[0]
    (_, (line,)) = examination.advice[0]
    subprocess.run(["sh", "-c", line], check=True)
    Examination(*flags).failed_once("not running")


def test_missing_packages_are_named_with_the_command_that_installs_them():
    # -S leaves out the site-packages, so nothing seems to be installed.
    command = [sys.executable, "-S", *DOCTOR[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, env={**clean_environ(), "PYTHONPATH": ""})
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "simple-websocket is missing" in ran.stdout.replace("\n      ", " ") and "-m pip install -r" in ran.stdout


def test_a_folder_that_a_web_server_may_not_enter_is_found(tmp_path):
    file = tmp_path / "home" / "relay" / "relay.js"
    file.parent.mkdir(parents=True)
    file.write_text("")
    for each in (tmp_path, *list(tmp_path.parents)[:-1]):
        if each.stat().st_uid == os.getuid() and not each.stat().st_mode & 0o001:
            each.chmod(0o711)
    assert closed_to_others(file) is None
    file.chmod(0o640)
    assert closed_to_others(file) == file
    (tmp_path / "home").chmod(0o700)
    assert closed_to_others(file) == tmp_path / "home"
