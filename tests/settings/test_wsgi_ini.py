"""wsgi.ini as it is shipped: every line works, also the commented ones."""

import re

import pytest
from conftest import ROOT, own_only

from pushrelay.cli.banner import checked

SHIPPED = (ROOT / "wsgi.ini").read_text()
WAITING = re.findall(r"^# (\w+ = .+)$", SHIPPED, re.M)


@pytest.mark.parametrize("line", WAITING)
def test_every_commented_line_of_wsgi_ini_works_without_its_hash(ini, line):
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
