"""Optional packages, which only some settings need: a check that they are installed, and the line to type if not."""

import importlib.metadata
import re
import sys
from collections.abc import Mapping

from pushrelay.errors import StoreError
from pushrelay.places import HOME

Bounds = tuple[tuple[int, ...], tuple[int, ...]]  # the first version that can be used, and the first that cannot again


class PackageMissing(StoreError):
    """An optional package is missing, or is installed in a version that the relay cannot use."""


def require(needed: Mapping[str, Bounds], requirements: str, purpose: str) -> None:
    """Raise PackageMissing unless these packages are installed in versions that can be used.

    `requirements` is the name of the file that lists them, and `purpose` the rest of "…, which … needs".
    """
    command = f"{sys.executable} -m pip install -r {HOME / requirements}"
    if problems := [each for name, bounds in needed.items() if (each := _problem(name, bounds))]:
        raise PackageMissing(f"{' and '.join(problems)}, which {purpose} needs. Run:  {command}")


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
