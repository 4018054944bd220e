"""The container of the Dockerfile: built from a minimal Debian, it serves, is healthy, and ends as a container should.

No container runtime is needed: image.py carries out each step in namespaces.
"""

import contextlib
import json
import pathlib
import re

import pytest
from conftest import ROOT, wait_for
from image import Builder, instructions, is_ignored

PUSH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/{path}', {body}).read().decode())"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    with contextlib.closing(Builder(tmp_path_factory.mktemp("image"), "Dockerfile")) as builder:
        yield builder


@pytest.fixture(scope="module")
def image(builder):
    return builder.build()


@pytest.fixture
def start(builder, image):
    with contextlib.ExitStack() as started:

        def start(*arguments, **environ):
            container = builder.container(image, *arguments, **environ)
            started.callback(container.close)
            return container

        yield start


def serving(container):
    """Wait until a container is healthy."""
    wait_for(lambda: container.is_healthy() or container.process.poll() is not None, "the health check")
    assert container.process.poll() is None, container.log.read_text()
    return container


def ask(container, path, body=None):
    """Send a request from inside the container, and return the answer."""
    program = PUSH.format(path=path, body=body)
    ran = container.run("/opt/relay/.venv/bin/python", "-c", program)
    assert ran.returncode == 0, ran
    return json.loads(ran.stdout)


def test_the_container_serves_and_keeps_pushes_when_it_is_stopped_and_started(start):
    container = serving(start())
    pushed = ask(container, "push", b"destination=42&data=hello")
    assert container.stop() == 0, container.log.read_text()
    log = container.log.read_text()
    assert "serves on" in log and "Traceback" not in log
    again = serving(start())
    history = ask(again, "history?destination=42")
    assert [each["id"] for each in history["publications"]] == [pushed["id"]]
    assert again.stop() == 0


def test_the_container_runs_as_a_user_that_can_write_only_to_its_volume(start, image):
    container = serving(start())
    status = pathlib.Path(f"/proc/{container.pid}/status").read_text()
    assert re.search(r"^Uid:\s10001\s10001\s10001\s10001$", status, re.M)
    assert re.search(r"^CapEff:\s0+$", status, re.M)
    find = [
        "find",
        "/",
        "-xdev",
        "-writable",
        "-not",
        "-type",
        "l",
        "-not",
        "-path",
        "/proc/*",
        "-not",
        "-path",
        "/dev/*",
    ]
    folders = {re.sub(r"^(/[^/]+/[^/]+).*", r"\1", line) for line in container.run(*find).stdout.splitlines()}
    assert not [each for each in folders if each != "/var/lib" and not re.match("/(var/)?(tmp|lock|run)", each)]
    assert container.run("stat", "-c", "%a", "/var/lib/relay/relay.db").stdout == "600\n"
    assert image.volumes == ["/var/lib/relay"] and image.ports == [8080]


def test_process_1_waits_for_processes_that_lost_their_parent(start):
    container = serving(start())
    container.run("sh", "-c", "sleep 0.01 & sleep 0.01 & exit 0")
    before = len(container.children())
    wait_for(lambda: container.children() == ["S"], f"the end of the zombies, {before} children")


def test_a_container_that_is_stopped_while_it_starts_ends_at_once(start):
    container = start()
    assert container.stop() in (0, 143), container.log.read_text()


def test_a_container_whose_relay_does_not_start_ends_with_its_exit_code(start):
    container = start("--prot=80")
    assert container.process.wait(20) == 2
    assert "did you mean port" in container.log.read_text()


def test_a_relay_that_does_not_serve_is_not_healthy(start):
    container = start(RELAY_PORT="8081")
    wait_for(lambda: "serves on" in container.log.read_text(), "the start")
    assert container.run("relay", "health", "--port=8080").returncode == 1
    assert container.run("relay", "health", "--port=8081").returncode == 0


def test_a_mounted_file_and_the_environment_set_the_settings(start, image):
    container = serving(start(RELAY_SECRET="k7fG2-pQ9_rT4wXz8LmN6vBc3hJd5sYa", RELAY_BROKER="memory:"))
    assert "/var/lib/relay" not in container.log.read_text()
    assert container.run("relay", "backup", "backup.db", "--broker=memory:").returncode == 1


def test_the_store_in_the_volume_is_backed_up_and_restored_by_commands_in_the_container(start):
    container = serving(start())
    ask(container, "push", b"destination=43&data=hello")
    ran = container.run("relay", "backup", "--overwrite", "/var/lib/relay/backup.db")
    assert ran.returncode == 0, ran
    assert container.stop() == 0
    other = start("restore", "/var/lib/relay/backup.db")
    assert other.process.wait(20) == 0, other.log.read_text()
    history = ask(serving(start()), "history?destination=43")
    assert [each["data"] for each in history["publications"]] == ["hello"]


def test_the_image_has_redis_support_and_neither_pip_nor_a_compiler(start):
    container = serving(start())
    python = "/opt/relay/.venv/bin/python"
    assert container.run(python, "-c", "import redis, hiredis").returncode == 0
    assert container.run(python, "-c", "import pip").returncode == 1
    assert container.run("sh", "-c", "command -v cc gcc pip git").stdout == ""


def test_the_context_has_nothing_that_the_image_does_not_need():
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for path in (".git/config", ".venv/bin/python", "relay.db", "relay.db-recent", "wsgi.ini", ".env", "tests/run"):
        assert is_ignored(path, patterns), path
    assert is_ignored("pushrelay/store/__pycache__/sqlite.cpython-313.pyc", patterns)
    for path in ("relay.py", "pushrelay/store/sqlite.py", "static/relay.js", "deploy/container.ini"):
        assert not is_ignored(path, patterns), path


def test_packages_are_installed_before_the_code_is_copied():
    """Docker then reuses the layer of the packages when only the code has changed."""
    steps = [f"{name} {rest}" for name, rest in instructions((ROOT / "Dockerfile").read_text())]
    last_install = max(number for number, step in enumerate(steps) if "apt-get" in step or "pip install" in step)
    assert not [step for step in steps[:last_install] if "pushrelay" in step]
    assert "COPY pushrelay /opt/relay/pushrelay" in steps[last_install:]
