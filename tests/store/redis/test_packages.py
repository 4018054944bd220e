"""The packages that a Redis needs."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, need

from pushrelay.packages import PackageMissing
from pushrelay.store.redis.packages import NEEDED, check_packages


def test_the_packages_of_the_tests_are_accepted():
    check_packages()


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("redis", None, "the package redis is missing"),
        ("hiredis", None, "the package hiredis is missing"),
        ("redis", "6.4.0", "redis is 6.4.0, not >=7,<9"),
        ("redis", "9.0.0b1", "redis is 9.0.0b1"),
        ("hiredis", "3.1.9", "hiredis is 3.1.9, not >=3.2,<4"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_with_the_line_to_type(monkeypatch, name, version, words):
    real = importlib.metadata.version

    def found(asked):
        if asked == name and version is None:
            raise importlib.metadata.PackageNotFoundError
        return version if asked == name else real(asked)

    monkeypatch.setattr(importlib.metadata, "version", found)
    with pytest.raises(PackageMissing, match=words) as raised:
        check_packages()
    [command] = re.findall(r"Run:  \S+ -m pip install -r (\S+)$", str(raised.value))
    assert pathlib.Path(command).read_text() == (ROOT / "requirements-redis.txt").read_text()


def test_the_oldest_packages_that_are_allowed_make_the_same_connections():
    """Those that are installed are the newest. tests/run installs the oldest beside them."""
    folder = pathlib.Path(sys.prefix, "oldest-redis")
    need(folder.is_dir(), "the folder oldest-redis of the virtual environment (tests/run makes it)")
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    versions = "import hiredis, redis; print(redis.__version__, hiredis.__version__)"
    found = subprocess.run([sys.executable, "-c", versions], env=environ, capture_output=True, text=True, check=True)
    lows = [".".join(map(str, low)) for low, _ in NEEDED.values()]
    assert [each[: len(low)] for each, low in zip(found.stdout.split(), lows, strict=True)] == lows
    tests = ["tests/store/redis/test_place.py", "-k", "not new_master", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *tests]
    ran = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert ran.returncode == 0, ran.stdout
