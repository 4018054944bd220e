"""The packages that a Redis needs. They are an extra: a relay without Redis runs without them."""

import importlib.metadata
import re
import sys

from pushrelay.errors import StoreError
from pushrelay.places import HOME

# The same ranges as in requirements-redis.txt and in pyproject.toml; a test compares them.
NEEDED = {"redis": ((7,), (9,)), "hiredis": ((3, 2), (4,))}


class PackageMissing(StoreError):
    """A package that a Redis needs is missing, or is installed in a version that the relay cannot use."""


def check_packages() -> None:
    """Raise PackageMissing, with the line to type, unless the packages are installed in versions that can be used."""
    command = f"{sys.executable} -m pip install -r {HOME / 'requirements-redis.txt'}"
    if problems := [each for name in NEEDED if (each := _problem(name))]:
        raise PackageMissing(f"{' and '.join(problems)}, which a broker on Redis needs. Run:  {command}")


def _problem(name: str) -> str:
    """Return what is wrong with a package; "" if nothing is."""
    low, high = NEEDED[name]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"the package {name} is missing"
    numbers = tuple(map(int, re.findall(r"\d+", re.split("[a-z+-]", version)[0])))
    if low <= numbers < high:
        return ""
    asked = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    return f"the package {name} is {version}, not {asked}"
