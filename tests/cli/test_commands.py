"""The commands have their own help, and report a mistake in one sentence."""

import os
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ
from terminal import run

from pushrelay.cli.commands import COMMANDS, missing_module

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push", "a"], ["DATA", "push --help"]),
        (["push", "a", "{", "--json"], ["DATA", "JSON"]),
        (["push", "a", "x", "--ttl=soon"], ["--ttl", "number of seconds"]),
        (["push", "a", "x", "--url=relay"], ["'relay'", "https://example.com/relay/"]),
        (["push", "a", "x", "--prot=80"], ["did you mean port"]),
        (["push", "a", "x", "--port=x"], ["--port", "whole number"]),
        (["push", "a", "x", "--port=0"], ["port = 0", "--url"]),
        (["listen"], ["DEST"]),
        (["token"], ["--ids"]),
        (["backup"], ["FILE"]),
        (["restore", "a", "b"], ["b is not a flag"]),
        (["health", "--port=0"], ["port = 0", "--url"]),
        (["token", "--ids", "a", "--expires=-1"], ["--expires"]),
        (["pusch", "a", "x"], ["pusch", "--help"]),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_exit_code_2(arguments, words):
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1), ran
    assert all(word in ran.stderr for word in words), ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_help(command):
    ran = run(command, "--help")
    assert ran.returncode == 0 and f"python relay.py {command}" in ran.stdout
    assert "--ping-interval" not in ran.stdout and "--config" in ran.stdout


def test_the_help_of_the_relay_names_the_commands():
    assert all(word in run("--help").stdout for word in COMMANDS)


@pytest.mark.parametrize("command", ["push a x", f"token --ids a --secret={SECRET}", "doctor --quick"])
def test_each_command_ends_quietly_if_nobody_reads_its_output(relay, command):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, str(ROOT / "relay.py"), *command.split(), f"--port={relay.port}"]
    with open(writing, "wb") as nobody:
        ran = subprocess.run(
            arguments, stdout=nobody, stderr=subprocess.PIPE, text=True, env=clean_environ(), timeout=DEADLINE
        )
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_module_of_pythons_own_is_not_installed_with_pip():
    assert "pip" not in missing_module("resource") and "pip" not in missing_module("xml.sax")
    assert "pip install" in missing_module("wsproto")
