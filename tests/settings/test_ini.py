"""The reader of the INI file: its lines, sections and comments, and the sentence for each mistake."""

import os

import pytest
from conftest import ROOT
from refused_settings import KEY, SECRET, refusal

from pushrelay.cli.flags import parse_flags
from pushrelay.settings import load

SHIPPED = (ROOT / "wsgi.ini").read_text()


@pytest.mark.parametrize("name", ["secret", "push_keys", "origins", "trusted_proxies", "host", "port", "auth_url"])
@pytest.mark.parametrize("comment", [" # of the web server", " ;production-machine", "\t#rotated-in-november", ",#web"])
def test_a_comment_after_a_value_stops_the_start_and_is_never_part_of_a_secret(ini, name, comment):
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
def test_a_value_that_begins_like_a_comment_is_refused(ini, value):
    assert "comment" in refusal(ini, f"[relay]\nsecret = {value}\n")


def test_comments_on_their_own_lines_are_ignored(ini):
    settings = ini(f"; first\n\n[relay] # all of it\n  # indented\n\t; too\nsecret = {SECRET}\n#port = 1\n#\n;\n")
    assert settings.secret == (SECRET,) and settings.port == 8080


def test_a_hash_within_a_word_is_part_of_it(ini):
    assert ini(f"[relay]\nsecret = {SECRET}#x;y\n").secret == (f"{SECRET}#x;y",)


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
def test_a_misspelled_section_relay_stops_the_start(ini, section):
    said = refusal(ini, f"{section}\nsecret = {SECRET}\n")
    assert "did you mean [relay]?" in said and section in said


@pytest.mark.parametrize(
    "section", ["[relay", "relay]", "[[relay]]", "[relay] port = 1", "[relay\u200b]", "\u200b[relay]"]
)
@pytest.mark.parametrize("before", ["", "[uwsgi]\nthreads = 8\n"])
def test_a_malformed_section_stops_the_start_with_its_line(ini, section, before):
    said = refusal(ini, f"{before}{section}\nsecret = {SECRET}\n")
    if section != "relay]":
        assert f"line {1 + before.count(chr(10))}: " in said
    assert "[relay]" in said or "invisible" in said


@pytest.mark.parametrize(
    "text", [f"secret = {SECRET}\n", f"[settings]\nsecret = {SECRET}\n", "[uwsgi]\nthreads = 8\n", f"{SECRET}\n"]
)
def test_a_named_file_without_a_section_relay_stops_the_start(ini, text):
    assert "write [relay] on a line of its own" in refusal(ini, text)


def test_a_secret_in_the_section_default_is_not_lost(ini):
    """Python's own reader adds this section to all others."""
    assert "write it below [relay]" in refusal(ini, f"[DEFAULT]\nsecret = {SECRET}\n[relay]\nport = 1\n")
    assert "write it below [relay]" in refusal(ini, "[default]\nport = 2\n[relay]\nmax_ids = 1\n")
    assert ini("[DEFAULT]\ndebug = true\n[relay]\nport = 1\n").port == 1


def test_a_second_section_relay_stops_the_start(ini):
    assert "line 3: [relay] already exists in line 1" in refusal(ini, "[relay]\nport = 1\n[relay]\nmax_ids = 7\n")


def test_the_lines_of_other_sections_are_ignored(ini):
    text = "[uwsgi]\nenv = A=1\nenv = B=2\nlogformat = %(x)\n   [pid]\nno sign here\n[relay]\nport = 1\n[x]\n\u200b=\n"
    assert ini(text).port == 1


@pytest.mark.parametrize("name", ["secret", "push_keys", "id_cookie", "auth_url", "origins", "trusted_proxies", "demo"])
def test_a_setting_added_at_the_end_of_wsgi_ini_stops_the_start(ini, name):
    said = refusal(ini, f"{SHIPPED}\n{name} = {SECRET}\n")
    assert f"line {SHIPPED.count(chr(10)) + 2}: {name} in [server:main] is not read; write it below [relay]" in said


@pytest.mark.parametrize("section", ["security", "production", "auth", "app:main", "filter:auth"])
@pytest.mark.parametrize("name", ["secret", "id_cookie", "auth_url", "push_keys", "origins"])
def test_a_setting_that_restricts_access_is_not_ignored_in_another_section(ini, section, name):
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
            (f"{SECRET} = x", "this is not a setting"),
            (f"{SECRET[:16]} = x", "this is not a setting"),
            ("= 9000", "write name = value"),
            (f"   web:{KEY}", "write each setting on one line"),
            (f"\t{KEY}", "write each setting on one line"),
        ],
        2,
    ):
        text = "[relay]\n" + "\n" * (number - 2) + line + "\nmax_ids = 7\n"
        said = refusal(ini, text)
        assert said.startswith(f"{tmp_path}/my.ini, line {number}: ") and words in said, said


def test_a_setting_twice_in_the_file_stops_the_start_and_of_two_flags_the_last_one_counts(ini):
    assert "line 4: port already exists in line 2" in refusal(ini, "[relay]\nport = 1\n\nPort: 2\n")
    assert "keep one of them" in refusal(load, {"RELAY_CONFIG": os.devnull, "RELAY_PORT": "1", "RELAY_port": "2"})
    assert parse_flags(["--max-ids=1", "--port=1", "--port", "2", "--max_ids=2"])[0] == {"port": "2", "max_ids": "2"}
