"""`pip install .` gives a program called relay that works from any folder, and `relay:app` for other servers."""

import pathlib
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest
from conftest import ROOT, Relay, need

import pushrelay
from pushrelay.outbox.packages import NEEDED as FOR_OUTBOX
from pushrelay.store.redis.packages import NEEDED as FOR_REDIS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    need(any(pathlib.Path(sysconfig.get_path("purelib")).glob("hatchling")), "hatchling (tests/requirements.txt)")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of a new virtual environment with the wheel. It borrows the other packages, which takes no network."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True, timeout=60)
    [packages] = folder.glob("lib/python3*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder


class InstalledRelay(Relay):
    def command(self):
        return [self.program]


def test_the_wheel_has_every_file_that_the_relay_and_its_users_need(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(file.relative_to(ROOT)) for file in [*(ROOT / "pushrelay").rglob("*.py"), ROOT / "relay.py"]}
    folders = [each for name in ("static", "templates", "php", "deploy", "docs") for each in (ROOT / name).rglob("*.*")]
    files = {str(file.relative_to(ROOT)) for file in folders}
    files |= {"requirements.txt", "requirements-outbox.txt", "requirements-redis.txt", "README.md", "CHANGELOG.md"}
    assert modules | {f"pushrelay/share/{name}" for name in files} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"relay.py", "pushrelay", f"pushrelay-{pushrelay.__version__}.dist-info"}


def test_the_package_requires_what_requirements_txt_lists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = re.findall(r"^[a-z][^#\s]*", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted(project["dependencies"]) == sorted(listed)


@pytest.mark.parametrize(("extra", "needed"), [("redis", FOR_REDIS), ("outbox", FOR_OUTBOX)])
def test_an_extra_requires_what_its_requirements_list(extra, needed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / f"requirements-{extra}.txt").read_text().split()
    assert sorted(project["optional-dependencies"][extra]) == sorted(listed)
    bounds = {name: ".".join(map(str, low)) + ",<" + ".".join(map(str, high)) for name, (low, high) in needed.items()}
    assert sorted(f"{name}>={range}" for name, range in bounds.items()) == sorted(listed)


def test_an_installed_relay_serves_its_pages_and_takes_a_push(installed, tmp_path):
    relay = InstalledRelay(tmp_path / "log", program=installed / "bin/relay")
    try:
        assert relay.push("42", "hello")["connections"] == 0
        assert relay.request("GET", "/?id=1")[0] == relay.request("GET", "/static/relay.js")[0] == 200
        arguments = ["push", "42", "again", "--url", relay.url]
        done = subprocess.run([installed / "bin/relay", *arguments], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode == 0 and b'"destination":"42"' in done.stdout, done
    finally:
        assert relay.stop() == 0, relay.log.read_text()
    assert "Traceback" not in relay.log.read_text()


def test_an_installed_relay_reads_wsgi_ini_of_the_folder_where_it_is_started(installed, tmp_path):
    (tmp_path / "wsgi.ini").write_text("[relay]\nport = 0\nhistory_sise = 5\n")
    done = subprocess.run([installed / "bin/relay", "--check"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 2 and b"wsgi.ini, line 3" in done.stderr, done


def test_python_m_pushrelay_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "pushrelay", "--check", "--config", "wsgi.ini"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and b"settings" in done.stdout, done
