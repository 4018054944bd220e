"""compose.yaml: each file that it names exists, and its three services work together as it starts them.

There is no container runtime here. The services run side by side on one machine (machine.py), with the commands, the
environment and the files of compose.yaml, and the services' names in /etc/hosts.
"""

import contextlib
import json
import re
import secrets
import shlex
import shutil

import pytest
import yaml
from conftest import ROOT, need, wait_for
from lab import UPGRADE
from machine import Machine

from pushrelay.settings import NAMES

VARIABLES = {name: secrets.token_hex(32) for name in ("RELAY_KEY", "RELAY_SECRET", "REDIS_PASSWORD")}


def expanded(text):
    """Return the file with the variables of .env, as docker compose reads it."""
    return re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: VARIABLES[found[1]], text)


COMPOSE = yaml.safe_load(expanded((ROOT / "compose.yaml").read_text()))
SERVICES = COMPOSE["services"]


def test_each_file_and_volume_that_compose_names_exists():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        assert (ROOT / service.get("build", ".") / "Dockerfile").exists()
        assert set(service.get("depends_on", {})) <= set(SERVICES)
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert set(COMPOSE["volumes"]) == {each for each in used if not each.startswith(".")}


def test_a_service_that_others_wait_for_has_a_health_check():
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or "\nHEALTHCHECK " in dockerfile, name


def test_no_secret_is_in_the_file_and_each_must_be_given():
    text = (ROOT / "compose.yaml").read_text()
    for name in VARIABLES:
        assert f"${{{name}:?" in text
    assert not re.search(r"[0-9a-f]{16}", text)


def test_the_environment_of_the_relay_is_made_of_settings():
    names = {name.removeprefix("RELAY_").lower() for name in SERVICES["relay"]["environment"]}
    assert names <= set(NAMES)
    assert (
        SERVICES["relay"]["environment"]["RELAY_TRUSTED_PROXIES"]
        == (COMPOSE["networks"]["default"]["ipam"]["config"][0]["subnet"])
    )


@pytest.fixture(scope="module")
def machine(tmp_path_factory, certificate):
    """A machine with the three services. Their addresses are 127.0.0.1, and not those of a network of containers."""
    need(shutil.which("redis-server") and shutil.which("redis-cli"), "Redis (apt-get install redis-server)")
    need(shutil.which("php") and shutil.which("apache2", path="/usr/sbin"), "PHP and Apache")
    folder = tmp_path_factory.mktemp("compose")
    with contextlib.closing(Machine(folder, certificate)) as machine:
        machine.run("echo '127.0.0.1 relay redis' >> /etc/hosts; mkdir -p /data /var/lib/relay /var/lib/chat")
        machine.start(f"cd {folder}; exec {SERVICES['redis']['command']}")
        check = shlex.join(SERVICES["redis"]["healthcheck"]["test"][1:])
        wait_for(lambda: "PONG" in machine.run(f"{check} || true", **SERVICES["redis"]["environment"]), "Redis")
        relay = "exec python /opt/relay/relay.py --config=/opt/relay/deploy/container.ini"
        given = {**SERVICES["relay"]["environment"], "RELAY_TRUSTED_PROXIES": "127.0.0.1"}
        machine.log = machine.start(relay, **given).log
        wait_for(lambda: machine.run("python relay.py health || true").startswith("the relay accepts"), "the relay")
        machine.run(site())
        wait_for(lambda: machine.get("http://127.0.0.1/")[0] == "200", "the site")
        yield machine


def site():
    """Return the shell commands that start Apache as the service `site` does."""
    service, lines = SERVICES["site"], []
    for volume in service["volumes"]:
        source, target = volume.split(":")[:2]
        if source.startswith("."):
            there = f"/opt/relay/{source.removeprefix('./')}"
            lines.append(f"rm -rf {target}; mkdir -p $(dirname {target}); cp -r {there} {target}")
    lines.append("sed -i \"s/'budget' => 0.3/'budget' => 20/\" /var/www/Relay.php")  # for a busy machine
    for name, value in service["environment"].items():
        lines.append(f"echo 'SetEnv {name} {value}' >> /etc/apache2/conf-enabled/environment.conf")
    command = service["command"][-1]
    assert command.endswith("exec apache2-foreground"), (
        "the program of the image php:apache, which Debian does not have"
    )
    return "\n".join([*lines, command.replace("exec apache2-foreground", "apachectl configtest && apachectl start")])


def test_a_message_goes_from_php_through_redis_and_apache_to_a_page(machine):
    jar = f"curl -sf -b {machine.folder}/jar -c {machine.folder}/jar"
    page = machine.run(f"{jar} http://127.0.0.1/")
    csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
    page = machine.run(f"{jar} -L -d csrf={csrf} -d name=Anna http://127.0.0.1/")
    token = re.search(r'"token":"([\w.-]+)"', page)[1]
    listen = f"exec python /opt/relay/relay.py listen chat --url=http://127.0.0.1/relay/ --token={token}"
    listener = machine.start(listen)
    wait_for(lambda: "online" in listener.log.read_text() or listener.poll() is not None, "the listener")
    csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]
    answer = machine.run(f"{jar} -H 'Accept: application/json' -d csrf={csrf} -d text=hello http://127.0.0.1/")
    assert json.loads(answer)["live"] is True
    wait_for(lambda: '"text": "hello"' in listener.log.read_text(), listener.log.read_text())
    upgraded = ["-H", "Origin: http://127.0.0.1", *UPGRADE, "-m1"]
    assert machine.get("http://127.0.0.1/relay/socket.io/?EIO=4&transport=websocket", *upgraded)[0] == "101"


def test_nobody_pushes_through_apache_or_without_the_key(machine):
    assert machine.get("http://127.0.0.1/relay/push", "-d", "destination=chat", "-d", "data=x")[0] == "404"
    status, body = machine.get("http://127.0.0.1/relay/static/relay.js")
    assert status == "200" and "Relay" in body


def test_the_relay_finds_nothing_to_warn_about(machine):
    log = machine.log.read_text()
    assert "warning" not in log.lower() and "Traceback" not in log, log
