"""The doctor finds keys and secrets that can be guessed, and files that others can read."""

import subprocess

import pytest
from conftest import free_port
from examination import Examination


def test_a_wrong_setting_is_reported_with_its_own_sentence(tmp_path):
    file = tmp_path / "my.ini"
    file.write_text("[relay]\nprot = 80\n")
    Examination(f"--config={file}").failed_once("settings", "did you mean port")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"push_keys": "web:changeme1"}, ("push_keys", "web", "guessed")),
        ({"secret": "password1234"}, ("secret", "12 bytes")),
        ({"secret": "abababababababababababababababababab"}, ("secret",)),
    ],
)
def test_keys_and_secrets_that_can_be_guessed_fail_and_what_the_advice_makes_does_not(tmp_path, told, words):
    ((name, value),) = told.items()
    flags = (f"--port={free_port()}", "--broker=memory:", "--max-connections=1000")
    examination = Examination(*flags, f"--{name}={value}")
    assert all(word in examination.failures[0] for word in words), examination.said
    assert value.rpartition(":")[2] not in examination.said
    (_, (line,)) = examination.advice[0]
    made = subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True).stdout.strip()
    file = tmp_path / "my.ini"
    file.write_text(f"[relay]\n{name} = {made}\n")
    file.chmod(0o644)
    examination = Examination(*flags, f"--config={file}")
    examination.failed_once("not running")
    assert "every user of this machine can read" in examination.said.replace("\n      ", " ")


def test_a_key_that_the_start_calls_short_is_short_for_the_doctor():
    examination = Examination(f"--port={free_port()}", "--broker=memory:", "--push-keys=web:7gqT-zLw2_xRb9Vn1")
    assert "warn  push_keys: the key web has 17 characters" in examination.said
