"""The environment and the command line as sources of settings."""

import os

import pytest
from refused_settings import KEY, SECRET, refusal

from pushrelay.cli.flags import parse_flags
from pushrelay.settings import load


@pytest.mark.parametrize("name", ["secret", "id_cookie", "auth_url"])
def test_an_empty_value_does_not_open_registration(ini, name):
    """An empty value mostly comes of a variable that is not set."""
    for read, *given in (
        (ini, f"[relay]\n{name} =\n"),
        (load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": " "}),
        (parse_flags, [f"--{name.replace('_', '-')}="]),
    ):
        assert "is empty" in refusal(read, *given)


def test_an_empty_name_of_the_settings_file_stops_the_start():
    assert "is empty" in refusal(load, {"RELAY_CONFIG": ""})
    assert "is empty" in refusal(load, {}, {"config": ""})


@pytest.mark.parametrize("service", ["RELAY", "RELAY_FOO", "RELAY_1", "RELAY_CONFIG", "RELAY_PUSH"])
def test_variables_of_kubernetes_and_docker_are_ignored(service):
    environ = {
        "SERVICE_HOST": "10.43.0.7",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "PORT": "tcp://10.43.0.7:8080",
        "PORT_8080_TCP": "tcp://10.43.0.7:8080",
        "PORT_8080_TCP_PROTO": "tcp",
        "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.43.0.7",
        "PORT_53_UDP": "udp://[fd00::7]:53",
        "NAME": "/web/relay",
        "ENV_PATH": "/usr/bin # \nx",
        "ENV_RELAY_SECRET": "",
    }
    environ = {f"{service}_{name}": text for name, text in environ.items()}
    settings = load({"RELAY_CONFIG": os.devnull, **environ}, {"port": "81"})
    assert settings.port == 81 and settings.host == "127.0.0.1" and not settings.secret


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("RELAY_PROT", "80", "did you mean port?"),
        ("RELAY_SERVICE_PORTS", "8080", "no setting called service_ports"),
        ("RELAY_SERVICE_HOST", "http://x", "no setting called service_host"),
        ("RELAY_FOO_PORT", "8080", "no setting called foo_port"),
        ("RELAY_NAME", "relay", "no setting called name"),
        ("RELAY_SECRETS", SECRET, "did you mean secret?"),
        ("RELAY_PORT", "tcp", "whole number"),
        ("relay_secret", SECRET, "write RELAY_SECRET"),
        ("RELAY-SECRET", SECRET, "write RELAY_SECRET"),
        ("RELAYPUSHKEYS", KEY, "write RELAY_PUSH_KEYS"),
        ("RELAY_PORT_8080", "tcp://10.0.0.1:80", "RELAY_PORT_8080 in the environment: this is not a setting"),
    ],
)
def test_a_variable_that_is_misspelt_still_stops_the_start(name, text, words):
    assert words in refusal(load, {"RELAY_CONFIG": os.devnull, name: text})


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["doctr"], "did you mean doctor?"),
        (["lisen", "42"], "did you mean listen?"),
        (["serve"], "without a command the relay serves"),
        (["--port=1", "doctor"], "python relay.py doctor"),
        (["-port", "80"], "write --port VALUE"),
        (["port=80"], "write --port VALUE"),
        (["\u2014port", "80"], "write --port VALUE"),
        (["--PORT=80"], "write --port VALUE"),
        (["--port"], "--port needs a value"),
        (["--ping_interval"], "--ping-interval needs a value"),
        (["--secret", "one-secret,", SECRET], "put quotes around"),
        (["--push-keys=web:12345678", KEY], "put quotes around"),
        ([f"--secert={SECRET}"], "did you mean secret?"),
        ([f"--{SECRET}"], "this is not a setting"),
        (["--broker", "sqlite:/srv/my", "files/relay.db"], "files/relay.db"),
        (["--broker", "redis://relay:my", "pass@10.0.0.7"], "a word after --broker"),
        ([f"redis://:{SECRET}@10.0.0.7"], "redis://…@10.0.0.7; without a command"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_with_a_suggestion(argv, words):
    assert words in refusal(parse_flags, argv)


def test_the_help_begins_with_a_short_usage_and_the_commands(capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    lines = capsys.readouterr().out.splitlines()
    begin = "\n".join(lines[:12])
    assert all(f"python relay.py {command} " in begin for command in ("doctor", "push", "listen", "token"))
    assert len(begin) < 900 and "e+" not in "\n".join(lines)
