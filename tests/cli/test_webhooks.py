"""`python relay.py webhooks` asks the running relay. tests/webhooks/test_webhooks.py has the rest of what it does."""

import pytest
from conftest import free_port
from terminal import run

from pushrelay.cli.commands import run as run_command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume"], "relay.py webhooks resume 1"),
        (["drop"], "drop --before 0s for everything"),
        (["show", "1"], "leave out the URL"),
        (["retry", "--before", "1h", "1"], "--before is for drop"),
    ],
)
def test_wrong_usage_is_refused_with_what_to_write(words, said, capsys):
    assert run_command(["webhooks", *words]) == 2 and said in capsys.readouterr().err


def test_a_relay_without_webhooks_is_reported(relay):
    assert relay.request("GET", "/webhooks")[2] == b'{"sender":"","urls":[]}'
    ran = run("webhooks", "retry", f"--url={relay.url}")
    assert ran.returncode == 1 and "set webhook_url or request_url" in ran.stderr


def test_without_a_relay_it_prints_a_hint_and_ends_with_1():
    ran = run("webhooks", f"--port={free_port()}")
    assert (ran.returncode, ran.stdout) == (1, "") and "is the relay running" in ran.stderr
