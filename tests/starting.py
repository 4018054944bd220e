"""Runs of `python relay.py` to its end, and the check that it could not start."""

import subprocess
import sys

import starter
from conftest import DEADLINE, ROOT, clean_environ


def run(*flags, env=None, python=(sys.executable,), cwd=None):
    command = [*python, str(ROOT / "relay.py"), *flags]
    environ = {**clean_environ(), **(env or {})}
    if len(python) > 1:
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environ, cwd=cwd)
    return starter.run(command, environ, cwd, seconds=DEADLINE)


def assert_stops_with_a_sentence(ran, *words):
    assert ran.returncode == 2, ran
    assert ran.stdout == "" and "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    for word in words:
        assert word in ran.stderr
