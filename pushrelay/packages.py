"""Packages that are missing: the line to type, and a check of those that only some settings need."""

import importlib.metadata
import pathlib
import re
import sys
import sysconfig
from collections.abc import Mapping

from pushrelay.errors import StoreError
from pushrelay.places import HOME

Bounds = tuple[tuple[int, ...], tuple[int, ...]]  # the first version that can be used, and the first that cannot again


class PackageMissing(StoreError):
    """An optional package is missing, or is installed in a version that the relay cannot use."""


def install_command(requirements: str) -> str:
    """Return the shell command that installs what a file of requirements lists, for this Python.

    If the system manages this Python's packages, as Debian does, pip refuses to; the command then uses a virtual
    environment beside relay.py, and creates it if there is none.
    """
    file = HOME / requirements
    if _is_in_venv() or not pathlib.Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        return f"{sys.executable} -m pip install -r {file}"
    venv = HOME / ".venv"
    create = "" if (venv / "bin/python").exists() else f"python3 -m venv {venv} && "
    return f"{create}{venv}/bin/pip install -r {file}"


def other_python() -> str:
    """Return the Python of the virtual environment beside relay.py, if another one outside of any runs; else ""."""
    python = HOME / ".venv/bin/python"
    return "" if _is_in_venv() or not python.exists() else str(python)


def _is_in_venv() -> bool:
    return pathlib.Path(sys.executable).parent.with_name("pyvenv.cfg").exists()


def require(needed: Mapping[str, Bounds], requirements: str, purpose: str) -> None:
    """Raise PackageMissing unless these packages are installed in versions that can be used.

    `requirements` is the name of the file that lists them, and `purpose` the rest of "…, which … needs".
    """
    if problems := [each for name, bounds in needed.items() if (each := _problem(name, bounds))]:
        raise PackageMissing(f"{' and '.join(problems)}, which {purpose} needs. Run:  {install_command(requirements)}")


def _problem(name: str, bounds: Bounds) -> str:
    """Return what is wrong with a package; "" if nothing is."""
    low, high = bounds
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"the package {name} is missing"
    numbers = tuple(map(int, re.findall(r"\d+", re.split("[a-z+-]", version)[0])))
    if low <= numbers < high:
        return ""
    asked = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    return f"the package {name} is {version}, not {asked}"
