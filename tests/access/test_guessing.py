"""Words, patterns and examples are recognized as keys that can be guessed; random characters are not."""

import base64
import os
import random
import re

import pytest
from conftest import ROOT

from pushrelay.access.exposure import warnings
from pushrelay.settings import load

WAITING = re.findall(r"^# (\w+ = .+)$", (ROOT / "wsgi.ini").read_text(), re.M)


@pytest.mark.parametrize(
    "word",
    [
        "changeme-changeme-changeme-changeme",
        "A-LONG-RANDOM-SECRET-A-LONG-RANDOM-SECRET",
        "a-very-long-secret-a-very-long-secret",
        "LONG-AND-RANDOM-LONG-AND-RANDOM-LONG",
        "YOUR_SECRET_KEY_HERE_YOUR_SECRET_KEY_HERE_",
        "0123456789abcdef0123456789abcdef",
        "abababababababababababababababababab",
        "12345678901234567890123456789012",
        "qwertyuiopasdfghjklzxcvbnm1234567890",
        "correct-horse-battery-staple-correct",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "PasswordPasswordPasswordPassword1!",
    ],
)
def test_a_secret_or_a_key_that_can_be_guessed_is_warned_of(word):
    for given in ({"secret": word}, {"push_keys": f"web:{word}"}):
        (line,) = warnings(load({"RELAY_CONFIG": os.devnull}, given))
        assert line.startswith("warning: ") and "guessed" in line and word not in line


def test_every_key_and_secret_that_our_docs_show_is_warned_of():
    docs = "\n".join(
        each.read_text() for each in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("php/**/*.*"))
    )
    shown = re.findall(r"\b[0-9a-f]{20,}\b", docs) + [line.split(" = ")[1].split(":")[-1] for line in WAITING[:2]]
    assert len(shown) > 3
    for word in shown:
        assert "guessed" in str(warnings(load({"RELAY_CONFIG": os.devnull}, {"push_keys": f"web:{word}"}))), word


def test_random_secrets_and_keys_are_never_warned_of():
    chance = random.Random(1)  # one in some 100,000 is taken for a pattern
    for _ in range(100):
        urlsafe = base64.urlsafe_b64encode(chance.randbytes(32)).decode().rstrip("=")
        made = [chance.randbytes(20).hex(), urlsafe, base64.b64encode(chance.randbytes(24)).decode()]
        settings = load(
            {"RELAY_CONFIG": os.devnull}, {"secret": chance.randbytes(32).hex(), "push_keys": ",".join(made)}
        )
        assert warnings(settings) == [], made
