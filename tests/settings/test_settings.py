"""The settings that people really write: what the reader takes, and the sentence for what it does not."""

import os
import re

import pytest
from conftest import ROOT, own_only

from pushrelay.cli.banner import checked
from pushrelay.cli.exposure import warnings
from pushrelay.cli.flags import parse_flags
from pushrelay.settings import TABLE, SettingsError, load

SECRET = "af779e2c5b1d4038a6f0e2d4c8b19357"
KEY = "2bd806c97f0e00af1a1fc332"


@pytest.fixture
def ini(tmp_path):
    """Reads a file with this text, or these bytes, as --config names it: ini("[relay]\\nport = 1")."""

    def read(text, environ=None):
        file = tmp_path / "my.ini"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(environ or {}, {"config": str(file)})

    return read


def refusal(read, *given):
    """The sentence with which these settings are refused; it never holds the secret."""
    with pytest.raises(SettingsError) as refused:
        read(*given)
    said = str(refused.value)
    assert SECRET[:16] not in said and KEY not in said and "\n" not in said
    assert not re.search(r"Error|File contains|<string>|nan|e\+", said), said
    return said


# The file that is shipped.

SHIPPED = (ROOT / "wsgi.ini").read_text()
WAITING = re.findall(r"^# (\w+ = .+)$", SHIPPED, re.M)


@pytest.mark.parametrize("line", WAITING)
def test_every_line_of_wsgi_ini_that_waits_to_be_used_works_once_its_hash_is_taken_away(ini, line):
    assert f"\n# {line}\n" in SHIPPED
    name, value = line.split(" = ")
    settings = ini(SHIPPED.replace(f"# {line}", line))
    assert checked(settings).startswith("The settings are sound") and list(settings.given)[-1] == name
    written = {"push_keys": lambda keys: f"{keys[0].name}:{keys[0].key}", "id_cookie": str, "auth_url": str}
    text = written.get(name, lambda items: ", ".join(str(each) for each in items))(getattr(settings, name))
    assert re.sub(r"/(32|128)\b", "", text) == value


def test_the_security_settings_are_among_those_lines():
    assert {line.split()[0] for line in WAITING} >= {"push_keys", "secret", "id_cookie", "auth_url", "origins"}


@own_only
def test_the_relay_starts_with_all_lines_of_wsgi_ini_in_use(start_relay, tmp_path):
    file = tmp_path / "all.ini"
    file.write_text(re.sub(r"^# (\w+ = )", r"\1", SHIPPED, flags=re.M))
    relay = start_relay(config=file)
    assert relay.push("42", "hello")["id"]
    said = relay.log.read_text()
    assert said.count("warning: ") == 2 and "secret" in said, "the examples are not secret"
    assert "A-LONG-RANDOM" not in said


# Comments.


@pytest.mark.parametrize("name", ["secret", "push_keys", "origins", "trusted_proxies", "host", "port", "auth_url"])
@pytest.mark.parametrize("comment", [" # of the web server", " ;production-machine", "\t#rotated-in-november", ",#web"])
def test_a_comment_behind_a_value_stops_the_start_and_is_never_a_credential(ini, name, comment):
    good = {"secret": SECRET, "push_keys": f"web:{KEY}", "origins": "same-host", "port": "80"}.get(name, "127.0.0.1")
    text = good + comment
    for read, *given in (
        (ini, f"[relay]\n{name} = {text}\n"),
        (load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": text}),
        (load, {"RELAY_CONFIG": os.devnull}, {name: text}),
    ):
        said = refusal(read, *given)
        assert "comment on a line of its own" in said and name in said


@pytest.mark.parametrize("value", ["#rotate-monthly-and-tell-php", ";rotate-monthly-and-tell-php", "# a comment"])
def test_a_value_that_begins_as_a_comment_does_is_refused(ini, value):
    assert "comment" in refusal(ini, f"[relay]\nsecret = {value}\n")


def test_comments_on_lines_of_their_own_are_passed_over(ini):
    settings = ini(f"; first\n\n[relay] # all of it\n  # indented\n\t; too\nsecret = {SECRET}\n#port = 1\n#\n;\n")
    assert settings.secret == (SECRET,) and settings.port == 8080


def test_a_hash_within_a_word_is_part_of_it(ini):
    assert ini(f"[relay]\nsecret = {SECRET}#x;y\n").secret == (f"{SECRET}#x;y",)


# Quotes and other ends of a value.


@pytest.mark.parametrize("name", ["secret", "push_keys", "host", "auth_url", "id_cookie", "broker"])
@pytest.mark.parametrize("quotes", ['""', "''", "“”", "‘’", "„“", "``", '"', "'"])
def test_a_value_in_quotes_is_refused_with_that_word(ini, name, quotes):
    value = {"host": "0.0.0.0", "id_cookie": "PHPSESSID", "broker": "sqlite:relay.db"}.get(name, SECRET)
    for text in dict.fromkeys((f"{quotes[0]}{value}{quotes[1:]}", f"{quotes[:-1]}{value}{quotes[-1]}")):
        for read, *given in (
            (ini, f"[relay]\n{name} = {text}\n"),
            (load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": text}),
        ):
            assert "quotes" in refusal(read, *given), text


def test_quotes_around_one_of_several_are_refused(ini):
    assert "quotes" in refusal(ini, f'[relay]\nsecret = {SECRET}, "{SECRET[::-1]}"\n')
    assert "quotes" in refusal(ini, f'[relay]\npush_keys = web:"{KEY}"\n')


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"{SECRET}\\", "backslash"),
        (f"{SECRET};", "semicolon"),
        ("${RELAY_SECRET_OF_THE_SITE}", "variable"),
        ("$RELAY_SECRET_OF_THE_SITE", "variable"),
        ("$(cat /etc/relay.secret)", "variable"),
        ("%(secret_of_the_site)s", "variable"),
        ("{{ relay_secret_of_site }}", "variable"),
        (f"={SECRET}", "single ="),
        (f"> {SECRET}", "single ="),
        (f"{SECRET} {SECRET[::-1]}", "commas"),
        (f"{SECRET}\u00a0", "no-break space"),
        (f"{SECRET}\u200b", "zero width space"),
        (f"\ufeff{SECRET}", "invisible"),
        (f"{SECRET[:9]}\u00ad{SECRET[9:]}", "soft hyphen"),
        (f"{SECRET[:9]}\x07{SECRET[9:]}", "invisible"),
        (f"{SECRET[:9]}\u2028{SECRET[9:]}", "line separator"),
    ],
)
def test_a_secret_that_other_programs_would_read_differently_is_refused(ini, text, word):
    assert word in refusal(ini, f"[relay]\nsecret = {text}\n")


@pytest.mark.parametrize("text", [f"{SECRET}\n{SECRET[::-1]}", f"{SECRET} {SECRET[::-1]}", f"{SECRET}\t{SECRET[::-1]}"])
def test_secrets_and_keys_are_separated_by_commas_alone(text):
    for name in ("secret", "push_keys"):
        said = refusal(load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": text})
        assert "commas" in said and "without spaces" in said
    both = f"{SECRET} ,{SECRET[::-1]},\n"
    assert load({"RELAY_CONFIG": os.devnull, "RELAY_SECRET": both}).secret == (SECRET, SECRET[::-1])


@pytest.mark.parametrize("name", ["secret", "id_cookie", "auth_url"])
def test_what_guards_the_ids_is_not_taken_away_by_an_empty_value(ini, name):
    """An empty value mostly comes of a variable that is not set."""
    for read, *given in (
        (ini, f"[relay]\n{name} =\n"),
        (load, {"RELAY_CONFIG": os.devnull, f"RELAY_{name.upper()}": " "}),
        (parse_flags, [f"--{name.replace('_', '-')}="]),
    ):
        assert "is empty" in refusal(read, *given)


def test_a_file_that_is_named_by_an_empty_value_is_not_passed_over():
    assert "is empty" in refusal(load, {"RELAY_CONFIG": ""})
    assert "is empty" in refusal(load, {}, {"config": ""})


def test_percent_and_dollar_within_a_value_are_what_they_are(ini):
    assert ini("[relay]\nsecret = a%%b$c%d$e%(f-g)h\n").secret == ("a%%b$c%d$e%(f-g)h",)


# Sections and lines.


@pytest.mark.parametrize(
    "section",
    [
        "[Relay]",
        "[relay ]",
        "[ relay]",
        "[RELAY]",
        "[relays]",
        "[realy]",
        "[the relay]",
        "[relay.settings]",
        "[ｒelay]",
    ],
)
def test_a_section_that_was_meant_to_be_relay_stops_the_start(ini, section):
    said = refusal(ini, f"{section}\nsecret = {SECRET}\n")
    assert "did you mean [relay]?" in said and section in said


@pytest.mark.parametrize(
    "section", ["[relay", "relay]", "[[relay]]", "[relay] port = 1", "[relay\u200b]", "\u200b[relay]"]
)
@pytest.mark.parametrize("before", ["", "[uwsgi]\nthreads = 8\n"])
def test_a_section_that_is_badly_written_stops_the_start_with_its_line(ini, section, before):
    said = refusal(ini, f"{before}{section}\nsecret = {SECRET}\n")
    if section != "relay]":
        assert f"line {1 + before.count(chr(10))}: " in said
    assert "[relay]" in said or "invisible" in said


@pytest.mark.parametrize(
    "text", [f"secret = {SECRET}\n", f"[settings]\nsecret = {SECRET}\n", "[uwsgi]\nthreads = 8\n", f"{SECRET}\n"]
)
def test_a_file_that_was_named_and_has_no_section_relay_stops_the_start(ini, text):
    assert "write [relay] on a line of its own" in refusal(ini, text)


def test_a_secret_in_the_section_default_is_not_lost(ini):
    """Python's own reader adds this section to all others."""
    assert "write it below [relay]" in refusal(ini, f"[DEFAULT]\nsecret = {SECRET}\n[relay]\nport = 1\n")
    assert "write it below [relay]" in refusal(ini, "[default]\nport = 2\n[relay]\nmax_ids = 1\n")
    assert ini("[DEFAULT]\ndebug = true\n[relay]\nport = 1\n").port == 1


def test_the_section_twice_stops_the_start(ini):
    assert "line 3: [relay] already exists in line 1" in refusal(ini, "[relay]\nport = 1\n[relay]\nmax_ids = 7\n")


def test_what_other_sections_hold_is_theirs(ini):
    text = "[uwsgi]\nenv = A=1\nenv = B=2\nlogformat = %(x)\n   [pid]\nno sign here\n[relay]\nport = 1\n[x]\n\u200b=\n"
    assert ini(text).port == 1


@pytest.mark.parametrize("name", ["secret", "push_keys", "id_cookie", "auth_url", "origins", "trusted_proxies", "demo"])
def test_a_setting_that_is_added_at_the_end_of_wsgi_ini_is_not_lost_in_another_section(ini, name):
    said = refusal(ini, f"{SHIPPED}\n{name} = {SECRET}\n")
    assert f"line {SHIPPED.count(chr(10)) + 2}: {name} in [server:main] is not read; write it below [relay]" in said


@pytest.mark.parametrize("section", ["security", "production", "auth", "app:main", "filter:auth"])
@pytest.mark.parametrize("name", ["secret", "id_cookie", "auth_url", "push_keys", "origins"])
def test_what_closes_the_relay_is_not_passed_over_in_a_section_of_another_name(ini, section, name):
    text = f"[{section}]\n{name} = {SECRET}\n[relay]\nport = 1\n"
    assert f"line 2: {name} in [{section}] is not read; write it below [relay]" in refusal(ini, text)
    value = {"auth_url": "http://127.0.0.1/", "origins": "same-host"}.get(name, SECRET)
    assert name in ini(f"{text}{name} = {value}\n").given  # both have one, so each is its own


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_line_end_and_a_byte_order_mark_are_read(ini, end, mark):
    text = f"[relay]{end}Port=1  {end}\tmax_ids : 7{end}base_path = /a{end}"
    settings = ini(mark + text.encode())
    assert (settings.port, settings.max_ids, settings.base_path) == (1, 7, "/a")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_named_as_such(ini, encoding):
    assert "save it as UTF-8" in refusal(ini, f"[relay]\nsecret = {SECRET}\n".encode(encoding))


def test_the_line_of_every_mistake_is_named(ini, tmp_path):
    for number, (line, words) in enumerate(
        [
            ("port = eighty", "must be a whole number from 0 to 65535, not 'eighty'"),
            ("porto = 1", "did you mean port?"),
            ("RELAY_PORT = 1", "did you mean port?"),
            ("port 9000", "write port = value"),
            ("port", "write port = value"),
            (f"secret {SECRET}", "write secret = value"),
            (f"secret {SECRET}=", "write secret = value"),
            (SECRET, "write name = value"),
            (f"{SECRET} = x", "this is no setting"),
            (f"{SECRET[:16]} = x", "this is no setting"),
            ("= 9000", "write name = value"),
            (f"   web:{KEY}", "write each setting on one line"),
            (f"\t{KEY}", "write each setting on one line"),
        ],
        2,
    ):
        text = "[relay]\n" + "\n" * (number - 2) + line + "\nmax_ids = 7\n"
        said = refusal(ini, text)
        assert said.startswith(f"{tmp_path}/my.ini, line {number}: ") and words in said, said


def test_a_setting_that_is_there_twice_stops_the_start_and_of_two_flags_the_later_one_counts(ini):
    assert "line 4: port already exists in line 2" in refusal(ini, "[relay]\nport = 1\n\nPort: 2\n")
    assert "keep one of them" in refusal(load, {"RELAY_CONFIG": os.devnull, "RELAY_PORT": "1", "RELAY_port": "2"})
    assert parse_flags(["--max-ids=1", "--port=1", "--port", "2", "--max_ids=2"])[0] == {"port": "2", "max_ids": "2"}


# Values.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("history_ttl", "1h", 3600.0),
        ("history_ttl", "7d", 604800.0),
        ("history_ttl", "1h 30m", 5400.0),
        ("ping_interval", "500ms", 0.5),
        ("ping_interval", "1.5s", 1.5),
        ("ping_timeout", "2min", 120.0),
        ("max_body", "10M", 10 << 20),
        ("max_body", "10MB", 10 << 20),
        ("max_body", "512k", 512 << 10),
        ("history_bytes", "2 GiB", 2 << 30),
        ("max_header", "4096", 4096),
        ("base_path", "relay", "/relay"),
        ("base_path", "relay/", "/relay"),
        ("base_path", "a/b", "/a/b"),
    ],
)
def test_values_are_taken_as_people_write_them(name, text, value):
    assert getattr(load({"RELAY_CONFIG": os.devnull}, {name: text}), name) == value


@pytest.mark.parametrize(
    "name, text",
    [
        *[
            ("host", each)
            for each in ("0.0.0.0,127.0.0.1", "0.0.0.0,::", "*", "localhost;x", "a..b", "-x", "::g", "$HOST")
        ],
        *[("host", each) for each in ("unix:/run/relay.sock?mode=660", "unix: /run/relay.sock")],
        *[
            ("broker", f"sqlite:{each}")
            for each in (" relay.db", "~/relay.db", "$HOME/x.db", ":memory:", "file:x?mode=ro")
        ],
        *[
            (name, each)
            for name in ("secret", "push_keys")
            for each in (
                "<your-secret-here>",
                "env(RELAY_SECRET)",
                "file:/run/secrets/relay",
                "/run/secrets/relay_secret",
            )
        ],
    ],
)
def test_what_other_programs_would_read_as_something_else_is_refused_and_not_used_as_it_stands(ini, name, text):
    refusal(ini, f"[relay]\n{name} = {text}\n")


@pytest.mark.parametrize(
    "text", ["localhost", "my_host", "a.example.", "bücher.example", "::", "fe80::1%lo", "127.1", "0"]
)
def test_names_and_addresses_to_listen_on_are_taken(ini, text):
    assert ini(f"[relay]\nhost = {text}\n").host == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("history_ttl", "1y"),
        ("history_ttl", "h"),
        ("history_ttl", "400d"),
        ("history_ttl", "1H"),
        ("history_ttl", "-1h"),
        ("max_body", "10X"),
        ("max_body", "1.5M"),
        ("max_body", "10T"),
        ("max_connections", "20k"),
        ("max_connections", "20,000"),
    ],
)
def test_the_bounds_of_a_number_are_printed_as_plain_numbers(name, text):
    said = refusal(load, {"RELAY_CONFIG": os.devnull}, {name: text})
    assert re.search(r"from [\d.]+ to \d+", said) and repr(text) in said


def test_a_password_in_a_url_is_not_repeated():
    said = refusal(load, {"RELAY_CONFIG": os.devnull}, {"auth_url": f"ftp://staging:{SECRET}@example.com/"})
    assert "…@example.com" in said


# Environment.


@pytest.mark.parametrize("service", ["RELAY", "RELAY_FOO", "RELAY_1", "RELAY_CONFIG", "RELAY_PUSH"])
def test_what_kubernetes_and_docker_put_into_the_environment_is_passed_over(service):
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
        ("RELAY_PORT_8080", "tcp://10.0.0.1:80", "RELAY_PORT_8080 in the environment: this is no setting"),
    ],
)
def test_a_variable_that_is_misspelt_still_stops_the_start(name, text, words):
    assert words in refusal(load, {"RELAY_CONFIG": os.devnull, name: text})


# Flags.


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
        ([f"--{SECRET}"], "this is no setting"),
        (["--broker", "sqlite:/srv/my", "files/relay.db"], "files/relay.db"),
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


# Placeholders and references in place of secrets.


def test_secrets_show_in_no_text_that_python_makes_of_the_settings():
    settings = load({"RELAY_CONFIG": os.devnull}, {"secret": SECRET, "push_keys": f"web:{KEY}"})
    assert KEY not in repr(settings.push_keys) and SECRET not in repr(settings) + repr(settings.given)


def test_a_password_in_auth_url_on_the_command_line_is_warned_of():
    from pushrelay.cli.exposure import on_command_line

    flags = {"auth_url": f"http://staging:{SECRET}@127.0.0.1/ids.php", "port": "80"}
    (line,) = on_command_line(load({"RELAY_CONFIG": os.devnull}, flags))
    assert "--auth-url" in line and "--port" not in line and SECRET not in line
    for harmless in ({"auth_url": "http://127.0.0.1/ids.php"}, {}):
        environ = {"RELAY_CONFIG": os.devnull, "RELAY_SECRET": SECRET}
        assert on_command_line(load(environ, harmless)) == []


def test_open_registration_is_warned_of_whatever_shows_that_visitors_come_from_elsewhere():
    for given in (
        {"base_path": "/relay"},
        {"origins": "same-host, https://www.example.com"},
        {"trusted_proxies": "127.0.0.1"},
        {"host": "0.0.0.0"},
    ):
        (line,) = warnings(load({"RELAY_CONFIG": os.devnull}, given))
        assert "register any id" in line and "set secret, id_cookie or auth_url" in line
        assert warnings(load({"RELAY_CONFIG": os.devnull}, {**given, "secret": SECRET})) == []
    assert warnings(load({"RELAY_CONFIG": os.devnull}, {"origins": "same-host, http://localhost:8000"})) == []


def test_every_number_in_the_table_has_bounds_that_people_can_read():
    for row in TABLE:
        with pytest.raises(ValueError) as refused:
            row.parse("\u00e9\x00 \u00e9")
        assert "e+" not in str(refused.value)
