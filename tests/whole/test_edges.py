"""Unusual inputs of settings, commands and requests: each gets a clear message and no traceback."""

import http.client
import os
import socket
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, clean_environ

from pushrelay.settings import SettingsError, load

SECRET = "k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa"
NO_UTF8 = os.fsdecode(b"\xe9")
LONG_LABEL = "a" * 64


def run(*arguments, folder=None, **environ):
    command = [sys.executable, str(ROOT / "relay.py"), *arguments]
    environ = {**clean_environ(), **environ}
    ran = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=DEADLINE, cwd=folder)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran


# Settings.


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    """Windows' Notepad and PowerShell write one."""
    file = tmp_path / "wsgi.ini"
    file.write_bytes(b"\xef\xbb\xbf[relay]\r\nhost = 0.0.0.0\r\n")
    assert load({}, {"config": str(file)}).host == "0.0.0.0"


@pytest.mark.parametrize("section", ["[RELAY]", "[Relay]", "[ relay ]"])
def test_a_section_with_a_misspelled_name_is_not_ignored(tmp_path, section):
    file = tmp_path / "wsgi.ini"
    file.write_text(f"{section}\npush_keys = web:0123456789abcdef\n")
    with pytest.raises(SettingsError, match="write it as .relay.") as refused:
        load({}, {"config": str(file)})
    assert section in str(refused.value)


@pytest.mark.parametrize("name", ["secret", "push_keys"])
def test_an_empty_list_of_secrets_is_refused(name):
    with pytest.raises(SettingsError, match=name):
        load({}, {name: ","})
    assert getattr(load({}, {name: ""}), name) == ()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("secret", f"{NO_UTF8}{SECRET}", "UTF-8"),
        ("broker", f"sqlite:{NO_UTF8}.db", "UTF-8"),
        ("broker", "sqlite:a\0b.db", "UTF-8"),
        ("host", f"{LONG_LABEL}.example", "host name"),
        ("host", "a..b", "host name"),
        ("host", f"unix:/tmp/{'x' * 103}", "107 bytes"),
        ("auth_url", f"http://{LONG_LABEL}/", "auth_url must be a URL"),
    ],
)
def test_a_value_that_nothing_can_use_is_refused_with_a_sentence(name, value, words):
    with pytest.raises(SettingsError, match=words):
        load({}, {name: value})


def test_a_byte_in_the_environment_that_is_not_text_is_refused_with_a_sentence():
    ran = run("--check", RELAY_SECRET=NO_UTF8 * 40)
    assert ran.returncode == 2 and "RELAY_SECRET" in ran.stderr and "UTF-8" in ran.stderr


def test_the_longest_path_of_a_unix_socket_is_accepted():
    assert load({}, {"host": f"unix:/tmp/{'x' * 102}"}).host


def test_a_store_whose_name_no_file_can_have_stops_the_start_with_a_sentence(tmp_path):
    ran = run("--port=0", f"--broker=sqlite:{tmp_path}/{'x' * 249}")
    assert ran.returncode == 2 and "choose a shorter one in the setting broker" in ran.stderr


def test_a_store_in_a_folder_that_takes_no_files_stops_the_start_with_a_sentence():
    """/proc is such a folder even for root, who may write everywhere else."""
    ran = run("--port=0", "--broker=sqlite:/proc/relay.db")
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1 and "the relay's user" in ran.stderr


def test_a_file_in_the_place_of_a_unix_socket_stays_and_is_named(tmp_path):
    file = tmp_path / "relay.sock"
    file.write_text("mine")
    ran = run(f"--host=unix:{file}", "--broker=memory:")
    assert ran.returncode == 2 and f"unix:{file} is in use" in ran.stderr and "port" not in ran.stderr
    assert file.read_text() == "mine"


# The terminal.


@pytest.mark.parametrize("host", [LONG_LABEL, "a..b", ".a"])
def test_an_impossible_host_name_is_reported(host):
    ran = run("push", "a", "x", f"--url=http://{host}/")
    assert ran.returncode == 1 and "no host of this name" in ran.stderr


def test_data_that_is_nested_without_end_is_not_json():
    ran = run("push", "a", "[" * 100_000, "--json", "--port=1")
    assert ran.returncode == 2 and "DATA is not JSON" in ran.stderr


def test_the_address_of_push_is_the_relays(relay):
    assert run("push", "a", "x", f"--url={relay.url}/push/").returncode == 0


# Bodies.

HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{}\r\n"


@pytest.mark.parametrize("chunks", ["zz\r\nx", "-1\r\nx", "5\r\nabcdefgh\r\n0\r\n\r\n"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "multipart/form-data"])
def test_a_badly_chunked_body_is_refused_and_logs_no_error(relay, chunks, kind):
    """The fixture checks at its end that the relay's log has no traceback."""
    with socket.create_connection(("127.0.0.1", relay.port), DEADLINE) as sock:
        sock.sendall(HEAD.format("/push", f"Content-Type: {kind}\r\n").encode() + chunks.encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 400
