"""Optional packages are checked when a setting needs them."""

import importlib.metadata
import sys

import pytest
from conftest import ROOT

from pushrelay import packages
from pushrelay.packages import PackageMissing, require


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, "the package any is missing"),
        ("1.9", "the package any is 1.9, not >=2,<3.1"),
        ("3.1.0rc1", "the package any is 3.1.0rc1, not"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_with_the_line_to_type(monkeypatch, version, words):
    def found(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(importlib.metadata, "version", found)
    with pytest.raises(PackageMissing) as raised:
        require({"any": ((2,), (3, 1))}, "requirements-any.txt", "the test")
    assert str(raised.value).startswith(words)
    end = f", which the test needs. Run:  {sys.executable} -m pip install -r {ROOT}/requirements-any.txt"
    assert str(raised.value).endswith(end)


def test_versions_within_the_bounds_are_accepted(monkeypatch):
    for version in ("2", "2.0.1", "3.0.99"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        require({"any": ((2,), (3, 1))}, "requirements-any.txt", "the test")


def test_a_python_of_the_system_gets_a_command_that_its_pip_does_not_refuse(monkeypatch, tmp_path):
    """Debian's pip refuses to install outside of a virtual environment."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    monkeypatch.setattr(packages.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(packages, "HOME", tmp_path)
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    venv = f"{tmp_path}/.venv"
    command = f"{venv}/bin/pip install -r {tmp_path}/requirements.txt"
    assert packages.install_command("requirements.txt") == f"python3 -m venv {venv} && {command}"
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    assert packages.install_command("requirements.txt") == command
    assert packages.other_python() == f"{venv}/bin/python"
